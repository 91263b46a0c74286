"""Resource names: what a person types, and what goes over the wire."""

from __future__ import annotations

DEFAULT_PROJECT = "default"


def project_name(project: str) -> str:
    """Return ``projects/{project}`` of a project's identifier or name."""
    return project if project.startswith("projects/") else f"projects/{project}"


def profile_name(profile: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a profile.

    Args:
        profile: An identifier such as ``char-gpt`` or ``char-gpt@prod``, or a whole resource name,
            which comes back as it is.
        project: The project of an identifier.
    """
    return profile if "/" in profile else f"{project_name(project)}/profiles/{profile}"


def run_name(run: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a run, given as an identifier or as the whole name."""
    return run if "/" in run else f"{project_name(project)}/runs/{run}"


def policy_name(policy: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a policy, given as an identifier or as the whole name."""
    return policy if "/" in policy else f"{project_name(project)}/policies/{policy}"
