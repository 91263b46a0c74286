from __future__ import annotations

import inspect

import pytest

from advisor.policy import InvalidValueError
from advisor.registry.resource_names import (
    ProfileReference,
    RunName,
    parse_profile_name,
    parse_project,
)
from advisor.store import keys
from fslr.resource_names import profile_name, project_name, run_name


def test_a_reference_has_a_version_an_alias_or_neither() -> None:
    path = "projects/nlp/profiles/char-gpt"
    versioned = ProfileReference.parse("name", f"{path}@12")
    aliased = ProfileReference.parse("name", f"{path}@prod")
    assert (versioned.version, versioned.suffix) == (12, "12")
    assert (aliased.version, aliased.suffix) == (None, "prod")
    assert ProfileReference.parse("name", path).suffix == ""
    assert str(versioned) == f"{path}@12"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "char-gpt",
        "projects/nlp/profiles/",
        "projects/nlp/profiles/x/y",
        "projects/nlp/runs/x",
        "projects/../profiles/x",
        "projects/{nlp}/profiles/x",
        "projects/nlp:x/profiles/x",
        "projects/nlp/profiles/X",
        "projects/nlp/profiles/1x",
        "projects/nlp/profiles/é",
        "projects/nlp/profiles/x\n",
        f"projects/nlp/profiles/{'x' * 64}",
        "projects/nlp/profiles/x@0",
        "projects/nlp/profiles/x@01",
        "projects/nlp/profiles/x@",
        "projects/nlp/profiles/x@-1",
        "projects/nlp/profiles/x@prod@1",
        "projects/nlp/profiles/x@" + "9" * 19,
    ],
)
def test_an_invalid_profile_reference_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^name: .*(must read|is not an identifier)"):
        ProfileReference.parse("name", name)


def test_a_profile_name_with_a_version_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"names a version; give only the profile"):
        parse_profile_name("name", "projects/nlp/profiles/x@1")


def test_projects_and_runs_are_parsed() -> None:
    assert parse_project("parent", "projects/nlp") == "nlp"
    assert str(RunName.parse("name", "projects/nlp/runs/r1")) == "projects/nlp/runs/r1"
    with pytest.raises(InvalidValueError, match=r"parent: 'nlp' is not a project name; it must"):
        parse_project("parent", "nlp")


def test_all_keys_of_a_project_have_its_hash_tag() -> None:
    name = ProfileReference.parse("name", "projects/nlp/profiles/x").name
    profile, run = keys.ProfileKeys(name), keys.RunKeys(RunName("nlp", "r"))
    of_project = (
        *(keys.profiles, keys.runs, keys.labels, keys.audit, keys.policies, keys.recipes),
        keys.tokens,
    )
    built = [
        *(key("nlp") for key in of_project),
        *(keys.policy("nlp", "p"), keys.recipe("nlp", "p"), keys.request("nlp", "q")),
        *(profile.index, profile.aliases, profile.content("abc"), run.summary, run.events),
    ]
    assert all(key.startswith("fslr:{nlp}:") for key in built)
    assert len(set(built)) == len(built)
    functions = inspect.getmembers(keys, inspect.isfunction)
    own = {name for name, function in functions if function.__module__ == keys.__name__}
    # A new kind of key must be added above.
    of_no_project = {"start_check"}
    named = {"policy", "recipe", "request"}
    assert own - of_no_project == {*(key.__name__ for key in of_project), *named}


def test_short_names_become_resource_names() -> None:
    assert profile_name("x@prod", "nlp") == "projects/nlp/profiles/x@prod"
    assert profile_name("projects/a/profiles/x", "nlp") == "projects/a/profiles/x"
    assert run_name("r") == "projects/default/runs/r"
    assert project_name("projects/nlp") == project_name("nlp") == "projects/nlp"
