"""``advisor policy try``: what stored runs would have been told under another policy."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.table import Table

from advisor.advising.advice import LoadedProfile
from advisor.advising.replay import Answered, Replayed, replay
from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    console,
    fail,
    number,
    plain,
    print_json,
    say,
    short_name,
)
from advisor.cli.policy import rules_of
from advisor.policy import InvalidValueError, LayoutMismatchError, Policy, Reference
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileReference
from advisor.wire import (
    content_from_proto,
    measurement_from_proto,
    opening_from_proto,
    policy_from_proto,
)
from fslr import AdvisorClient, NotFoundError
from fslr.advisor.v1 import run_service_pb2
from fslr.profile_files import load_fields

_NEWEST = 10  # runs that are tried where none is named
_FILES = (".json", ".yaml", ".yml")


def try_(
    policy: Annotated[
        str,
        typer.Argument(
            help="A policy, or a JSON or YAML file of rules.", autocompletion=completion.policies
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(help="A stored run; repeatable.", autocompletion=completion.runs),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show what stored runs would have been told under another policy. Default: the newest 10."""
    with client(address) as advisor:
        tried_policy = _policy(advisor, policy, project)
        newest = islice(advisor.list_runs(project=project), _NEWEST)
        names = run or [short_name(stored.name) for stored in newest]
        if not names:
            fail(f"there is no stored run in project {project}; attach a job with run=...")
        tried: dict[str, list[Replayed]] = {}
        skipped: dict[str, str] = {}
        for name in names:
            try:
                tried[name], left = _tried(advisor, name, project, tried_policy)
            except (InvalidValueError, LayoutMismatchError, NotFoundError) as error:
                skipped[name] = str(error)
                continue
            if left:
                skipped[name] = left
    if as_json:
        print_json({
            "runs": {name: [_event(event) for event in events] for name, events in tried.items()},
            "skipped": skipped,
        })
    else:
        for name, events in tried.items():
            console.print(_table(name, events))
        for name, why in skipped.items():
            say(f"[yellow]left out[/] of {plain(name)}: {plain(why)}")
    if not any(tried.values()):
        fail("nothing could be tried")


def _policy(advisor: AdvisorClient, policy: str, project: str) -> Policy:
    if policy.lower().endswith(_FILES):
        rules = rules_of(load_fields(policy), [])
    else:
        rules = advisor.get_policy(policy, project=project).policy
    try:
        return policy_from_proto(rules)
    except InvalidValueError as error:
        fail(f"{policy}: {error}")


def _event(event: Replayed) -> dict[str, Any]:
    return {
        "step": event.before.measurement.step,
        "before": event.before.multipliers.tolist(),
        "after": event.after.multipliers.tolist(),
        "next_before": event.before.next_measurement_step,
        "next_after": event.after.next_measurement_step,
    }


def _tried(
    advisor: AdvisorClient, run: str, project: str, policy: Policy
) -> tuple[list[Replayed], str]:
    """Return the replay against the run's newest profile and layout, and what it leaves out."""
    summary = advisor.get_run(run, project=project)
    opening = opening_from_proto(summary.opening)
    events = list(advisor.get_run_history(run, project=project))
    if not events:
        return [], ""
    newest = events[-1].recommendation
    version = advisor.get_profile(newest.profile).profile
    content = content_from_proto(version.content)
    profile = content.profile()
    info = VersionInfo(
        ProfileReference.parse("profile", version.name).name,
        version.version,
        version.digest,
        version.create_time.ToDatetime(),
    )
    loaded = LoadedProfile(info, profile, Reference(profile), content.header.provenance)
    groups = len(opening.layout)
    present = [event for event in events if len(event.measurement.unit_rates) == groups]
    own = [event for event in present if event.recommendation.digest == version.digest]
    history = [
        _answered(event, measurement_from_proto(event.measurement, opening)) for event in own
    ]
    left = {
        "measurements of the layout before it began again": len(events) - len(present),
        "measurements against other versions of the profile": len(present) - len(own),
    }
    words = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    return replay(loaded, opening, history, policy), words


def _answered(event: run_service_pb2.RunEvent, measurement: Any) -> Answered:
    answer = event.recommendation
    multipliers = np.array(answer.multipliers, dtype=np.float64)
    return Answered(measurement, multipliers, answer.next_measurement_step)


def _table(name: str, events: list[Replayed]) -> Table:
    table = Table(
        "step", "groups changed", "largest factor", "median before", "median after", "next before",
        "next after", box=box.SIMPLE, title=f"run {plain(name)}", title_justify="left",
    )  # fmt: skip
    for event in events:
        before, after = event.before.multipliers, event.after.multipliers
        table.add_row(
            str(event.before.measurement.step),
            f"{event.changed} of {len(before)}",
            number(event.largest_factor),
            number(float(np.median(before))),
            number(float(np.median(after))),
            str(event.before.next_measurement_step),
            str(event.after.next_measurement_step),
        )
    return table
