"""``advisor policy try``: what would have been recommended to stored runs by another policy."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.table import Table

from advisor.advising.recipes import ResolvedRecipe, resolve_shipped
from advisor.advising.replay import AnsweredMeasurement, ReplayedMeasurement, replay
from advisor.advising.resolved_profile import LoadedProfile
from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    client,
    fail,
    plain,
    print_json,
    say,
)
from advisor.cli.policy import parse_rules
from advisor.cli.progress import progress
from advisor.cli.run_reading import read_events
from advisor.cli.tables import print_table
from advisor.errors import RecipeNotFoundError
from advisor.policy import InvalidValueError, LayoutMismatchError, Policy
from advisor.policy.counts import count_of
from advisor.registry.profiles import VersionInfo
from advisor.registry.resource_names import ProfileReference, RecipeReference
from advisor.report.policies import ReplayRow
from advisor.report.words import format_number, short_name
from advisor.wire import (
    content_from_proto,
    measurement_from_proto,
    opening_from_proto,
    policy_from_proto,
    recipe_from_proto,
)
from fslr import AdvisorClient, NotFoundError
from fslr.advisor.v1 import run_service_pb2
from fslr.profile_files import load_fields

_DEFAULT_RUNS = 10
_FILE_SUFFIXES = (".json", ".yaml", ".yml")


def try_(
    policy: Annotated[
        str,
        typer.Argument(
            help="A policy, or a JSON or YAML file with rules.", autocompletion=completion.policies
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            help="A stored run. Can be given several times. Default: the newest 10.",
            autocompletion=completion.runs,
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show what would have been recommended to stored runs under a different policy."""
    with client(address) as advisor:
        candidate = _load_policy(advisor, policy, project)
        newest = islice(advisor.list_runs(project=project), _DEFAULT_RUNS)
        names = run or [short_name(stored.name) for stored in newest]
        if not names:
            fail(f"project {project} has no stored runs; attach a job with run=...")
        replays: dict[str, list[ReplayedMeasurement]] = {}
        skipped: dict[str, str] = {}
        for name in names:
            try:
                replays[name], left_out = _replay(advisor, name, project, candidate)
            except (InvalidValueError, LayoutMismatchError, NotFoundError) as error:
                skipped[name] = str(error)
                continue
            if left_out:
                skipped[name] = left_out
    if as_json:
        print_json({
            "runs": {
                name: [_fields(event) for event in events] for name, events in replays.items()
            },
            "skipped": skipped,
        })
    else:
        for name, events in replays.items():
            print_table(_table(name, events))
        for name, reason in skipped.items():
            say(f"[yellow]skipped[/] in {plain(name)}: {plain(reason)}")
    if not any(replays.values()):
        fail("no measurement could be replayed")


def _load_policy(advisor: AdvisorClient, policy: str, project: str) -> Policy:
    if policy.lower().endswith(_FILE_SUFFIXES):
        rules = parse_rules(load_fields(policy), [])
    else:
        rules = advisor.get_policy(policy, project=project).policy
    try:
        return policy_from_proto(rules)
    except InvalidValueError as error:
        fail(f"{policy}: {error}")


def _fields(event: ReplayedMeasurement) -> dict[str, Any]:
    return {
        "step": event.before.measurement.step,
        "before": event.before.multipliers.tolist(),
        "after": event.after.multipliers.tolist(),
        "next_before": event.before.next_measurement_step,
        "next_after": event.after.next_measurement_step,
    }


def _replay(
    advisor: AdvisorClient, run: str, project: str, policy: Policy
) -> tuple[list[ReplayedMeasurement], str]:
    """Replay a run against its newest profile and layout; also return what is left out."""
    summary = advisor.get_run(run, project=project)
    opening = opening_from_proto(summary.opening)
    events = list(read_events(advisor, summary, project))
    if not events:
        return [], ""
    newest = events[-1].recommendation
    version = advisor.get_profile(newest.profile).profile
    content = content_from_proto(version.content)
    info = VersionInfo(
        ProfileReference.parse("profile", version.name).name,
        version.version,
        version.digest,
        version.create_time.ToDatetime(),
    )
    loaded = LoadedProfile.of(info, content)
    groups = len(opening.layout)
    present = [event for event in events if len(event.measurement.unit_rates) == groups]
    own = [event for event in present if event.recommendation.digest == version.digest]
    history = [
        _answered(event, measurement_from_proto(event.measurement, opening)) for event in own
    ]
    left = {
        "of an earlier layout": len(events) - len(present),
        "against other versions of the profile": len(present) - len(own),
    }
    words = ", ".join(
        f"{count_of(count, 'measurement')} {what}" for what, count in left.items() if count
    )
    recipe = _recipe(advisor, opening.recipe or policy.recipe)
    with progress(f"replaying {count_of(len(history), 'measurement')}"):
        return replay(loaded, opening, history, policy, recipe=recipe), words


def _recipe(advisor: AdvisorClient, name: str) -> ResolvedRecipe | None:
    """Return the recipe that a run would follow, or end the command if there is none."""
    if not name:
        return None
    reference = RecipeReference.parse("recipe", name)
    if reference.project:
        found = advisor.get_recipe(name)
        return ResolvedRecipe(found.name, recipe_from_proto(found.recipe, reference.recipe))
    try:
        return resolve_shipped(reference)
    except RecipeNotFoundError as error:
        fail(str(error))


def _answered(event: run_service_pb2.RunEvent, measurement: Any) -> AnsweredMeasurement:
    answer = event.recommendation
    multipliers = np.array(answer.multipliers, dtype=np.float64)
    return AnsweredMeasurement(measurement, multipliers, answer.next_measurement_step)


def _table(name: str, events: list[ReplayedMeasurement]) -> Table:
    table = Table(
        "step", "groups changed", "largest factor", "old median", "new median", "old next",
        "new next", box=box.SIMPLE, title=f"run {plain(name)}", title_justify="left",
    )  # fmt: skip
    for row in map(ReplayRow.of, events):
        table.add_row(
            str(row.step),
            f"{row.changed} of {row.groups}",
            format_number(row.largest_factor),
            format_number(row.old_median),
            format_number(row.new_median),
            str(row.old_next_step),
            str(row.new_next_step),
        )
    return table
