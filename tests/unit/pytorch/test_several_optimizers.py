"""Several optimizers that train one model make one step, which is measured and scaled once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import AttachError
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, ModelGroups, Recorder, attach
from fslr.training.rounds import Rounds

MULTIPLIERS = [0.5, 2.0, 0.25, 4.0, 1.5]


class Net(nn.Module):
    """A model with matrices in its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.middle = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for layer in self.middle:
            x = x + torch.tanh(layer(x))
        out: Tensor = self.head(x)
        return out


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def matrices(model: Net) -> list[nn.Parameter]:
    return list(model.middle.parameters())


def rest(model: Net) -> list[nn.Parameter]:
    return [*model.embed.parameters(), *model.head.parameters()]


def muon_and_adam(model: Net) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Muon(matrices(model), lr=0.02, weight_decay=0.0),
        torch.optim.AdamW(rest(model), lr=0.003, weight_decay=0.0),
    ]


def two_adams(model: Net) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Adam(matrices(model), lr=0.01),
        torch.optim.Adam(rest(model), lr=0.01),
    ]


def backward(model: nn.Module, seed: int) -> None:
    tokens = torch.randint(0, 20, (16, 6), generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(tokens).square().mean().backward()


def train(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    steps: int,
    *,
    every: Sequence[int] = (1, 1),
    first: int = 0,
) -> None:
    """Train with optimizers of which each steps every so many times."""
    for step in range(first, first + steps):
        backward(model, step)
        for optimizer, interval in zip(optimizers, every, strict=True):
            if (step + 1) % interval == 0:
                optimizer.step()


def test_one_layout_contains_the_groups_of_all_optimizers_and_names_them() -> None:
    model = net()
    groups = ModelGroups(model, muon_and_adam(model))
    assert [(group.name, group.optimizer) for group in groups] == [
        ("embed.weight", "AdamW"),
        ("middle.0.weight", "Muon"),
        ("middle.1.weight", "Muon"),
        ("head.weight", "AdamW"),
        ("head.bias", "AdamW"),
    ]
    # The first optimizer is the run's own, which its groups need not name.
    assert [g.optimizer for g in groups.layout().groups] == ["AdamW", "", "", "AdamW", "AdamW"]


def test_the_whole_step_of_several_optimizers_is_measured_once() -> None:
    estimates = []
    for split in (False, True):
        model = net()
        optimizers = two_adams(model) if split else [torch.optim.Adam(model.parameters(), lr=0.01)]
        with Recorder(model, optimizers, every=1) as recorder:
            train(model, optimizers, 3, every=[1] * len(optimizers))
        assert (recorder.step, recorder.failures) == (3, 0)
        estimates.append(recorder.estimate)
    one, other = estimates
    assert one is not None
    assert other is not None
    assert other.examples == 16
    assert other.unit_rates == pytest.approx(one.unit_rates, rel=1e-5)
    assert other.total_rate == pytest.approx(one.total_rate, rel=1e-5)


@pytest.mark.parametrize("scaling", ["auto", "learning_rates", "update"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_group_steps_by_its_multiplier(scaling: Any, order: tuple[int, int]) -> None:
    plain, advised = net(), net()
    optimizers = [muon_and_adam(model) for model in (plain, advised)]
    advisor = FakeAdvisor(MULTIPLIERS)
    with attach(
        advised, optimizers[1], profile="x", advisor=advisor, scaling=scaling
    ) as attachment:
        for step in range(4):
            plain.load_state_dict(advised.state_dict())
            start = [p.detach().clone() for p in plain.parameters()]
            for model, both in zip((plain, advised), optimizers, strict=True):
                backward(model, step)
                for place in order:
                    both[place].step()
            for p, q, before, multiplier in zip(
                plain.parameters(), advised.parameters(), start, MULTIPLIERS, strict=True
            ):
                torch.testing.assert_close(
                    q - before, (p - before) * multiplier, rtol=2e-3, atol=1e-6
                )
    assert (attachment.step, attachment.failures, len(advisor.measurements)) == (4, 0, 1)
    (measurement,) = advisor.measurements
    assert measurement.learning_rates == pytest.approx([0.003, 0.02, 0.02, 0.003, 0.003])


def test_observing_several_optimizers_leaves_the_training_bit_identical() -> None:
    weights = []
    for observed in (False, True):
        model = net()
        optimizers = muon_and_adam(model)
        recorder = Recorder(model, optimizers, every=1) if observed else None
        train(model, optimizers, 4)
        weights.append(list(model.parameters()))
        if recorder is not None:
            recorder.close()
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


@pytest.mark.parametrize(("interval", "compiled"), [(2, False), (4, False), (4, True)])
def test_an_optimizer_that_steps_every_few_times_is_measured_when_it_steps(
    interval: int, compiled: bool
) -> None:
    model = net()
    if compiled:
        model.compile(backend="eager")
    optimizers = two_adams(model)
    with Recorder(model, optimizers, every=5) as recorder:
        train(model, optimizers, 60, every=(1, interval))
    assert (recorder.step, recorder.failures) == (60, 0)
    points = recorder.profile("two cadences").points
    slow = [point for point in points if point.unit_rates[0] > 0]
    # Until the cadence is known, steps of the first optimizer are measured.
    assert len(slow) >= len(points) - 3
    assert all(point.step % interval == interval - 1 for point in slow)
    assert all(point.unit_rates[1] > 0 for point in points)


@pytest.mark.parametrize("scaling", ["learning_rates", "update"])
def test_optimizers_of_different_cadence_step_by_their_multipliers(scaling: Any) -> None:
    plain, advised = net(), net()
    optimizers = [two_adams(model) for model in (plain, advised)]
    advisor = FakeAdvisor(MULTIPLIERS, interval_steps=3)
    with attach(
        advised,
        optimizers[1],
        profile="x",
        advisor=advisor,
        scaling=scaling,
        answers="wait",
        max_overhead=None,
    ) as attachment:
        for step in range(12):
            plain.load_state_dict(advised.state_dict())
            start = [p.detach().clone() for p in plain.parameters()]
            for model, both in zip((plain, advised), optimizers, strict=True):
                train(model, both, 1, every=(1, 3), first=step)
            if step < 2:
                continue  # the first answer is about the second step
            for p, q, before, multiplier in zip(
                plain.parameters(), advised.parameters(), start, MULTIPLIERS, strict=True
            ):
                torch.testing.assert_close(
                    q - before, (p - before) * multiplier, rtol=2e-3, atol=1e-6
                )
    assert (attachment.step, attachment.failures) == (12, 0)
    assert any(m.unit_rates[0] > 0 for m in advisor.measurements)


def test_optimizers_that_alternate_are_all_measured() -> None:
    model = net()
    optimizers = two_adams(model)
    with Recorder(model, optimizers, every=4) as recorder:
        for step in range(80):
            backward(model, step)
            optimizers[step % 2].step()
    assert (recorder.step, recorder.failures) == (80, 0)
    points = recorder.profile("alternating").points
    assert sum(point.unit_rates[0] > 0 for point in points) >= 4
    assert sum(point.unit_rates[1] > 0 for point in points) >= 4


def test_a_step_that_a_gradient_scaler_skips_for_one_optimizer_is_not_measured() -> None:
    model = net()
    optimizers = two_adams(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    with Recorder(model, optimizers, every=1) as recorder:
        for step in range(5):
            tokens = torch.randint(0, 20, (16, 6), generator=torch.Generator().manual_seed(step))
            model.zero_grad()
            scaler.scale(model(tokens).square().mean()).backward()
            if step == 2:
                assert model.head.bias.grad is not None
                model.head.bias.grad.fill_(float("inf"))
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
    assert recorder.failures == 0
    assert [point.step for point in recorder.profile("x").points] == [0, 1, 3, 4]


def test_a_closure_may_call_the_model_within_the_step_of_each_optimizer() -> None:
    model = net()
    optimizers = two_adams(model)
    with Recorder(model, optimizers, every=1) as recorder:
        for step in range(3):
            for optimizer in optimizers:
                optimizer.step(lambda: backward(model, step))  # type: ignore[arg-type,return-value]  # noqa: B023
    assert (recorder.step, recorder.failures, len(recorder.profile("x").points)) == (3, 0, 3)


def test_two_attachments_on_different_optimizers_do_not_disturb_each_other() -> None:
    model = net()
    optimizers = muon_and_adam(model)
    advisors = FakeAdvisor([0.5, 2.0]), FakeAdvisor([0.25, 4.0, 2.0])
    plain, multipliers = net(), [0.25, 0.5, 2.0, 4.0, 2.0]
    of_plain = muon_and_adam(plain)
    with (
        attach(model, optimizers[0], profile="x", advisor=advisors[0]) as one,
        attach(model, optimizers[1], profile="x", advisor=advisors[1]) as other,
    ):
        for step in range(3):
            plain.load_state_dict(model.state_dict())
            start = [p.detach().clone() for p in plain.parameters()]
            train(model, optimizers, 1, first=step)
            train(plain, of_plain, 1, first=step)
            for p, q, before, multiplier in zip(
                plain.parameters(), model.parameters(), start, multipliers, strict=True
            ):
                torch.testing.assert_close(
                    q - before, (p - before) * multiplier, rtol=2e-3, atol=1e-6
                )
    assert (one.step, one.failures, other.step, other.failures) == (3, 0, 3, 0)
    first = [advisor.measurements[0] for advisor in advisors]
    for place, measurement in enumerate(first):
        alone, advisor = net(), FakeAdvisor(1.0)
        of_alone = muon_and_adam(alone)
        with attach(alone, of_alone[place], profile="x", advisor=advisor):
            train(alone, of_alone, 1)
        # The second one measures after the first one has stepped, which is scaled only there.
        assert list(measurement.unit_rates) == pytest.approx(
            list(advisor.measurements[0].unit_rates), rel=2e-2 if place else 1e-5
        )
    # Half of the examples with twice the probes: each has the batch of the whole step.
    assert [(each.examples, each.probes) for each in first] == [(8, 2), (8, 2)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: [], "there is no optimizer; pass the one that trains the model"),
        (
            lambda m: [two_adams(m)[0]] * 2,
            r"the same optimizer \(Adam\) is listed twice",
        ),
        (
            lambda m: [two_adams(m)[0], torch.optim.SGD(m.parameters(), lr=0.1)],
            r"Adam and SGD update the same tensor \(shape \(8, 8\)\)",
        ),
    ],
)
def test_lists_of_optimizers_that_cannot_be_attached_are_refused(
    make: Callable[[Net], Any], message: str
) -> None:
    model = net()
    with pytest.raises(AttachError, match=message):
        Recorder(model, make(model), options=MeasuringOptions())


@pytest.mark.parametrize("resumed_at", [13, 14])
def test_optimizers_of_different_cadence_are_expected_as_before_a_resume(resumed_at: int) -> None:
    """The second one steps every fourth time."""

    def begun() -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        first = torch.optim.Adam(model[0].parameters(), lr=0.01)
        return model, [first, torch.optim.SGD(model[2].parameters(), lr=0.05)]

    def attached(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Any:
        advisor = FakeAdvisor(
            lambda measured: [0.5 + 0.01 * measured.step for _ in measured.unit_rates],
            interval_steps=5,
        )
        return advisor, attach(model, optimizers, profile="x", advisor=advisor, answers="wait")

    def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
        for step in steps:
            inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            for optimizer in optimizers:
                optimizer.zero_grad()
            model(inputs).square().mean().backward()
            for optimizer in optimizers[: 2 if step % 4 == 3 else 1]:
                optimizer.step()

    model, optimizers = begun()
    advisor, attachment = attached(model, optimizers)
    train(model, optimizers, range(resumed_at))
    saved = copy.deepcopy([part.state_dict() for part in (model, *optimizers, attachment)])
    train(model, optimizers, range(resumed_at, 40))
    attachment.close()
    measured = [each.step for each in advisor.measurements if each.step >= resumed_at]
    again, others = begun()
    parts: list[Any] = [again, *others]
    for part, state in zip(parts, saved, strict=False):
        part.load_state_dict(state)
    advisor, attachment = attached(again, others)
    attachment.load_state_dict(saved[-1])
    train(again, others, range(resumed_at, 40))
    attachment.close()
    assert [each.step for each in advisor.measurements] == measured
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_number_of_optimizers_is_refused() -> None:
    rounds = Rounds(2)
    with pytest.raises(AttachError, match="a training with 3 optimizers, and there are 2; load"):
        rounds.load_state_dict(Rounds(3).state_dict())
    rounds.load_state_dict({})  # from before there were states of rounds
    assert rounds.state_dict() == Rounds(2).state_dict()
