"""Ratios: how much a group has grown from base to run, and powers of them.

A rule for shapes, such as muP's, is a product of powers of ratios. Layouts show how fans, depth,
experts and ranks grow. The caller gives the ratios that layouts do not show.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from advisor.policy.errors import InvalidValueError
from advisor.policy.groups import Group, GroupKind
from advisor.policy.parameter_names import Axis, axes_of

MAX_EXPONENT = 8.0


class Ratio(enum.Enum):
    """What has grown; each ratio is that of the run over that of the base."""

    FAN_IN = "fan_in"
    FAN_OUT = "fan_out"
    DEPTH = "depth"  # number of blocks of the group's role, without experts
    EXPERTS = "experts"  # number of experts
    RANK = "rank"  # of an adapter
    HEAD_SIZE = "head_size"  # size of an attention head
    BATCH = "batch"  # examples of a step
    TOKENS = "tokens"  # length of the training, in tokens or examples
    SEQUENCE = "sequence"  # length of a sequence


GIVEN_RATIOS = (Ratio.HEAD_SIZE, Ratio.BATCH, Ratio.TOKENS, Ratio.SEQUENCE)
"""Ratios that layouts do not show: the caller gives them, and they are 1 by default."""
RATIOS_OF_LAYOUTS = tuple(ratio for ratio in Ratio if ratio not in GIVEN_RATIOS)
RATIOS_OF_SHAPES = (Ratio.FAN_IN, Ratio.FAN_OUT, Ratio.RANK)
"""Ratios that need the fans of both groups."""


@dataclass(frozen=True, slots=True)
class Powers:
    """A product of powers of ratios. Build it with :meth:`of`.

    Attributes:
        exponents: The ratios with their exponents, none of them 0, in the order of ``Ratio``.
    """

    exponents: tuple[tuple[Ratio, float], ...] = ()

    @classmethod
    def of(cls, exponents: Mapping[Ratio, float]) -> Powers:
        """Return the product of the given powers.

        Raises:
            InvalidValueError: An exponent is not finite or above 8 in size; the field is the
                ratio's name.
        """
        for ratio, exponent in exponents.items():
            if not -MAX_EXPONENT <= exponent <= MAX_EXPONENT:  # NaN too
                raise InvalidValueError(
                    ratio.value,
                    f"the exponent {exponent} is not in [-{MAX_EXPONENT:g}, {MAX_EXPONENT:g}]",
                )
        return cls(tuple((r, float(exponents[r])) for r in Ratio if exponents.get(r)))

    def with_part(self, ratio: Ratio, part: float) -> Powers:
        """Return the product with the exponent of one ratio multiplied by a number."""
        return Powers.of({r: power * (part if r is ratio else 1.0) for r, power in self.exponents})

    def factor(self, ratios: Mapping[Ratio, float]) -> float:
        """Return the product.

        Args:
            ratios: A positive number for each ratio of ``exponents``.
        """
        return math.prod(math.pow(ratios[ratio], power) for ratio, power in self.exponents)


def group_ratios(group: Group, base: Group) -> dict[Ratio, float]:
    """Return how much a group has grown, as far as layouts show it; NaN where it is unknown.

    Args:
        group: A group of the run.
        base: Its counterpart in the base.
    """
    rank = 1.0
    if group.kind is GroupKind.ADAPTER_A:
        rank = _ratio(group.fan_out, base.fan_out)
    elif group.kind is GroupKind.ADAPTER_B:
        rank = _ratio(group.fan_in, base.fan_in)
    return {
        Ratio.FAN_IN: _ratio(group.fan_in, base.fan_in),
        Ratio.FAN_OUT: _ratio(group.fan_out, base.fan_out),
        Ratio.DEPTH: _depth(group) / _depth(base),
        Ratio.EXPERTS: _ratio(_experts(group), _experts(base)),
        Ratio.RANK: rank,
    }


def growth_key(group: Group) -> object:
    """Return a key of what :func:`group_ratios` depends on, and of the group's role and kind.

    Groups of a role mostly have the same key, so that their ratios can be computed once.
    """
    return (
        # The hash of a member of an enum is slow, that of its identity is not.
        *(group.role, id(group.kind), group.fan_in, group.fan_out, group.shape),
        *(group.depth_count, group.inner_counts),
    )


def given_ratios(ratios: Mapping[Ratio, float]) -> dict[Ratio, float]:
    """Return the ratios that layouts do not show, 1 where none is given.

    Args:
        ratios: The given ones.

    Raises:
        InvalidValueError: A layout shows the ratio, or it is not positive and finite.
    """
    for ratio, value in ratios.items():
        if ratio not in GIVEN_RATIOS:
            names = ", ".join(r.value for r in GIVEN_RATIOS)
            raise InvalidValueError(
                f"ratios.{ratio.value}", f"the layouts show this ratio; only {names} can be given"
            )
        if not 0 < value < math.inf:  # NaN too
            raise InvalidValueError(
                f"ratios.{ratio.value}",
                f"{value} is not a positive number; give the run's value over the base's",
            )
    return {ratio: float(ratios.get(ratio, 1.0)) for ratio in GIVEN_RATIOS}


def unknown_ratios() -> dict[Ratio, float]:
    """Return NaN for each ratio that layouts show: those of a group without a counterpart."""
    return dict.fromkeys(RATIOS_OF_LAYOUTS, math.nan)


def _ratio(size: int, base_size: int) -> float:
    return size / base_size if size and base_size else math.nan


def _depth(group: Group) -> int:
    """Return the number of blocks of a group's role; experts are no blocks."""
    return math.prod(_counts(group, of_experts=False))


def _experts(group: Group) -> int:
    """Return the number of experts beside which a group stands, 1 if there are none."""
    if group.kind is GroupKind.ROUTER:
        return group.fan_out
    named = math.prod(_counts(group, of_experts=True))
    if group.kind is GroupKind.EXPERT and named == 1 and len(group.shape) == 3:
        return group.shape[0]  # one tensor for all experts
    return named


def _counts(group: Group, *, of_experts: bool) -> Iterable[int]:
    axes = _axes(group.role, len(group.counts), group.kind is GroupKind.EXPERT)
    return (
        count
        for axis, count in zip(axes, group.counts, strict=True)
        if (axis is Axis.EXPERT) == of_experts
    )


@lru_cache(maxsize=4_096)  # all groups of a role have the same axes
def _axes(role: str, count: int, is_expert: bool) -> tuple[Axis, ...]:
    """Return what the blocks along each index of a role are.

    Args:
        role: The role.
        count: Number of its indices.
        is_expert: Whether the groups are experts. A given role may not show where the experts are:
            they are inside the outermost blocks.
    """
    axes = axes_of(role, count)
    if is_expert and Axis.EXPERT not in axes:
        return (axes[0], *(Axis.EXPERT,) * (count - 1))
    return axes
