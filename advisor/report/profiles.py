"""Profiles: the list of profiles, the facts of one version, its unit rates, and templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from advisor.report.texts import Texts
from advisor.report.warning_texts import warning_text
from advisor.report.words import (
    NO_RULES,
    format_number,
    format_percent,
    format_rules,
    kind_word,
    short_name,
)
from fslr.advisor.v1 import policy_pb2, profile_pb2, profile_service_pb2
from fslr.profile_files import message_to_fields

_ENGLISH = Texts("en")


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """The latest version of a profile in a list.

    Attributes:
        profile: Short name of the version.
        groups: Number of groups; None: the stored profile cannot be read.
        base_learning_rate: Learning rate of the base model.
        optimizer: The optimizer's name.
        model: The base model.
        aliases: The aliases that name this version.
        create_time: When it was registered, UTC.
    """

    profile: str
    groups: int | None
    base_learning_rate: float
    optimizer: str
    model: str
    aliases: tuple[str, ...]
    create_time: datetime

    @classmethod
    def of(cls, version: profile_pb2.Profile) -> ProfileRow:
        """Return the row of a version."""
        content = version.content
        return cls(
            short_name(version.name),
            version.group_count if version.HasField("content") else None,
            content.base_learning_rate,
            content.provenance.optimizer,
            content.provenance.model,
            tuple(version.aliases),
            version.create_time.ToDatetime(UTC),
        )


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about a profile.

    Attributes:
        key: What it is, the same in each language, such as ``base_learning_rate``.
        label: What it is, in a language, such as ``base learning rate``.
        value: The value in words; may have several lines.
    """

    key: str
    label: str
    value: str


def profile_facts(
    response: profile_service_pb2.GetProfileResponse,
    texts: Texts = _ENGLISH,
    *,
    known_only: bool = True,
) -> list[Fact]:
    """Return what is known about a version: name, origin, rules.

    Args:
        response: The version.
        texts: The language's texts.
        known_only: Whether unknown values are left out.
    """
    version, content = response.profile, response.profile.content
    aliases = (f"{a.name} -> @{a.version} (etag {a.etag})" for a in response.aliases)
    excluded = texts("profile.weight_decay.excluded")
    found = [
        ("name", version.name),
        ("digest", version.digest),
        ("registered", f"{version.create_time.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"),
        ("aliases", ", ".join(aliases)),
        ("versions", ", ".join(map(str, response.versions))),
        ("base_learning_rate", format_number(content.base_learning_rate)),
        ("steps", texts("profile.steps", total=content.total_steps, points=len(content.points))),
        ("mask", content.mask),
        ("weight_decay", excluded if content.excludes_weight_decay else ""),
        ("warnings", "\n".join(warning_text(message, texts) for message in version.warnings)),
    ]
    rest = [
        ("labels", ", ".join(f"{k}={v}" for k, v in sorted(content.labels.items()))),
        ("policy", content.policy_name or _rules(content.policy, texts)),
        ("spread", _spread(content, texts)),
        ("group_aliases", "\n".join(f"{a.pattern} -> {a.target}" for a in content.group_aliases)),
    ]
    facts = [
        *(Fact(key, texts(f"profile.fact.{key}"), value) for key, value in found),
        *_provenance(content.provenance, texts),
        *(Fact(key, texts(f"profile.fact.{key}"), value) for key, value in rest),
    ]
    return [fact for fact in facts if fact.value or not known_only]


def _provenance(provenance: profile_pb2.Provenance, texts: Texts) -> list[Fact]:
    values = message_to_fields(provenance)
    if provenance.HasField("record_time"):
        values["record_time"] = f"{provenance.record_time.ToDatetime():%Y-%m-%d %H:%M} UTC"
    return [Fact(name, texts(f"provenance.{name}"), str(value)) for name, value in values.items()]


def _rules(policy: policy_pb2.Policy, texts: Texts) -> str:
    rules = format_rules(policy)
    return texts("profile.policy.defaults") if rules == NO_RULES else rules


def _spread(content: profile_pb2.ProfileContent, texts: Texts) -> str:
    spread = spread_between_seeds(content)
    return texts("profile.spread", median=format_percent(spread.median)) if spread else ""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far unit rates of merged recordings differ between seeds, as ratios.

    Attributes:
        median: The median over all groups and points.
        largest: The largest of all.
    """

    median: float
    largest: float


def spread_between_seeds(content: profile_pb2.ProfileContent) -> Spread | None:
    """Return the spread of a merged profile, or None for a single recording."""
    spreads = sorted(spread for point in content.points for spread in point.spreads)
    return Spread(spreads[len(spreads) // 2], spreads[-1]) if spreads else None


@dataclass(frozen=True, slots=True)
class UnitRateRow:
    """A group's unit rates at some steps.

    Attributes:
        group: The group's name.
        role: The group's role; empty if it equals the name.
        unit_rates: Unit rates at the steps of the table, in output units per learning rate.
        kind: What the tensor does in the model, in words, such as ``hidden``; empty: unknown.
        shape: Size of the tensor along each dimension; empty: unknown, or a scalar.
        initial_rms: RMS of the tensor's entries before the first step; None: unknown.
    """

    group: str
    role: str
    unit_rates: tuple[float, ...]
    kind: str = ""
    shape: tuple[int, ...] = ()
    initial_rms: float | None = None


@dataclass(frozen=True, slots=True)
class UnitRateTable:
    """Unit rates of all groups at the first, the middle and the last recorded step.

    Attributes:
        steps: The steps.
        groups: A row for each group.
    """

    steps: tuple[int, ...]
    groups: tuple[UnitRateRow, ...]


def unit_rate_table(content: profile_pb2.ProfileContent) -> UnitRateTable:
    """Return the unit rates of a profile at the first, the middle and the last recorded step."""
    picked = sorted({0, len(content.points) // 2, len(content.points) - 1})
    points = [content.points[i] for i in picked]
    rows = (
        UnitRateRow(
            group.name,
            group.role if group.role != group.name else "",
            tuple(point.unit_rates[i] for point in points),
            kind_word(group.kind),
            tuple(group.shape),
            group.initial_rms if group.HasField("initial_rms") else None,
        )
        for i, group in enumerate(content.layout.groups)
    )
    return UnitRateTable(tuple(point.step for point in points), tuple(rows))


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A profile that comes with the service.

    Attributes:
        template: The template's name.
        groups: Number of groups.
        base_learning_rate: Learning rate of the base model.
        optimizer: The optimizer's name.
        model: The base model.
        width: Width of the base model.
        depth: Number of blocks of the base model.
    """

    template: str
    groups: int
    base_learning_rate: float
    optimizer: str
    model: str
    width: int
    depth: int

    @classmethod
    def of(cls, name: str, content: profile_pb2.ProfileContent) -> TemplateRow:
        """Return the row of a template."""
        provenance = content.provenance
        return cls(
            name,
            len(content.layout.groups),
            content.base_learning_rate,
            provenance.optimizer,
            provenance.model,
            provenance.width,
            provenance.depth,
        )


def names_only_in(
    one: profile_pb2.ProfileContent, other: profile_pb2.ProfileContent
) -> Sequence[str]:
    """Return the names of the groups that one profile has and the other does not."""
    others = {group.name for group in other.layout.groups}
    return [group.name for group in one.layout.groups if group.name not in others]
