"""``advisor profile check`` and ``advisor explain``: how groups map, and why multipliers are so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Column, Table

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    LARGEST,
    Address,
    Json,
    Project,
    client,
    console,
    enum_word,
    fail,
    message_dict,
    number,
    plain,
    print_json,
    print_message,
    say,
    short_name,
)
from advisor.cli.profile import ProfileArgument
from advisor.policy import Limit
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2, policy_pb2
from fslr.profile_files import load_fields, message_from_fields
from fslr.resource_names import profile_name

LayoutFile = Annotated[
    Path,
    typer.Argument(
        metavar="LAYOUT",
        help="JSON or YAML: a list of names, a layout, a profile, or an opening and a measurement.",
    ),
]


_NO_SIZES = (
    "The layout says no sizes. Where they tell blocks apart, a run may map in another way: write "
    "the file with fslr.save_layout."
)


def check(
    profile: ProfileArgument,
    layout: LayoutFile,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show how a layout maps onto a profile, before any training; status 1 if it is refused."""
    with client(address) as advisor:
        request = _request(layout, profile_name(profile, project))
        found = advisor.validate_layout(request.opening)
    if as_json:
        print_message(found)
    else:
        table = Table(
            Column("group", overflow="fold"), "found by", "depth factor",
            Column("from", overflow="fold"), box=box.SIMPLE,
            title=f"{len(found.mappings)} groups against {plain(short_name(found.profile))}",
            title_justify="left",
        )  # fmt: skip
        for mapping in found.mappings:
            table.add_row(
                plain(mapping.group),
                enum_word(policy_pb2.Match, mapping.match),
                number(mapping.depth_factor) if mapping.sources else "",
                plain(_listed(list(mapping.sources))),
            )
        console.print(table)
        counts = Counter(enum_word(policy_pb2.Match, m.match) for m in found.mappings)
        say(", ".join(f"{count} by {way}" for way, count in counts.most_common()))
        if not any(group.parameter_count for group in request.opening.layout.groups):
            say(_NO_SIZES)
    if found.refusal:
        fail(found.refusal)


def explain(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="[PROFILE]",
            help="The profile; not with --run.",
            autocompletion=completion.profiles,
        ),
    ] = "",
    layout: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LAYOUT]", help="As in `profile check`; with a measurement, or without."
        ),
    ] = None,
    run: Annotated[
        str,
        typer.Option(
            help="A stored run instead of profile and layout.", autocompletion=completion.runs
        ),
    ] = "",
    step: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="Step. Default: the run's last; without a run 0."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show for every group where its multiplier comes from, step by step."""
    if (bool(run), bool(profile), bool(layout)) not in {(True, False, False), (False, True, True)}:
        fail("give a profile and a layout file, or --run RUN without both")
    with client(address) as advisor:
        if run:
            request, answer = _stored(advisor, run, step, project)
        else:
            request = _request(layout or Path(), profile_name(profile, project))
            if step is not None:
                request.measurement.step = step
            if not request.measurement.unit_rates:  # rates of zero: references alone
                request.measurement.unit_rates.extend([0.0] * len(request.opening.layout.groups))
            answer = advisor.recommend_once(request.opening, request.measurement)
    rows = _rows(request, answer)
    if as_json:
        print_json({
            "profile": answer.profile,
            "step": answer.step,
            "profile_step": answer.profile_step,
            "groups": rows,
            "warnings": [message_dict(warning) for warning in answer.warnings],
        })
        return
    measured = any(request.measurement.unit_rates)
    console.print(_explained(answer, rows) if measured else _references(answer, rows))
    for warning in answer.warnings:
        say(f"[yellow]warning:[/] {plain(warning.message)}")


def _stored(
    advisor: AdvisorClient, run: str, step: int | None, project: str
) -> tuple[advisor_service_pb2.RecommendLRRequest, advisor_service_pb2.RecommendLRResponse]:
    summary = advisor.get_run(run, project=project)
    steps: list[int] = []
    found = None
    for event in advisor.get_run_history(run, project=project):
        steps.append(event.measurement.step)
        if step is None or event.measurement.step == step:
            found = event
    if found is None:
        fail(
            f"run {run} has no measurement at step {step}; it has {_listed(list(map(str, steps)))}"
        )
    groups, measured = len(summary.opening.layout.groups), len(found.measurement.unit_rates)
    if groups != measured:  # another layout of as many groups cannot be told from this one
        fail(
            f"run {run} began again with a layout of {groups} groups, and its measurement at step "
            f"{found.measurement.step} has {measured}; give a --step since then"
        )
    request = advisor_service_pb2.RecommendLRRequest(
        opening=summary.opening, measurement=found.measurement
    )
    return request, found.recommendation


def _rows(
    request: advisor_service_pb2.RecommendLRRequest,
    answer: advisor_service_pb2.RecommendLRResponse,
) -> list[dict[str, Any]]:
    measurement = request.measurement
    count = len(answer.multipliers)
    errors = measurement.relative_errors or [0.0] * count
    before = measurement.multipliers or [1.0] * count
    factors = answer.depth_factors or [0.0] * count  # stored by an earlier service
    raw = answer.raw_multipliers or [0.0] * count
    limits = answer.limits or [0] * count
    return [
        {
            "group": group.name,
            "measured": measurement.unit_rates[i],
            "relative_error": errors[i],
            "reference": answer.reference_unit_rates[i],
            "depth_factor": factors[i],
            "in_force": before[i],
            "raw": raw[i],
            "multiplier": answer.multipliers[i],
            "outcome": enum_word(policy_pb2.Outcome, answer.outcomes[i]),
            "limits": [str(limit.name).lower().replace("_", " ") for limit in Limit(limits[i])],
        }
        for i, group in enumerate(request.opening.layout.groups)
    ]


def _explained(
    answer: advisor_service_pb2.RecommendLRResponse, rows: list[dict[str, Any]]
) -> Table:
    table = Table(
        Column("group", overflow="fold"), "measured", "error", "depth", "reference", "in force",
        "raw", "multiplier", "outcome", "limits",
        box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left",
        title=f"step {answer.step}, against {plain(short_name(answer.profile))} at its step "
        f"{number(answer.profile_step)}",
        caption="raw = reference / measured; outcome and limits say what became of it",
        caption_justify="left",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            plain(row["group"]),
            number(row["measured"]) if row["measured"] else "",
            f"{row['relative_error']:.0%}" if row["relative_error"] else "",
            number(row["depth_factor"]) if row["depth_factor"] else "",
            number(row["reference"]) if row["reference"] else "",
            number(row["in_force"]),
            number(row["raw"]) if row["raw"] else "",
            f"[bold]{number(row['multiplier'])}[/]",
            row["outcome"],
            ", ".join(row["limits"]),
        )
    return table


def _references(
    answer: advisor_service_pb2.RecommendLRResponse, rows: list[dict[str, Any]]
) -> Table:
    table = Table(
        Column("group", overflow="fold"), "depth", "reference", box=box.SIMPLE,
        title=f"references at step {answer.step}, from {plain(short_name(answer.profile))}",
        title_justify="left", caption_justify="left",
        caption="multiplier = reference / measured unit rate; the file has no measurement",
    )  # fmt: skip
    for row in rows:
        table.add_row(plain(row["group"]), number(row["depth_factor"]), number(row["reference"]))
    return table


def _request(path: Path, profile: str) -> advisor_service_pb2.RecommendLRRequest:
    """Return the opening (and the measurement, if there is one) that a layout file spells."""
    fields = load_fields(path)
    what = f"{path} is no layout"
    if isinstance(fields, list):
        fields = {"groups": [{"name": f} if isinstance(f, str) else f for f in fields]}
    request = advisor_service_pb2.RecommendLRRequest()
    if isinstance(fields, dict) and "opening" in fields:
        message_from_fields(fields, request, what)
    elif isinstance(fields, dict) and "points" in fields:
        request.opening.layout.CopyFrom(
            message_from_fields(fields.get("layout", {}), layout_pb2.Layout(), what)
        )
    else:
        request.opening.layout.CopyFrom(message_from_fields(fields, layout_pb2.Layout(), what))
    request.opening.profile = profile
    request.opening.run = ""  # an explanation is no run
    return request


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
