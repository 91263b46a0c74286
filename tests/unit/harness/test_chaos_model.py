"""The judge of the fault injection sees each broken promise, and none where all was kept."""

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

_SLOTS = 16_384  # of a Redis Cluster; three nodes hold a third each
SECOND_NS = 1_000_000_000
PROFILE = "alone"


class Story:
    """A history in which everything went well, told one operation after the other."""

    def __init__(self) -> None:
        self.now = 0
        self.operations: list[Operation] = []
        self.audit: list[dict[str, Any]] = []
        self.versions: dict[int, tuple[str, int]] = {}
        self.aliases: dict[str, tuple[int, int]] = {}

    def tell(self, kind: str, asked: dict[str, Any], told: dict[str, Any]) -> Operation:
        begun, self.now = self.now, self.now + SECOND_NS
        told = {**told, "waited_s": 0.1}
        made = Operation(f"main-{len(self.operations)}", kind, asked, begun, self.now, "ok", told)
        self.operations.append(made)
        self.now += SECOND_NS
        return made

    def write(self, kind: str, action: str, name: str, detail: str, asked: Any, told: Any) -> None:
        request_id = f"r{len(self.operations)}"
        self.audit.append({
            "request_id": request_id,
            "action": action,
            "name": name,
            "detail": detail,
        })
        self.tell(kind, {"profile": PROFILE, "request_id": request_id, **asked}, told)

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
        told = {
            "version": version, "digest": digest, "number": number,
            "versions": sorted(self.versions), "aliases": dict(self.aliases),
        }  # fmt: skip
        self.tell("read", {"profile": PROFILE, "suffix": suffix}, told)

    def recommend(self, suffix: str, version: int, *, stale: bool = False) -> None:
        digest, number = self.versions[version]
        told = {
            "profile": f"projects/default/profiles/{PROFILE}@{version}", "version": version,
            "digest": digest, "stale": stale, "policy": None, "stream": f"s{self.now}",
            "multipliers": values.expected_multipliers(number, None),
            "references": [values.scale(number) * (1 + group) for group in range(4)],
        }  # fmt: skip
        asked = {"profile": PROFILE, "suffix": suffix, "fixed_rates": True}
        self.tell("recommend", asked, told)

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
def story() -> Story:
    told = Story()
    told.register(1, 0)
    told.move("prod", 1)
    told.register(2, 5)
    told.recommend("prod", 1)
    told.move("prod", 2)
    told.read("prod", 2)
    told.recommend("", 2)
    told.register(3, 7)
    told.delete(1)
    told.read("", 3)
    return told


def operation(history: History, kind: str, which: int = 0) -> Operation:
    return [each for each in history.operations if each.kind == kind][which]


def final(history: History) -> dict[str, Any]:
    return history.of("final")[-1]


def broken(history: History) -> set[str]:
    """Return what was broken."""
    return {count for count, times in counted(check(history)).items() if times}


def test_where_all_went_well_nothing_is_found(story: Story) -> None:
    assert check(story.history()) == []


def test_a_write_of_unknown_outcome_may_be_there_or_not(story: Story) -> None:
    history = story.history()
    for which in (0, 1, 2):
        register = operation(history, "register", which)
        register.outcome = "unknown"
        register.told = {"waited_s": 0.1}
    lost = Operation(
        "main-99", "register", {"profile": PROFILE, "number": 9, "request_id": "r99"},
        0, SECOND_NS, "unknown", {"waited_s": 0.1},
    )  # fmt: skip
    history.operations.append(lost)
    assert check(history) == []


def test_a_stale_answer_may_come_from_the_past_and_no_other(story: Story) -> None:
    digest = story.versions[2][0]
    story.recommend("prod", 2)
    past = story.operations[-1]
    past.told.update(
        version=1, digest="digest-0", profile=f"projects/default/profiles/{PROFILE}@1",
        multipliers=values.expected_multipliers(0, None), references=[1.0, 2.0, 3.0, 4.0],
    )  # fmt: skip
    assert past.told["digest"] != digest
    assert broken(story.history()) == {"wrong_version"}
    past.told["stale"] = True
    assert check(story.history()) == []


def _lose_version(history: History) -> None:
    del final(history)["profiles"][PROFILE]["versions"][3]


def _lose_alias(history: History) -> None:
    final(history)["profiles"][PROFILE]["aliases"].clear()


def _lose_a_write_and_its_record(history: History) -> None:
    final(history)["audit"].pop(5)  # the third registration
    del final(history)["profiles"][PROFILE]["versions"][3]


def _come_back(history: History) -> None:
    final(history)["profiles"][PROFILE]["versions"][1] = ("digest-0", 0)


def _record_twice(history: History) -> None:
    audit = final(history)["audit"]
    audit.insert(1, {**audit[0], "name": f"profiles/{PROFILE}@2"})


def _unasked(history: History) -> None:
    event = {"request_id": "nobody", "action": "register", "detail": "digest-1"}
    final(history)["audit"].append({**event, "name": f"profiles/{PROFILE}@4"})
    final(history)["profiles"][PROFILE]["versions"][4] = ("digest-1", None)


def _number_given_twice(history: History) -> None:
    for register in (operation(history, "register", 1), operation(history, "register", 2)):
        register.told["version"] = 2
    final(history)["audit"][5]["name"] = f"profiles/{PROFILE}@2"


def _refused_and_done(history: History) -> None:
    move = operation(history, "set_alias", 1)
    move.outcome, move.told = "refused", {"reason": "ALIAS_MOVED", "waited_s": 0.1}


def _told_another_version(history: History) -> None:
    operation(history, "register", 1).told["version"] = 3


def _done_before_it_was_asked(history: History) -> None:
    audit = final(history)["audit"]
    audit[2], audit[1] = audit[1], audit[2]  # fits each state, but not the clock


def _moved_by_a_lost_race(history: History) -> None:
    operation(history, "set_alias", 1).asked["expected_version"] = 7


def _defect(history: History) -> None:
    read = operation(history, "read")
    read.outcome = "unknown"
    read.told = {"defect": True, "error": "internal", "waited_s": 0.1, "reason": "INTERNAL"}


def _former_alias(history: History) -> None:
    operation(history, "read").told["aliases"] = {"prod": (1, 1)}


def _others_content(history: History) -> None:
    operation(history, "read").told["number"] = 0


def _former_version(history: History) -> None:
    operation(history, "recommend", 1).told.update(version=1, digest="digest-0")


def _others_multipliers(history: History) -> None:
    told = operation(history, "recommend", 1).told
    told["multipliers"] = values.expected_multipliers(0, None)


def _others_references(history: History) -> None:
    operation(history, "recommend", 1).told["references"] = [1.0, 2.0, 3.0, 4.0]


def _changed_within_a_stream(history: History) -> None:
    first, second = operation(history, "recommend"), operation(history, "recommend", 1)
    second.told["stream"] = first.told["stream"]


def _refused_without_reason(history: History) -> None:
    read = operation(history, "read")
    read.outcome, read.told = "refused", {"reason": "VERSION_NOT_FOUND", "waited_s": 0.1}


def _not_finite(history: History) -> None:
    operation(history, "recommend").told["multipliers"][0] = float("nan")


def _out_of_bounds(history: History) -> None:
    history.of("steps")[0]["multipliers"] = [1.0, 5_000.0]


def _slow_call(history: History) -> None:
    operation(history, "read").told["waited_s"] = 2.6


def _never_returned(history: History) -> None:
    operation(history, "read").returned_ns = FOREVER_NS


def _slow_step(history: History) -> None:
    history.of("steps")[0]["seconds"] = [0.01, 2.6]


def _hung(history: History) -> None:
    history.notes.append({"event": "hung", "job": "training"})


@pytest.mark.parametrize(
    ("plant", "count"),
    [
        *((plant, "lost") for plant in (_lose_version, _lose_alias, _told_another_version)),
        *((plant, "lost") for plant in (_lose_a_write_and_its_record, _defect)),
        (_done_before_it_was_asked, "lost"),
        *((plant, "doubled") for plant in (_come_back, _record_twice, _unasked)),
        *((plant, "doubled") for plant in (_number_given_twice, _refused_and_done)),
        (_moved_by_a_lost_race, "doubled"),
        *((plant, "wrong_version") for plant in (_former_alias, _others_content)),
        *((plant, "wrong_version") for plant in (_former_version, _others_multipliers)),
        *((plant, "wrong_version") for plant in (_others_references, _changed_within_a_stream)),
        (_refused_without_reason, "wrong_version"),
        *((plant, "non_finite") for plant in (_not_finite, _out_of_bounds)),
        *((plant, "blocked") for plant in (_slow_call, _never_returned, _slow_step, _hung)),
    ],
)
def test_each_broken_promise_is_found(
    story: Story, plant: Callable[[History], None], count: str
) -> None:
    history = story.history()
    plant(history)
    assert count in broken(history)


def test_a_history_without_an_end_is_no_history(story: Story) -> None:
    history = story.history()
    history.notes.pop()
    with pytest.raises(ValueError, match="has no final state"):
        check(history)


def test_projects_of_a_cluster_lie_on_all_of_its_nodes() -> None:
    slots = [key_slot(keys.audit(project).encode()) for project in PROJECTS_OF_A_CLUSTER]
    assert {3 * slot // _SLOTS for slot in slots} == {0, 1, 2}
