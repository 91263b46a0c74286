"""The ordered groups of a model, each with its place: a role and block indices."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from advisor.policy.block_rows import Row, RowKey, rows_of, size_changes
from advisor.policy.control_characters import check_controls
from advisor.policy.errors import InvalidValueError, shown
from advisor.policy.parameter_names import (
    check_templates,
    clean_names,
    compiled,
    containers_of_modules,
    spell,
    without_wrappers,
)

MAX_NAME_CHARACTERS = 512
MAX_GROUPS = 20_000
MAX_FROZEN_NAMES = 100_000
MAX_POSITIONS = 1_000_000  # of all roles that are given, together


@dataclass(frozen=True, slots=True)
class Group:
    """The parameters that share one multiplier.

    Attributes:
        name: The parameter's name, 1 to 512 characters.
        role: The name with its block index taken out; empty: to be derived from the name.
        depth_index: Position among the parameters of the same role, from 0 at the input.
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
class Place:
    """Where a group stands in its model.

    Attributes:
        role: Its role, without wrappers.
        numbers: Its block indices, outermost first: as the name has them, or the given positions;
            a name without any counts as block 0 of 1.
        rows: For each index the blocks along it.
        fixed: For each other number of the path all numbers that its container holds; None: the
            role is given, so nothing is known of them.
    """

    role: str
    numbers: tuple[int, ...]
    rows: tuple[Row, ...]
    fixed: tuple[frozenset[int], ...] | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Groups in order, each with role and depth. Build it with :meth:`of`.

    Attributes:
        groups: The groups.
        role_templates: How names are to be read, see :mod:`advisor.policy.parameter_names`.
        frozen_names: Names of the parameters that are not trained. They have no multipliers, but
            count where blocks are counted.
        frozen_parameter_counts: How many scalar parameters each of those has; empty: unknown.
        places: Where each group stands.
    """

    groups: tuple[Group, ...]
    role_templates: tuple[str, ...] = ()
    frozen_names: tuple[str, ...] = ()
    frozen_parameter_counts: tuple[int, ...] = ()
    places: tuple[Place, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls,
        groups: Iterable[Group],
        role_templates: Sequence[str] = (),
        frozen_names: Sequence[str] = (),
        frozen_parameter_counts: Sequence[int] = (),
    ) -> Layout:
        """Check the groups and derive the roles that are not given.

        Args:
            groups: The groups.
            role_templates: Tried in order before block indices are looked for.
            frozen_names: Names of the parameters that are not trained.
            frozen_parameter_counts: Their sizes, as many, or none.

        Raises:
            InvalidValueError: No group, too many, a bad name or depth, or a name given twice.
        """
        checked, frozen = tuple(groups), tuple(frozen_names)
        if not checked:
            raise InvalidValueError("groups", "the layout has no group; name at least one")
        if len(checked) > MAX_GROUPS:
            raise InvalidValueError(
                "groups", f"{len(checked)} groups, but at most {MAX_GROUPS} are served; merge some"
            )
        if len(frozen) > MAX_FROZEN_NAMES:
            raise InvalidValueError(
                "frozen_names", f"{len(frozen)} names, but at most {MAX_FROZEN_NAMES} are served"
            )
        seen: dict[str, str] = {}
        for i, group in enumerate(checked):
            _check_group(i, group)
            _check_unseen(f"groups[{i}].name", f"groups[{i}]", group.name, seen)
        for i, name in enumerate(frozen):
            if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
                raise InvalidValueError(
                    f"frozen_names[{i}]",
                    f"{len(name)} characters, but 1 to {MAX_NAME_CHARACTERS} are needed",
                )
            check_controls(f"frozen_names[{i}]", name)
            _check_unseen(f"frozen_names[{i}]", f"frozen_names[{i}]", name, seen)
        sizes = tuple(frozen_parameter_counts)
        if len(sizes) not in {0, len(frozen)}:
            raise InvalidValueError(
                "frozen_parameter_counts",
                f"{len(sizes)} entries, but there are {len(frozen)} frozen_names; give one for "
                "each, or none",
            )
        if any(size < 0 for size in sizes):
            raise InvalidValueError("frozen_parameter_counts", f"{min(sizes)} is below 0")
        templates = check_templates("role_templates", role_templates)
        derived = _derived(checked, templates, frozen, sizes)
        given = _given(checked)
        layout = cls(
            tuple(
                group if group.role else _filled(group, place)
                for group, place in zip(checked, derived, strict=True)
            ),
            templates,
            frozen,
            sizes,
            tuple(
                place if _says(group, place) else _place_given(group, given)
                for group, place in zip(checked, derived, strict=True)
            ),
        )
        _check_roles(layout.groups)
        return layout

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Layout:
        """Return the layout of the given names, roles derived."""
        return cls.of(Group(name) for name in names)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in the order of their first groups."""
        return tuple(dict.fromkeys(group.role for group in self.groups))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)


def _check_unseen(field_name: str, where: str, name: str, seen: dict[str, str]) -> None:
    if name in seen:
        raise InvalidValueError(
            field_name, f"{shown(name)} is also the name of {seen[name]}; names must be unique"
        )
    seen[name] = where


def _check_group(index: int, group: Group) -> None:
    for attribute, text in (("name", group.name), ("role", group.role)):
        if len(text) > MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                f"groups[{index}].{attribute}",
                f"{len(text)} characters, but at most {MAX_NAME_CHARACTERS} are allowed",
            )
        check_controls(f"groups[{index}].{attribute}", text)
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


def _derived(
    groups: tuple[Group, ...],
    templates: tuple[str, ...],
    frozen: tuple[str, ...],
    frozen_sizes: tuple[int, ...],
) -> list[Place]:
    """Return the place of each group as its name tells it."""
    names = clean_names([*(group.name for group in groups), *frozen])
    sizes = [*(group.parameter_count for group in groups), *(frozen_sizes or [0] * len(frozen))]
    containers = containers_of_modules(names)
    patterns = compiled(templates)
    spellings = [spell(name, patterns, containers) for name in names]
    rows = rows_of(spellings, sizes)
    fixed: defaultdict[str, set[int]] = defaultdict(set)
    for spelling in spellings:
        for prefix, number in spelling.fixed:
            fixed[prefix].add(number)
    others = {prefix: frozenset(found) for prefix, found in fixed.items()}
    return [
        Place(
            spelling.role,
            spelling.numbers or (0,),
            tuple(
                rows[spelling.role, spelling.numbers[:axis]]
                for axis in range(len(spelling.numbers))
            )
            or (_ALONE,),
            tuple(others[prefix] for prefix, _ in spelling.fixed),
        )
        for spelling in spellings[: len(groups)]
    ]


def _filled(group: Group, place: Place) -> Group:
    """Return a group with role and depth as its place has them."""
    pairs = zip(place.rows, place.numbers, strict=True)
    ranks = [bisect_left(row.members, number) for row, number in pairs]
    counts = [len(row.members) for row in place.rows]
    return replace(
        group,
        role=place.role,
        depth_index=ranks[0],
        depth_count=counts[0],
        inner_indices=tuple(ranks[1:]),
        inner_counts=tuple(counts[1:]),
    )


def _says(group: Group, place: Place) -> bool:
    """Return whether a group says nothing that its name does not tell."""
    return not group.role or group == _filled(group, place)


def _place_given(group: Group, rows: dict[RowKey, Row]) -> Place:
    """Return the place that a group gives."""
    own = tuple(rows[group.role, group.indices[:axis]] for axis in range(len(group.indices)))
    return Place(without_wrappers(group.role), group.indices, own, None)


def _given(groups: tuple[Group, ...]) -> dict[RowKey, Row]:
    """Return the rows of the roles that are given, by role and outer positions.

    Raises:
        InvalidValueError: They are longer than any model's, and would fill the memory.
    """
    room = MAX_POSITIONS
    sizes: defaultdict[RowKey, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[RowKey, int] = {}
    for i, group in enumerate(groups):
        for axis, count in enumerate(group.counts if group.role else ()):
            key = group.role, group.indices[:axis]
            room -= count if key not in counts else 0
            if room < 0:
                raise InvalidValueError(
                    f"groups[{i}].depth_count",
                    f"with {count} more the given roles have over {MAX_POSITIONS} positions in "
                    "all, most of them without a group; give the counts of the model's own blocks",
                )
            counts[key] = count
            sizes[key][group.indices[axis]].append(group.parameter_count)
    rows = {}
    whole = {count: tuple(range(count)) for count in counts.values()}
    held = {count: frozenset(numbers) for count, numbers in whole.items()}
    for key, count in counts.items():
        numbers = whole[count]
        blocks = {n: tuple(sorted(sizes[key].get(n, [0]))) for n in numbers}
        sized = all(all(size) for size in blocks.values())
        rows[key] = Row(held[count], numbers, numbers, size_changes(blocks), sized)
    return rows


_ALONE = Row(frozenset({0}), (0,), (0,))
