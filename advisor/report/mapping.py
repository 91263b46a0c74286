"""How a layout maps onto a profile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from advisor.report.words import enum_word, kind_word, short_name
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_service_pb2


@dataclass(frozen=True, slots=True)
class MappingRow:
    """What a group maps onto.

    Attributes:
        group: The group's name.
        match: How it was found, in words, such as ``role``.
        depth_factor: Factor on the mean rate of the sources; None: there are no sources.
        sources: The profile's groups that it stands for.
        kind: What its tensor does in the model, in words, such as ``hidden``; empty: unknown.
        shape: Size of its tensor along each dimension; empty: unknown, or a scalar.
        fan_in: Number of inputs that one output sums over; None: unknown.
        fan_out: Number of outputs that one input takes part in; None: unknown.
        prior: Its multiplier before anything is measured; None: it has none.
    """

    group: str
    match: str
    depth_factor: float | None
    sources: tuple[str, ...]
    kind: str = ""
    shape: tuple[int, ...] = ()
    fan_in: int | None = None
    fan_out: int | None = None
    prior: float | None = None


@dataclass(frozen=True, slots=True)
class MappingReport:
    """How a layout maps onto a profile.

    Attributes:
        profile: Short name of the profile's version.
        groups: A row for each group.
        counts: Ways of matching in words with the number of groups, the most frequent first.
        has_sizes: Whether the layout has parameter counts, which can tell blocks apart.
        refusal: Why a run with this layout would be refused; empty: it would not be.
        warnings: What a person should know before the run starts.
    """

    profile: str
    groups: tuple[MappingRow, ...]
    counts: tuple[tuple[str, int], ...]
    has_sizes: bool
    refusal: str
    warnings: tuple[str, ...] = ()

    @property
    def has_shapes(self) -> bool:
        """Whether the layout says what some of its tensors are."""
        return any(row.kind or row.shape or row.fan_in or row.fan_out for row in self.groups)

    @property
    def has_priors(self) -> bool:
        """Whether some groups have a prior."""
        return any(row.prior is not None for row in self.groups)


def mapping_report(
    layout: layout_pb2.Layout, answer: profile_service_pb2.ValidateLayoutResponse
) -> MappingReport:
    """Return how a layout maps onto a profile.

    Args:
        layout: The layout.
        answer: The service's answer for it.
    """
    rows = tuple(
        MappingRow(
            mapping.group,
            enum_word(policy_pb2.Match, mapping.match),
            mapping.depth_factor if mapping.sources else None,
            tuple(mapping.sources),
            kind_word(group.kind),
            tuple(group.shape),
            group.fan_in or None,
            group.fan_out or None,
            mapping.prior or None,
        )
        for mapping, group in zip(answer.mappings, layout.groups, strict=True)
    )
    return MappingReport(
        short_name(answer.profile),
        rows,
        tuple(Counter(row.match for row in rows).most_common()),
        any(group.parameter_count for group in layout.groups),
        answer.refusal,
        tuple(answer.warnings),
    )
