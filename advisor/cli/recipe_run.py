"""``advisor recipe apply`` and ``check``: a recipe on the layouts of a run and its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from advisor.cli.common import Json, fail, plain, print_json, say, warn
from advisor.cli.layout_files import read_request
from advisor.cli.name_cells import NameCell
from advisor.cli.recipe import RecipeArgument, read_recipe, recipe_errors
from advisor.cli.recipe_tables import (
    TABLE_STYLE,
    TITLES,
    print_conditions,
    shared_note,
    shared_values,
)
from advisor.cli.tables import print_table
from advisor.policy import (
    DepthRule,
    GroupAlias,
    GroupKind,
    InvalidValueError,
    Layout,
    map_layout,
)
from advisor.policy.aliases import check_aliases
from advisor.policy.counts import count_of
from advisor.recipes import (
    Finding,
    FindingKind,
    Ratio,
    Recipe,
    RecipeFactors,
    RoleFactors,
    apply_recipe,
    check_recipe,
    factors_by_group,
    factors_by_role,
)
from advisor.report.words import format_number
from advisor.wire import layout_from_proto
from fslr.profile_files import load_fields, load_profile

_MAX_LISTED = 3
_SAID_BY_APPLY = {
    FindingKind.SMALLER,
    FindingKind.RATIO_NOT_GIVEN,
    FindingKind.OPTIMIZER_NOT_GIVEN,
    FindingKind.BETA,
}
LayoutFile = Annotated[
    Path,
    typer.Argument(
        metavar="LAYOUT",
        help="The run: a JSON or YAML file with a layout or a profile, as fslr.save_layout writes "
        "it.",
    ),
]
BaseFile = Annotated[
    Path, typer.Option("--base", "-b", help="The base: a file of the same form as LAYOUT.")
]
Optimizer = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        help="Optimizer of the groups whose layout names none, such as AdamW. Default: that of "
        "the base's profile, or one that the recipe holds for.",
    ),
]


def _ratio(what: str) -> Any:
    return typer.Option(
        help=f"{what} of the run over that of the base. Default: 1, with a warning."
    )


HeadSize = Annotated[float | None, _ratio("Size of an attention head")]
Batch = Annotated[float | None, _ratio("Examples per step")]
Tokens = Annotated[float | None, _ratio("Length of the training in tokens")]
Sequence_ = Annotated[float | None, _ratio("Length of a sequence")]


def apply(
    recipe: RecipeArgument,
    layout: LayoutFile,
    base: BaseFile,
    optimizer: Optimizer = "",
    head_size: HeadSize = None,
    batch: Batch = None,
    tokens: Tokens = None,
    sequence: Sequence_ = None,
    groups: Annotated[
        bool, typer.Option("--groups", help="Print one row for each group instead of each role.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the factors of a run, from its layout and that of its base.

    The exit status is 1 if the recipe has no rule for any group.
    """
    with recipe_errors():
        given = _given(head_size, batch, tokens, sequence)
        run, found = _applied(read_recipe(recipe), layout, base, optimizer, given)
    findings = check_recipe(run, found)
    if as_json:
        print_json({
            "recipe": found.recipe.name,
            "groups": [_group_fields(row) for row in factors_by_group(run, found)],
            "findings": [_finding_fields(finding) for finding in findings],
            "conditions": list(found.recipe.conditions),
        })
    else:
        rows = factors_by_group(run, found) if groups else factors_by_role(run, found)
        print_table(_factors_table(found, rows, by_group=groups))
        for finding in findings:
            if finding.is_problem or finding.kind in _SAID_BY_APPLY:
                warn(_sentence(finding))
    if not found.has_rule.any():
        reasons = {reason.value for reason in found.no_rules if reason is not None}
        fail(f"{found.recipe.name} has no rule for any group: {'; '.join(sorted(reasons))}")


def check(
    recipe: RecipeArgument,
    layout: LayoutFile,
    base: BaseFile,
    optimizer: Optimizer = "",
    head_size: HeadSize = None,
    batch: Batch = None,
    tokens: Tokens = None,
    sequence: Sequence_ = None,
    initialized: Annotated[
        bool,
        typer.Option(
            "--initialized",
            help="The layout was written after its weights were scaled: other initial values are "
            "a problem.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check whether a recipe fits a run: groups without a rule, uncovered growth, initial values.

    The exit status is 1 if there is a problem.
    """
    with recipe_errors():
        given = _given(head_size, batch, tokens, sequence)
        run, found = _applied(read_recipe(recipe), layout, base, optimizer, given)
    findings = check_recipe(run, found)
    strict = {FindingKind.INITIAL_RMS} if initialized else set()
    problems = [f for f in findings if f.is_problem or f.kind in strict]
    if as_json:
        print_json({
            "recipe": found.recipe.name,
            "fits": not problems,
            "groups": len(run),
            "groups_with_rule": int(found.has_rule.sum()),
            "findings": [_finding_fields(finding) for finding in findings],
            "conditions": list(found.recipe.conditions),
        })
    else:
        count = int(found.has_rule.sum())
        say(f"{plain(found.recipe.name)} has a rule for {count} of {count_of(len(run), 'group')}")
        for finding in findings:
            color = "red" if finding in problems else "yellow"
            word = "problem" if finding in problems else "warning"
            say(f"[{color}]{word}:[/] {plain(_sentence(finding))}")
        print_conditions(found.recipe)
    if problems:
        fail(f"{found.recipe.name} does not fit this run: {count_of(len(problems), 'problem')}")


def _given(
    head_size: float | None, batch: float | None, tokens: float | None, sequence: float | None
) -> dict[Ratio, float]:
    ratios = {
        Ratio.HEAD_SIZE: head_size,
        Ratio.BATCH: batch,
        Ratio.TOKENS: tokens,
        Ratio.SEQUENCE: sequence,
    }
    return {ratio: value for ratio, value in ratios.items() if value is not None}


def _applied(
    recipe: Recipe, layout: Path, base: Path, optimizer: str, given: dict[Ratio, float]
) -> tuple[Layout, RecipeFactors]:
    run, own = _layout(layout), _layout(base)
    aliases, recorded = _of_profile(base)
    mapping = map_layout(run, own, DepthRule.SUM, aliases=aliases)
    name = optimizer or recorded
    return run, apply_recipe(recipe, run, own, mapping, optimizer=name, given=given)


def _of_profile(path: Path) -> tuple[tuple[GroupAlias, ...], str]:
    """Return the group aliases and the optimizer of a profile; of a layout: none and empty."""
    fields = load_fields(path)
    if not isinstance(fields, dict) or "points" not in fields:
        return (), ""
    content = load_profile(path)
    pairs = [GroupAlias(alias.pattern, alias.target) for alias in content.group_aliases]
    return check_aliases(f"{path}.group_aliases", pairs), content.provenance.optimizer


def _layout(path: Path) -> Layout:
    try:
        return layout_from_proto(read_request(path, "").opening.layout)
    except InvalidValueError as error:
        raise error.under(str(path)) from None


def _factors_table(found: RecipeFactors, rows: Sequence[RoleFactors], *, by_group: bool) -> Table:
    """Return the factors; fields in which all groups have the same one are in the caption."""
    shared = shared_values([dict(row.factors) for row in rows if row.no_rule is None])
    fields = [field for field in found.recipe.fields if field not in shared]
    notes = [shared_note({field: format_number(factor) for field, factor in shared.items()})]
    notes += ["* writes into the residual stream"] if any(found.residual_outputs) else []
    table = Table(
        Column("group" if by_group else "role", overflow="fold"),
        "kind",
        title=f"{count_of(len(found.has_rule), 'group')} by {plain(found.recipe.name)}: factors on "
        "the base's settings",
        caption="\n".join(filter(None, notes)),
        caption_justify="left",
        **TABLE_STYLE,
    )
    if not by_group:
        table.add_column("groups", justify="right")
    for field in fields:
        table.add_column(TITLES[field], justify="right")
    has_rms = by_group and any(row.initial_rms for row in rows)
    if has_rms:
        table.add_column("rms", justify="right")
    for row in rows:
        kind = "" if row.kind is GroupKind.UNKNOWN else row.kind.value
        name = NameCell(row.names[0] if by_group else row.role)
        cells = [kind + "*" * row.residual_output]
        cells += [] if by_group else [str(len(row.names))]
        if row.no_rule is None:
            factors = dict(row.factors)
            cells += [format_number(factors[field]) for field in fields]
        else:
            cells += ["no rule", *[""] * (len(fields) - 1)]
        cells += [format_number(row.initial_rms[0]) if row.initial_rms else ""] * has_rms
        table.add_row(name, *cells)
    return table


def _sentence(finding: Finding) -> str:
    names = finding.groups
    if not names:
        return finding.message
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{finding.message} ({', '.join(names[:_MAX_LISTED])}{more})"


def _finding_fields(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.name,
        "is_problem": finding.is_problem,
        "message": finding.message,
        "groups": list(finding.groups),
    }


def _group_fields(row: RoleFactors) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": row.names[0],
        "role": row.role,
        "kind": row.kind.value,
        "residual_output": row.residual_output,
        "has_rule": row.no_rule is None,
        "factors": {field.value: factor for field, factor in row.factors},
    }
    if row.no_rule is not None:
        fields["no_rule"] = row.no_rule.value
    if row.initial_rms is not None:
        fields["initial_rms"] = row.initial_rms[0]
    return fields
