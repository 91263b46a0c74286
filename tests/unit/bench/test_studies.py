"""What the studies around a transfer make of their trainings."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from benchmarks.studies.ablations import conclusion, summarised
from benchmarks.studies.alternatives import published_flerm
from benchmarks.studies.gains import Gain, gain_by_seed
from benchmarks.studies.ideas import IDEAS, judged
from benchmarks.studies.matching import extrapolated, match_total, total_at
from benchmarks.studies.questions import questions
from benchmarks.studies.reference import Outcome, Reference, gain, outcome
from benchmarks.transfer.cases import CASES
from benchmarks.transfer.sweeps import Sweep
from fslr.advisor.v1 import advisor_service_pb2, profile_pb2
from fslr.torch import RateEstimate

CASE = CASES[0]
INF = math.inf


def swept(losses: dict[int, list[float]], unevenness: float = 1.0) -> Sweep:
    return Sweep(
        losses, unevenness={octave: [unevenness] * len(of) for octave, of in losses.items()}
    )


def reference(plain: dict[int, list[float]]) -> Reference:
    return Reference(
        CASE, swept({-5: [3.0, 3.0], -6: [2.0, 2.0], -7: [3.0, 3.0]}), swept(plain, 1.1), -6
    )


def result(*regrets: float, shift: int | None = 0) -> Outcome:
    """Return an outcome with regrets by seed; none: it diverged."""
    if not regrets:
        return Outcome(None, None, None, (), None, 5.0)
    mean = statistics.fmean(regrets)
    spread = statistics.stdev(regrets) if len(regrets) > 1 else None
    return Outcome(shift, mean, spread, regrets, mean, 5.0)


def test_regret_is_against_the_best_of_the_plain_sweep_wherever_it_lies() -> None:
    found = outcome(
        reference({-6: [2.5, 2.7], -7: [2.0, 2.2], -8: [2.4, 2.4]}),
        swept({-5: [2.2, 2.2], -6: [2.1, 2.2], -7: [2.05, 2.05]}, 1.21),
    )
    assert found.shift == -1
    assert found.regret == pytest.approx(0.05)
    assert found.regret_spread == pytest.approx(math.sqrt(0.005))
    assert found.regrets == pytest.approx((0.1, 0.0))
    assert found.extra_cost_percent == pytest.approx(10)


def test_a_variant_that_diverges_has_no_regret_and_keeps_its_shift() -> None:
    found = outcome(
        reference({-6: [2.5, 2.7], -7: [2.0, 2.2]}), swept({-6: [INF, 2.0], -7: [2.1, 2.1]})
    )
    assert (found.regret, found.loss, found.shift) == (None, None, -1)


def test_a_summary_over_cases_takes_the_largest_shift_and_the_mean_regret() -> None:
    found = summarised([result(0.0, 0.2, shift=1), result(0.1, 0.3, 0.5, 0.3, shift=-2)])
    assert found.shift == -2
    assert found.regret == pytest.approx(0.2)
    squares = 0.02 / 2 + (0.04 + 0.04) / 3 / 4
    assert found.regret_error == pytest.approx(math.sqrt(squares) / 2)
    assert summarised([result(0.1), result()]).regret is None
    assert summarised([result(0.1), result(0.1, 0.2)]).regret_error is None


def test_a_gain_is_taken_seed_by_seed() -> None:
    """What seeds differ in by themselves is no noise of the difference."""
    found = gain([result(0.0, 1.0), result(0.5, 0.7)], [result(0.1, 1.1), result(0.6, 0.9)])
    assert found is not None
    assert found.mean == pytest.approx((0.1 + 0.15) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(0.005 / 2) / 2)
    assert gain([result(0.0, 1.0)], [result()]) is None


def test_few_seeds_tell_little() -> None:
    """Two standard errors of three seeds come by chance once in five times; Student's t knows."""
    one = [0.10, 0.02, 0.06]
    found = gain_by_seed([one])
    assert found.mean / (found.standard_error or 0) > 2
    assert found.chance == pytest.approx(stats.ttest_1samp(one, 0.0).pvalue)
    assert not found.is_beyond_noise
    two = [0.30, 0.28, 0.31]
    both = gain_by_seed([one, two])
    # The mean of both cases is half of Welch's difference of the one and the negative other.
    negative = [-x for x in two]
    assert both.chance == pytest.approx(stats.ttest_ind(one, negative, equal_var=False).pvalue)
    assert both.is_beyond_noise


def test_a_gain_of_one_seed_is_never_beyond_noise() -> None:
    found = gain([result(0.0)], [result(5.0)])
    assert found == Gain(5.0, None)
    assert not found.is_beyond_noise


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"b": [0.1, 0.101]}, "a, the default, has the lowest regret; clearly worse: b"),
        ({"b": [-0.1, 0.2]}, "lowest regret; no other is told apart"),
        ({"b": [-0.1, -0.101]}, "b is clearly better than a, the default, by 0.101 ± 0.001 nats"),
        (
            {"b": [-0.1, 0.0]},
            "b has the lowest regret, 0.050 ± 0.050 nats below a, the default: no",
        ),
        ({"b": [-0.1, -0.1], "c": [1.0, 1.0]}, "by 0.100 ± 0.000 nats; clearly worse: c"),
        ({"b": []}, "no other is told apart"),
    ],
)
def test_a_conclusion_says_no_more_than_the_seeds_show(
    others: dict[str, list[float]], words: str
) -> None:
    rest = {name: [result(*regrets)] for name, regrets in others.items()}
    assert words in conclusion({"a": [result(0.0, 0.0)], **rest}, "a")


def test_a_default_that_diverges_is_said_to() -> None:
    assert conclusion({"a": [result()], "b": [result(0.1)]}, "a") == "a, the default, diverged"


@pytest.mark.parametrize(
    ("one", "other", "wins"),
    [
        ((0.0, 0.01), (0.1, 0.11), True),
        ((0.1, 0.11), (0.0, 0.01), False),
        ((0.0, 0.01), (0.1, -0.05), False),  # inside of the noise
        ((0.0,), (0.1,), False),  # one seed tells no noise
        ((), (0.1, 0.1), False),
    ],
)
def test_an_idea_wins_beyond_the_noise_alone(
    one: tuple[float, ...], other: tuple[float, ...], wins: bool
) -> None:
    pair = (result(*one), result(*other))
    assert judged([pair, pair])["wins"] is wins


def test_what_diverged_with_an_idea_is_counted_and_loses() -> None:
    good = (result(0.0, 0.01), result(0.1, 0.11))
    found = judged([good, (result(), result(0.1, 0.11))])
    assert (found["diverged"], found["wins"]) == (1, False)
    assert found["regret_with"] is None  # a mean over other cases than the one beside it
    assert found["regret_without"] == pytest.approx(0.105)


def test_the_total_is_that_of_the_base_after_matching() -> None:
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
def test_without_a_total_nothing_is_matched(
    gram: list[list[float]] | None, totals: tuple[tuple[int, float], ...]
) -> None:
    estimate = RateEstimate([1.0], [0.1], 1, 8, gram=None if gram is None else np.array(gram))
    answer = advisor_service_pb2.RecommendLRResponse(step=0, multipliers=[2.0])
    assert list(match_total(answer, estimate, totals).multipliers) == [2.0]


def test_a_factor_on_all_multipliers_is_bounded() -> None:
    estimate = RateEstimate([1.0], [0.1], 1, 8, gram=np.ones((1, 1)))
    answer = advisor_service_pb2.RecommendLRResponse(step=0, multipliers=[1.0])
    assert list(match_total(answer, estimate, ((0, 1e3),)).multipliers) == [4.0]
    assert list(match_total(answer, estimate, ((0, 1e-3),)).multipliers) == [0.25]


def test_totals_are_interpolated_and_held_at_the_ends() -> None:
    totals = ((0, 1.0), (10, 100.0))
    assert [total_at(totals, step) for step in (0, 5, 10, 99)] == pytest.approx([1, 10, 100, 100])


def content(*rates: float, name: str = "a") -> profile_pb2.ProfileContent:
    found = profile_pb2.ProfileContent()
    for i in range(len(rates)):
        found.layout.groups.add(name=f"{name}{i}")
    found.points.add(step=0, unit_rates=rates)
    return found


def test_extrapolation_goes_on_as_it_went() -> None:
    found = extrapolated(content(1.0, 4.0, 0.0), content(2.0, 2.0, 1.0), exponent=2.0)
    assert list(found.points[0].unit_rates) == [8.0, 0.5, 1.0]
    assert list(extrapolated(content(1.0), content(2.0), 9.0).points[0].unit_rates) == [8.0]


def test_other_layouts_are_not_extrapolated() -> None:
    with pytest.raises(ValueError, match="other layouts or steps cannot be extrapolated"):
        extrapolated(content(1.0), content(1.0, name="b"), 1.0)


def test_every_question_has_its_default_among_its_choices() -> None:
    for question in questions():
        names = [choice.name for choice in question.choices]
        assert question.default in names
        assert len(set(names)) == len(names) > 1


def test_ideas_are_tried_where_they_change_something() -> None:
    """And on none of the cases of the questions: there defaults were chosen, and ideas came up."""
    asked = {
        (case.base, case.big, case.optimizer) for question in questions() for case in question.cases
    }
    by_key = {idea.key: idea for idea in IDEAS}
    assert len(by_key) == len(IDEAS)
    for idea in IDEAS:
        names = [case.name for case in idea.cases]
        assert len(set(names)) == len(names) > 0
        assert not asked & {(case.base, case.big, case.optimizer) for case in idea.cases}, idea.key
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
