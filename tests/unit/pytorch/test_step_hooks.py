"""The user's hooks, closures and schedulers find their own groups, and what they write counts."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import AdviceAdopted, Measured
from fslr.testing import FakeAdvisor
from fslr.torch import Attachment, Recorder
from fslr.training.events import Event
from tests.small_net import LEARNING_RATE, MULTIPLIERS, attached, backward, net


class HalvesItsRate(torch.optim.Optimizer):
    """Halves its own learning rate after each step, as some adaptive methods do."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad, alpha=float(group["lr"]))
            group["lr"] *= 0.5


def halve(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].mul_(0.5)
        else:
            group["lr"] *= 0.5


WRITERS = [
    *("closure", "step", "pre-hook before", "pre-hook after", "post-hook before"),
    *("post-hook after", "scheduler in a post-hook", "between steps"),
]


def trained(  # noqa: C901 - one way to write after the other
    writer: str, *, scaling: str, tensor: bool
) -> tuple[list[Any], ...]:
    """Train with a learning rate that someone halves in each step.

    Returns:
        The learning rates in the groups after each step, the numbers of groups that the writer saw,
        and how far each step moved each weight relative to the gradient.
    """
    model = net()
    rate: Any = torch.tensor(LEARNING_RATE) if tensor else LEARNING_RATE
    kind = HalvesItsRate if writer == "step" else torch.optim.SGD
    optimizer: torch.optim.Optimizer = kind(model.parameters(), lr=rate)
    groups: list[int] = []
    if tensor:
        optimizer.param_groups[0]["foreach"] = False

    def write(*_: object) -> None:
        groups.append(len(optimizer.param_groups))
        halve(optimizer)

    if writer == "pre-hook before":
        optimizer.register_step_pre_hook(write)
    elif writer == "post-hook before":
        optimizer.register_step_post_hook(write)
    attachment, advisor = (
        attached(model, optimizer, scaling=scaling) if scaling != "none" else (None, None)
    )
    if writer == "pre-hook after":
        optimizer.register_step_pre_hook(write)
    elif writer == "post-hook after":
        optimizer.register_step_post_hook(write)
    elif writer == "scheduler in a post-hook":
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def schedule(*_: object) -> None:
            groups.append(len(optimizer.param_groups))
            scheduler.step()

        optimizer.register_step_post_hook(schedule)
    rates, moves = list[Any](), list[Any]()
    for step in range(5):

        def closure(step: int = step) -> Tensor:
            if writer == "closure":
                optimizer.state_dict()  # a checkpoint within a step does not end its scaling
                if attachment is not None:  # neither does one of the attachment
                    assert attachment.state_dict()["run"]["cadence"]["step"] == step
                write()
            return backward(model, step)

        before = [p.detach().clone() for p in model.parameters()]
        if writer in {"closure", "step"}:
            optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            optimizer.step()
        if writer == "between steps":
            write()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        moves.append([
            ((b - p.detach()) / p.grad).median().item()  # type: ignore[operator]
            for p, b in zip(model.parameters(), before, strict=True)
        ])
    if attachment is not None and advisor is not None:
        assert (attachment.step, attachment.failures) == (5, 0)
        sent = [m.learning_rates[0] for m in advisor.measurements]
        used = [moves[m.step][0] / MULTIPLIERS[0] for m in advisor.measurements]
        assert sent == pytest.approx(used, rel=1e-2)  # what is reported is what was stepped with
        attachment.close()
    return rates, groups, moves


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_learning_rate_that_is_written_counts_and_cancels_no_multiplier(
    writer: str, scaling: str, tensor: bool
) -> None:
    plain_rates, _, plain_moves = trained(writer, scaling="none", tensor=tensor)
    rates, groups, moves = trained(writer, scaling=scaling, tensor=tensor)
    assert rates == [pytest.approx(expected, rel=1e-6) for expected in plain_rates]
    assert set(groups) <= {1}
    for move, plain in zip(moves, plain_moves, strict=True):
        expected = [p * m for p, m in zip(plain, MULTIPLIERS, strict=True)]
        assert move == pytest.approx(expected, rel=2e-2)


class FailsLast(HalvesItsRate):
    """Counts its steps, and may fail at the end of the second one."""

    error: BaseException | None = None

    def __init__(self, params: Any, lr: Any) -> None:
        super().__init__(params, lr)
        self.param_groups[0]["count"] = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["count"] += 1
        super().step(closure)
        is_copy = self.param_groups[0]["params"][0].numel() <= 16  # which tries the optimizer out
        if self.error is not None and self.param_groups[0]["count"] == 2 and not is_copy:
            raise self.error


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("no room"), KeyboardInterrupt("enough")])
def test_what_a_step_wrote_before_it_raised_counts(error: BaseException, tensor: bool) -> None:
    histories = []
    for is_advised in (False, True):
        model = net()
        rate: Any = torch.tensor(LEARNING_RATE) if tensor else LEARNING_RATE
        optimizer = FailsLast(model.parameters(), rate)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        attachment = attached(model, optimizer, scaling="learning_rates")[0] if is_advised else None
        optimizer.error = error
        (group,) = optimizer.param_groups
        seen, moves = list[float](), list[float]()
        for step in range(4):
            backward(model, step)
            before = [p.detach().clone() for p in model.parameters()]
            with pytest.raises(type(error)) if step == 1 else nullcontext():
                optimizer.step()
            seen += [group["count"], float(group["lr"])]
            scheduler.step()
            if step == 1:
                group["count"] = 7  # what someone writes then counts, too
            seen += [group["count"], float(group["lr"])]
            factors = MULTIPLIERS if is_advised else [1.0] * 4
            moves += [
                ((b - p.detach()) / p.grad).median().item() / factor  # type: ignore[operator]
                for p, b, factor in zip(model.parameters(), before, factors, strict=True)
            ]
        histories.append((seen, moves))
        if attachment is not None:
            assert (attachment.step, attachment.failures) == (3, 0)
            attachment.close()
    (plain_seen, plain_moves), (seen, moves) = histories
    assert seen == pytest.approx(plain_seen, rel=1e-6)
    assert moves == pytest.approx(plain_moves, rel=2e-2)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_may_write_its_learning_rate() -> None:
    torch._dynamo.reset()
    model = net()
    optimizer = HalvesItsRate(model.parameters(), lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer)
    compiled: Any = torch.compile(optimizer.step, backend="eager")
    with attachment:
        for step in range(3):
            backward(model, step)
            before = [p.detach().clone() for p in model.parameters()]
            compiled()
    torch._dynamo.reset()
    assert attachment.failures == 0
    assert optimizer.param_groups[0]["lr"] == pytest.approx(LEARNING_RATE / 8)
    for p, b, multiplier in zip(model.parameters(), before, MULTIPLIERS, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(
            p - b, -LEARNING_RATE / 4 * multiplier * p.grad, rtol=1e-3, atol=1e-6
        )


class ClipsFirst(torch.optim.Adam):
    """Does something, and then what its base class does."""

    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 1.0)
        return super().step(closure)


class DecaysLast(torch.optim.Adam):
    """Does something after its base class."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"])
        return loss


@pytest.mark.parametrize("scaling", ["auto", "update", "observed"])
@pytest.mark.parametrize("kind", [ClipsFirst, DecaysLast])
def test_a_step_that_calls_that_of_its_base_class_is_one_step(kind: Any, scaling: str) -> None:
    torch.optim.Adam(net().parameters())  # from now on both step functions run the hooks
    plain, advised = net(), net()
    optimizers = [kind(model.parameters(), lr=1e-3) for model in (plain, advised)]
    options: dict[str, Any] = (
        {"observe_only": True} if scaling == "observed" else {"scaling": scaling}
    )
    attachment, _ = attached(advised, optimizers[1], **options)
    seen: list[int] = []
    optimizers[1].register_step_post_hook(lambda o, *_: seen.append(len(o.param_groups)))
    for step in range(6):
        plain.load_state_dict(advised.state_dict())
        start = [p.detach().clone() for p in plain.parameters()]
        for model, optimizer in zip((plain, advised), optimizers, strict=True):
            backward(model, step)
            optimizer.step()
        factors = [1.0] * 4 if scaling == "observed" else MULTIPLIERS
        for p, q, before, factor in zip(
            plain.parameters(), advised.parameters(), start, factors, strict=True
        ):
            torch.testing.assert_close(q - before, (p - before) * factor, rtol=5e-3, atol=2e-6)
    assert (attachment.step, attachment.failures) == (6, 0)
    assert seen == [1] * 12  # the user's hooks still run for both
    attachment.close()


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
@pytest.mark.parametrize("order", ["AR", "RA", "AO", "OA", "RAO", "OAO"])
def test_observers_beside_an_attachment_see_the_rates_of_the_optimizers_own_step(
    order: str, scaling: Any
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    recorders, observing = list[Recorder](), list[tuple[Attachment, FakeAdvisor]]()
    for kind in order:  # of the attachment, recorders and attachments that observe
        if kind == "A":
            attachment, advisor = attached(
                *(model, optimizer), interval=1, scaling=scaling, answers="wait"
            )
        elif kind == "R":
            recorders.append(Recorder(model, optimizer, every=1))
        else:
            observing.append(
                attached(model, optimizer, interval=1, answers="wait", observe_only=True)
            )
    for step in range(4):
        before = [p.detach().clone() for p in model.parameters()]
        backward(model, step)
        optimizer.step()
    for p, b, multiplier in zip(model.parameters(), before, MULTIPLIERS, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(
            p - b, -LEARNING_RATE * multiplier * p.grad, rtol=1e-3, atol=1e-6
        )
    everything = [attachment, *recorders, *(observer for observer, _ in observing)]
    assert [one.failures for one in everything] == [0] * len(order)
    assert [m.step for m in advisor.measurements] == [0, 1, 2, 3]
    seen = [
        {point.step: point.unit_rates for point in recorder.profile("x").points}
        for recorder in recorders
    ]
    seen += [{m.step: m.unit_rates for m in asked.measurements} for _, asked in observing]
    for rates in seen:
        assert len(rates) == 4
        for measurement in advisor.measurements:  # all draw the same probes
            assert list(rates[measurement.step]) == pytest.approx(
                list(measurement.unit_rates), rel=1e-3
            )
    for one in everything:
        one.close()


def test_copies_and_pickles_of_an_attached_optimizer_are_not_attached() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer)
    backward(model, 0)
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(copied) is torch.optim.Adam
        assert not copied._optimizer_step_pre_hooks
        assert copied.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
        copied.step()
    assert attachment.step == 1
    attachment.close()


class Sam(torch.optim.Optimizer):
    """Steps from where the loss is highest nearby; trained by two calls, without a step()."""

    def __init__(self, params: Any, base: Callable[..., torch.optim.Optimizer], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.base = base(self.param_groups, lr=lr)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["before"] = parameter.detach().clone()
                parameter.add_(parameter.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(self.state[parameter]["before"])
        self.base.step()


@pytest.mark.parametrize("scaling", ["auto", "update"])
def test_an_optimizer_of_two_calls_is_seen_by_the_optimizer_inside(scaling: Any) -> None:
    model = net()
    optimizer = Sam(model.parameters(), torch.optim.SGD, lr=LEARNING_RATE)
    attachment, _ = attached(model, optimizer, scaling=scaling)
    for step in range(3):
        backward(model, step)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.first_step()
        backward(model, step)
        optimizer.second_step()
        for p, b, multiplier in zip(model.parameters(), before, MULTIPLIERS, strict=True):
            assert p.grad is not None
            torch.testing.assert_close(
                p - b, -LEARNING_RATE * multiplier * p.grad, rtol=1e-3, atol=1e-6
            )
    assert (attachment.step, attachment.failures) == (3, 0)
    attachment.close()


@pytest.mark.parametrize("decay", ["cosine", [0.1, 0.2]])
def test_weight_decay_that_is_no_number_does_not_matter(decay: Any) -> None:
    model = net()
    optimizer = HalvesItsRate(model.parameters(), lr=LEARNING_RATE)
    optimizer.param_groups[0]["weight_decay"] = decay
    attachment, _ = attached(model, iter([optimizer]))
    with attachment:
        backward(model, 0)
        optimizer.step()
    assert (attachment.step, attachment.failures) == (1, 0)


@pytest.mark.parametrize("event", [Measured, AdviceAdopted])
@pytest.mark.parametrize("step", [0, 3])
def test_a_listener_may_close_the_attachment_within_a_step(
    event: type, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def close(seen: Event) -> None:
        if isinstance(seen, event) and seen.step >= step:
            attachment.close()

    attachment, _ = attached(model, optimizer, answers="wait", listeners=[close])
    with caplog.at_level(logging.WARNING, "fslr"):
        for number in range(6):
            backward(model, number)
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
    assert (attachment.failures, caplog.records) == (0, [])
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter - start, -LEARNING_RATE * parameter.grad)
    again, _ = attached(model, optimizer)
    assert len(optimizer._optimizer_step_pre_hooks) == 1  # those of the closed one are gone
    again.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
