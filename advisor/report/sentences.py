"""The figures of a run in sentences: reasons, changes, and one sentence for each figure."""

from __future__ import annotations

import math

from advisor.policy import Limit
from advisor.report.contributions import ContributionRow
from advisor.report.points import Point
from advisor.report.recommendations import (
    RecommendedGroupRow,
    effective_range,
    scheduled_range,
)
from advisor.report.run_changes import Change, ChangeKind
from advisor.report.run_figures import MeasuringCost, RunFigures
from advisor.report.texts import Texts
from advisor.report.warning_texts import warning_text
from advisor.report.words import format_number, format_percent
from fslr.advisor.v1 import policy_pb2
from fslr.training.summaries import is_held

_ROUTINE = Limit.CONFIDENCE | Limit.AVERAGING | Limit.ROUNDING  # change nearly every multiplier
_FAR = math.log(1.5)  # distance from the raw multiplier at which they deserve a word


def outcome_text(outcome: int, texts: Texts) -> str:
    """Return an outcome in a few words.

    Args:
        outcome: An ``Outcome`` of the contract.
        texts: The language's texts.
    """
    name = _outcome_name(outcome)
    return texts(f"outcome.{name}") if name else texts("outcome.unknown", outcome=outcome)


def reason(row: RecommendedGroupRow, texts: Texts) -> str:
    """Return why a group's multiplier is what it is, in one or two plain sentences.

    Args:
        row: The group.
        texts: The language's texts.
    """
    name = _outcome_name(row.outcome)
    if not name:
        return texts("reason.unknown", outcome=row.outcome)
    found = [
        texts(
            f"reason.{name}",
            ratio=format_number(row.measured / row.reference, 3) if row.reference else "?",
            raw=format_number(row.raw, 3),
            error=format_percent(row.relative_error),
        )
    ]
    is_far = bool(row.raw) and abs(math.log(row.multiplier / row.raw)) > _FAR
    limits = limit_texts(row.limits if is_far else row.limits & ~_ROUTINE, texts)
    if limits:
        found.append(texts("reason.limits", limits=comma(texts).join(limits)))
    if row.is_outlier:
        found.append(texts("reason.outlier"))
    return joined(found, texts)


def decay_text(decay: float | None, factor: float, texts: Texts) -> str:
    """Return the weight decay of a step, and what advice does to it, in a few words.

    Args:
        decay: Part of the weights that a step with the advice takes away; None: not reported.
        factor: Factor of the advice on it.
        texts: The language's texts.
    """
    is_kept = math.isclose(factor, 1, rel_tol=1e-6)
    changed = texts("decay.factor", factor=format_number(factor, 3))
    change = texts("decay.kept") if is_kept else changed
    if decay is None:
        return change
    if not decay:
        return texts("decay.none")
    return texts("decay.value", decay=format_number(decay, 3), change=change)


def limit_texts(limits: Limit, texts: Texts) -> list[str]:
    """Return the safeguards that changed a multiplier, each in a few words.

    Args:
        limits: The safeguards; those of a newer service are left out.
        texts: The language's texts.
    """
    return [texts(f"limit.{limit.name}") for limit in Limit if limit in limits]


def change_text(change: Change, texts: Texts) -> str:
    """Return a change in a sentence.

    Args:
        change: The change.
        texts: The language's texts.
    """
    before, after = (
        format_number(value) if isinstance(value, float) else value
        for value in (change.before, change.after)
    )
    if change.kind is ChangeKind.RESTARTED and isinstance(change.before, float):
        before = str(int(change.before))
    if change.kind is ChangeKind.POLICY:
        own = texts("change.policy.none")
        before, after = before or own, after or own
    if change.kind is ChangeKind.RECIPE:
        none = texts("change.recipe.none")
        before, after = before or none, after or none
    subject = change.subject
    if change.kind is ChangeKind.WARNING:
        subject = warning_text(subject, texts, change.warning)
    return texts(f"change.{change.kind.value}", subject=subject, before=before, after=after)


def total_change_text(points: list[Point], texts: Texts) -> str:
    """Return the newest total rate beside its reference, in a sentence.

    Args:
        points: The points of the run, oldest first.
        texts: The language's texts.
    """
    point = next((p for p in reversed(points) if p.total_rate is not None), None)
    if point is None or point.total_rate is None:
        return texts("total_change.absent")
    reference, total = point.reference_total_rate, format_number(point.total_rate)
    if not reference:
        return texts("total_change.no_reference", step=point.step, total=total)
    return texts(
        "total_change.sentence",
        step=point.step,
        total=total,
        reference=format_number(reference),
        percent=format_percent(point.total_rate / reference),
    )


def contributions_text(rows: list[ContributionRow], measurements: int, texts: Texts) -> str:
    """Return the largest contribution beside that of the reference, in a sentence.

    Args:
        rows: The contributions.
        measurements: Number of measurements that they are means of.
        texts: The language's texts.
    """
    named = [row for row in rows if row.part]
    if not named:
        return texts("contributions.absent")
    largest = max(named, key=lambda row: row.share)
    given = {"part": largest.part, "percent": largest.percent, "count": measurements}
    if largest.reference_percent is None:
        return texts("contributions.no_reference", **given)
    return texts("contributions.sentence", reference=largest.reference_percent, **given)


def reference_percent_text(row: ContributionRow, texts: Texts) -> str:
    """Return what a contribution would be at the reference, in a few words; empty: not known.

    Args:
        row: The contribution.
        texts: The language's texts.
    """
    if row.reference_percent is None:
        return ""
    return texts("contributions.reference", percent=row.reference_percent)


def recommended_text(figures: RunFigures, texts: Texts) -> str:
    """Return the range of the newest multipliers in a sentence; empty before the first answer.

    Args:
        figures: The figures of the run.
        texts: The language's texts.
    """
    if not figures.points:
        return ""
    newest = figures.points[-1]
    key = "would_have_been.sentence" if figures.observes_only else "recommended.sentence"
    return texts(
        key,
        low=format_number(newest.min_multiplier, 3),
        high=format_number(newest.max_multiplier, 3),
        held=sum(count for outcome, count in newest.outcomes.items() if is_held(outcome)),
        groups=newest.outcomes.total(),
    )


def learning_rates_text(figures: RunFigures, texts: Texts) -> str:
    """Return the range of the newest recommended learning rates beside the scheduled ones.

    Args:
        figures: The figures of the run.
        texts: The language's texts.

    Returns:
        A sentence; empty: they are not known.
    """
    found = None if figures.newest is None else effective_range(figures.newest)
    if found is None:
        return ""
    key = "would_have_been.rates" if figures.observes_only else "recommended.rates"
    scheduled = scheduled_text(figures, texts)
    return texts(
        key, low=format_number(found[0], 3), high=format_number(found[1], 3), scheduled=scheduled
    )


def multipliers_beside_text(figures: RunFigures, texts: Texts) -> str:
    """Return what the newest multipliers are factors of, with its value, in a few words.

    Args:
        figures: The figures of the run.
        texts: The language's texts.
    """
    scheduled = scheduled_text(figures, texts)
    if not scheduled:
        return texts("document.multipliers")
    return texts("recommended.beside", scheduled=scheduled)


def scheduled_text(figures: RunFigures, texts: Texts) -> str:
    """Return the newest scheduled learning rate, or their range; empty: not reported.

    Args:
        figures: The figures of the run.
        texts: The language's texts.
    """
    found = None if figures.newest is None else scheduled_range(figures.newest)
    if found is None:
        return ""
    low, high = (format_number(rate, 3) for rate in found)
    return low if low == high else texts("range", low=low, high=high)


def cost_text(cost: MeasuringCost, texts: Texts) -> str:
    """Return what measuring cost, in a sentence.

    Args:
        cost: The cost.
        texts: The language's texts.
    """
    count = cost.measurements
    if cost.median_seconds is None:
        return texts("cost.absent", measurements=count)
    seconds = format_number(cost.median_seconds, 2)
    if cost.overhead is None:
        return texts("cost.seconds", measurements=count, seconds=seconds)
    overhead = f"{100 * cost.overhead:.2g}%"
    return texts("cost.sentence", measurements=count, overhead=overhead, seconds=seconds)


def _outcome_name(outcome: int) -> str:
    """Return the name of an outcome that has texts; empty: a newer service defines it."""
    if outcome and outcome in policy_pb2.Outcome.values():
        return policy_pb2.Outcome.Name(policy_pb2.Outcome.ValueType(outcome))
    return ""


def comma(texts: Texts) -> str:
    """Return what separates the items of a list.

    Args:
        texts: The language's texts.
    """
    return "、" if texts.language == "ja" else ", "


def joined(sentences: list[str], texts: Texts) -> str:
    """Join sentences as the language does: Japanese has no space between them.

    Args:
        sentences: The sentences.
        texts: The language's texts.
    """
    return ("" if texts.language == "ja" else " ").join(sentences)
