"""Reads a run's figures from the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from advisor.cli.progress import counted
from advisor.policy.control_characters import without_controls
from advisor.report.run_figures import RunFigures
from advisor.report.words import short_name
from fslr import AdvisorClient, FslrError, UnsupportedMethodError
from fslr.advisor.v1 import profile_pb2, run_service_pb2


@dataclass(frozen=True, slots=True)
class ReadRun:
    """A run as stored.

    Attributes:
        figures: Its figures.
        profile: The content of the profile version that its newest answer follows; None: it cannot
            be read any more, or there is no answer.
    """

    figures: RunFigures
    profile: profile_pb2.ProfileContent | None


def read_run(advisor: AdvisorClient, run: str, project: str) -> ReadRun:
    """Read a run, its history and its profile. Of the history, only the figures stay in memory.

    Args:
        advisor: The client.
        run: The run.
        project: The project.

    Raises:
        FslrError: The service refused a call or does not answer.
    """
    summary = advisor.get_run(run, project=project)
    events = read_events(advisor, summary, project)
    first = next(events, None)
    if first is None:
        return ReadRun(RunFigures.of(summary), None)
    name = first.recommendation.profile
    profile = read_profile(advisor, name, project)
    figures = RunFigures.of(summary, chain([first], events), profile)
    newest = figures.points[-1].profile if figures.points else name
    if newest != name:
        profile = read_profile(advisor, newest, project)
    return ReadRun(figures, profile)


def read_events(
    advisor: AdvisorClient, run: run_service_pb2.Run, project: str
) -> Iterator[run_service_pb2.RunEvent]:
    """Iterate over the history of a run, oldest first, and show how far it is if that takes long.

    Args:
        advisor: The client.
        run: The run's summary.
        project: The project.
    """
    return counted(
        advisor.get_run_history(run.name, project=project),
        f"reading the history of {without_controls(short_name(run.name))}",
        run.measurements or None,
    )


def read_metrics(
    advisor: AdvisorClient, run: str, project: str
) -> list[run_service_pb2.MetricReport]:
    """Return the reports of a run's own metrics; none of a service that is too old to store them.

    Args:
        advisor: The client.
        run: The run.
        project: The project.
    """
    reports = advisor.list_run_metrics(run, project=project)
    try:
        return list(counted(reports, f"reading the metrics of {without_controls(run)}"))
    except UnsupportedMethodError:
        return []


def read_profile(
    advisor: AdvisorClient, name: str, project: str
) -> profile_pb2.ProfileContent | None:
    """Return the content of a profile version; None: it is deleted, or cannot be read.

    Args:
        advisor: The client.
        name: The version's resource name.
        project: The project.
    """
    try:
        return advisor.get_profile(name, project=project).profile.content
    except FslrError:
        return None
