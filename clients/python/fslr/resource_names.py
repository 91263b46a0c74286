"""Resource names: from the short identifiers that people type to the names in requests."""

from __future__ import annotations

DEFAULT_PROJECT = "default"


def project_name(project: str) -> str:
    """Return the resource name of a project, given as an identifier or as a resource name."""
    return project if project.startswith("projects/") else f"projects/{project}"


def profile_name(profile: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a profile.

    Args:
        profile: An identifier such as ``char-gpt`` or ``char-gpt@prod``, or a resource name, which
            is returned unchanged.
        project: The project that an identifier belongs to.
    """
    return profile if "/" in profile else f"{project_name(project)}/profiles/{profile}"


def run_name(run: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a run, given as an identifier or as a resource name."""
    return run if "/" in run else f"{project_name(project)}/runs/{run}"


def policy_name(policy: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a policy, given as an identifier or as a resource name."""
    return policy if "/" in policy else f"{project_name(project)}/policies/{policy}"


def recipe_name(recipe: str, project: str = DEFAULT_PROJECT) -> str:
    """Return the resource name of a stored recipe, given as an identifier or as a resource name.

    Recipes that come with the service have no project, and are named by their identifier alone.
    """
    return recipe if "/" in recipe else f"{project_name(project)}/recipes/{recipe}"
