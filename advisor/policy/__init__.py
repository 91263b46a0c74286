"""The transfer policy: rules that turn (profile, measurement) into multipliers.

Theory of operation. A :class:`Profile` holds the unit rates of a base model over its training. For
a model to be trained, :func:`map_layout` finds once which base groups each of its groups
corresponds to (by name, else by role and depth) and with which weights. For each
:class:`Measurement`, :func:`recommend` then reads the reference unit rates at that step, divides
them by the measured ones and passes the ratios through the safeguards:

    reference / measured -> unmatched? -> frozen? -> zero rate? -> low confidence?
        -> near the prior -> weighed by confidence -> averaged -> damped -> slew limit
        -> relative update -> bounds -> multiplier

:func:`priors` computes where multipliers start, from the shapes in both layouts.

A multiplier of ``reference / measured`` makes a group's rate, ``learning rate * multiplier *
measured``, the same as in the base model at the same learning rate.

Everything here is pure: numpy only, no clock, no I/O, no protobuf. The same functions run behind
the RPC, in process and in tests. Illegal input raises :class:`PolicyError`. Expected trouble with
one group is an :class:`Outcome`.

Source: FLeRM in Milsom, Anson, Aitchison, "Function-Space Learning Rates", arXiv 2502.17405.
"""

from advisor.policy.aliases import GroupAlias
from advisor.policy.coherence import role_coherences
from advisor.policy.errors import InvalidValueError, LayoutMismatchError, PolicyError, shown
from advisor.policy.groups import Group, GroupKind
from advisor.policy.layout import Layout
from advisor.policy.layout_mapping import LayoutMapping
from advisor.policy.mapping import map_layout, refusal
from advisor.policy.measurement import Measurement, Measurements
from advisor.policy.prior import priors
from advisor.policy.recommend import (
    aligned_step,
    check_total_steps,
    recommend,
    recommend_all,
)
from advisor.policy.recommendation import Recommendation, Recommendations
from advisor.policy.recording_quality import FlawKind, RecordingFlaw, recording_flaws
from advisor.policy.reference import Profile, Reference, check_coherences
from advisor.policy.rules import (
    Alignment,
    DepthRule,
    Limit,
    Match,
    Outcome,
    Policy,
    PriorRule,
    UnmatchedRule,
    WeightDecayRule,
    check_bounds_include_one,
)

__all__ = [
    "Alignment",
    "DepthRule",
    "FlawKind",
    "Group",
    "GroupAlias",
    "GroupKind",
    "InvalidValueError",
    "Layout",
    "LayoutMapping",
    "LayoutMismatchError",
    "Limit",
    "Match",
    "Measurement",
    "Measurements",
    "Outcome",
    "Policy",
    "PolicyError",
    "PriorRule",
    "Profile",
    "Recommendation",
    "Recommendations",
    "RecordingFlaw",
    "Reference",
    "UnmatchedRule",
    "WeightDecayRule",
    "aligned_step",
    "check_bounds_include_one",
    "check_coherences",
    "check_total_steps",
    "map_layout",
    "priors",
    "recommend",
    "recommend_all",
    "recording_flaws",
    "refusal",
    "role_coherences",
    "shown",
]
