"""Brings the layouts of a run and of a base into one spelling, so that their roles compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from advisor.policy.aliases import AliasTable, GroupAlias
from advisor.policy.errors import InvalidValueError
from advisor.policy.framework_spellings import FrameworkSpellings
from advisor.policy.groups import Group
from advisor.policy.layout import Layout, Place
from advisor.policy.wrappers import clean_names


def in_common_spelling(
    layout: Layout, base: Layout, aliases: Sequence[GroupAlias]
) -> tuple[Layout, Layout, frozenset[int]]:
    """Return a run's layout and a base's in one spelling.

    A layout without role templates is read with the other's. Then the alias table rewrites the
    names of the run whose roles the base does not have. Where no alias fits, differences between
    the spellings of frameworks are removed (:mod:`advisor.policy.framework_spellings`).

    Args:
        layout: The run's layout.
        base: The base's layout.
        aliases: The profile's alias table, checked.

    Returns:
        The run's layout, the base's, and the indices of the groups that were rewritten.
    """
    if not base.role_templates:
        base = _with_templates(base, layout.role_templates)
    if not layout.role_templates:
        layout = _with_templates(layout, base.role_templates)
    base_roles = frozenset(place.role for place in base.places)
    spellings = _Spellings(AliasTable(aliases), FrameworkSpellings(base_roles))
    layout, rewritten = _rewritten(layout, spellings, base_roles)
    return layout, base, rewritten


@dataclass(frozen=True, slots=True)
class _Spellings:
    """Rewrites names into the base's spelling: by its aliases, else as frameworks differ."""

    aliases: AliasTable
    frameworks: FrameworkSpellings

    def rewritten(self, name: str) -> str | None:
        """Return the base's spelling of a name or role, or None."""
        return self.aliases.rewritten(name) or self.frameworks.rewritten(name)


def _with_templates(layout: Layout, role_templates: Sequence[str]) -> Layout:
    """Return a layout whose derived roles are derived again with role templates."""
    if not role_templates:
        return layout
    groups = map(_without_derived_role, layout.groups, layout.places)
    return Layout.of(groups, role_templates, layout.frozen_names, layout.frozen_parameter_counts)


def _without_derived_role(group: Group, place: Place) -> Group:
    """Return a group as it was before its role was derived; unchanged if its role was given."""
    if place.fixed is None:
        return group
    return Group(group.name, parameter_count=group.parameter_count)


def _rewritten(
    layout: Layout, table: _Spellings, base_roles: frozenset[str]
) -> tuple[Layout, frozenset[int]]:
    """Return a layout with names rewritten, and the indices of the groups that changed.

    A group whose role the base has keeps its name. So do groups that would all get the same name,
    as the alias is ambiguous.
    """
    unknown = [place.role not in base_roles for place in layout.places]
    old_names = clean_names([*(group.name for group in layout.groups), *layout.frozen_names])
    names = _rewritten_names(old_names, table, unknown)
    groups = list(map(_without_derived_role, layout.groups, layout.places))
    changed = set()
    for i, place in enumerate(layout.places):
        if names[i] != old_names[i]:
            groups[i] = Group(names[i], parameter_count=groups[i].parameter_count)
            changed.add(i)
            continue
        groups[i] = replace(groups[i], name=names[i])
        role = table.rewritten(place.role) if unknown[i] and place.fixed is None else None
        if role:
            groups[i] = replace(groups[i], role=role)
            changed.add(i)
    if not changed:
        return layout, frozenset()
    frozen_names = names[len(groups) :]
    try:
        spelled = Layout.of(
            groups, layout.role_templates, frozen_names, layout.frozen_parameter_counts
        )
    except InvalidValueError:  # given roles that contradict each other once rewritten
        return layout, frozenset()
    return spelled, frozenset(changed)


def _rewritten_names(names: Sequence[str], table: _Spellings, unknown: Sequence[bool]) -> list[str]:
    """Return the names after rewriting.

    Args:
        names: Names of the groups and then of frozen parameters, without wrappers.
        table: Rewrites names.
        unknown: Whether the base lacks the role of each group. Frozen names are always rewritten.
    """
    spelled = [
        (table.rewritten(name) or name) if i >= len(unknown) or unknown[i] else name
        for i, name in enumerate(names)
    ]
    counts = Counter(spelled)
    return [new if counts[new] == 1 else old for old, new in zip(names, spelled, strict=True)]
