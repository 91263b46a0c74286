"""``advisor export``: learning rates for trainers that cannot call an advisor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Project,
    client,
    fail,
    warn,
    write_text,
)
from advisor.cli.completion import profiles_and_runs
from advisor.cli.layout_files import read_request
from advisor.cli.run_reading import read_events
from advisor.export.errors import ExportError
from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import (
    Export,
    Settings,
    by_role,
    keeping_decay,
    recipe_losses,
    rounded,
)
from advisor.export.sources import (
    DEFAULT_AVERAGE,
    of_answer,
    of_run,
    weight_decay_rule,
    with_recipe,
)
from advisor.local.in_process import InProcessAdvisor
from advisor.policy import InvalidValueError
from advisor.report.runs import run_state
from fslr import AdvisorClient, InvalidRequestError, RunNotFoundError
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, run_service_pb2
from fslr.resource_names import profile_name

_FILE_SUFFIXES = (".json", ".yaml", ".yml")
_RUN_VALUES_PER_OCTAVE = 8
_DEFAULT_OPTIMIZER = "AdamW"


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|PROFILE",
            help="A run; or, together with --layout, a profile or a profile's JSON or YAML file.",
            autocompletion=profiles_and_runs,
        ),
    ],
    to: Annotated[FormatName, typer.Option("--to", help="The format.")],
    layout: Annotated[
        Path | None,
        typer.Option(
            help="The trainer's model, a file as for `profile check`. Without a measurement in it, "
            "multipliers follow from shapes."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Default: standard output."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Largest learning rate of the trainer's schedule, absolute. Default: the run's."
        ),
    ] = None,
    min_learning_rate: Annotated[
        float, typer.Option(help="Smallest one, absolute; only for megatron-lm.")
    ] = 0.0,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="The trainer's weight decay. Default: set in the trainer."),
    ] = None,
    vector_decay: Annotated[
        bool,
        typer.Option(help="Whether biases, gains and other vectors have weight decay."),
    ] = True,
    recipe: Annotated[
        str,
        typer.Option(
            help="With --layout, a recipe in place of the policy's: a shipped one such as "
            "mup-adam, or projects/P/recipes/R."
        ),
    ] = "",
    optimizer: Annotated[
        str,
        typer.Option(
            help="The trainer's optimizer. Default: the run's, the layout file's, or AdamW."
        ),
    ] = "",
    average: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Fraction of a run, at its end, over which multipliers are averaged; 0: the last "
            "ones.",
        ),
    ] = DEFAULT_AVERAGE,
    values_per_octave: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1024,
            help="Round multipliers to this many values between one and its double; 0: to four "
            "digits. Default: 8 for measured multipliers, 0 for those from shapes.",
        ),
    ] = None,
    per_role: Annotated[
        bool, typer.Option("--per-role", help="Give all blocks of a role the same multiplier.")
    ] = False,
    allow_loss: Annotated[
        bool,
        typer.Option("--allow-loss", help="Write the file without what the format cannot express."),
    ] = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
) -> None:
    """Write learning rates for a trainer that cannot call an advisor.

    They come from a run, or once from a profile and the layout of the trainer's model. What the
    format cannot express is an error, and nothing is written.
    """
    given = Settings(learning_rate, min_learning_rate, weight_decay, vector_decay)
    _check(given)
    if recipe and layout is None:
        fail("--recipe cannot change the multipliers of a run; give a profile and --layout LAYOUT")
    try:
        if layout is None:
            found, rule, is_measured = _of_run(source, average, address, project)
        else:
            found, rule, is_measured = _of_profile(
                source, layout, optimizer=optimizer, recipe=recipe, address=address, project=project
            )
        found, settings = _set(found, given, optimizer)
        if per_role:
            found = by_role(found)
        if values_per_octave is None:
            values_per_octave = _RUN_VALUES_PER_OCTAVE if is_measured else 0
        chosen = FORMATS[to]
        found = _described(
            rounded(found, values_per_octave),
            settings,
            values_per_octave=values_per_octave,
            is_absolute=chosen.is_absolute,
            rule=rule,
        )
        written = chosen.write(found, settings)
        if not chosen.has_recipe:
            written = replace(written, losses=(*written.losses, *recipe_losses(found)))
    except (ExportError, InvalidValueError) as error:
        fail(str(error))
    for note in found.notes:
        warn(note)
    for loss in written.losses:
        warn(loss)
    if written.losses and not allow_loss:
        fail(f"{to.value} cannot express this; nothing is written. --allow-loss writes the rest")
    write_text(written.text, output)


def _check(settings: Settings) -> None:
    """End the command if a setting is out of its range."""
    for option, value in (
        ("--learning-rate", settings.learning_rate),
        ("--min-learning-rate", settings.min_learning_rate),
        ("--weight-decay", settings.weight_decay),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            fail(f"{option} {value} is not a finite number of at least 0")
    smallest, largest = settings.min_learning_rate, settings.learning_rate
    if largest is not None and smallest > largest:
        fail(f"--min-learning-rate {smallest} is above --learning-rate {largest}")


def _set(found: Export, given: Settings, optimizer: str) -> tuple[Export, Settings]:
    """Return the export and the settings, completed by each other."""
    settings = replace(given, optimizer=optimizer or _DEFAULT_OPTIMIZER)
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=found.learning_rate)
    if optimizer:
        rows = tuple(replace(row, optimizer=optimizer) for row in found.rows)
        found = replace(found, rows=rows)
    return found, settings


def _of_run(
    run: str, average: float, address: str, project: str
) -> tuple[Export, policy_pb2.WeightDecayRule.ValueType, bool]:
    """Return a run's multipliers, what they do to weight decay, and that they are measured."""
    if run.lower().endswith(_FILE_SUFFIXES):
        fail(f"{run} is a file, not a run; with a profile's file give --layout LAYOUT")
    with client(address) as advisor:
        try:
            summary = advisor.get_run(run, project=project)
        except RunNotFoundError as error:
            fail(f"{error}; for a profile give --layout LAYOUT too")
        events = list(read_events(advisor, summary, project))
        first = _first_answer_of(advisor, summary, events)
    found = with_recipe(of_run(summary, events, average), first)
    if note := _unfinished(summary):
        found = replace(found, notes=(*found.notes, note))
    return found, weight_decay_rule([event.recommendation for event in events]), True


def _unfinished(run: run_service_pb2.Run) -> str:
    """Return what to know of a run that has not made all of its planned steps; empty: nothing."""
    state = run_state(run, datetime.now(UTC))
    if state == "ended":
        planned = run.opening.total_steps
        return f"The run ended before its planned {planned} steps" if planned else ""
    if state == "finished":
        return ""
    return f"The run has not finished ({state}): its multipliers may change"


def _first_answer_of(
    advisor: AdvisorClient,
    run: run_service_pb2.Run,
    events: Sequence[run_service_pb2.RunEvent],
) -> advisor_service_pb2.RecommendLRResponse | None:
    """Return what a run's recipe says beside learning rates; None: it had no recipe."""
    recipe = events[-1].recommendation.recipe if events else ""
    if not recipe:
        return None
    opening = advisor_service_pb2.RunOpening()
    opening.CopyFrom(run.opening)
    opening.run, opening.recipe = "", recipe  # the version that the run followed
    return _first_answer(advisor, opening)


def _first_answer(
    advisor: AdvisorClient, opening: advisor_service_pb2.RunOpening
) -> advisor_service_pb2.RecommendLRResponse:
    """Return what is known without a measurement, also from a service that knows no recipes."""
    try:
        return advisor.recommend_once(opening)
    except InvalidRequestError as error:
        if "measurement" not in str(error):
            raise
        if opening.recipe:
            fail(
                f"the service does not know recipes ({error}); upgrade it, or give a profile's file"
            )
    # Rates of zero: multipliers stay at their priors.
    rates = [0.0] * len(opening.layout.groups)
    return advisor.recommend_once(opening, advisor_service_pb2.Measurement(unit_rates=rates))


def _of_profile(
    profile: str, layout: Path, *, optimizer: str, recipe: str, address: str, project: str
) -> tuple[Export, policy_pb2.WeightDecayRule.ValueType, bool]:
    """Return the multipliers of a layout, what they do to decay, and whether it is measured."""
    is_file = profile.lower().endswith(_FILE_SUFFIXES)
    with client(address) as advisor:
        request = read_request(layout, profile_name("in-process" if is_file else profile, project))
        request.opening.optimizer = optimizer or request.opening.optimizer
        request.opening.recipe = recipe or request.opening.recipe
        is_measured = any(request.measurement.unit_rates)
        if is_file:
            session = InProcessAdvisor.from_file(profile).open_run(request.opening)
            first = session.start()
            answer = session.recommend(request.measurement) if is_measured else first
        else:
            answer = first = _first_answer(advisor, request.opening)
            if is_measured:
                answer = advisor.recommend_once(request.opening, request.measurement)
    name = profile if is_file else ""
    found = with_recipe(of_answer(request, answer, name), first)
    return found, weight_decay_rule([answer]), is_measured


def _described(
    found: Export,
    settings: Settings,
    *,
    values_per_octave: int,
    is_absolute: bool,
    rule: policy_pb2.WeightDecayRule.ValueType,
) -> Export:
    """Return the export with the policy's weight decay, and sentences about its settings."""
    origin = []
    if values_per_octave:
        origin.append(f"Multipliers are rounded to {values_per_octave} values per octave")
    if is_absolute and settings.learning_rate is not None:
        origin.append(f"The base learning rate is {settings.learning_rate:g}")
    if rule == policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT:
        found = keeping_decay(found, settings)
        origin.append("The weight decay of a step is kept, so settings are divided by multipliers")
    else:
        origin.append("Multipliers scale the weight decay of a step, as learning rates do")
    return replace(found, origin=(*found.origin, *origin))
