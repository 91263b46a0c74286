"""The ordered groups of a model, and how a role is read off a name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from advisor.policy.errors import InvalidValueError, shown

MAX_NAME_CHARACTERS = 512
MAX_GROUPS = 20_000


@dataclass(frozen=True, slots=True)
class Group:
    """The parameters that share one multiplier.

    Attributes:
        name: The parameter's name, 1 to 512 characters.
        role: The name with its block index taken out; empty: to be derived from the name.
        depth_index: Position among the groups of the same role, from 0 at the input.
        depth_count: Number of positions of the role, at least 1 where the role is given.
        parameter_count: Number of scalar parameters; 0: unknown.
    """

    name: str
    role: str = ""
    depth_index: int = 0
    depth_count: int = 0
    parameter_count: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Groups in order, each with role and depth. Build it with :meth:`of`.

    Attributes:
        groups: The groups.
    """

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Layout:
        """Check the groups and derive the roles that are not given.

        Raises:
            InvalidValueError: No group, too many, a bad name or depth, or a name given twice.
        """
        checked = tuple(groups)
        if not checked:
            raise InvalidValueError("groups", "the layout has no group; name at least one")
        if len(checked) > MAX_GROUPS:
            raise InvalidValueError(
                "groups", f"{len(checked)} groups, but at most {MAX_GROUPS} are served; merge some"
            )
        seen: dict[str, int] = {}
        for i, group in enumerate(checked):
            _check_group(i, group)
            if group.name in seen:
                raise InvalidValueError(
                    f"groups[{i}].name",
                    f"{shown(group.name)} is also the name of groups[{seen[group.name]}]; "
                    "names must be unique",
                )
            seen[group.name] = i
        layout = cls(_with_roles(checked))
        _check_roles(layout.groups)
        return layout

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Layout:
        """Return the layout of the given names, roles derived."""
        return cls.of(Group(name) for name in names)

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)


def _check_group(index: int, group: Group) -> None:
    for field, text in (("name", group.name), ("role", group.role)):
        if len(text) > MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                f"groups[{index}].{field}",
                f"{len(text)} characters, but at most {MAX_NAME_CHARACTERS} are allowed",
            )
    if not group.name:
        raise InvalidValueError(f"groups[{index}].name", "empty; give the parameter's name")
    if group.parameter_count < 0:
        raise InvalidValueError(
            f"groups[{index}].parameter_count", f"{group.parameter_count} is below 0"
        )
    if group.role and not 0 <= group.depth_index < group.depth_count:
        raise InvalidValueError(
            f"groups[{index}].depth_index",
            f"{group.depth_index} is not in [0, depth_count = {group.depth_count})",
        )
    if group.role and group.depth_count > MAX_GROUPS:
        raise InvalidValueError(
            f"groups[{index}].depth_count", f"{group.depth_count} is above {MAX_GROUPS}"
        )


def _check_roles(groups: tuple[Group, ...]) -> None:
    """Refuse roles that say two things: references would silently be those of one of them."""
    counts: dict[str, int] = {}
    positions: dict[tuple[str, int], int] = {}
    for i, group in enumerate(groups):
        count = counts.setdefault(group.role, group.depth_count)
        if count != group.depth_count:
            raise InvalidValueError(
                f"groups[{i}].depth_count",
                f"{group.depth_count}, but another group of the role {shown(group.role)} says "
                f"{count}",
            )
        other = positions.setdefault((group.role, group.depth_index), i)
        if other != i:
            raise InvalidValueError(
                f"groups[{i}].depth_index",
                f"{group.depth_index} is also that of groups[{other}] of the role "
                f"{shown(group.role)}; give one of the two groups another role",
            )


def split_role(name: str) -> tuple[str, int]:
    """Return the role of a name and its block index, or the name itself and -1.

    The first path segment that is a number is the block index: ``blocks.3.up.weight`` has the role
    ``blocks.*.up.weight`` and the index 3.
    """
    segments = name.split(".")
    for i, segment in enumerate(segments):
        if segment.isascii() and segment.isdigit():
            return ".".join([*segments[:i], "*", *segments[i + 1 :]]), int(segment)
    return name, -1


def _with_roles(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """Derive role and depth of the groups that give none: ranks of block indices within a role."""
    derived = {i: split_role(group.name) for i, group in enumerate(groups) if not group.role}
    indices: defaultdict[str, set[int]] = defaultdict(set)
    for role, index in derived.values():
        indices[role].add(index)
    ranks = {role: {v: rank for rank, v in enumerate(sorted(s))} for role, s in indices.items()}
    return tuple(
        replace(
            group,
            role=derived[i][0],
            depth_index=ranks[derived[i][0]][derived[i][1]],
            depth_count=len(ranks[derived[i][0]]),
        )
        if i in derived
        else group
        for i, group in enumerate(groups)
    )
