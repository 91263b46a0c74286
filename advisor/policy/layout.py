"""The ordered groups of a model, each with its place: a role and block indices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from advisor.policy.errors import InvalidValueError, shown
from advisor.policy.naming import check_templates, clean_names, split_role

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
        inner_indices: Where a role has several indices (stage and block, layer and expert): the
            positions along the further ones, from the outermost.
        inner_counts: Number of positions along each of them, inside the same outer block.
    """

    name: str
    role: str = ""
    depth_index: int = 0
    depth_count: int = 0
    parameter_count: int = 0
    inner_indices: tuple[int, ...] = ()
    inner_counts: tuple[int, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """Position along each index of the role, outermost first."""
        return (self.depth_index, *self.inner_indices)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of positions along each index of the role."""
        return (self.depth_count, *self.inner_counts)


@dataclass(frozen=True, slots=True)
class Layout:
    """Groups in order, each with role and depth. Build it with :meth:`of`.

    Attributes:
        groups: The groups.
        role_templates: How names are to be read, see :mod:`advisor.policy.naming`.
        given: The groups before roles were derived.
    """

    groups: tuple[Group, ...]
    role_templates: tuple[str, ...] = ()
    given: tuple[Group, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, groups: Iterable[Group], role_templates: Sequence[str] = ()) -> Layout:
        """Check the groups and derive the roles that are not given.

        Args:
            groups: The groups.
            role_templates: Tried in order before block indices are looked for.

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
        templates = check_templates("role_templates", role_templates)
        layout = cls(_with_roles(checked, templates), templates, checked)
        _check_roles(layout.groups)
        return layout

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Layout:
        """Return the layout of the given names, roles derived."""
        return cls.of(Group(name) for name in names)

    def read_by(self, role_templates: Sequence[str]) -> Layout:
        """Return the layout with the roles that were derived read by other templates."""
        return Layout.of(self.given or self.groups, role_templates)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in the order of their first groups."""
        return tuple(dict.fromkeys(group.role for group in self.groups))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)


def _check_group(index: int, group: Group) -> None:
    for attribute, text in (("name", group.name), ("role", group.role)):
        if len(text) > MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                f"groups[{index}].{attribute}",
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
    if group.role:
        _check_inner(index, group)


def _check_inner(index: int, group: Group) -> None:
    if len(group.inner_indices) != len(group.inner_counts):
        raise InvalidValueError(
            f"groups[{index}].inner_counts",
            f"{len(group.inner_counts)} entries, but inner_indices has "
            f"{len(group.inner_indices)}; give one for each",
        )
    for i, (inner, count) in enumerate(zip(group.inner_indices, group.inner_counts, strict=True)):
        if not (0 <= inner < count <= MAX_GROUPS):
            raise InvalidValueError(
                f"groups[{index}].inner_indices[{i}]",
                f"{inner} is not in [0, inner_counts[{i}] = {count}), or that is above "
                f"{MAX_GROUPS}",
            )


def _check_roles(groups: tuple[Group, ...]) -> None:
    """Refuse roles that say two things: references would silently be those of one of them."""
    counts: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    positions: dict[tuple[str, tuple[int, ...]], int] = {}
    for i, group in enumerate(groups):
        for axis, count in enumerate(group.counts):
            known = counts.setdefault(
                (group.role, group.indices[:axis]), (count, len(group.counts))
            )
            if known != (count, len(group.counts)):
                field = "depth_count" if axis == 0 else f"inner_counts[{axis - 1}]"
                raise InvalidValueError(
                    f"groups[{i}].{field}",
                    f"{count} of {len(group.counts)} indices, but another group of the role "
                    f"{shown(group.role)} says {known[0]} of {known[1]}",
                )
        other = positions.setdefault((group.role, group.indices), i)
        if other != i:
            raise InvalidValueError(
                f"groups[{i}].depth_index",
                f"{', '.join(map(str, group.indices))} is also that of groups[{other}] of the role "
                f"{shown(group.role)}; give one of the two groups another role",
            )


def _with_roles(groups: tuple[Group, ...], templates: tuple[str, ...]) -> tuple[Group, ...]:
    """Derive role and place of the groups that give none: ranks of block indices in a role."""
    names = clean_names([group.name for group in groups])
    derived = {
        i: split_role(names[i], templates) for i, group in enumerate(groups) if not group.role
    }
    siblings: defaultdict[tuple[str, tuple[int, ...]], set[int]] = defaultdict(set)
    for role, indices in derived.values():
        for axis, index in enumerate(indices):
            siblings[role, indices[:axis]].add(index)
    ranks = {key: {v: rank for rank, v in enumerate(sorted(s))} for key, s in siblings.items()}

    def placed(group: Group, role: str, indices: tuple[int, ...]) -> Group:
        axes = [ranks[role, indices[:axis]] for axis in range(len(indices))] or [{-1: 0}]
        position = [axis[index] for axis, index in zip(axes, indices or (-1,), strict=True)]
        return replace(
            group,
            role=role,
            depth_index=position[0],
            depth_count=len(axes[0]),
            inner_indices=tuple(position[1:]),
            inner_counts=tuple(len(axis) for axis in axes[1:]),
        )

    return tuple(
        placed(group, *derived[i]) if i in derived else group for i, group in enumerate(groups)
    )
