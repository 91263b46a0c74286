"""What was measured: facts about a run and the profile that it follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from statistics import median

from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts
from advisor.report.words import format_number, format_percent, short_name
from fslr.advisor.v1 import profile_pb2


@dataclass(frozen=True, slots=True)
class RunFact:
    """One fact.

    Attributes:
        label: What it is, in a language.
        value: The value in words.
    """

    label: str
    value: str


def run_facts(figures: RunFigures, now: datetime, texts: Texts) -> list[RunFact]:
    """Return what is known about a run, without unknown values.

    Args:
        figures: The figures of the run.
        now: The time, UTC.
        texts: The language's texts.
    """
    opening, points, row = figures.run.opening, figures.points, figures.row(now)
    parameters = sum(group.parameter_count for group in opening.layout.groups)
    errors = [point.relative_error for point in points]
    linearity = [p.linearity_error for p in points if p.linearity_error is not None]
    profile = short_name(points[-1].profile if points else opening.profile)
    recipe = figures.recipe()
    found = [
        ("fact.run", figures.run.name),
        ("fact.state", texts(f"state.{row.state}")),
        ("fact.profile", profile),
        ("fact.recipe", "" if recipe is None else recipe.name),
        ("fact.groups", f"{len(opening.layout.groups):,}"),
        ("fact.parameters", f"{parameters:,}" if parameters else ""),
        ("fact.optimizer", opening.optimizer),
        ("fact.loss", opening.loss_name),
        ("fact.batch_size", f"{opening.batch_size:,}" if opening.batch_size else ""),
        (
            "fact.base_learning_rate",
            format_number(opening.base_learning_rate) if opening.base_learning_rate else "",
        ),
        ("fact.total_steps", f"{opening.total_steps:,}" if opening.total_steps else ""),
        (
            "fact.measured_steps",
            _steps(points[0].step, points[-1].step, texts) if points else "",
        ),
        ("fact.measurements", f"{row.measurements:,}"),
        ("fact.lost", f"{row.lost_measurements:,}" if row.lost_measurements else ""),
        ("fact.left_out", f"{figures.left_out:,}" if figures.left_out else ""),
        ("fact.relative_error", format_percent(median(errors)) if any(errors) else ""),
        ("fact.linearity_error", format_percent(median(linearity)) if linearity else ""),
        ("fact.first_time", f"{row.create_time:%Y-%m-%d %H:%M} UTC"),
        ("fact.last_time", f"{row.update_time:%Y-%m-%d %H:%M} UTC"),
    ]
    return [RunFact(texts(key), value) for key, value in found if value]


def _steps(first: int, last: int, texts: Texts) -> str:
    if first == last:
        return f"{first:,}"
    return texts("range", low=f"{first:,}", high=f"{last:,}")


def base_facts(profile: profile_pb2.ProfileContent, texts: Texts) -> list[RunFact]:
    """Return what is known about the base model of a profile, without unknown values.

    Args:
        profile: The profile's content.
        texts: The language's texts.
    """
    origin = profile.provenance
    found = [
        ("fact.base.model", origin.model),
        ("fact.base.width", str(origin.width or "")),
        ("fact.base.depth", str(origin.depth or "")),
        ("fact.base.dataset", origin.dataset),
        ("fact.base.optimizer", origin.optimizer),
        ("fact.base.learning_rate", format_number(profile.base_learning_rate)),
        ("fact.base.recordings", str(origin.recordings or 1)),
        ("fact.base.author", origin.author),
    ]
    return [RunFact(texts(key), value) for key, value in found if value]
