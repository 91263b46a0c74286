"""Errors at the start of an advised training are raised; later ones are only logged."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from fslr import AttachError, LayoutMismatchError, MeasurementError, RunInfo, UnavailableError
from fslr.torch import MeasuringOptions, Recorder, attach
from tests.building import content_message
from tests.small_net import LEARNING_RATE, attached, backward, net
from tests.training_jobs import OFTEN, in_process, wide


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_failing_measurement_raises_at_the_start_and_is_only_logged_later(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer, backward = wide()
    unlucky = when == "first"

    def output(result: Tensor) -> Tensor:
        if unlucky:
            raise MeasurementError("out of luck")
        return result

    options = MeasuringOptions(output=output)
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=in_process(),
            run=RunInfo(policy=OFTEN),
            options=options,
        ) as attachment,
    ):
        backward()
        if when == "first":
            with pytest.raises(MeasurementError, match="out of luck"):
                optimizer.step()
            return
        for _ in range(12):
            optimizer.step()
            backward()
            unlucky = True
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        state = torch.get_rng_state()
        weights = [p.data_ptr() for p in model.parameters()]
        optimizer.step()
        assert attachment.failures == 1  # and a pause before the next attempt
        assert weights == [p.data_ptr() for p in model.parameters()]
        assert torch.equal(state, torch.get_rng_state())
        assert all(
            torch.equal(g, p.grad)
            for g, p in zip(gradients, model.parameters(), strict=True)
            if p.grad is not None
        )
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks), "a failed measurement left a hook"
    assert len(caplog.records) == 1
    assert "was not measured, training continues unchanged" in caplog.records[0].getMessage()


def test_a_training_that_is_not_strict_continues_without_an_advisor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, optimizer, backward = wide()
    with (
        caplog.at_level(logging.WARNING, "fslr"),
        attach(
            model,
            optimizer,
            profile="x",
            advisor=fslr.AdvisorClient("127.0.0.1:9", deadline_s=1.0),
            strict=False,
        ) as attachment,
    ):
        for _ in range(3):
            backward()
            optimizer.step()
        assert set(attachment.multipliers) == {1.0}
    assert "training starts without advice: no advisor answers" in caplog.records[0].getMessage()


def test_errors_of_attaching_are_raised_before_the_first_step() -> None:
    model, optimizer, _ = wide()
    groups = len(optimizer.param_groups)
    with pytest.raises(
        UnavailableError, match=r"no advisor answers at 127\.0\.0\.1:9 .*advisor serve"
    ):
        attach(
            model,
            optimizer,
            profile="x",
            advisor=fslr.AdvisorClient("127.0.0.1:9", deadline_s=1.0),
        )
    with pytest.raises(
        LayoutMismatchError, match=r"16 of 18 groups have no counterpart.*: characters\.weight, "
    ):
        attach(model, optimizer, profile="x", advisor=InProcessAdvisor(content_message()))
    with pytest.raises(AttachError, match="LBFGS steps along one direction"):
        attach(model, torch.optim.LBFGS(model.parameters()), profile="x", advisor=in_process())
    assert len(optimizer.param_groups) == groups
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not model._forward_pre_hooks


def test_a_model_that_is_never_called_is_an_error() -> None:
    model, optimizer, _ = wide()
    with (
        attach(model, optimizer, profile="x", advisor=in_process()),
        pytest.raises(MeasurementError, match="attach the module that the training loop calls"),
    ):
        optimizer.step()


def _in_inference_mode(model: nn.Module, step: Callable[[], object]) -> None:
    backward(model, 0)
    with torch.inference_mode():
        step()


def _per_example_gradients(model: nn.Module, step: Callable[[], object]) -> None:
    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(model, weights, (x[None],)).square().mean()
        return result

    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, torch.randn(8, 6))
    for name, parameter in model.named_parameters():
        parameter.grad = found[name].mean(0)
    step()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            _in_inference_mode,
            r"optimizer steps inside of torch.inference_mode\(\), .* outside of it",
        ),
        (
            _per_example_gradients,
            r"called only inside of torch.func.vmap, .* also call the model on",
        ),
    ],
)
def test_where_nothing_can_be_measured_the_training_is_named_and_not_the_output(
    train: Callable[[nn.Module, Callable[[], object]], None], message: str
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    attachment, advisor = attached(model, optimizer)
    with attachment, pytest.raises(MeasurementError, match=message):
        train(model, optimizer.step)
    if train is _per_example_gradients:
        attachment, advisor = attached(model, optimizer)
        with attachment:
            model(torch.randn(8, 6))  # the remedy that the message names
            train(model, optimizer.step)
    assert len(advisor.measurements) == (train is _per_example_gradients)


@pytest.mark.parametrize("error", [AttributeError("logits"), torch.OutOfMemoryError("no room")])
def test_any_error_is_raised_at_a_strict_start(error: Exception) -> None:
    model, optimizer, backward = wide()

    def output(_result: Tensor) -> Tensor:
        raise error

    with attach(
        model,
        optimizer,
        profile="x",
        advisor=in_process(),
        options=MeasuringOptions(output=output),
    ):
        backward()
        with pytest.raises(type(error), match=str(error)):
            optimizer.step()


def test_a_call_without_tensors_is_measured_on_what_it_returns() -> None:
    class TakesWords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, words: str) -> Tensor:
            out: Tensor = self.layer(torch.tensor([[float(len(words))]]))
            return out

    model = TakesWords()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer) as recorder:
        model("three").sum().backward()
        optimizer.step()
    assert recorder.estimate is not None
    assert recorder.estimate.examples == 1
