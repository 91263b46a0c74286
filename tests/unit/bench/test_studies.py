"""The studies of transfer: regrets, gains, conclusions and ideas."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.studies.ablations import summarize
from benchmarks.studies.conclusions import conclude
from benchmarks.studies.gains import Gain, gain, gain_by_seed
from benchmarks.studies.ideas import IDEAS, conclusion_of, judge
from benchmarks.studies.matching import extrapolated, match_total, total_at
from benchmarks.studies.questions import questions
from benchmarks.studies.reference import Outcome, Reference, outcome
from benchmarks.studies.signal import signal_of
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.methods import published_flerm
from benchmarks.transfer.sweeps import Sweep
from fslr.advisor.v1 import advisor_service_pb2, profile_pb2
from fslr.torch import RateEstimate

CASE = CASES[0]
INF = math.inf


def swept(losses: dict[float, list[float]], unevenness: float = 1.0) -> Sweep:
    return Sweep(
        losses, unevenness={octave: [unevenness] * len(of) for octave, of in losses.items()}
    )


def reference(plain: dict[float, list[float]]) -> Reference:
    return Reference(
        CASE, swept({-5: [3.0, 3.0], -6: [2.0, 2.0], -7: [3.0, 3.0]}), swept(plain, 1.1), -6
    )


def result(*regrets: float, shift: int | None = 0) -> Outcome:
    """Return an outcome with these regrets by seed; one that diverged if there are none."""
    if not regrets:
        return Outcome(None, None, None, (), None, 5.0)
    mean = statistics.fmean(regrets)
    spread = statistics.stdev(regrets) if len(regrets) > 1 else None
    return Outcome(shift, mean, spread, regrets, mean, 5.0)


def test_regret_is_the_loss_above_the_best_of_the_plain_sweep() -> None:
    found = outcome(
        reference({-6: [2.5, 2.7], -7: [2.0, 2.2], -8: [2.4, 2.4]}),
        swept({-5: [2.2, 2.2], -6: [2.1, 2.2], -7: [2.05, 2.05]}, 1.21),
    )
    assert found.shift == -1
    assert found.regret == pytest.approx(0.05)
    assert found.regret_spread == pytest.approx(math.sqrt(0.005))
    assert found.regrets == pytest.approx((0.1, 0.0))
    assert found.extra_cost_percent == pytest.approx(10)


def test_a_variant_that_diverges_has_a_shift_but_no_regret() -> None:
    found = outcome(
        reference({-6: [2.5, 2.7], -7: [2.0, 2.2]}), swept({-6: [INF, 2.0], -7: [2.1, 2.1]})
    )
    assert (found.regret, found.loss, found.shift) == (None, None, -1)


def test_a_summary_has_the_largest_shift_and_the_mean_regret() -> None:
    found = summarize([result(0.0, 0.2, shift=1), result(0.1, 0.3, 0.5, 0.3, shift=-2)])
    assert found.shift == -2
    assert found.regret == pytest.approx(0.2)
    squares = 0.02 / 2 + (0.04 + 0.04) / 3 / 4
    assert found.regret_error == pytest.approx(math.sqrt(squares) / 2)
    assert summarize([result(0.1), result()]).regret is None
    assert summarize([result(0.1), result(0.1, 0.2)]).regret_error is None


def test_a_gain_is_taken_seed_by_seed() -> None:
    """Differences between seeds that both variants share add no noise."""
    found = gain([[0.0, 1.0], [0.5, 0.7]], [[0.1, 1.1], [0.6, 0.9]])
    assert found is not None
    assert found.mean == pytest.approx((0.1 + 0.15) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(0.005 / 2) / 2)
    assert gain([[0.0, 1.0]], [[]]) is None


def test_the_p_value_of_few_seeds_follows_student_s_t() -> None:
    """Two standard errors over three seeds have a p value of about 0.2."""
    one = [0.10, 0.02, 0.06]
    found = gain_by_seed([one])
    assert found.mean / (found.standard_error or 0) > 2
    assert found.p_value == pytest.approx(stats.ttest_1samp(one, 0.0).pvalue)
    assert not found.is_significant
    two = [0.30, 0.28, 0.31]
    both = gain_by_seed([one, two])
    # The two gains have opposite signs, so their mean is half of the difference of their sizes.
    negative = [-x for x in two]
    assert both.p_value == pytest.approx(stats.ttest_ind(one, negative, equal_var=False).pvalue)
    assert both.is_significant


def test_a_gain_of_one_seed_is_never_significant() -> None:
    found = gain([[0.0]], [[5.0]])
    assert found == Gain(5.0, None)
    assert not found.is_significant


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"b": [0.1, 0.101]}, "the default has the lowest regret; significantly worse: b"),
        ({"b": [-0.1, 0.2]}, "the default has the lowest regret; no difference is significant"),
        (
            {"b": [-0.1, -0.101]},
            "b has a regret 0.101 ± 0.001 nats below the default's (significant)",
        ),
        (
            {"b": [-0.1, 0.0]},
            "b has a regret 0.050 ± 0.050 nats below the default's (not significant)",
        ),
        (
            {"b": [-0.1, -0.1], "c": [1.0, 1.0]},
            (
                "b has a regret 0.100 ± 0.000 nats below the default's (significant); "
                "significantly worse: c"
            ),
        ),
        ({"b": []}, "the default has the lowest regret; no difference is significant"),
    ],
)
def test_a_conclusion_claims_only_significant_differences(
    others: dict[str, list[float]], text: str
) -> None:
    regrets = {name: [by_seed] for name, by_seed in others.items()}
    assert str(conclude({"a": [[0.0, 0.0]], **regrets}, "a")) == text


def test_a_conclusion_reports_a_diverged_default() -> None:
    assert str(conclude({"a": [[]], "b": [[0.1]]}, "a")) == "the default diverged"


@pytest.mark.parametrize(
    ("with_idea", "without_idea", "wins"),
    [
        ([0.0, 0.01], [0.1, 0.11], True),
        ([0.1, 0.11], [0.0, 0.01], False),
        ([0.0, 0.01], [0.1, -0.05], False),  # within the noise
        ([0.0], [0.1], False),  # one seed does not show the noise
        ([], [0.1, 0.1], False),
    ],
)
def test_an_idea_wins_only_beyond_the_noise(
    with_idea: list[float], without_idea: list[float], wins: bool
) -> None:
    assert judge([with_idea] * 2, [without_idea] * 2)["wins"] is wins


def test_an_idea_that_diverges_in_a_case_does_not_win() -> None:
    found = judge([[0.0, 0.01], []], [[0.1, 0.11], [0.1, 0.11]])
    assert (found["diverged"], found["wins"]) == (1, False)
    assert found["regret_with"] is None  # a mean over fewer cases would not be comparable
    assert found["regret_without"] == pytest.approx(0.105)


@pytest.mark.parametrize(
    ("with_idea", "without_idea", "text"),
    [
        ([0.0, 0.01], [0.1, 0.112], "better: +0.1010 ± 0.0010 nats"),
        ([0.1, 0.112], [0.0, 0.01], "worse: -0.1010 ± 0.0010 nats"),
        ([0.0, 0.01], [0.1, -0.05], "no significant difference: +0.0200 ± 0.0800 nats"),
        ([0.0], [0.1], "+0.1000 nats with one seed, so the noise is not known"),
        ([], [0.1, 0.1], "diverged in 1 case"),
    ],
)
def test_the_conclusion_on_an_idea(
    with_idea: list[float], without_idea: list[float], text: str
) -> None:
    assert conclusion_of(judge([with_idea], [without_idea])) == text


def test_the_total_rate_after_matching_is_the_base_s() -> None:
    gram = np.array([[4.0, 1.0], [1.0, 1.0]])
    estimate = RateEstimate([2.0, 1.0], [0.1, 0.1], 1, 8, gram=gram)
    answer = advisor_service_pb2.RecommendLRResponse(step=10, multipliers=[1.0, 0.5])
    matched = match_total(answer, estimate, ((0, 1.0), (20, 4.0)))
    m = np.array(matched.multipliers)
    assert float(m @ gram @ m) ** 0.5 == pytest.approx(2.0)  # half-way from 1 to 4
    assert m[1] / m[0] == 0.5
    assert list(answer.multipliers) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("gram", "totals"),
    [(None, ((0, 1.0),)), ([[1.0]], ()), ([[-1.0]], ((0, 1.0),)), ([[1.0]], ((0, 0.0),))],
)
def test_multipliers_are_unchanged_without_a_total_rate(
    gram: list[list[float]] | None, totals: tuple[tuple[int, float], ...]
) -> None:
    estimate = RateEstimate([1.0], [0.1], 1, 8, gram=None if gram is None else np.array(gram))
    answer = advisor_service_pb2.RecommendLRResponse(step=0, multipliers=[2.0])
    assert list(match_total(answer, estimate, totals).multipliers) == [2.0]


def test_the_factor_on_all_multipliers_is_bounded() -> None:
    estimate = RateEstimate([1.0], [0.1], 1, 8, gram=np.ones((1, 1)))
    answer = advisor_service_pb2.RecommendLRResponse(step=0, multipliers=[1.0])
    assert list(match_total(answer, estimate, ((0, 1e3),)).multipliers) == [4.0]
    assert list(match_total(answer, estimate, ((0, 1e-3),)).multipliers) == [0.25]


def test_total_rates_are_interpolated_and_constant_beyond_the_ends() -> None:
    totals = ((0, 1.0), (10, 100.0))
    assert [total_at(totals, step) for step in (0, 5, 10, 99)] == pytest.approx([1, 10, 100, 100])


def content(*rates: float, name: str = "a") -> profile_pb2.ProfileContent:
    found = profile_pb2.ProfileContent()
    for i in range(len(rates)):
        found.layout.groups.add(name=f"{name}{i}")
    found.points.add(step=0, unit_rates=rates)
    return found


def test_rates_are_extrapolated_by_the_ratio_of_two_sizes() -> None:
    found = extrapolated(content(1.0, 4.0, 0.0), content(2.0, 2.0, 1.0), exponent=2.0)
    assert list(found.points[0].unit_rates) == [8.0, 0.5, 1.0]
    assert list(extrapolated(content(1.0), content(2.0), 9.0).points[0].unit_rates) == [8.0]


def test_profiles_with_different_layouts_are_not_extrapolated() -> None:
    with pytest.raises(ValueError, match="the profiles have different layouts or steps"):
        extrapolated(content(1.0), content(1.0, name="b"), 1.0)


def test_the_default_of_every_question_is_one_of_its_choices() -> None:
    for question in questions():
        names = [choice.name for choice in question.choices]
        assert question.default in names
        assert len(set(names)) == len(names) > 1


def test_ideas_are_tried_on_held_out_cases_that_they_affect() -> None:
    studied = {
        (case.base, case.big, case.optimizer) for question in questions() for case in question.cases
    }
    by_key = {idea.key: idea for idea in IDEAS}
    assert len(by_key) == len(IDEAS)
    for idea in IDEAS:
        names = [case.name for case in idea.cases]
        assert len(set(names)) == len(names) > 0
        assert not studied & {(case.base, case.big, case.optimizer) for case in idea.cases}, (
            idea.key
        )
    measured = by_key["measured"].cases
    assert all(case.big.depth > case.base.depth for case in measured)
    extrapolated_on = by_key["extrapolation"].cases
    assert all(case.big.width > case.base.width for case in extrapolated_on)
    assert {case.big.depth for case in extrapolated_on} <= {2, 4}
    for case in by_key["batch"].cases:
        assert (case.base.batch_size, case.base.context) != (case.big.batch_size, case.big.context)


def test_the_published_procedure_measures_as_published() -> None:
    method = published_flerm()
    assert method.advice is not None
    assert method.advice.options.estimator == "kronecker"
    assert (method.advice.options.probes, method.recording.every) == (40, 100)
    assert method.advice.policy is not None
    assert method.advice.policy.min_interval_steps == 100


def test_signal_is_the_part_of_a_gradient_that_batches_share() -> None:
    """Gradients are 2 on one weight, with noise of variance 1 on three others: 4 of 7 is signal."""
    generator = torch.Generator().manual_seed(0)

    def gradient() -> list[torch.Tensor]:
        return [torch.tensor([2.0]), torch.randn(3, generator=generator)]

    found = [signal_of([gradient() for _ in range(4)], [1.0, 1.0]) for _ in range(400)]
    assert statistics.fmean(found) == pytest.approx(4 / 7, abs=0.05)
    # The weights leave two parts of noise out.
    weights: list[torch.Tensor | float] = [1.0, torch.tensor([1.0, 0.0, 0.0])]
    found = [signal_of([gradient() for _ in range(4)], weights) for _ in range(400)]
    assert statistics.fmean(found) == pytest.approx(4 / 5, abs=0.05)
