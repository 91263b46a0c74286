"""Every Redis operation of the service, used once through its public API."""

from __future__ import annotations

import threading

import pytest

from fslr import (
    AdvisorClient,
    AliasMovedError,
    FslrError,
    PolicyInUseError,
    PolicyNotFoundError,
    RecipeInUseError,
    RunNotFoundError,
    VersionInUseError,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, recipe_pb2, run_service_pb2
from tests.building import content_message, opening_message
from tests.waiting import eventually


def check_all_operations(client: AdvisorClient, project: str) -> None:
    """Register, alias, recommend, watch, list, set policies, audit and delete; check each."""
    one = {"team": "vision", "stage": "a"}
    first = client.register_profile("gpt", content_message(labels=one), project=project)
    again = client.register_profile("gpt", content_message(labels=one), project=project)
    second = client.register_profile("gpt", content_message(rate=2, labels=one), project=project)
    assert [r.profile.version for r in (first, again, second)] == [1, 1, 2]
    client.register_profile("bert", content_message(labels={"team": "text"}), project=project)

    client.set_alias("gpt@1", "best", project=project, expected_version=0)
    with pytest.raises(AliasMovedError, match="best"):
        client.set_alias("gpt@2", "best", project=project, expected_version=0)
    client.set_alias("gpt@2", "best", project=project, expected_version=1)
    assert client.get_profile("gpt@best", project=project).profile.version == 2
    with pytest.raises(VersionInUseError, match="best"):
        client.delete_profile("gpt@2", project=project)

    _recommend(client, project)

    def names(**labels: str) -> list[str]:
        label_filter = " AND ".join(f"labels.{key}={value}" for key, value in labels.items())
        listed = client.list_profiles(project=project, label_filter=label_filter)
        return [profile.name.rsplit("/", 1)[-1] for profile in listed]

    assert names() == ["bert@1", "gpt@2"]
    assert names(team="vision") == ["gpt@2"]
    assert names(team="vision", stage="a") == ["gpt@2"]
    with pytest.raises(FslrError, match="gpt"):
        client.get_profile("gtp", project=project)

    client.set_policy("team", policy_pb2.Policy(max_multiplier=2.0), project=project)
    client.set_policy("team", policy_pb2.Policy(max_multiplier=3.0), project=project)
    assert client.get_policy("team", project=project).policy.max_multiplier == 3.0
    assert [p.version for p in client.list_policies(project=project)] == [2]
    with pytest.raises(PolicyNotFoundError, match=r"did you mean .*/team\?"):
        client.get_policy("taem", project=project)

    store = client.status().store
    assert (store.available, store.append_only, store.flush) == (True, True, "always")
    assert (store.eviction, store.problem) == ("noeviction", "")
    assert abs(store.clock_offset_s) < 1

    named = content_message(labels={"team": "text"})
    named.policy_name = f"projects/{project}/policies/team"
    client.register_profile("bert", named, project=project)
    with pytest.raises(PolicyInUseError, match=r"team is named by .*bert@2; delete these versions"):
        client.delete_policy("team", project=project)
    client.delete_profile("bert", all_versions=True, project=project)
    _check_recipes(client, project)
    client.delete_policy("team", project=project)
    assert names() == ["gpt@2"]
    assert list(client.list_policies(project=project)) == []

    client.delete_alias("gpt", "best", project=project)
    client.delete_profile("gpt@2", project=project)
    assert client.get_profile("gpt", project=project).profile.version == 1
    assert [event.action for event in client.list_audit_events(project=project)] == [
        *(
            "delete",
            "delete alias",
            "delete policy",
            "set policy",
            "delete recipe",
            "delete policy",
        ),
        *("set policy", "set recipe", "set recipe", "delete profile", "register"),
        *("set policy", "set policy", "set alias", "set alias"),
        *("register", "register", "register"),
    ]


def _check_recipes(client: AdvisorClient, project: str) -> None:
    """Store, read, list and delete a recipe; a policy names it at first."""
    for source in ("a", "b"):
        table = recipe_pb2.Recipe(source=source, rows=[recipe_pb2.RecipeRow()])
        client.set_recipe("ours", table, project=project)
    assert client.get_recipe("ours@1", project=project).recipe.source == "a"
    assert [r.version for r in client.list_recipes(project=project) if r.version] == [2]
    name = f"projects/{project}/recipes/ours"
    client.set_policy("team", policy_pb2.Policy(recipe=name), project=project)
    with pytest.raises(RecipeInUseError, match=r"ours is named by .*/policies/team@3"):
        client.delete_recipe("ours", project=project)
    client.delete_policy("team", project=project)
    client.delete_recipe("ours", project=project)
    client.set_policy("team", policy_pb2.Policy(), project=project)


def _recommend(client: AdvisorClient, project: str) -> None:
    """Stream measurements while a client watches, and check that all are stored in order."""
    opening = opening_message(
        f"projects/{project}/profiles/gpt@best", run=f"projects/{project}/runs/one"
    )
    session = client.open_run(opening)
    session.recommend(pb.Measurement(step=0, unit_rates=[1, 2, 3, 4]))
    eventually(lambda: is_stored(client, project, "one"))
    seen: list[run_service_pb2.RunEvent] = []

    def watch() -> None:
        for event in client.watch_run("one", project=project):
            seen.append(event)
            if len(seen) == 3:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in (1, 2):
        session.recommend(pb.Measurement(step=step, unit_rates=[1, 2, 3, 4]))
    session.close()
    watcher.join(10)
    assert [event.measurement.step for event in seen] == [0, 1, 2]
    assert [e.id for e in client.get_run_history("one", project=project)] == [e.id for e in seen]
    for step in (1, 2):
        client.report_run_metrics("one", step, {"auc": step / 4}, project=project)
    reports = list(client.list_run_metrics("one", project=project))
    assert [(report.step, dict(report.values)) for report in reports] == [
        (1, {"auc": 0.25}),
        (2, {"auc": 0.5}),
    ]
    updates = client.watch_run_updates("one", after_metrics_id=reports[0].id, project=project)
    watched = [next(updates) for _ in range(4)]
    assert [response.metrics.step for response in watched] == [0, 0, 0, 2]
    stored = client.get_run("one", project=project)
    assert (stored.measurements, stored.lost_measurements) == (3, 0)
    assert [run.name for run in client.list_runs(project=project)] == [
        f"projects/{project}/runs/one"
    ]


def is_stored(client: AdvisorClient, project: str, run: str, measurements: int = 1) -> bool:
    """Return whether a run has at least that many stored measurements."""
    try:
        return client.get_run(run, project=project).measurements >= measurements
    except RunNotFoundError:
        return False
