r"""Priors: the multiplier of each group from shapes alone, before and beside what is measured.

A prior is a product of powers of how much a tensor has grown from base to run: its fan-in, its
fan-out, and the number of blocks of its role. :data:`ADAPTIVE_POWERS` holds the powers for
optimizers whose steps have the same size whatever the size of the gradient (Adam and its kin).

Width: muP, Yang et al., "Tensor Programs V", arXiv 2203.03466, table 3. An entry of an adaptive
step has a fixed size, and the entries align with the input, so a step of a matrix moves its outputs
in proportion to its fan-in.

Depth: depth-muP, Yang et al., "Tensor Programs VI", arXiv 2310.02244. A step of one of L blocks
moves the stream by :math:`1 / L`: the branch multiplier and the learning rate are each
:math:`1 / \sqrt L`. Without a branch multiplier, the learning rate has the whole factor. This is
the depth rule ``sum``; under ``sqrt`` the factor is :math:`1 / \sqrt L`, under ``copy`` 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from advisor.policy.arrays import Floats
from advisor.policy.groups import Group, GroupKind
from advisor.policy.layout import Layout
from advisor.policy.layout_mapping import LayoutMapping
from advisor.policy.optimizer_families import optimizer_family
from advisor.policy.ratios import Powers, Ratio, group_ratios, growth_key
from advisor.policy.rules import DepthRule

_MATRIX = Powers.of({Ratio.FAN_IN: -1.0, Ratio.DEPTH: -1.0})
_FIXED_INPUT = Powers.of({Ratio.DEPTH: -1.0})
_ORTHOGONALIZED = Powers.of({Ratio.FAN_IN: -0.5, Ratio.DEPTH: -1.0})
_DEPTH_PARTS = {
    DepthRule.SUM: 1.0,
    DepthRule.MEASURED: 1.0,
    DepthRule.SQRT: 0.5,
    DepthRule.COPY: 0.0,
}
ADAPTIVE_POWERS: Mapping[GroupKind, Powers] = {
    GroupKind.EMBEDDING: _FIXED_INPUT,
    GroupKind.INPUT: _FIXED_INPUT,
    GroupKind.VECTOR: _FIXED_INPUT,
    GroupKind.HIDDEN: _MATRIX,
    GroupKind.READOUT: _MATRIX,
    GroupKind.CONVOLUTION: _MATRIX,
    GroupKind.ROUTER: _MATRIX,
    GroupKind.EXPERT: _MATRIX,
}
"""Powers by kind. A kind that is absent has no prior: adapters, whose scale depends on the rank."""
ORTHOGONALIZED_POWERS: Mapping[GroupKind, Powers] = {
    **ADAPTIVE_POWERS,
    GroupKind.HIDDEN: _ORTHOGONALIZED,
    GroupKind.EXPERT: _ORTHOGONALIZED,
    GroupKind.CONVOLUTION: _ORTHOGONALIZED,
}
"""Powers for Muon, used with an adaptive optimizer for what is not a matrix of a block.

An orthogonalized step of fixed RMS moves the outputs in proportion to the root of the fan-in. With
a fixed spectral norm instead, the power is 0. Which one it is depends on Muon's settings.
"""
_BY_FAMILY = {
    **dict.fromkeys(("Adam", "Adagrad", "RMSprop", "Adadelta", "sign descent"), ADAPTIVE_POWERS),
    "orthogonalized": ORTHOGONALIZED_POWERS,
}
_POWERS = {
    (rule, family): {kind: power.with_part(Ratio.DEPTH, part) for kind, power in table.items()}
    for rule, part in _DEPTH_PARTS.items()
    for family, table in _BY_FAMILY.items()
}


def priors(
    layout: Layout,
    base: Layout,
    mapping: LayoutMapping,
    *,
    optimizer: str,
) -> Floats:
    """Return the prior of each group of the run, 0 where it has none, shape [groups].

    Args:
        layout: The run's layout.
        base: The profile's layout.
        mapping: The run's layout mapped onto the profile's.
        optimizer: Name of the optimizer that updates the groups that name none themselves.
    """
    found = np.zeros(len(layout))
    known: dict[object, float] = {}
    for target, source in zip(mapping.targets, mapping.sources, strict=True):
        if found[target] == 0:  # all base groups of a role have the same shape
            group = layout.groups[target]
            name = group.optimizer or optimizer
            key = name, growth_key(group), growth_key(base.groups[source])
            if key not in known:
                powers = _POWERS.get((mapping.depth_rule, optimizer_family(name)), {})
                known[key] = _prior(group, base.groups[source], powers)
            found[target] = known[key]
    return found


def _prior(group: Group, base: Group, powers: Mapping[GroupKind, Powers]) -> float:
    """Return the prior of a group with its counterpart in the base; 0 if it has none."""
    if group.kind not in powers or group.kind is not base.kind:
        return 0.0
    if not (group.fan_in and group.fan_out and base.fan_in and base.fan_out):
        return 0.0
    return powers[group.kind].factor(group_ratios(group, base))
