"""The attachment in one process: it makes the decisions of the service without the service."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from advisor.local.in_process import InProcessAdvisor
from benchmarks.char_gpt import CharGPT
from fslr import RunInfo, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_service_pb2
from fslr.protocols import RunSession
from fslr.torch import Attachment, MeasuringOptions, Recorder, attach
from tests.building import content_message
from tests.scaled_steps import watch_adam
from tests.training_jobs import OFTEN, attaching, in_process, plan, run, wide


class SpyAdvisor:
    """An advisor that keeps its measurements and answers, and fails from a given step on."""

    def __init__(self, inner: InProcessAdvisor) -> None:
        self.inner = inner
        self.measurements: list[pb.Measurement] = []
        self.answers: list[pb.RecommendLRResponse] = []
        self.failing_from: int | None = None

    def validate_layout(self, opening: pb.RunOpening) -> profile_service_pb2.ValidateLayoutResponse:
        return self.inner.validate_layout(opening)

    def open_run(self, opening: pb.RunOpening) -> RunSession:
        self.opening = opening
        self.session = self.inner.open_run(opening)
        return self

    def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
        self.measurements.append(measurement)
        if self.failing_from is not None and measurement.step >= self.failing_from:
            raise UnavailableError("the advisor is unavailable")
        self.answers.append(self.session.recommend(measurement))
        return self.answers[-1]

    def close(self) -> None:
        pass


@pytest.mark.compatibility("PyTorch loop", "record", "advised")
def test_an_advised_training_moves_at_the_reference_rates() -> None:
    seen: list[Attachment] = []
    advisor = SpyAdvisor(in_process())
    # The first answer follows the measurement exactly: no average, prior, rounding or held group.
    policy = policy_pb2.Policy(
        max_relative_error=1.0,
        averaging_window=0.0,
        prior=policy_pb2.PRIOR_RULE_NONE,
        min_multiplier=0.001,
        max_multiplier=1000.0,
        multiplier_values_per_octave=0,
    )
    policy.MergeFrom(OFTEN)
    run(
        plan(width=32, steps=12),
        attaching(
            seen,
            lambda m, o: attach(
                m,
                o,
                profile="x",
                advisor=advisor,
                run=RunInfo(policy=policy),
                max_overhead=None,
            ),
        ),
    )
    first = advisor.answers[0]
    rates = [
        u * m for u, m in zip(advisor.measurements[0].unit_rates, first.multipliers, strict=True)
    ]
    assert rates == pytest.approx(list(first.reference_unit_rates), rel=1e-5)
    assert len(advisor.measurements) >= 4
    assert [m.step for m in advisor.measurements] == sorted({m.step for m in advisor.measurements})
    # Each later measurement was made under the multipliers from the one before it, or,
    # where that answer was late, of an earlier one.
    given = [list(answer.multipliers) for answer in advisor.answers]
    for i, measurement in enumerate(advisor.measurements[1:], start=1):
        assert list(measurement.multipliers) in given[:i]
    assert (seen[0].failures, seen[0].unanswered, seen[0].step) == (0, 0, 12)


def test_trainings_that_wait_for_answers_are_bit_identical() -> None:
    class SlowAdvisor(SpyAdvisor):
        def __init__(self, delays_s: Sequence[float]) -> None:
            super().__init__(in_process())
            self.delays_s = itertools.cycle(delays_s)

        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            time.sleep(next(self.delays_s))
            return super().recommend(measurement)

    def trained(delays_s: Sequence[float]) -> tuple[list[Tensor], list[list[float]]]:
        model, optimizer, backward = wide()
        advisor = SlowAdvisor(delays_s)
        with attach(
            model,
            optimizer,
            profile="x",
            advisor=advisor,
            run=RunInfo(policy=OFTEN),
            answers="wait",
        ) as attachment:
            for _ in range(14):
                backward()
                optimizer.step()
            assert attachment.multipliers == list(advisor.answers[-1].multipliers)
        return list(model.parameters()), [list(answer.multipliers) for answer in advisor.answers]

    weights, multipliers = trained([0.0])
    other_weights, other_multipliers = trained([0.03, 0.0, 0.05])
    assert multipliers == other_multipliers
    assert len(multipliers) >= 4
    assert all(torch.equal(p, q) for p, q in zip(weights, other_weights, strict=True))


def test_the_first_step_is_rescaled_by_the_first_answer() -> None:
    model, optimizer, backward = wide()
    backward()
    start = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    plain_moves = [p.detach() - s for p, s in zip(model.parameters(), start, strict=True)]

    model, optimizer, backward = wide()
    with attach(model, optimizer, profile="x", advisor=in_process()) as attachment:
        backward()
        optimizer.step()
        assert max(abs(m - 1) for m in attachment.multipliers) > 0.1
        for p, s, move, multiplier in zip(
            model.parameters(), start, plain_moves, attachment.multipliers, strict=True
        ):
            torch.testing.assert_close(p.detach() - s, move * multiplier, rtol=2e-3, atol=1e-7)
        assert all(group["lr"] == 0.01 for group in optimizer.param_groups)


def test_later_steps_are_scaled_and_the_scheduler_sees_no_multiplier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, optimizer, backward = wide()
    with attach(model, optimizer, profile="x", advisor=in_process()) as attachment:
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        used = watch_adam(monkeypatch)
        for step in range(3):
            backward()
            optimizer.step()
            if step:
                assert [used[id(p)] for p in model.parameters()] == pytest.approx([
                    0.01 / (1 + step) * m for m in attachment.multipliers
                ])
            scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01 / 4])


def test_a_warm_up_from_zero_is_measured_from_its_first_real_step() -> None:
    model, optimizer, backward = wide()
    advisor = SpyAdvisor(in_process())
    with attach(model, optimizer, profile="x", advisor=advisor):
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
        for _ in range(3):
            backward()
            optimizer.step()
            scheduler.step()
    assert [m.step for m in advisor.measurements] == [1]


def test_the_last_multipliers_stay_when_the_advisor_becomes_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[Attachment] = []
    advisor = SpyAdvisor(in_process())
    advisor.failing_from = 1
    with caplog.at_level(logging.WARNING, "fslr"):
        run(
            plan(width=32, steps=60),
            attaching(
                seen,
                lambda m, o: attach(
                    m,
                    o,
                    profile="x",
                    advisor=advisor,
                    run=RunInfo(policy=OFTEN),
                    max_overhead=None,
                ),
            ),
        )
    assert seen[0].multipliers == list(advisor.answers[0].multipliers)
    assert seen[0].unanswered == len(advisor.measurements) - 1 == 5
    (record,) = caplog.records
    assert record.getMessage() == (
        "step 2 got no new advice, training continues unchanged: "
        "UnavailableError: the advisor is unavailable"
    )


def test_an_unusable_answer_is_not_applied() -> None:
    class Broken(SpyAdvisor):
        def recommend(self, measurement: pb.Measurement) -> pb.RecommendLRResponse:
            answer = super().recommend(measurement)
            if measurement.step:
                answer.multipliers[0] = float("nan")
            return answer

    seen: list[Attachment] = []
    advisor = Broken(in_process())
    run(
        plan(width=32, steps=20),
        attaching(
            seen,
            lambda m, o: attach(
                m,
                o,
                profile="x",
                advisor=advisor,
                run=RunInfo(policy=OFTEN),
            ),
        ),
    )
    assert seen[0].multipliers == list(advisor.answers[0].multipliers)
    assert (seen[0].failures, seen[0].unanswered > 0) == (0, True)


def test_the_option_examples_limits_the_measured_batch() -> None:
    model, optimizer, backward = wide()
    advisor = SpyAdvisor(in_process())
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        options=MeasuringOptions(examples=3, probes=2),
    ) as attachment:
        backward()
        attachment.report_loss(2.5)
        optimizer.step()
    assert (advisor.measurements[0].examples, advisor.measurements[0].probes) == (3, 2)
    assert advisor.measurements[0].loss == 2.5
    assert list(advisor.measurements[0].learning_rates) == pytest.approx(
        [0.01] * len(advisor.measurements[0].unit_rates)
    )


def test_blocks_keep_their_depth_if_the_first_ones_are_frozen() -> None:
    """In the profile's own model with two frozen blocks, the others move as in the base run."""

    def model_and_optimizer(*, frozen: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = CharGPT(plan(blocks=3).config)
        for block in list(model.blocks)[:frozen]:
            block.requires_grad_(False)
        trained = [p for p in model.parameters() if p.requires_grad]
        return model, torch.optim.Adam(trained, lr=0.01)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        inputs = torch.randint(0, 90, (8, 16), generator=torch.Generator().manual_seed(1))
        nn.functional.cross_entropy(model(inputs).flatten(0, 1), inputs.flatten()).backward()
        optimizer.step()

    model, optimizer = model_and_optimizer(frozen=0)
    options = MeasuringOptions(probes=16)
    with Recorder(model, optimizer, options=options) as recorder:
        step(model, optimizer)
        base = recorder.profile("x")
    model, optimizer = model_and_optimizer(frozen=2)
    advisor = InProcessAdvisor(base)
    with attach(model, optimizer, profile="x", advisor=advisor, options=options) as attachment:
        step(model, optimizer)
        assert attachment.answer is not None
        # Different groups have different probes, so the tolerance is the noise of 16 probes.
        assert attachment.multipliers == pytest.approx([1.0] * len(attachment.groups), rel=0.35)
        assert list(attachment.answer.depth_factors) == [1.0] * len(attachment.groups)
        names = [group.name for group in attachment.groups]
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"2"}


@pytest.mark.parametrize("factor", [1, 8])
def test_the_advisor_sets_the_number_of_probes(factor: int) -> None:
    class Counted(nn.BatchNorm1d if factor == 8 else nn.Identity):  # type: ignore[misc]
        """Batch norm makes examples interact, which takes 8 probes for each requested one."""

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), Counted(8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(16, 6)
    base = content_message([name for name, _ in model.named_parameters()])
    policy = policy_pb2.Policy(
        min_interval_steps=2, max_interval_steps=2, target_relative_error=0.03, max_probes=64
    )
    advisor = SpyAdvisor(InProcessAdvisor(base))
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=advisor,
        run=RunInfo(policy=policy),
        max_overhead=1_000.0,  # steps and measurements are too short to be timed
    ):
        for _ in range(4):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    first, second, *_ = advisor.measurements  # with batch norm, one bias waits for its first rate
    # The first measurement takes half of the examples with twice the probes, unless they interact;
    # then the checks cost something, too.
    assert (first.examples, first.probes) == ((8, 2) if factor == 1 else (16, 3))
    assert advisor.answers[0].probes > factor
    assert second.probes == -(-advisor.answers[0].probes // factor) * factor
    assert max(second.relative_errors) < max(first.relative_errors)


def test_a_step_is_scaled_even_if_its_measurement_cannot_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, optimizer, backward = wide()
    with attach(
        model,
        optimizer,
        profile="x",
        advisor=in_process(),
        run=RunInfo(policy=OFTEN),
    ) as attachment:
        used = watch_adam(monkeypatch)
        backward()
        optimizer.step()

        def out_of_memory() -> None:
            raise torch.OutOfMemoryError("no room for the weights before")

        monkeypatch.setattr(attachment._meter, "begin_step", out_of_memory)
        in_force = attachment.multipliers[0]
        for _ in range(4):
            backward()
            optimizer.step()
            assert used[id(next(model.parameters()))] == pytest.approx(0.01 * in_force)
        assert attachment.failures > 0


def test_closing_removes_all_hooks() -> None:
    model, optimizer, backward = wide()
    attachment = attach(model, optimizer, profile="x", advisor=in_process())
    backward()
    optimizer.step()
    attachment.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not model._forward_pre_hooks
    backward()
    optimizer.step()
    assert attachment.step == 1
