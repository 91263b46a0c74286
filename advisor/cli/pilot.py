"""``advisor pilot``: measure once, see what advice would have been, apply nothing."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import completion
from advisor.cli.common import (
    DEFAULT_ADDRESS,
    DEFAULT_PROJECT,
    Address,
    Json,
    Project,
    Yes,
    client,
    confirm,
    fail,
    plain,
    print_json,
    print_registered,
    say,
)
from advisor.cli.progress import progress
from advisor.cli.report import Language, write_report
from advisor.cli.run_reading import ReadRun, read_run
from advisor.cli.run_view import run_view
from advisor.cli.tables import print_view
from advisor.policy.control_characters import without_controls
from advisor.policy.counts import count_of
from advisor.report.pilot import (
    MIN_MEASUREMENTS,
    Framework,
    Lines,
    Pilot,
    PilotStep,
    observing_lines,
    recording_lines,
)
from advisor.report.words import short_name
from fslr import AdvisorClient, ProfileNotFoundError, RunNotFoundError, load_profile
from fslr.environment import code_revision

_FILE_SUFFIXES = (".json", ".yaml", ".yml")


def pilot(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="A name for the profile, such as char-gpt, without a version.",
            autocompletion=completion.profiles,
        ),
    ],
    run: Annotated[
        str, typer.Option(help="Name of the run that only observes. Default: PROFILE-pilot.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option(help="The recording's file. Default: PROFILE.json.")
    ] = None,
    framework: Annotated[
        Framework, typer.Option(help="What the training is written with.")
    ] = Framework.TORCH,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File of the final report. Default: RUN.html."),
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of the final report.")] = Language.EN,
    yes: Yes = False,
    address: Address = DEFAULT_ADDRESS,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Walk through a pilot: record, register, observe, compare. Nothing is applied.

    Run it again after each step: it looks at what the service has, prints the lines to paste into
    your training, and ends with a report of what advice would have been and what it would have
    cost.
    """
    if "@" in profile or "/" in profile or profile.lower().endswith(_FILE_SUFFIXES):
        fail(f"{profile!r} is not a profile's name; give one such as char-gpt, without a version")
    run, file = run or f"{profile}-pilot", file or Path(f"{profile}.json")
    with client(address) as advisor:
        found, content = _state(advisor, profile, run, file, project)
        if found.step is PilotStep.REGISTER and not as_json:
            _register(advisor, found, project, yes=yes)
            found, content = _state(advisor, profile, run, file, project)
    lines = _lines(found, framework, address, project)
    if as_json:
        print_json(_as_fields(found, lines))
        return
    _print_steps(found, address)
    if found.other_profile:
        fail(
            f"run {run} was measured against {found.other_profile}, not against {profile}; give "
            "another name with --run"
        )
    if found.has_applied:
        fail(
            f"run {run} applied advice, so it does not show a training without it; give another "
            "name with --run"
        )
    if lines is not None and found.figures is None:
        _print_lines(found, lines)
    elif found.step is PilotStep.OBSERVE:
        say(
            f"The run has {count_of(found.measurements, 'measurement')}, and {MIN_MEASUREMENTS} "
            "are needed. Let it train on, then run\nthe same command again. A short training "
            "measures more with `max_overhead=None`,\nor under a policy with a smaller "
            "`max_interval_steps`."
        )
    elif content is not None:
        print_view(run_view(content.figures, datetime.now(UTC), measurements=0))
        say("")
        write_report(content, output, lang)
        say(
            "To apply the advice, remove `observe_only=True`. Decide by your own evaluation\n"
            "metric of two runs, one with advice and one without."
        )


def _state(
    advisor: AdvisorClient, profile: str, run: str, file: Path, project: str
) -> tuple[Pilot, ReadRun | None]:
    """Return what the service and the working directory know of a pilot."""
    try:
        version = short_name(advisor.get_profile(profile, project=project).profile.name)
    except ProfileNotFoundError:
        version = ""
    try:
        read = read_run(advisor, run, project) if version else None
    except RunNotFoundError:
        read = None
    figures = None if read is None else read.figures
    return Pilot(profile, run, str(file), file.is_file(), version, figures), read


def _register(advisor: AdvisorClient, found: Pilot, project: str, *, yes: bool) -> None:
    """Register the recording, if the user agrees."""
    with progress(f"reading {without_controls(found.file)}"):
        content = load_profile(found.file)
    confirm(f"Register {found.file} as profile {found.profile}?", yes=yes)
    print_registered(advisor.register_profile(found.profile, content, project=project))


def _lines(found: Pilot, framework: Framework, address: str, project: str) -> Lines | None:
    """Return the lines to paste for the step under way, if it has any."""
    if found.step is PilotStep.RECORD:
        return recording_lines(framework, found.file, has_commit=bool(code_revision()))
    if found.step is PilotStep.OBSERVE:
        return observing_lines(
            framework, found.profile, found.run, project=project, address=address
        )
    return None


def _print_steps(found: Pilot, address: str) -> None:
    say(f"[bold]pilot of {plain(found.profile)}[/]  advisor at {plain(address)}")
    steps = list(PilotStep)
    for number, step in enumerate(steps, start=1):
        is_done = steps.index(found.step) > steps.index(step) or found.step is steps[-1]
        state = "done" if is_done else "now" if step is found.step else ""
        style = "bold" if step is found.step else "dim" if not is_done else "green"
        say(f"  {number} [{style}]{step.value:10}{state:6}[/]{plain(found.status(step))}".rstrip())
    say("")


def _print_lines(found: Pilot, lines: Lines) -> None:
    small = "your small model, at the learning rate that you tuned for it"
    large = "your large model, at the same learning rate"
    where = "before the training loop" if lines.after else "after the trainer is made"
    say(f"Train {small if found.step is PilotStep.RECORD else large}.")
    say(f"Paste these lines {where}:\n")
    _print_code(lines.before)
    if lines.after:
        say("\nand this line after it:\n")
        _print_code(lines.after)
    say("\nThe training does not change. Afterwards, run the same command again.")


def _print_code(code: str) -> None:
    typer.echo(textwrap.indent(code, "    "))


def _as_fields(found: Pilot, lines: Lines | None) -> dict[str, object]:
    return {
        "profile": found.profile,
        "run": found.run,
        "file": found.file,
        "version": found.version,
        "step": found.step.value,
        "measurements": found.measurements,
        "lines": None if lines is None else {"before": lines.before, "after": lines.after},
    }
