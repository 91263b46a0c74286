"""Names for the shell to complete: whatever goes wrong, nothing is offered and nothing is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

import typer

from advisor.cli.common import DEFAULT_ADDRESS, DEFAULT_PROJECT, short_name
from fslr import AdvisorClient, FslrError
from fslr.advisor.v1 import profile_service_pb2

_DEADLINE_S = 1.0  # longer than that nobody waits for a tab
_MOST = 200

_Names = Callable[[AdvisorClient, str, str], Iterator[str]]


def _profiles(advisor: AdvisorClient, project: str, begun: str) -> Iterator[str]:
    name, at, _ = begun.partition("@")
    if at:  # a profile's versions and aliases
        found: profile_service_pb2.GetProfileResponse = advisor.get_profile(name, project=project)
        yield from (f"{name}@{alias.name}" for alias in found.aliases)
        yield from (f"{name}@{version}" for version in reversed(found.versions))
        return
    for profile in advisor.list_profiles(project=project):
        yield short_name(profile.name).partition("@")[0]


def _policies(advisor: AdvisorClient, project: str, _begun: str) -> Iterator[str]:
    for policy in advisor.list_policies(project=project):
        yield short_name(policy.name).partition("@")[0]


def _runs(advisor: AdvisorClient, project: str, _begun: str) -> Iterator[str]:
    for run in advisor.list_runs(project=project):
        yield short_name(run.name)


def _completing(names: _Names) -> Callable[[typer.Context, str], list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        address = _said(ctx, "address", "ADVISOR_ADDRESS", DEFAULT_ADDRESS)
        project = _said(ctx, "project", "ADVISOR_PROJECT", DEFAULT_PROJECT)
        try:
            with AdvisorClient(address, deadline_s=_DEADLINE_S) as advisor:
                fitting = (
                    n for n in names(advisor, project, incomplete) if n.startswith(incomplete)
                )
                return list(islice(fitting, _MOST))
        except (FslrError, ValueError):
            return []

    return complete


def _said(ctx: typer.Context, name: str, variable: str, default: str) -> str:
    return str(ctx.params.get(name) or os.environ.get(variable) or default)


profiles = _completing(_profiles)
policies = _completing(_policies)
runs = _completing(_runs)
