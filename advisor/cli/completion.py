"""Shell completion of names. If the service does not answer, nothing is offered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

import typer

from advisor.cli.common import DEFAULT_ADDRESS, DEFAULT_PROJECT
from advisor.report.words import short_name
from fslr import AdvisorClient, FslrError
from fslr.advisor.v1 import profile_service_pb2

_DEADLINE_S = 1.0  # people do not wait longer for a completion
_MAX_NAMES = 200

_Names = Callable[[AdvisorClient, str, str], Iterator[str]]


def _profiles(advisor: AdvisorClient, project: str, typed: str) -> Iterator[str]:
    name, at, _ = typed.partition("@")
    if at:  # a profile's versions and aliases
        found: profile_service_pb2.GetProfileResponse = advisor.get_profile(name, project=project)
        yield from (f"{name}@{alias.name}" for alias in found.aliases)
        yield from (f"{name}@{version}" for version in reversed(found.versions))
        return
    for profile in advisor.list_profiles(project=project):
        yield short_name(profile.name).partition("@")[0]


def _policies(advisor: AdvisorClient, project: str, _typed: str) -> Iterator[str]:
    for policy in advisor.list_policies(project=project):
        yield short_name(policy.name).partition("@")[0]


def _recipes(advisor: AdvisorClient, project: str, _typed: str) -> Iterator[str]:
    for recipe in advisor.list_recipes(project=project):
        if recipe.version:
            yield short_name(recipe.name).partition("@")[0]


def _runs(advisor: AdvisorClient, project: str, _typed: str) -> Iterator[str]:
    for run in advisor.list_runs(project=project):
        yield short_name(run.name)


def _profiles_and_runs(advisor: AdvisorClient, project: str, typed: str) -> Iterator[str]:
    yield from _runs(advisor, project, typed)
    yield from _profiles(advisor, project, typed)


def _completer(names: _Names) -> Callable[[typer.Context, str], list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        address = _option(ctx, "address", "ADVISOR_ADDRESS", DEFAULT_ADDRESS)
        project = _option(ctx, "project", "ADVISOR_PROJECT", DEFAULT_PROJECT)
        try:
            with AdvisorClient(address, deadline_s=_DEADLINE_S) as advisor:
                matching = (
                    n for n in names(advisor, project, incomplete) if n.startswith(incomplete)
                )
                return list(islice(matching, _MAX_NAMES))
        except (FslrError, ValueError):
            return []

    return complete


def _option(ctx: typer.Context, name: str, variable: str, default: str) -> str:
    return str(ctx.params.get(name) or os.environ.get(variable) or default)


profiles = _completer(_profiles)
policies = _completer(_policies)
recipes = _completer(_recipes)
runs = _completer(_runs)
profiles_and_runs = _completer(_profiles_and_runs)
