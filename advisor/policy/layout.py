"""The ordered groups of a model, each with its place: its role and block indices."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from advisor.policy.block_rows import Row, RowKey, rows_of, size_changes
from advisor.policy.control_characters import check_controls
from advisor.policy.counts import count_of
from advisor.policy.errors import InvalidValueError, shown
from advisor.policy.groups import MAX_GROUPS, MAX_NAME_CHARACTERS, Group, check_group
from advisor.policy.name_patterns import check_templates, compile_templates
from advisor.policy.parameter_names import ParsedName, parse_names
from advisor.policy.ranges import NON_NEGATIVE
from advisor.policy.wrappers import clean_names, strip_wrappers

MAX_FROZEN_NAMES = 100_000
MAX_POSITIONS = 1_000_000  # of all given roles together


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a group in its model.

    Attributes:
        role: Its role, without wrappers.
        numbers: Its block indices, outermost first: the ones in the name, or the given positions. A
            name without any counts as block 0 of 1.
        rows: The blocks along each index.
        fixed: All numbers that the container of each fixed number of the path holds; None: unknown,
            as the role is given.
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
        role_templates: Patterns of names, see :mod:`advisor.policy.parameter_names`.
        frozen_names: Names of parameters that are not trained. They have no multipliers, but their
            blocks are counted.
        frozen_parameter_counts: Number of scalars of each of them; empty: unknown.
        initial_rms: Root mean square of each group's entries before the first step; None: unknown;
            empty: all unknown. It depends on the seed, so layouts that differ only here are equal.
        places: The place of each group.
    """

    groups: tuple[Group, ...]
    role_templates: tuple[str, ...] = ()
    frozen_names: tuple[str, ...] = ()
    frozen_parameter_counts: tuple[int, ...] = ()
    initial_rms: tuple[float | None, ...] = field(default=(), compare=False)
    places: tuple[Place, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(
        cls,
        groups: Iterable[Group],
        role_templates: Sequence[str] = (),
        frozen_names: Sequence[str] = (),
        frozen_parameter_counts: Sequence[int] = (),
        initial_rms: Sequence[float | None] = (),
    ) -> Layout:
        """Check the groups and derive the roles that are not given.

        Args:
            groups: The groups.
            role_templates: Tried in order before the general rules for block indices.
            frozen_names: Names of parameters that are not trained.
            frozen_parameter_counts: Number of scalars of each of them, or empty.
            initial_rms: See the attribute; one for each group, or empty.

        Raises:
            InvalidValueError: There is no group or too many, a value is out of its range, a name
                occurs twice, or given roles contradict each other.
        """
        checked, frozen = tuple(groups), tuple(frozen_names)
        sizes = tuple(frozen_parameter_counts)
        _check_groups_and_names(checked, frozen)
        _check_frozen_sizes(sizes, len(frozen))
        templates = check_templates("role_templates", role_templates)
        derived = _derived_places(checked, templates, frozen, sizes)
        given_rows = _given_rows(checked)
        filled, places = [], []
        for group, derived_place in zip(checked, derived, strict=True):
            positions, counts = _positions(derived_place)
            stated = derived_place.role, positions, counts
            is_derived = not group.role or (group.role, group.indices, group.counts) == stated
            filled.append(group if group.role else _with_place(group, *stated))
            places.append(derived_place if is_derived else _given_place(group, given_rows))
        layout = cls(tuple(filled), templates, frozen, sizes, places=tuple(places))
        _check_given_roles(layout.groups)
        return layout.with_initial_rms(initial_rms)

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Layout:
        """Return the layout of the given names, with derived roles."""
        return cls.of(Group(name) for name in names)

    def with_initial_rms(self, initial_rms: Sequence[float | None]) -> Layout:
        """Return the layout with other initial weights.

        Args:
            initial_rms: See the attribute; one for each group, or empty.

        Raises:
            InvalidValueError: Their number is wrong, or one is negative or not finite.
        """
        if len(initial_rms) not in {0, len(self.groups)}:
            raise InvalidValueError(
                "initial_rms",
                f"{count_of(len(initial_rms), 'entry')}, but the layout has "
                f"{count_of(len(self.groups), 'group')}; give one for each, or none",
            )
        for i, rms in enumerate(initial_rms):
            if rms is not None:
                NON_NEGATIVE.check(f"groups[{i}].initial_rms", rms)
        known = any(rms is not None for rms in initial_rms)
        # -0 becomes 0: the two are equal, but a profile's digest would differ.
        numbers = tuple(None if rms is None else rms + 0.0 for rms in initial_rms if known)
        return self if numbers == self.initial_rms else replace(self, initial_rms=numbers)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in the order of their first groups."""
        return tuple(dict.fromkeys(group.role for group in self.groups))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)


def _check_groups_and_names(groups: Sequence[Group], frozen_names: Sequence[str]) -> None:
    if not groups:
        raise InvalidValueError("groups", "the layout has no group; name at least one")
    if len(groups) > MAX_GROUPS:
        raise InvalidValueError(
            "groups", f"{len(groups)} groups, but at most {MAX_GROUPS} are allowed; merge some"
        )
    if len(frozen_names) > MAX_FROZEN_NAMES:
        raise InvalidValueError(
            "frozen_names", f"{len(frozen_names)} names, but at most {MAX_FROZEN_NAMES} are allowed"
        )
    seen: dict[str, str] = {}
    for i, group in enumerate(groups):
        check_group(f"groups[{i}]", group)
        _check_unique(f"groups[{i}].name", f"groups[{i}]", group.name, seen)
    for i, name in enumerate(frozen_names):
        if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                f"frozen_names[{i}]",
                f"{len(name)} characters, but 1 to {MAX_NAME_CHARACTERS} are needed",
            )
        check_controls(f"frozen_names[{i}]", name)
        _check_unique(f"frozen_names[{i}]", f"frozen_names[{i}]", name, seen)


def _check_frozen_sizes(sizes: Sequence[int], frozen: int) -> None:
    if len(sizes) not in {0, frozen}:
        raise InvalidValueError(
            "frozen_parameter_counts",
            f"{count_of(len(sizes), 'entry')}, but the layout has "
            f"{count_of(frozen, 'frozen name')}; give one for each, or none",
        )
    if any(size < 0 for size in sizes):
        raise InvalidValueError("frozen_parameter_counts", f"{min(sizes)} is below 0")


def _check_unique(field_name: str, where: str, name: str, seen: dict[str, str]) -> None:
    if name in seen:
        raise InvalidValueError(
            field_name, f"{shown(name)} is also the name of {seen[name]}; names must be unique"
        )
    seen[name] = where


def _check_given_roles(groups: Sequence[Group]) -> None:
    """Refuse roles whose groups contradict each other.

    Their references would silently follow only one of the groups.

    Raises:
        InvalidValueError: Two groups of a role have the same position, or give different counts.
    """
    counts: dict[RowKey, tuple[int, int]] = {}
    positions: dict[RowKey, int] = {}
    for i, group in enumerate(groups):
        for axis, count in enumerate(group.counts):
            known = counts.setdefault(
                (group.role, group.indices[:axis]), (count, len(group.counts))
            )
            if known != (count, len(group.counts)):
                field_name = "depth_count" if axis == 0 else f"inner_counts[{axis - 1}]"
                raise InvalidValueError(
                    f"groups[{i}].{field_name}",
                    f"{count} of {len(group.counts)} indices, but another group of the role "
                    f"{shown(group.role)} says {known[0]} of {known[1]}",
                )
        other = positions.setdefault((group.role, group.indices), i)
        if other != i:
            raise InvalidValueError(
                f"groups[{i}].depth_index",
                f"{', '.join(map(str, group.indices))} is also the position of groups[{other}] of "
                f"the role {shown(group.role)}; give one of the two groups a different role",
            )


def _derived_places(
    groups: Sequence[Group],
    templates: Sequence[str],
    frozen: Sequence[str],
    frozen_sizes: Sequence[int],
) -> list[Place]:
    """Return the place of each group as derived from all names."""
    names = clean_names([*(group.name for group in groups), *frozen])
    sizes = [*(group.parameter_count for group in groups), *(frozen_sizes or [0] * len(frozen))]
    parsed = parse_names(names, compile_templates(templates))
    rows = rows_of(parsed, sizes)
    fixed = _fixed_numbers(parsed)
    places = []
    for name in parsed[: len(groups)]:
        own_rows = [rows[name.role, name.numbers[:axis]] for axis in range(len(name.numbers))]
        own_fixed = tuple(fixed[prefix] for prefix, _ in name.fixed)
        if own_rows:
            places.append(Place(name.role, name.numbers, tuple(own_rows), own_fixed))
        else:
            places.append(Place(name.role, (0,), (_SINGLE_BLOCK,), own_fixed))
    return places


def _fixed_numbers(names: Iterable[ParsedName]) -> dict[str, frozenset[int]]:
    """Return all fixed numbers of each container."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        for prefix, number in name.fixed:
            found[prefix].add(number)
    return {prefix: frozenset(numbers) for prefix, numbers in found.items()}


def _positions(place: Place) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions of a place, and the number of positions along each index."""
    pairs = zip(place.rows, place.numbers, strict=True)
    positions = tuple(bisect_left(row.members, number) for row, number in pairs)
    return positions, tuple(len(row.members) for row in place.rows)


def _with_place(
    group: Group, role: str, positions: tuple[int, ...], counts: tuple[int, ...]
) -> Group:
    """Return a group with a role and positions."""
    return replace(
        group,
        role=role,
        depth_index=positions[0],
        depth_count=counts[0],
        inner_indices=positions[1:],
        inner_counts=counts[1:],
    )


def _given_place(group: Group, rows: Mapping[RowKey, Row]) -> Place:
    """Return the place that a group with a given role states."""
    own = tuple(rows[group.role, group.indices[:axis]] for axis in range(len(group.indices)))
    return Place(strip_wrappers(group.role), group.indices, own, None)


def _given_rows(groups: Sequence[Group]) -> dict[RowKey, Row]:
    """Return the rows of given roles, by role and outer positions.

    Raises:
        InvalidValueError: The rows are longer in total than any real model's. They would fill the
            memory.
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
                    f"with these {count} the given roles have more than {MAX_POSITIONS} positions "
                    "in total, most of them without a group; give the number of blocks that the "
                    "model has",
                )
            counts[key] = count
            sizes[key][group.indices[axis]].append(group.parameter_count)
    rows = {}
    numbers_by_count = {count: tuple(range(count)) for count in counts.values()}
    siblings = {count: frozenset(numbers) for count, numbers in numbers_by_count.items()}
    for key, count in counts.items():
        numbers = numbers_by_count[count]
        blocks = {n: tuple(sorted(sizes[key].get(n, [0]))) for n in numbers}
        sized = all(all(size) for size in blocks.values())
        rows[key] = Row(siblings[count], numbers, numbers, size_changes(blocks), sized)
    return rows


_SINGLE_BLOCK = Row(frozenset({0}), (0,), (0,))
