"""``advisor profile check`` and ``advisor explain``: how groups map, and why multipliers are so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    MAX_INT64,
    Address,
    Json,
    Project,
    client,
    fail,
    message_dict,
    optional,
    plain,
    print_json,
    say,
)
from advisor.cli.layout_files import read_request
from advisor.cli.name_cells import NameCell
from advisor.cli.profile import ProfileArgument
from advisor.cli.run_reading import read_events
from advisor.cli.tables import print_table
from advisor.policy.counts import count_of
from advisor.report import explanation
from advisor.report.explanation import Explanation
from advisor.report.mapping import MappingReport, mapping_report
from advisor.report.words import format_number, format_percent, format_tensor
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2, profile_service_pb2
from fslr.resource_names import profile_name

LayoutFile = Annotated[
    Path,
    typer.Argument(
        metavar="LAYOUT",
        help="JSON or YAML file: a list of names, a layout, a profile, or an opening with a "
        "measurement.",
    ),
]

_MAX_LISTED = 6
_TENSOR_FIELDS = ("kind", "shape", "fan_in", "fan_out", "initial_rms", "optimizer")
_NO_SIZES = (
    "The layout has no parameter counts. If they distinguish blocks, a run may map differently: "
    "write the file with fslr.save_layout."
)


def check(
    profile: ProfileArgument,
    layout: LayoutFile,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show how a layout maps onto a profile, before any training.

    The exit status is 1 if a run with this layout would be refused.
    """
    with client(address) as advisor:
        request = read_request(layout, profile_name(profile, project))
        answer = advisor.validate_layout(request.opening)
    report = mapping_report(request.opening.layout, answer)
    if as_json:
        print_json(_mapping_fields(request.opening.layout, answer))
    else:
        print_table(_mapping_table(report))
        say(
            ", ".join(
                f"{count} without a counterpart" if way == "none" else f"{count} by {way}"
                for way, count in report.counts
            )
        )
        if not report.has_sizes:
            say(_NO_SIZES)
        for warning in report.warnings:
            say(f"[yellow]warning:[/] {plain(warning)}")
    if report.refusal:
        fail(report.refusal)


def _mapping_fields(
    layout: layout_pb2.Layout, answer: profile_service_pb2.ValidateLayoutResponse
) -> dict[str, Any]:
    """Return the answer, with what the layout says of each group's tensor."""
    fields = message_dict(answer)
    for mapping, group in zip(fields["mappings"], layout.groups, strict=True):
        tensor = message_dict(group)
        mapping |= {name: tensor[name] for name in _TENSOR_FIELDS if name in tensor}
    return fields


def _mapping_table(report: MappingReport) -> Table:
    """Return the mapping; without the columns that would be empty."""
    table = Table(
        Column("group", overflow="fold"), "match", "depth",
        box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
        title=f"{count_of(len(report.groups), 'group')} mapped onto {plain(report.profile)}",
    )  # fmt: skip
    if report.has_shapes:
        table.add_column("tensor", no_wrap=True)
        table.add_column("fans", no_wrap=True)
    if report.has_priors:
        table.add_column("prior")
    table.add_column("from", overflow="fold")
    for row in report.groups:
        fans = f"{row.fan_in or '?'}->{row.fan_out or '?'}" if row.fan_in or row.fan_out else ""
        tensor = (format_tensor(row.kind, row.shape), fans)
        table.add_row(
            NameCell(row.group),
            row.match,
            optional(row.depth_factor, format_number),
            *(tensor if report.has_shapes else ()),
            *([optional(row.prior, format_number)] if report.has_priors else ()),
            NameCell(_list(row.sources)),
        )
    return table


def explain(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="[PROFILE]",
            help="The profile; not together with --run.",
            autocompletion=completion.profiles,
        ),
    ] = "",
    layout: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LAYOUT]",
            help="A file as for `profile check`, with or without a measurement.",
        ),
    ] = None,
    run: Annotated[
        str,
        typer.Option(
            help="A stored run, instead of a profile and a layout.", autocompletion=completion.runs
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            help="A recipe in place of the policy's: a shipped one such as mup-adam, or "
            "projects/P/recipes/R. Not together with --run."
        ),
    ] = "",
    step: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_INT64, help="The step. Default: the run's last step, or 0 without a run."
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show for each group how its multiplier was computed, step by step."""
    if (bool(run), bool(profile), bool(layout)) not in {(True, False, False), (False, True, True)}:
        fail("give a profile and a layout file, or --run RUN instead of both")
    if run and recipe:
        fail("--recipe cannot change the answers of a stored run; give a profile and a layout file")
    with client(address) as advisor:
        if run:
            request, answer = _stored_answer(advisor, run, step, project)
        else:
            request = read_request(layout or Path(), profile_name(profile, project))
            request.opening.recipe = recipe or request.opening.recipe
            if step is not None:
                request.measurement.step = step
            if not request.measurement.unit_rates:  # rates of zero: the answer has references only
                request.measurement.unit_rates.extend([0.0] * len(request.opening.layout.groups))
            answer = advisor.recommend_once(request.opening, request.measurement)
    explained = explanation.explain(request, answer)
    if as_json:
        print_json({
            "profile": answer.profile,
            "step": answer.step,
            "profile_step": answer.profile_step,
            "groups": [asdict(row) for row in explained.groups],
            "counts": dict(explained.counts),
            "recipe": answer.recipe,
            "roles": [asdict(row) for row in explained.roles],
            "warnings": [message_dict(warning) for warning in answer.warnings],
        })
        return
    observes_only = request.opening.observe_only
    if observes_only:
        say("[bold]The run only observes:[/] multipliers are what would have been recommended.")
    _print_explanation(explained, observes_only=observes_only)


def _print_explanation(explained: Explanation, *, observes_only: bool) -> None:
    if explained.is_measured:
        print_table(_explanation_table(explained, observes_only=observes_only))
        counts = ", ".join(f"{count} {outcome}" for outcome, count in explained.counts)
        say(
            f"{count_of(len(explained.groups), 'group')}: {counts}; multipliers "
            f"{'would have been' if observes_only else 'from'} "
            f"{format_number(explained.lowest)} to {format_number(explained.highest)}"
        )
        if explained.roles:
            print_table(_recipe_table(explained))
        for outcome, meaning in explained.outcomes:
            say(f"[bold]{outcome}[/]: {meaning}")
        for limit, meaning in explained.limits:
            say(f"[bold]limit {limit}[/]: {meaning}")
    else:
        print_table(_references_table(explained))
    for warning in explained.warnings:
        say(f"[yellow]warning:[/] {plain(warning)}")


def _stored_answer(
    advisor: AdvisorClient, run: str, step: int | None, project: str
) -> tuple[advisor_service_pb2.RecommendLRRequest, advisor_service_pb2.RecommendLRResponse]:
    """Return a stored measurement of a run and its answer, or end the command with an error."""
    summary = advisor.get_run(run, project=project)
    steps: list[int] = []
    found = None
    for event in read_events(advisor, summary, project):
        steps.append(event.measurement.step)
        if step is None or event.measurement.step == step:
            found = event
    if found is None:
        fail(
            f"run {run} has no measurement at step {step}; its measurements are at "
            f"{_list(list(map(str, steps)))}"
        )
    # Two layouts with the same number of groups cannot be told apart here.
    groups, measured = len(summary.opening.layout.groups), len(found.measurement.unit_rates)
    if groups != measured:
        fail(
            f"run {run} was restarted with a layout of {count_of(groups, 'group')}, but its "
            f"measurement at step {found.measurement.step} has {measured}; choose a --step after "
            "the restart"
        )
    request = advisor_service_pb2.RecommendLRRequest(
        opening=summary.opening, measurement=found.measurement
    )
    return request, found.recommendation


def _explanation_table(explained: Explanation, *, observes_only: bool) -> Table:
    table = Table(
        Column("group", overflow="fold"), "measured", "error", "depth", "reference", "prior",
        "in force", "raw", "would be" if observes_only else "multiplier", "outcome", "limits",
        box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
        title=f"step {explained.step}, compared with {plain(explained.profile)} at its step "
        f"{format_number(explained.profile_step)}",
        caption="raw = reference / measured; outcome and limits say how it became the multiplier",
        caption_justify="left",
    )  # fmt: skip
    for row in explained.groups:
        table.add_row(
            NameCell(row.group),
            optional(row.measured, format_number),
            optional(row.relative_error, format_percent),
            optional(row.depth_factor, format_number),
            optional(row.reference, format_number),
            optional(row.prior, format_number),
            format_number(row.in_force),
            optional(row.raw, format_number),
            f"[bold]{format_number(row.multiplier)}[/]",
            row.outcome,
            ", ".join(row.limits),
        )
    return table


def _recipe_table(explained: Explanation) -> Table:
    table = Table(
        Column("role", overflow="fold"), "recipe", "measured", "error", "measured / recipe", "",
        box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
        title=f"multipliers of recipe {plain(explained.recipe)}, and as measured",
        caption="differs: by more than a factor of 2, beyond noise", caption_justify="left",
    )  # fmt: skip
    for row in explained.roles:
        table.add_row(
            NameCell(row.role),
            format_number(row.recipe),
            format_number(row.measured),
            format_percent(row.error),
            format_number(row.measured / row.recipe),
            "" if row.agrees else "[yellow]differs[/]",
        )
    return table


def _references_table(explained: Explanation) -> Table:
    table = Table(
        Column("group", overflow="fold"), "depth", "reference", "prior", box=box.SIMPLE,
        title=f"references at step {explained.step}, from {plain(explained.profile)}",
        title_justify="left", caption_justify="left",
        caption="multiplier = reference / measured unit rate; the file has no measurement",
    )  # fmt: skip
    for row in explained.groups:
        table.add_row(
            NameCell(row.group),
            format_number(row.depth_factor),
            format_number(row.reference),
            optional(row.prior, format_number),
        )
    return table


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
