"""The methods that the transfer benchmark compares: ways to use a base's learning rate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal, get_args

from advisor.policy import Policy
from advisor.wire import policy_to_proto
from benchmarks.transfer.cases import Case
from benchmarks.transfer.models import build_task
from benchmarks.transfer.optimizers import OptimizerName
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.shape_rules import RULES, ByShape, Family, RuleName
from benchmarks.transfer.sweeps import ADVISED, PLAIN, Method
from benchmarks.transfer.training import Advice, Recording
from fslr.torch import MeasuringOptions

MethodName = Literal[
    "standard",
    "mup",
    "depth_mup",
    "completep",
    "flerm",
    "measured",
    "hybrid",
    "hybrid_standard",
]
METHODS: Final[tuple[MethodName, ...]] = get_args(MethodName)
STANDARD: Final = "standard"  # what regrets are relative to
DEFAULT: Final = "hybrid_standard"  # of trainings that start anew: decision 27
HYBRIDS: Final[Mapping[MethodName, str]] = {
    "hybrid_standard": "depth-standard",
    "hybrid": "depth-mup",
}
"""The shipped recipe that each hybrid starts with."""

_HYBRID_RULE: Final[RuleName] = "depth_mup"  # its factors are 1 wherever those of all hybrids are

_FAMILIES: Final[dict[OptimizerName, Family]] = {"Adam": "adam", "AdamW": "adam", "SGD": "sgd"}


def method_of(name: MethodName, case: Case) -> Method | None:
    """Return a method for a case, or None if it says nothing of the case.

    Args:
        name: The method.
        case: The case.
    """
    without_shapes: dict[MethodName, Method] = {
        "standard": PLAIN, "flerm": published_flerm(), "measured": ADVISED,
    }  # fmt: skip
    if name in without_shapes:
        return without_shapes[name]
    family = _family(case)
    if name in HYBRIDS:  # without rules it has only measurements
        return Method(name, advice=Advice(recipe="" if family is None else HYBRIDS[name]))
    rule: RuleName | None = next((each for each in RULES if each == name), None)
    if rule is None or family is None:
        return None
    if rule == "completep" and (family != "adam" or case.model == "conv_net"):
        return None  # published for residual blocks, with Adam
    return Method(name, parametrization=ByShape(rule, family))


def _family(case: Case) -> Family | None:
    """Return the optimizers whose rules a case has; None if no parametrization says anything."""
    # Parametrizations say nothing of the rank of adapters.
    return None if case.model == "lora_gpt" else _FAMILIES.get(case.optimizer)


def same_as(name: MethodName, case: Case) -> MethodName | None:
    """Return an earlier method that a method equals in a case, such as muP where no width grows.

    Args:
        name: The method.
        case: The case.

    Returns:
        The earlier method; None if there is none.
    """
    method = method_of(name, case)
    if method is None:
        return None
    if name in HYBRIDS:
        return _same_as_hybrid(name, case)
    rule = next((each for each in RULES if each == name), None)
    if rule is None:
        return None
    own = _factors(rule, case)
    if own == _factors(None, case):
        return "standard"
    earlier = itertools.takewhile(lambda each: each != rule, RULES)
    return next((each for each in earlier if _factors(each, case) == own), None)


def _same_as_hybrid(hybrid: MethodName, case: Case) -> MethodName | None:
    if _family(case) is None:
        return "measured"
    # It starts with the base's initial weights, which another initial scale changes.
    starts_alike = case.base.init_scale == case.big.init_scale
    if starts_alike and _factors(_HYBRID_RULE, case) == _factors(None, case):
        return "measured"
    # The two hybrids differ in what they do with the width only.
    is_as_wide = case.base.width == case.big.width
    return "hybrid" if is_as_wide and hybrid == "hybrid_standard" else None


def equals(name: MethodName, case: Case) -> list[MethodName]:
    """Return all other methods that a method equals in a case, in the order of the methods.

    Args:
        name: The method.
        case: The case.
    """
    root = _root(name, case)
    return [each for each in METHODS if each != name and _root(each, case) == root]


def _root(name: MethodName, case: Case) -> MethodName:
    """Return the first method that a method equals in a case, perhaps itself."""
    earlier = same_as(name, case)
    return name if earlier is None else _root(earlier, case)


@cache
def _factors(rule: RuleName | None, case: Case) -> Mapping[str, Factors]:
    """Return the factors of a rule in a case; all 1 without a rule."""
    model = build_task(case.big).model
    if rule is None:
        return {name: Factors() for name, _ in model.named_parameters()}
    return ByShape(rule, _FAMILIES[case.optimizer]).factors(model, case.base)


def published_flerm() -> Method:
    """Return the paper's own procedure (Milsom et al., section 4, appendix).

    It uses the estimator ``kronecker`` with 40 probes at the first step and one every 100 steps
    after it, a running average over probes, and no rule but the ratio of rates. The authors draw
    a new batch for each of the 40 probes; here all probes use the first step's batch.
    """
    options = MeasuringOptions(estimator="kronecker", probes=40, averaging=0.9, linearity=False)
    policy = Policy(
        min_interval_steps=100,
        max_interval_steps=100,
        weigh_by_confidence=False,
        averaging_window=0.0,
        max_relative_error=1e6,
        target_relative_error=1e6,  # after the first measurement one probe is enough
    )
    return Method(
        "published FLeRM",
        recording=Recording(every=100, options=options),
        advice=Advice(policy_to_proto(policy), options),
    )
