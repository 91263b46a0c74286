"""Judges a history: the promises of the registry and of recommendations, and who broke them.

The registry promises to be one thing that all clients share: there is one order of all writes, each
takes effect at one moment between its call and its answer, and every answer is what the registry
held at such a moment. The audit record says the order; here it is held against what clients saw.

Pure: a history in, violations out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.chaos.answers import AnswerJudge
from tests.chaos.history import History, Operation, Values
from tests.chaos.order import Order, by_return
from tests.chaos.replay import Event, ProfileState, Replay, replayed
from tests.chaos.violations import Violation
from tests.chaos.waits import overlong_waits

_Key = TypeVar("_Key")
WRITES = ("register", "set_alias", "delete_alias", "delete_profile", "set_policy")
_ACTIONS = {
    "register": ("register", "restore"),
    "set_alias": ("set alias",),
    "delete_alias": ("delete alias",),
    "delete_profile": ("delete",),
    "set_policy": ("set policy",),
}


def check(history: History) -> list[Violation]:
    """Return what a history broke.

    Args:
        history: It ends with the registry as it was read when all was over (``final``).

    Raises:
        ValueError: The history does not say how it ended, or names what no client can have named.
    """
    if not history.of("final"):
        raise ValueError("the history has no final state: the run did not come to its end")
    final = history.of("final")[-1]
    replay = replayed(final["audit"])
    judge = _Judge(history, replay)
    return [
        *replay.violations,
        *judge.judged(),
        *_end(replay, judge, final),
        *overlong_waits(history),
    ]


class _Judge:
    """Holds operations against the states that the registry went through."""

    def __init__(self, history: History, replay: Replay) -> None:
        self.violations: list[Violation] = []
        self._replay = replay
        self._operations = history.operations
        made: dict[str, list[Event]] = defaultdict(list)
        for event in replay.events:
            made[event.request_id].append(event)
        self._events = made
        requests = {o.asked["request_id"]: o for o in history.operations if o.kind in WRITES}
        writers = {}
        for event in replay.events:
            if event.request_id in requests:
                writers[event.position] = requests[event.request_id]
            else:
                self._wrong("doubled", f"{event}: nobody asked for it")
        self._order = Order(writers, len(replay.events))
        self.digests = self._digests(writers)
        self.policy_numbers = self._policy_numbers(writers)
        self._answers = AnswerJudge(
            replay, self._order, self.digests, self.policy_numbers, history, self._wrong
        )

    def _wrong(self, count: str, what: str) -> None:
        self.violations.append(Violation(count, what))

    def _digests(self, writers: dict[int, Operation]) -> dict[tuple[str, str], int]:
        """Return the number of each profile's digests."""
        numbers: dict[tuple[str, str], int] = {}
        found = [
            (o.asked["profile"], o.told["digest"], o.asked["number"])
            for o in self._operations
            if o.kind == "register" and o.ok
        ]
        found += [
            (event.name, event.detail, writers[event.position].asked["number"])
            for event in self._replay.events
            if event.action == "register" and event.position in writers
        ]
        for profile, digest, number in found:
            if numbers.setdefault((profile, digest), number) != number:
                self._wrong("doubled", f"{profile}: digest {digest} is that of two contents")
        digests = {(profile, number): digest for (profile, digest), number in numbers.items()}
        if len(digests) < len(numbers):
            self._wrong("doubled", "one content has two digests")
        return numbers

    def _policy_numbers(self, writers: dict[int, Operation]) -> dict[tuple[str, int], int]:
        """Return the number of the rules of each policy's versions."""
        return {
            (event.name, int(event.suffix)): writers[event.position].asked["number"]
            for event in self._replay.events
            if event.action == "set policy" and event.position in writers
        }

    def judged(self) -> list[Violation]:
        """Return what operations show to be broken."""
        for operation in by_return(self._operations):
            if operation.told.get("defect"):
                self._wrong("lost", f"{_words(operation)}: a defect: {operation.told['error']}")
            if operation.kind in WRITES:
                self._write(operation)
            else:
                self._answers.judge(operation)
        return self.violations

    def _write(self, operation: Operation) -> None:
        events = self._events.get(operation.asked["request_id"], [])
        if len(events) > 1:
            self._wrong("doubled", f"{_words(operation)}: done {len(events)} times")
        if events and operation.outcome == "refused":
            self._wrong("doubled", f"{_words(operation)}: done, although it was refused")
        if events:
            self._effect(operation, events[0])
        elif operation.outcome == "ok":
            self._no_effect(operation)
        elif operation.outcome == "refused":
            self._refusal(operation)

    def _effect(self, operation: Operation, event: Event) -> None:
        """Hold what was done against what was asked, what was told, and what went before."""
        before = self._order.fewest(operation.invoked_ns)
        if event.position < before:
            self._wrong(
                "lost",
                f"{_words(operation)}: stands at {event.position} of the record, although "
                f"{before} writes were seen before it was asked for",
            )
        done = _done(self._replay, event)
        fits = event.action in _ACTIONS[operation.kind] and _is_asked(operation, done)
        if not fits:
            self._wrong("doubled", f"{_words(operation)}: the record says {event}")
        if operation.ok:
            wrong = {k: v for k, v in operation.told.items() if k in done and done[k] != v}
            if wrong or not operation.told.get("created", True):
                self._wrong("lost", f"{_words(operation)}: told {wrong}, the record says {event}")
            self._order.saw(operation.returned_ns, event.position + 1)

    def _no_effect(self, operation: Operation) -> None:
        """Hold an answer that changed nothing against the states of its time."""
        asked, told = operation.asked, operation.told
        seen = False
        match operation.kind:
            case "register" if not told["created"]:
                seen = self._some_profile(
                    operation, lambda state: state.versions.get(told["version"]) == told["digest"]
                )
            case "set_alias" if not asked["etag"]:
                alias, version = asked["alias"], asked["version"]
                seen = told["version"] == told["previous"] == version and self._some_profile(
                    operation,
                    lambda s: (
                        (s.aliases.get(alias), s.moves.get(alias)) == (version, told["moves"])
                    ),
                )
            case "set_policy" if not told["created"]:
                seen = self._some_policy(
                    operation,
                    lambda latest: (
                        latest == told["version"]
                        and self.policy_numbers.get((asked["policy"], latest)) == asked["number"]
                    ),
                )
        if not seen:
            self._wrong("lost", f"{_words(operation)}: acknowledged, but not in the record")

    def _refusal(self, operation: Operation) -> None:
        """Hold a refusal against the states of its time: one of them must be its reason."""
        asked = operation.asked
        expected, etag = asked.get("expected_version"), asked.get("etag", "")
        alias, version = asked.get("alias", ""), asked.get("version", 0)
        seen = False
        match operation.told["reason"]:
            case "ALIAS_MOVED":
                seen = self._some_profile(
                    operation,
                    lambda s: (
                        (expected is not None and s.aliases.get(alias, 0) != expected)
                        or (etag != "" and s.moves.get(alias, 0) != int(etag))
                    ),
                )
            case "VERSION_NOT_FOUND" if operation.kind == "delete_alias":
                seen = self._some_profile(operation, lambda state: alias not in state.aliases)
            case "VERSION_NOT_FOUND" | "PROFILE_NOT_FOUND":
                seen = self._some_profile(operation, lambda state: version not in state.versions)
            case "VERSION_IN_USE":
                seen = self._some_profile(
                    operation, lambda state: version in state.aliases.values()
                )
            case "POLICY_MOVED":
                seen = self._some_policy(operation, lambda latest: latest != expected)
        if not seen:
            self._wrong(
                "wrong_version",
                f"{_words(operation)}: refused ({operation.told['reason']}) without a reason",
            )

    def _some_profile(self, operation: Operation, fits: Callable[[ProfileState], bool]) -> bool:
        fewest = self._order.fewest(operation.invoked_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.profile(operation.asked["profile"])
        for writes, state in timeline.between(fewest, most):
            if fits(state):
                self._order.saw(operation.returned_ns, writes)
                return True
        return False

    def _some_policy(self, operation: Operation, fits: Callable[[int], bool]) -> bool:
        fewest = self._order.fewest(operation.invoked_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.policy(operation.asked["policy"])
        return any(fits(latest) for _, latest in timeline.between(fewest, most))


def _words(operation: Operation) -> str:
    return f"{operation.id} {operation.kind} {operation.asked}"


def _done(replay: Replay, event: Event) -> Values:
    """Return what an event did, in the words of operations."""
    if event.action == "set policy":
        return {"policy": event.name, "version": int(event.suffix)}
    done: Values = {"profile": event.name}
    if event.action in {"set alias", "delete alias"}:
        before, after = event.move
        moves = replay.profile(event.name).after(event.position + 1).moves[event.suffix]
        return {
            **done,
            "alias": event.suffix,
            "version": after,
            "previous": before,
            "moves": moves,
        }
    return {**done, "version": int(event.suffix), "digest": event.detail}


def _is_asked(operation: Operation, done: Values) -> bool:
    """Return whether something that was done was asked for, under its conditions."""
    asked = operation.asked
    if operation.kind == "set_policy":
        expected = asked["expected_version"]
        return done["policy"] == asked["policy"] and expected in {None, done["version"] - 1}
    fits = done["profile"] == asked["profile"]
    if operation.kind in {"set_alias", "delete_alias"}:
        fits = fits and done["alias"] == asked["alias"]
        fits = fits and asked["etag"] in {"", str(done["moves"] - 1)}
        fits = fits and asked.get("expected_version") in {None, done["previous"]}
    if operation.kind in {"set_alias", "delete_profile"}:
        fits = fits and done["version"] == asked["version"]
    return bool(fits)


def _end(replay: Replay, judge: _Judge, final: Values) -> list[Violation]:
    """Hold the registry as it was read at the end against what its record says."""
    violations: list[Violation] = []
    for name in sorted({*replay.profiles, *final["profiles"]}):
        state = replay.profile(name).last
        read = final["profiles"].get(name, {"versions": {}, "aliases": {}})
        versions = {int(version): tuple(what) for version, what in read["versions"].items()}
        recorded = {
            version: (digest, judge.digests.get((name, digest)))
            for version, digest in state.versions.items()
        }
        aliases = {alias: tuple(what) for alias, what in read["aliases"].items()}
        named = {a: (version, state.moves[a]) for a, version in state.aliases.items()}
        violations += _differences(f"version of {name}", recorded, versions)
        violations += _differences(f"alias of {name}", named, aliases)
    for name in sorted({*replay.policies, *final["policies"]}):
        read_rules = {int(v): number for v, number in final["policies"].get(name, {}).items()}
        recorded_rules = {
            version: judge.policy_numbers.get((name, version))
            for version in range(1, replay.policy(name).last + 1)
        }
        violations += _differences(f"version of policy {name}", recorded_rules, read_rules)
    return violations


def _differences(
    what: str, recorded: Mapping[_Key, object], read: Mapping[_Key, object]
) -> list[Violation]:
    lost = [
        Violation("lost", f"{what}: {key} is {read.get(key)} at the end and must be {value}")
        for key, value in recorded.items()
        if read.get(key) != value
    ]
    doubled = [
        Violation("doubled", f"{what}: {key} is there at the end, and nobody made it")
        for key in read
        if key not in recorded
    ]
    return lost + doubled
