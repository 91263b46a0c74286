"""Whether a recipe fits a run: what its rules do not cover, and what people have to check."""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.policy import GroupKind, Layout
from advisor.policy.arrays import Floats
from advisor.policy.ratios import Ratio
from advisor.recipes.apply import NoRule, RecipeFactors
from advisor.recipes.recipe import Field

_RMS_TOLERANCE = 0.05  # relative; in addition to the scatter of random numbers
_LARGEST_BETA_GROWTH = 5.0  # leaves 0.5 of a beta of 0.9
_GROWING = {Ratio.EXPERTS: "the number of experts"}
_CHOOSE = "choose a recipe that covers it, or measure"
_WITHOUT_RULE = {
    Ratio.EXPERTS: "published rules also depend on the number of experts that are active, which "
    "layouts do not show, and they do not agree, so measure"
}
_ENDS = ((GroupKind.EMBEDDING, Ratio.FAN_IN), (GroupKind.READOUT, Ratio.FAN_OUT))
_DEVIATIONS = 4.0  # standard deviations of that scatter


class FindingKind(enum.Enum):
    """What a check found. The values of problems begin with "problem"."""

    NO_RULE = "problem: no rule"
    UNCOVERED_GROWTH = "problem: growth without a rule"
    NO_RESIDUAL_OUTPUT = "problem: no residual output"
    INITIAL_RMS = "warning: initial values"
    SMALLER = "warning: smaller than the base"
    DIFFERENT_ENDS = "warning: inputs or outputs differ"
    NO_READOUT = "warning: no readout"
    RATIO_NOT_GIVEN = "warning: ratio not given"
    BETA = "warning: beta near 0"
    OPTIMIZER_NOT_GIVEN = "warning: optimizer not given"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        kind: What it is.
        message: What is wrong and what to do, without the groups.
        groups: Names of the groups that it is about; empty: it is about the whole run.
        ratio: What grows without a rule, or None.
    """

    kind: FindingKind
    message: str
    groups: tuple[str, ...] = ()
    ratio: Ratio | None = None

    @property
    def is_problem(self) -> bool:
        """Whether the recipe does not fit; otherwise it is a warning."""
        return self.kind.value.startswith("problem")


def check_recipe(run: Layout, found: RecipeFactors) -> list[Finding]:
    """Return what does not fit between a recipe and a run, problems first.

    The recipe's conditions are not among the findings: most of them cannot be seen in layouts.

    Args:
        run: The run's layout.
        found: The recipe's factors for the run.
    """
    findings = [
        *_groups_without_rule(run, found),
        *uncovered_growth(run, found),
        *missing_residual_outputs(found),
        *_initial_values(run, found),
        *smaller_than_base(run, found),
        *_different_ends(run, found),
        *_no_readout(run, found),
        *ratios_not_given(found),
        *small_betas(found),
        *optimizer_not_given(found),
    ]
    return sorted(findings, key=lambda finding: not finding.is_problem)


def _groups_without_rule(run: Layout, found: RecipeFactors) -> Iterator[Finding]:
    names: defaultdict[NoRule, list[str]] = defaultdict(list)
    for group, reason in zip(run.groups, found.no_rules, strict=True):
        if reason is not None:
            names[reason].append(group.name)
    for reason in NoRule:
        if names[reason]:
            yield Finding(FindingKind.NO_RULE, f"no rule: {reason.value}", tuple(names[reason]))


def uncovered_growth(run: Layout, found: RecipeFactors) -> Iterator[Finding]:
    """Yield a finding for each ratio that grows, and that the recipe says nothing about.

    Args:
        run: The run's layout.
        found: The recipe's factors for the run.
    """
    for ratio, values in found.ratios.items():
        grown = np.flatnonzero(_differs(values) & found.has_rule)
        if ratio in found.recipe.covers or not grown.size:
            continue
        names = tuple(run.groups[i].name for i in grown)
        yield Finding(
            FindingKind.UNCOVERED_GROWTH,
            f"{_GROWING.get(ratio, ratio.value)} grows by {_span(values[grown])}, and "
            f"{found.recipe.name} has no rule for it; {_WITHOUT_RULE.get(ratio, _CHOOSE)}",
            () if len(names) == len(run) else names,
            ratio,
        )


def missing_residual_outputs(found: RecipeFactors) -> Iterator[Finding]:
    """Yield a finding if depth grows, and the recipe has rules for branches that are not known.

    Args:
        found: The recipe's factors for the run.
    """
    depth = found.ratios[Ratio.DEPTH]
    grown = depth[_differs(depth)]
    needs = any(row.residual_output for row in found.recipe.rows)
    if needs and grown.size and not any(found.residual_outputs):
        yield Finding(
            FindingKind.NO_RESIDUAL_OUTPUT,
            f"depth grows by {_span(grown)}, but no group is known to write into the residual "
            "stream, so no branch is scaled; set residual_output of these groups in the layout",
        )


def _initial_values(run: Layout, found: RecipeFactors) -> Iterator[Finding]:
    own = [math.nan if rms is None else rms for rms in run.initial_rms or [None] * len(run)]
    different, ratios = [], []
    for i, (wanted, rms) in enumerate(zip(found.initial_rms.tolist(), own, strict=True)):
        if math.isnan(wanted) or math.isnan(rms) or wanted == rms:
            continue
        ratio = wanted / rms if rms else math.inf
        if ratio in {0, math.inf} or abs(math.log(ratio)) > _tolerance(run, found, i):
            different.append(run.groups[i].name)
            ratios.append(ratio)
    if different:
        yield Finding(
            FindingKind.INITIAL_RMS,
            f"the recipe wants {_span(np.array(ratios))} times the initial values of the run; "
            "scale them before the first step, as initialize=True does",
            tuple(different),
        )


def _tolerance(run: Layout, found: RecipeFactors, index: int) -> float:
    """Return by how much the logarithms of two initial RMS may differ.

    The RMS of n normal numbers has the relative standard deviation sqrt(1 / 2n).
    """
    count = run.groups[index].parameter_count or math.prod(run.groups[index].shape)
    growth = found.ratios[Ratio.FAN_IN][index] * found.ratios[Ratio.FAN_OUT][index]
    variance = (1 + growth) / (2 * count) if count and not math.isnan(growth) else 0.0
    return _RMS_TOLERANCE + _DEVIATIONS * math.sqrt(variance)


def smaller_than_base(
    run: Layout, found: RecipeFactors, ratios: Collection[Ratio] = frozenset(Ratio)
) -> Iterator[Finding]:
    """Yield a finding if the run is smaller than its base where the recipe has a rule.

    Rows of tables and outputs do not count: they are not the size of a model.

    Args:
        run: The run's layout.
        found: The recipe's factors for the run.
        ratios: What is compared, of what the recipe covers.
    """
    smaller = {
        ratio: (found.ratios[ratio] < 1) & found.has_rule & ~_are_ends(run, ratio)
        for ratio in found.recipe.covers
        if ratio in ratios
    }
    spans = [
        f"{r.value} {_span(found.ratios[r][mask])}" for r, mask in smaller.items() if mask.any()
    ]
    if spans:
        names = [g.name for i, g in enumerate(run.groups) if any(m[i] for m in smaller.values())]
        yield Finding(
            FindingKind.SMALLER,
            f"the run is smaller than its base ({', '.join(spans)} times the base's); the powers "
            "hold, but their sources only tested growth, so measure, too",
            () if len(names) == len(run) else tuple(names),
        )


def _are_ends(run: Layout, ratio: Ratio) -> NDArray[np.bool_]:
    """Return for which groups a ratio is the growth of an end of the model."""
    kinds = {kind for kind, own in _ENDS if own is ratio}
    return np.array([group.kind in kinds for group in run.groups], dtype=np.bool_)


def _different_ends(run: Layout, found: RecipeFactors) -> Iterator[Finding]:
    if Ratio.FAN_IN not in found.recipe.covers:
        return
    names = [
        group.name
        for i, group in enumerate(run.groups)
        for kind, ratio in _ENDS
        if group.kind is kind and found.has_rule[i] and _differs(found.ratios[ratio])[i]
    ]
    if names:
        yield Finding(
            FindingKind.DIFFERENT_ENDS,
            "the number of rows or outputs is not the base's, and the recipe has no rule for it; "
            "for a few more tokens or positions that does not matter",
            tuple(names),
        )


def _no_readout(run: Layout, found: RecipeFactors) -> Iterator[Finding]:
    kinds = {group.kind for group in run.groups}
    has_rule = any(GroupKind.READOUT in row.kinds and row.powers for row in found.recipe.rows)
    tables = [i for i, group in enumerate(run.groups) if group.kind is GroupKind.EMBEDDING]
    grown = _differs(found.ratios[Ratio.FAN_OUT])[tables].any()
    if has_rule and tables and grown and GroupKind.READOUT not in kinds:
        yield Finding(
            FindingKind.NO_READOUT,
            "the layout has an embedding and no readout; if the two are tied, divide the logits "
            "by the growth of the width in the model's code, as no factor on shared weights does",
            tuple(run.groups[i].name for i in tables),
        )


def ratios_not_given(found: RecipeFactors) -> Iterator[Finding]:
    """Yield a finding if factors depend on ratios that are neither in the layouts nor given.

    Args:
        found: The recipe's factors for the run.
    """
    missing = [ratio for ratio in found.recipe.given_ratios if ratio not in found.given]
    if missing:
        names = " and ".join(ratio.value for ratio in missing)
        verb = "counts" if len(missing) == 1 else "count"
        yield Finding(
            FindingKind.RATIO_NOT_GIVEN,
            f"{names} {verb} as unchanged, because layouts do not show how much that grows; give "
            "the ratios if they are not 1",
        )


def small_betas(found: RecipeFactors) -> Iterator[Finding]:
    """Yield a finding for each beta that common values do not leave above 0.

    Args:
        found: The recipe's factors for the run.
    """
    for field in (Field.ONE_MINUS_BETA1, Field.ONE_MINUS_BETA2):
        growth = float(found.factors[field].max())
        if growth > _LARGEST_BETA_GROWTH:
            name = field.value.removeprefix("one_minus_")
            yield Finding(
                FindingKind.BETA,
                f"1 - {name} grows by {growth:.4g}, so {name} of the base must be above "
                f"{1 - 1 / growth:.4g}; choose a smaller batch, or keep {name}",
            )


def optimizer_not_given(found: RecipeFactors) -> Iterator[Finding]:
    """Yield a finding if the factors depend on the optimizer, and it is not named.

    Args:
        found: The recipe's factors for the run.
    """
    if found.assumed_family:
        yield Finding(
            FindingKind.OPTIMIZER_NOT_GIVEN,
            f"no optimizer is given, so the rows of {found.assumed_family} are used; name the "
            "optimizer if it is of a different family",
        )


def _differs(ratios: Floats) -> NDArray[np.bool_]:
    """Return which ratios are known and not 1."""
    return np.array(~np.isnan(ratios) & (ratios != 1), dtype=np.bool_)


def _span(values: Floats) -> str:
    """Return the least and the largest of several factors, or the one that all are."""
    least, largest = f"{values.min():.4g}", f"{values.max():.4g}"
    return least if least == largest else f"{least} to {largest}"
