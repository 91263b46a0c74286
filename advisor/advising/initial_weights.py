r"""Initial weights of a run that do not scale with the width and depth as the base's do.

Weights are random at the start, so an output of a layer is about as large as its inputs times
:math:`\sigma \sqrt{n}`, with the RMS :math:`\sigma` of the weights and the fan-in :math:`n`. It has
the same size at every width if :math:`\sigma \propto 1 / \sqrt n`, as in PyTorch's default and for
hidden matrices in muP (Yang et al., "Tensor Programs V", arXiv 2203.03466, table 3). With a
constant :math:`\sigma`, as in GPT-2, a run that is four times as wide starts with outputs twice as
large: a different function from the base's, whose rates differ for this reason too.

What is expected of the ratio of run to base, with the growths n of the fan-in, m of the fan-out and
L of the number of blocks:

=====================================================  =====================================
kind                                                   expected ratio
=====================================================  =====================================
hidden, convolution, expert, router, input, adapter A  1 / sqrt(n), or 1 / sqrt(n L)
readout                                                1 / sqrt(n) to 1 / n
embedding                                              1, or 1 / sqrt(m)
vector, adapter B                                      any: only zeros are compared
=====================================================  =====================================

The factor :math:`1 / \sqrt L` is that of projections into the residual stream in GPT-2.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from advisor.policy import GroupKind, Layout, LayoutMapping, Match
from advisor.policy.arrays import Floats

_TOLERANCE = 1.2  # factor; initial weights of one scale differ by less
_MATRICES = frozenset({
    *(GroupKind.HIDDEN, GroupKind.CONVOLUTION, GroupKind.EXPERT, GroupKind.ROUTER),
    *(GroupKind.INPUT, GroupKind.ADAPTER_A, GroupKind.READOUT),
})
_MAX_ROLES = 4  # named in one message
_MAX_SCALES = 3  # messages about scales
_TRAINED_SPREAD = 0.03  # of the logarithm of the RMS between the blocks of a role
_SAMPLING_ERRORS = 5  # a spread above this many standard errors is no accident
_WHY = (
    "initial weights: a run whose layers start with larger or smaller outputs than the base's is "
    "a different function, and the base's rates are not those that it needs; see "
    "docs/explanation/initial-weights.md"
)


@dataclass(frozen=True, slots=True)
class _Role:
    """The initial weights of a role in run and base.

    Attributes:
        name: The role.
        kind: What its tensors do.
        base: RMS in the base, the mean of what the run's groups stand for.
        run: RMS in the run, median over its groups.
        width: Growth of the fan-in from base to run; of an embedding, of the fan-out; NaN: unknown.
        depth: Growth of the number of blocks.
    """

    name: str
    kind: GroupKind
    base: float
    run: float
    width: float
    depth: float

    @property
    def ratio(self) -> float:
        """The RMS in the run over that in the base."""
        return self.run / self.base


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """A role whose initial weights do not scale alike.

    Attributes:
        role: The role.
        expected: The ratio of run to base that would be alike.
    """

    role: _Role
    expected: float


def initial_weight_warnings(layout: Layout, base: Layout, mapping: LayoutMapping) -> list[str]:
    """Return what a person should know about initial weights before the run starts.

    Args:
        layout: The run's layout.
        base: The profile's layout.
        mapping: The run's layout mapped onto the profile's.

    Returns:
        At most five messages; none if the initial weights scale alike, if one side does not know
        them, or if one side starts from trained weights.
    """
    if not layout.initial_rms or not base.initial_rms:
        return []
    if _looks_trained(layout) or _looks_trained(base):
        return []
    roles = list(_roles(layout, base, mapping))
    scales = _scale_messages(_mismatches([r for r in roles if r.base > 0 and r.run > 0]))
    zeros = _zero_messages([r for r in roles if (r.base == 0) != (r.run == 0)])
    found = scales + zeros
    return [*found, _WHY] if found else []


def without_expected(layout: Layout, expected: Floats) -> Layout:
    """Return a layout without the initial weights that are as large as a recipe wants them.

    Args:
        layout: The run's layout.
        expected: RMS that each group's entries should have, NaN where unknown, shape [groups].
    """
    if not layout.initial_rms:
        return layout
    return layout.with_initial_rms([
        None if rms is not None and _is_expected(rms, wanted) else rms
        for rms, wanted in zip(layout.initial_rms, expected.tolist(), strict=True)
    ])


def _is_expected(rms: float, wanted: float) -> bool:
    return rms == wanted or (rms > 0 and wanted > 0 and _near(rms / wanted, 1.0))


def _roles(layout: Layout, base: Layout, mapping: LayoutMapping) -> Iterator[_Role]:
    """Yield the roles of the run whose initial weights are known on both sides."""
    run_rms, base_rms = _numbers(layout.initial_rms), mapping.combined(_numbers(base.initial_rms))
    base_fans = mapping.combined(_fans(base))
    growths = _fans(layout) / np.where(base_fans > 0, base_fans, np.nan)
    base_groups = dict(zip(mapping.targets.tolist(), mapping.sources.tolist(), strict=True))
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(layout.groups):
        comparable = mapping.matches[i] not in {Match.NONE, Match.NEAREST_ROLE}
        if comparable and np.isfinite(run_rms[i]) and np.isfinite(base_rms[i]):
            members[group.role].append(i)
    for role, indices in members.items():
        first = layout.groups[indices[0]]
        source = base.groups[base_groups[indices[0]]]
        yield _Role(
            role,
            first.kind if first.kind is source.kind else GroupKind.UNKNOWN,
            float(np.median(base_rms[indices])),
            float(np.median(run_rms[indices])),
            float(np.median(growths[indices])),
            math.prod(first.counts) / math.prod(source.counts),
        )


def _fans(layout: Layout) -> Floats:
    """Return the fan of each group that its initial scale follows; NaN: unknown."""
    fans = (g.fan_out if g.kind is GroupKind.EMBEDDING else g.fan_in for g in layout.groups)
    return np.array([fan or math.nan for fan in fans], dtype=np.float64)


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _looks_trained(layout: Layout) -> bool:
    """Return whether the RMS of matrices vary between blocks, as only training makes them do."""
    logs: defaultdict[str, list[float]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for group, rms in zip(layout.groups, layout.initial_rms, strict=True):
        if rms and group.kind in _MATRICES:
            logs[group.role].append(math.log(rms))
            sizes[group.role] = group.parameter_count or math.prod(group.shape)
    varying = [
        float(np.std(of_role)) > max(_TRAINED_SPREAD, _SAMPLING_ERRORS / math.sqrt(2 * sizes[role]))
        for role, of_role in logs.items()
        if len(of_role) > 1
    ]
    return 2 * sum(varying) > len(varying)


def _mismatches(roles: Sequence[_Role]) -> list[_Mismatch]:
    """Return the roles that do not scale alike."""
    known = [role for role in roles if not math.isnan(role.width)]
    found = [role for role in known if not _is_alike(role)]
    # If width and depth grow together, a constant scale with GPT-2's 1 / sqrt(L) may look like
    # 1 / sqrt(n). The other roles tell the two apart.
    if any(role.kind is GroupKind.HIDDEN and _near(role.ratio, 1.0) for role in found):
        found = [role for role in known if not _is_alike(role) or _follows_depth_only(role)]
    return [_Mismatch(role, _expected(role)[0]) for role in found]


def _is_alike(role: _Role) -> bool:
    return any(_near(role.ratio, expected) for expected in _expected(role))


def _follows_depth_only(role: _Role) -> bool:
    by_depth = role.depth**-0.5
    is_constant = _near(role.ratio, by_depth) and not _near(role.width, 1.0)
    return role.kind in _MATRICES and is_constant and not _near(by_depth, 1.0)


def _expected(role: _Role) -> list[float]:
    """Return the ratios of run to base that are alike, the most likely one first."""
    by_width, by_depth = role.width**-0.5, role.depth**-0.5
    if role.kind is GroupKind.EMBEDDING:
        return [1.0, by_width]
    if role.kind is GroupKind.READOUT:
        low, high = sorted((1 / role.width, by_width))
        return [by_width, min(max(role.ratio, low), high)]
    if role.kind not in _MATRICES:
        return [role.ratio]
    both = [by_width, by_width * by_depth]
    return both[::-1] if _near(role.ratio, by_depth) else both


def _near(ratio: float, other: float) -> bool:
    return other / _TOLERANCE <= ratio <= other * _TOLERANCE


def _scale_messages(mismatches: Sequence[_Mismatch]) -> list[str]:
    """Return a message for roles with about the same numbers, those of most roles first."""
    clusters: list[list[_Mismatch]] = []
    for mismatch in mismatches:
        for cluster in clusters:
            if _have_same_numbers(cluster[0], mismatch):
                cluster.append(mismatch)
                break
        else:
            clusters.append([mismatch])
    clusters.sort(key=len, reverse=True)
    messages = [_scale_message(cluster) for cluster in clusters[:_MAX_SCALES]]
    rest = sum(map(len, clusters[_MAX_SCALES:]))
    if rest:
        messages[-1] += f"; {rest} more role{'s differ' if rest > 1 else ' differs'} in other ways"
    return messages


def _have_same_numbers(one: _Mismatch, other: _Mismatch) -> bool:
    """Return whether two roles can share a message."""
    are_tables = [m.role.kind is GroupKind.EMBEDDING for m in (one, other)]
    numbers = [(m.role.base, m.role.run, m.role.width, m.expected) for m in (one, other)]
    return are_tables[0] == are_tables[1] and all(map(_near, *numbers))


def _scale_message(mismatches: Sequence[_Mismatch]) -> str:
    role = mismatches[0].role
    numbers = [(m.role.base, m.role.run, m.expected) for m in mismatches]
    base, run, expected = np.median(numbers, axis=0).tolist()
    if role.kind is GroupKind.EMBEDDING:
        rule = "an embedding has the same scale at every width"
    else:
        growth = "the same" if _near(role.width, 1.0) else f"{role.width:.3g} times the base's"
        rule = f"whose fan-in is {growth}"
        if not _near(expected, role.width**-0.5):
            rule += f" and whose depth is {role.depth:.3g} times the base's"
    names = _listed([mismatch.role.name for mismatch in mismatches])
    return (
        f"initial weights of {names} do not scale alike: their RMS is {base:.2g} in the base and "
        f"{run:.2g} in the run, {rule}; record a base that starts with {run / expected:.2g}, or "
        f"start the run with {base * expected:.2g}"
    )


def _zero_messages(roles: Sequence[_Role]) -> list[str]:
    messages = []
    for side, other, names in (
        ("base", "run", [role.name for role in roles if role.base == 0]),
        ("run", "base", [role.name for role in roles if role.run == 0]),
    ):
        if names:
            messages.append(
                f"initial weights of {_listed(names)} are zero in the {side} and not in the "
                f"{other}; start both in the same way"
            )
    return messages


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_ROLES
    return ", ".join(names[:_MAX_ROLES]) + (f" and {more} more roles" if more > 0 else "")
