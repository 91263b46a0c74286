"""What measurements ask of the backward functions of PyTorch and of custom ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode

from fslr.torch import ESTIMATORS, MeasuringOptions, Recorder
from fslr.torch.estimators.backward import edges_beside, gradients_visited

Request = tuple[str, tuple[bool, ...]]
"""A native function, and for which of its arguments gradients are requested."""


class Requests(TorchDispatchMode):
    """Collects what native backward functions are asked for, by their output masks."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[Request] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.name.endswith("_mask") and isinstance(value, (list, tuple)):
                self.found.add((str(func), tuple(value)))
        return func(*args, **(kwargs or {}))


def trained(model: nn.Module, make: Callable[[], Tensor], measured: str = "") -> set[Request]:
    """Return what two training steps ask for, with measurements by an estimator or without."""
    torch.manual_seed(0)
    chosen = [p for n, p in model.named_parameters() if "left_out" not in n]
    optimizer = torch.optim.AdamW(chosen, lr=1e-3)
    recorder = None
    if measured:
        options = MeasuringOptions(estimator=measured)
        recorder = Recorder(model, optimizer, every=1, options=options)
    requests = Requests()
    with requests:
        for _ in range(2):
            optimizer.zero_grad()
            model(make()).square().mean().backward()
            optimizer.step()
    if recorder is not None:
        assert recorder.failures == 0
        recorder.close()
    return requests.found


class Normalizations(nn.Module):
    """Layers whose backward functions have output masks.

    Args:
        zero: Whether a layer near the output is zero, so that at first only its bias has an effect.
        left_out: Whether the optimizer does not have the first layer.
    """

    def __init__(self, *, zero: bool = False, left_out: bool = False) -> None:
        super().__init__()
        first = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ModuleDict({"left_out" if left_out else "kept": first})
        self.norm = nn.GroupNorm(2, 8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.batch_norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.layer_norm = nn.LayerNorm(9)
        self.last = nn.Conv2d(8, 2, 3)
        if zero:
            nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.first.values():
            x = module(x)
        x = self.batch_norm(self.conv(torch.tanh(self.norm(x))))
        out: Tensor = self.last(torch.tanh(self.layer_norm(self.up(x))))
        return out


def images() -> Tensor:
    return torch.randn(8, 3, 8, 8)


def images_with_gradients() -> Tensor:
    return images().requires_grad_()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Normalizations, images),
        (Normalizations, images_with_gradients),
        (lambda: Normalizations(zero=True), images),
        (lambda: Normalizations(left_out=True), images),
        (lambda: nn.Sequential(nn.GroupNorm(1, 3), nn.Conv2d(3, 2, 3)), images_with_gradients),
    ],
    ids=["plain", "inputs with gradients", "zero layer", "first layer left out", "norm first"],
)
def test_a_parameters_gradient_is_requested_only_as_training_does(
    make: Callable[[], nn.Module], inputs: Callable[[], Tensor], name: str
) -> None:
    training = trained(make(), inputs)
    measuring = trained(make(), inputs, measured=name)
    assert {function for function, _ in measuring} == {function for function, _ in training}
    # The others ask for the input only, as if the parameters were frozen.
    unusual = {(f, mask) for f, mask in measuring - training if any(mask[1:])}
    assert unusual == set()


def test_measuring_a_channels_last_group_norm_does_not_crash() -> None:
    # PyTorch's kernel crashes the process if the gradient of the input is not requested.
    code = """
import torch
from torch import nn
from fslr.torch import Recorder
torch.manual_seed(0)
layers = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 3, 3)
model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
nn.init.zeros_(model[3].weight)
batch = torch.randn(8, 3, 8, 8).to(memory_format=torch.channels_last)
for parameters in (model.parameters(), model[1].parameters(), [model[1].weight]):
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    with Recorder(model, optimizer, every=1) as recorder:
        for _ in range(3):
            model(batch).square().mean().backward()
            optimizer.step()
    assert not recorder.failures
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class _Fragile(torch.autograd.Function):
    """A custom function whose backward works only for the requests that training makes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight + bias

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not all(ctx.needs_input_grad):
            raise RuntimeError(f"asked for {ctx.needs_input_grad}")
        x, weight = ctx.saved_tensors
        return cotangent * weight, (cotangent * x).sum(0), cotangent.sum(0)


class Fragile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)
        self.weight = nn.Parameter(torch.randn(5))
        self.left_out = nn.Parameter(torch.randn(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = _Fragile.apply(self.inner(x), self.weight, self.left_out)  # type: ignore[no-untyped-call]
        out: Tensor = self.head(torch.tanh(inner))
        return out


@pytest.mark.parametrize("name", ESTIMATORS)
def test_custom_functions_are_asked_for_all_that_training_asks(name: str) -> None:
    trained(Fragile(), lambda: torch.randn(8, 4), measured=name)


def test_what_training_requests_of_a_function_is_requested_beside_one_gradient() -> None:
    layers = nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2)
    outputs = nn.Sequential(*layers)(torch.randn(5, 3))
    weight = layers[1].weight
    edges = [get_gradient_edge(weight)]
    beside = edges_beside(outputs, edges, [weight])
    nodes = {edge.node for edge in beside}
    assert get_gradient_edge(layers[1].bias).node in nodes
    assert len(nodes) == 2  # and the result of the layer before
    everything = [get_gradient_edge(p) for layer in layers for p in layer.parameters()]
    assert edges_beside(outputs, everything, [weight]) == []


def test_gradients_are_visited_whole_and_not_returned() -> None:
    model = nn.Linear(3, 4)
    inputs = torch.randn(5, 3)
    (model(inputs).sum() + model(2 * inputs).sum()).backward()
    seen: dict[int, Tensor] = {}
    parameters = list(model.parameters())
    outputs = model(inputs).sum() + model(2 * inputs).sum()
    with gradients_visited(parameters, lambda at, gradient: seen.update({at: gradient.clone()})):
        returned = torch.autograd.grad(outputs, parameters)
    for position, parameter in enumerate(parameters):
        assert parameter.grad is not None
        torch.testing.assert_close(seen[position], parameter.grad)
        assert not returned[position].any()
        assert parameter._backward_hooks is None
