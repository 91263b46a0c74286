"""Reads a run's figures from the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from advisor.cli.progress import counted
from advisor.report.run_figures import RunFigures
from fslr import AdvisorClient, FslrError
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
    events: Iterator[run_service_pb2.RunEvent] = counted(
        advisor.get_run_history(run, project=project),
        f"reading the history of {run}",
        summary.measurements or None,
    )
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
