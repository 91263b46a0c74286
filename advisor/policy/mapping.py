"""Maps a layout onto a profile's layout: which base groups each group corresponds to.

First both layouts are brought into one spelling: wrappers are stripped from names, and the
profile's alias table rewrites names that it does not know. Then each group is matched with the base
groups of its role, index by index, outermost first (:mod:`advisor.policy.matching`): block for
block where both models hold the same ones, by overlap where depth differs
(:mod:`advisor.policy.depth_overlap`). At most one depth index of a role may differ in its number of
blocks. Stages may not. Blocks that contain rows of blocks may only if their sizes are known, which
distinguishes them from stages. The number of experts may always differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.policy.aliases import GroupAlias
from advisor.policy.common_spelling import in_common_spelling
from advisor.policy.errors import LayoutMismatchError
from advisor.policy.layout import Layout
from advisor.policy.layout_mapping import LayoutMapping
from advisor.policy.matching import BaseGroups, Counterparts
from advisor.policy.nearest_roles import nearest_roles
from advisor.policy.rules import DepthRule, Match, UnmatchedRule
from advisor.policy.wrappers import clean_names

# Base groups that stand in for missing roles, per group of both layouts. No real model needs more,
# and a hostile one would fill the memory.
_MAX_STAND_INS_PER_GROUP = 4


def map_layout(
    layout: Layout,
    base: Layout,
    depth_rule: DepthRule,
    *,
    aliases: Sequence[GroupAlias] = (),
    unmatched_rule: UnmatchedRule = UnmatchedRule.ERROR,
) -> LayoutMapping:
    """Map a run's layout onto a profile's.

    Groups without a counterpart are marked as such; :func:`refusal` decides about them.

    Args:
        layout: The run's layout.
        base: The profile's layout.
        depth_rule: How references follow from base rates where depth differs.
        aliases: The profile's alias table, checked.
        unmatched_rule: With ``NEAREST_ROLE`` the nearest role stands in for a missing one.
    """
    base_names = clean_names([group.name for group in base.groups])
    base_roles = _role_indices(base)
    layout, base, rewritten = in_common_spelling(layout, base, aliases)
    names = clean_names([group.name for group in layout.groups])
    base_groups = BaseGroups(base, depth_rule)
    found = [base_groups.counterparts(place, place.role) for place in layout.places]
    matches = [Match.NONE] * len(layout)
    for i, counterparts in enumerate(found):
        if counterparts is not None:
            base_name = base_names[counterparts.sources[0].group]
            same_name = not counterparts.resized and base_name == names[i]
            plain = Match.NAME if same_name else Match.ROLE
            matches[i] = Match.ALIAS if i in rewritten else plain
    if unmatched_rule is UnmatchedRule.NEAREST_ROLE:
        for i, stand_in in _stand_ins(layout, base, base_groups, found).items():
            found[i], matches[i] = stand_in, Match.NEAREST_ROLE
    return _assembled(depth_rule, found, matches, base_roles)


def _role_indices(layout: Layout) -> list[int]:
    """Return the role of each group, as an index of ``layout.roles``."""
    indices = {role: i for i, role in enumerate(layout.roles)}
    return [indices[group.role] for group in layout.groups]


def _stand_ins(
    layout: Layout,
    base: Layout,
    base_groups: BaseGroups,
    found: Sequence[Counterparts | None],
) -> dict[int, Counterparts]:
    """Return counterparts in the nearest role for groups that have none, by the group's index."""
    missing = [i for i, counterparts in enumerate(found) if counterparts is None]
    # A layer with fixed numbers is the only one of its kind: no role is near to it.
    wanted = {layout.places[i].role for i in missing if not layout.places[i].fixed}
    available = {place.role for place in base.places if not place.fixed}
    nearest = nearest_roles(wanted, [role for role in base_groups.roles if role in available])
    room = _MAX_STAND_INS_PER_GROUP * (len(layout) + len(base))
    stand_ins = {}
    for i in missing:
        place = layout.places[i]
        if place.role not in nearest:
            continue
        stand_in = base_groups.counterparts(place, nearest[place.role])
        if stand_in is None:
            continue
        room -= len(stand_in.sources)
        if room >= 0:
            stand_ins[i] = stand_in
    return stand_ins


def _assembled(
    depth_rule: DepthRule,
    found: Sequence[Counterparts | None],
    matches: Sequence[Match],
    base_roles: Sequence[int],
) -> LayoutMapping:
    """Return the mapping in coordinate form.

    Args:
        depth_rule: How references follow from base rates where depth differs.
        found: The counterparts of each group of the run.
        matches: How they were found.
        base_roles: Role of each base group, as an index.
    """
    families: dict[tuple[object, ...], int] = {}
    family_roles: dict[int, int] = {}
    group_families: list[int] = []
    blocks: dict[tuple[int, tuple[int, ...]], int] = {}
    entries: list[tuple[int, int, float, float, int]] = []
    for target, counterparts in enumerate(found):
        if counterparts is None:
            group_families.append(-1)
            continue
        family = families.setdefault(counterparts.family, len(families))
        group_families.append(family)
        family_roles[family] = base_roles[counterparts.sources[0].group]
        for source, share, span, block_path in counterparts.sources:
            block = blocks.setdefault((family, block_path), len(blocks))
            entries.append((target, source, share, span, block))
    targets, sources, shares, spans, entry_blocks = (
        zip(*entries, strict=True) if entries else [()] * 5
    )
    return LayoutMapping(
        depth_rule=depth_rule,
        targets=np.array(targets, dtype=np.intp),
        sources=np.array(sources, dtype=np.intp),
        shares=np.array(shares, dtype=np.float64),
        spans=np.array(spans, dtype=np.float64),
        blocks=np.array(entry_blocks, dtype=np.intp),
        block_families=np.array([family for family, _ in blocks], dtype=np.intp),
        matches=tuple(matches),
        families=np.array(group_families, dtype=np.intp),
        base_roles=np.array([*family_roles.values()], dtype=np.intp),
    )


def refusal(
    layout: Layout, mapping: LayoutMapping, unmatched_rule: UnmatchedRule
) -> LayoutMismatchError | None:
    """Return the error that refuses a mapped layout, or None if it can be advised.

    Args:
        layout: The run's layout.
        mapping: The layout, mapped onto the profile's.
        unmatched_rule: What happens to groups without a counterpart. A layout of which no group has
            one is always refused.
    """
    if mapping.matched.all():
        return None
    unmatched = [
        group.name
        for group, matched in zip(layout.groups, mapping.matched, strict=True)
        if not matched
    ]
    nothing_maps = len(unmatched) == len(layout)
    if unmatched and (nothing_maps or unmatched_rule is UnmatchedRule.ERROR):
        return LayoutMismatchError(unmatched, len(layout))
    return None
