"""The check of fault-injection histories finds each broken promise, and has no false alarms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from redis.crc import key_slot

from advisor.store import keys
from tests.chaos import values
from tests.chaos.history import FOREVER_NS, History, Operation
from tests.chaos.main import PROJECTS_OF_A_CLUSTER
from tests.chaos.model import check
from tests.chaos.violations import counted

_SLOTS = 16_384  # of a Redis Cluster; each of three nodes has a third
SECOND_NS = 1_000_000_000
PROFILE = "plain"


class HistoryBuilder:
    """Builds a history without violations, one operation after another."""

    def __init__(self) -> None:
        self.now = 0
        self.operations: list[Operation] = []
        self.audit: list[dict[str, Any]] = []
        self.versions: dict[int, tuple[str, int]] = {}
        self.aliases: dict[str, tuple[int, int]] = {}

    def add(self, kind: str, request: dict[str, Any], response: dict[str, Any]) -> Operation:
        started, self.now = self.now, self.now + SECOND_NS
        response = {**response, "waited_s": 0.1}
        made = Operation(
            f"main-{len(self.operations)}", kind, request, started, self.now, "ok", response
        )
        self.operations.append(made)
        self.now += SECOND_NS
        return made

    def write(
        self, kind: str, action: str, name: str, detail: str, request: Any, response: Any
    ) -> None:
        request_id = f"r{len(self.operations)}"
        self.audit.append({
            "request_id": request_id,
            "action": action,
            "name": name,
            "detail": detail,
        })
        self.add(kind, {"profile": PROFILE, "request_id": request_id, **request}, response)

    def register(self, version: int, number: int) -> None:
        digest = f"digest-{number}"
        self.versions[version] = (digest, number)
        self.write(
            "register", "register", f"profiles/{PROFILE}@{version}", digest,
            {"number": number}, {"version": version, "digest": digest, "created": True},
        )  # fmt: skip

    def move(self, alias: str, version: int) -> None:
        before, moves = self.aliases.get(alias, (0, 0))
        self.aliases[alias] = (version, moves + 1)
        self.write(
            "set_alias", "set alias", f"profiles/{PROFILE}@{alias}", f"{before} -> {version}",
            {"alias": alias, "version": version, "expected_version": before, "etag": ""},
            {"version": version, "previous": before, "moves": moves + 1},
        )  # fmt: skip

    def delete(self, version: int) -> None:
        digest, _ = self.versions.pop(version)
        self.write(
            "delete_profile", "delete", f"profiles/{PROFILE}@{version}", digest,
            {"version": version}, {},
        )  # fmt: skip

    def read(self, suffix: str, version: int) -> None:
        digest, number = self.versions[version]
        response = {
            "version": version, "digest": digest, "number": number,
            "versions": sorted(self.versions), "aliases": dict(self.aliases),
        }  # fmt: skip
        self.add("read", {"profile": PROFILE, "suffix": suffix}, response)

    def recommend(self, suffix: str, version: int, *, stale: bool = False) -> None:
        digest, number = self.versions[version]
        response = {
            "profile": f"projects/default/profiles/{PROFILE}@{version}", "version": version,
            "digest": digest, "stale": stale, "policy": None, "stream": f"s{self.now}",
            "multipliers": values.expected_multipliers(number, None),
            "references": [values.scale(number) * (1 + group) for group in range(4)],
        }  # fmt: skip
        request = {"profile": PROFILE, "suffix": suffix, "fixed_rates": True}
        self.add("recommend", request, response)

    def history(self) -> History:
        profile = {"versions": dict(self.versions), "aliases": dict(self.aliases)}
        notes: list[dict[str, Any]] = [
            {"event": "plan", "t": 0, "deadline_s": 2.0, "slack_s": 0.5},
            {"event": "steps", "job": "training", "seconds": [0.01], "multipliers": [1.0, 2.0]},
            {"event": "end", "t": self.now},
            {
                "event": "final",
                "profiles": {PROFILE: profile},
                "policies": {},
                "audit": self.audit,
            },
        ]
        return copy.deepcopy(History(self.operations, notes))


@pytest.fixture
def builder() -> HistoryBuilder:
    builder = HistoryBuilder()
    builder.register(1, 0)
    builder.move("prod", 1)
    builder.register(2, 5)
    builder.recommend("prod", 1)
    builder.move("prod", 2)
    builder.read("prod", 2)
    builder.recommend("", 2)
    builder.register(3, 7)
    builder.delete(1)
    builder.read("", 3)
    return builder


def operation(history: History, kind: str, which: int = 0) -> Operation:
    return [each for each in history.operations if each.kind == kind][which]


def final(history: History) -> dict[str, Any]:
    return history.of("final")[-1]


def broken(history: History) -> set[str]:
    """Return the kinds of violations in a history."""
    return {count for count, times in counted(check(history)).items() if times}


def test_a_history_without_faults_has_no_violations(builder: HistoryBuilder) -> None:
    assert check(builder.history()) == []


def test_a_write_of_unknown_outcome_may_or_may_not_take_effect(builder: HistoryBuilder) -> None:
    history = builder.history()
    for which in (0, 1, 2):
        register = operation(history, "register", which)
        register.outcome = "unknown"
        register.response = {"waited_s": 0.1}
    lost = Operation(
        "main-99", "register", {"profile": PROFILE, "number": 9, "request_id": "r99"},
        0, SECOND_NS, "unknown", {"waited_s": 0.1},
    )  # fmt: skip
    history.operations.append(lost)
    assert check(history) == []


def test_only_a_stale_answer_may_show_an_earlier_state(builder: HistoryBuilder) -> None:
    digest = builder.versions[2][0]
    builder.recommend("prod", 2)
    past = builder.operations[-1]
    past.response.update(
        version=1, digest="digest-0", profile=f"projects/default/profiles/{PROFILE}@1",
        multipliers=values.expected_multipliers(0, None), references=[1.0, 2.0, 3.0, 4.0],
    )  # fmt: skip
    assert past.response["digest"] != digest
    assert broken(builder.history()) == {"wrong_version"}
    past.response["stale"] = True
    assert check(builder.history()) == []


def _lose_version(history: History) -> None:
    del final(history)["profiles"][PROFILE]["versions"][3]


def _lose_alias(history: History) -> None:
    final(history)["profiles"][PROFILE]["aliases"].clear()


def _lose_a_write_and_its_record(history: History) -> None:
    final(history)["audit"].pop(5)  # the third registration
    del final(history)["profiles"][PROFILE]["versions"][3]


def _restore_a_deleted_version(history: History) -> None:
    final(history)["profiles"][PROFILE]["versions"][1] = ("digest-0", 0)


def _record_twice(history: History) -> None:
    audit = final(history)["audit"]
    audit.insert(1, {**audit[0], "name": f"profiles/{PROFILE}@2"})


def _unrequested_write(history: History) -> None:
    event = {"request_id": "unknown", "action": "register", "detail": "digest-1"}
    final(history)["audit"].append({**event, "name": f"profiles/{PROFILE}@4"})
    final(history)["profiles"][PROFILE]["versions"][4] = ("digest-1", None)


def _assign_a_number_twice(history: History) -> None:
    for register in (operation(history, "register", 1), operation(history, "register", 2)):
        register.response["version"] = 2
    final(history)["audit"][5]["name"] = f"profiles/{PROFILE}@2"


def _apply_a_refused_write(history: History) -> None:
    move = operation(history, "set_alias", 1)
    move.outcome, move.response = "refused", {"reason": "ALIAS_MOVED", "waited_s": 0.1}


def _wrong_version_in_an_answer(history: History) -> None:
    operation(history, "register", 1).response["version"] = 3


def _applied_before_its_request(history: History) -> None:
    audit = final(history)["audit"]
    audit[2], audit[1] = audit[1], audit[2]  # valid in each state, but not in the order of time


def _moved_despite_a_conflict(history: History) -> None:
    operation(history, "set_alias", 1).request["expected_version"] = 7


def _defect(history: History) -> None:
    read = operation(history, "read")
    read.outcome = "unknown"
    read.response = {"defect": True, "error": "internal", "waited_s": 0.1, "reason": "INTERNAL"}


def _outdated_alias(history: History) -> None:
    operation(history, "read").response["aliases"] = {"prod": (1, 1)}


def _content_of_a_different_version(history: History) -> None:
    operation(history, "read").response["number"] = 0


def _outdated_version(history: History) -> None:
    operation(history, "recommend", 1).response.update(version=1, digest="digest-0")


def _multipliers_of_a_different_version(history: History) -> None:
    response = operation(history, "recommend", 1).response
    response["multipliers"] = values.expected_multipliers(0, None)


def _references_of_a_different_version(history: History) -> None:
    operation(history, "recommend", 1).response["references"] = [1.0, 2.0, 3.0, 4.0]


def _changed_within_a_stream(history: History) -> None:
    first, second = operation(history, "recommend"), operation(history, "recommend", 1)
    second.response["stream"] = first.response["stream"]


def _refused_without_reason(history: History) -> None:
    read = operation(history, "read")
    read.outcome, read.response = "refused", {"reason": "VERSION_NOT_FOUND", "waited_s": 0.1}


def _multiplier_not_finite(history: History) -> None:
    operation(history, "recommend").response["multipliers"][0] = float("nan")


def _multiplier_out_of_bounds(history: History) -> None:
    history.of("steps")[0]["multipliers"] = [1.0, 5_000.0]


def _slow_call(history: History) -> None:
    operation(history, "read").response["waited_s"] = 2.6


def _never_returned(history: History) -> None:
    operation(history, "read").returned_ns = FOREVER_NS


def _slow_step(history: History) -> None:
    history.of("steps")[0]["seconds"] = [0.01, 2.6]


def _hanging_job(history: History) -> None:
    history.notes.append({"event": "hung", "job": "training"})


@pytest.mark.parametrize(
    ("plant", "count"),
    [
        *((plant, "lost") for plant in (_lose_version, _lose_alias, _wrong_version_in_an_answer)),
        *((plant, "lost") for plant in (_lose_a_write_and_its_record, _defect)),
        (_applied_before_its_request, "lost"),
        *(
            (plant, "doubled")
            for plant in (_restore_a_deleted_version, _record_twice, _unrequested_write)
        ),
        *((plant, "doubled") for plant in (_assign_a_number_twice, _apply_a_refused_write)),
        (_moved_despite_a_conflict, "doubled"),
        *((plant, "wrong_version") for plant in (_outdated_alias, _content_of_a_different_version)),
        *(
            (plant, "wrong_version")
            for plant in (_outdated_version, _multipliers_of_a_different_version)
        ),
        *(
            (plant, "wrong_version")
            for plant in (_references_of_a_different_version, _changed_within_a_stream)
        ),
        (_refused_without_reason, "wrong_version"),
        *((plant, "non_finite") for plant in (_multiplier_not_finite, _multiplier_out_of_bounds)),
        *((plant, "blocked") for plant in (_slow_call, _never_returned, _slow_step, _hanging_job)),
    ],
)
def test_each_broken_promise_is_found(
    builder: HistoryBuilder, plant: Callable[[History], None], count: str
) -> None:
    history = builder.history()
    plant(history)
    assert count in broken(history)


def test_a_history_without_a_final_state_is_refused(builder: HistoryBuilder) -> None:
    history = builder.history()
    history.notes.pop()
    with pytest.raises(ValueError, match="has no final state"):
        check(history)


def test_the_projects_of_a_cluster_are_on_all_of_its_nodes() -> None:
    slots = [key_slot(keys.audit(project).encode()) for project in PROJECTS_OF_A_CLUSTER]
    assert {3 * slot // _SLOTS for slot in slots} == {0, 1, 2}
