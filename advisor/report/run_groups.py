"""The groups of a run by role and by block, which is what its pictures need of a layout.

A :class:`~advisor.policy.Layout` also knows where each block could stand in other models. Deriving
that takes five times as long, and whoever opens the page of a run with 10,000 groups would wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from advisor.policy import Layout
from advisor.policy.arrays import Floats
from advisor.policy.name_patterns import compile_templates
from advisor.policy.parameter_names import ParsedName, parse_names
from advisor.policy.wrappers import clean_names
from advisor.report.parts import Parts, by_role
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import layout_pb2

_LAST_SEGMENT = re.compile(r"[./][^./]*$")


@dataclass(frozen=True, slots=True, eq=False)
class RunGroups:
    """The groups of a run.

    Attributes:
        names: Their names.
        sizes: Number of scalars of each group, at least 1, shape [groups].
        roles: Their roles: a tensor of all blocks is one part.
        blocks: Their blocks, such as ``blocks.3``, and the modules outside of blocks. In a model
            with several indices, such as stages of blocks or blocks of experts, the outermost one
            counts.
    """

    names: tuple[str, ...]
    sizes: Floats
    roles: Parts
    blocks: Parts

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.names)

    @classmethod
    def of(cls, message: layout_pb2.Layout) -> RunGroups:
        """Return the groups of a layout that a service has accepted.

        Args:
            message: The layout; roles that are absent are derived from the names.

        Raises:
            InvalidValueError: The layout has no groups, or its given roles contradict each other.
        """
        names = tuple([group.name for group in message.groups])
        sizes = np.array([group.parameter_count for group in message.groups], np.float64)
        if not names or any(group.role for group in message.groups):
            layout = layout_from_proto(message)
            roles, blocks = by_role(layout), Parts.of(_blocks_of_layout(layout))
        else:
            parsed = parse_names(
                clean_names([*names, *message.frozen_names]),
                compile_templates(message.role_templates),
            )[: len(names)]
            roles = Parts.of(name.role for name in parsed)
            blocks = Parts.of(_blocks_of_names(parsed))
        return cls(names, np.maximum(sizes, 1.0), roles, blocks)


def _blocks_of_layout(layout: Layout) -> Iterator[str]:
    """Yield the block of each group, by given roles and positions where there are any."""
    for group, place in zip(layout.groups, layout.places, strict=True):
        block = _block(group.role, place.numbers[0])
        has_positions = "*" not in group.role and group.depth_count > 1
        yield f"{block} {group.depth_index}" if has_positions else block


def _blocks_of_names(names: Sequence[ParsedName]) -> Iterator[str]:
    """Yield the block of each name."""
    for name in names:
        yield _block(name.role, name.numbers[0] if name.numbers else 0)


def _block(role: str, number: int) -> str:
    """Return the block, or the module outside of blocks, of a role's group.

    Args:
        role: The role.
        number: The group's outermost block index.
    """
    start, star, _ = role.partition("*")
    return f"{start}{number}" if star else _LAST_SEGMENT.sub("", role)
