"""Models whose calls are watched can be compiled, traced and exported, and train on as before."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr.torch import Recorder
from tests.building import COMPLETE_PROVENANCE


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 6)).square().mean().backward()
        optimizer.step()


def reloaded(model: nn.Module) -> nn.Module:
    """Return a model that was saved whole and loaded again."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


WAYS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "script": lambda model, _: torch.jit.script(model),
    "script in eval mode": lambda model, _: torch.jit.freeze(torch.jit.script(model.eval())),
    "script of a copy": lambda model, _: torch.jit.script(copy.deepcopy(model)),
    "script of a loaded model": lambda model, _: torch.jit.script(reloaded(model)),
    "trace": torch.jit.trace,
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "strict export": lambda model, x: torch.export.export(model, (x,), strict=True).module(),
    "symbolic trace": lambda model, _: torch.fx.symbolic_trace(model),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", WAYS)
def test_an_attached_model_can_be_compiled(way: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    attributes = set(model.__dict__)
    x = torch.randn(4, 6)
    with Recorder(model, optimizer, every=1, provenance=COMPLETE_PROVENANCE) as recorder:
        train(model, optimizer)
        compiled = WAYS[way](model, x)
        assert torch.allclose(compiled(x), model(x))
        model.train()
        train(model, optimizer)
        assert (recorder.step, recorder.failures) == (4, 0)
    assert len(recorder.profile().points) == 4
    assert set(model.__dict__) == attributes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_with_an_attached_part_cannot_be_scripted_and_the_error_says_why() -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    wrapper = Wrapper(model)
    with Recorder(model, optimizer, every=1, provenance=COMPLETE_PROVENANCE) as recorder:
        with pytest.raises(AttributeError, match="compile the attached module itself, or close"):
            torch.jit.script(wrapper)
        assert wrapper.inner is model
        train(wrapper, optimizer)
        assert len(recorder.profile().points) == 2
    torch.jit.script(wrapper)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_models_own_preparation_for_scripting_is_used() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 3)

        def forward(self, x: Tensor, **_: Tensor) -> Tensor:  # TorchScript has no **_
            return self.inner(x)  # type: ignore[no-any-return]

        def __prepare_scriptable__(self) -> nn.Module:
            return self.inner

    model = Own()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with (
        Recorder(model, optimizer, provenance=COMPLETE_PROVENANCE),
        Recorder(model, optimizer, provenance=COMPLETE_PROVENANCE),
    ):
        train(model, optimizer)
        x = torch.randn(4, 6)
        assert torch.allclose(torch.jit.script(model)(x), model(x))
