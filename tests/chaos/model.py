"""Checks a history against the promises of the registry and of recommendations.

The registry promises linearizability: all writes have one order, each takes effect at one moment
between its call and its answer, and every answer shows the registry at such a moment. The audit
record states the order; this module compares it with what clients saw.

The check has no side effects: it takes a history and returns violations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.chaos.answers import AnswerChecker
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
    """Return the violations in a history.

    Args:
        history: A history that ends with the final state of the registry (``final``).

    Raises:
        ValueError: The history has no final state, or its audit record has a malformed name.
    """
    if not history.of("final"):
        raise ValueError("the history has no final state: the run did not finish")
    final = history.of("final")[-1]
    replay = replayed(final["audit"])
    checker = _Checker(history, replay)
    return [
        *replay.violations,
        *checker.check_operations(),
        *_end(replay, checker, final),
        *overlong_waits(history),
    ]


class _Checker:
    """Compares operations with the states of the registry over time."""

    def __init__(self, history: History, replay: Replay) -> None:
        self.violations: list[Violation] = []
        self._replay = replay
        self._operations = history.operations
        made: dict[str, list[Event]] = defaultdict(list)
        for event in replay.events:
            made[event.request_id].append(event)
        self._events = made
        requests = {o.request["request_id"]: o for o in history.operations if o.kind in WRITES}
        writers = {}
        for event in replay.events:
            if event.request_id in requests:
                writers[event.position] = requests[event.request_id]
            else:
                self._wrong("doubled", f"{event}: no client requested it")
        self._order = Order(writers, len(replay.events))
        self.digests = self._digests(writers)
        self.policy_numbers = self._policy_numbers(writers)
        self._answers = AnswerChecker(
            replay, self._order, self.digests, self.policy_numbers, history, self._wrong
        )

    def _wrong(self, count: str, what: str) -> None:
        self.violations.append(Violation(count, what))

    def _digests(self, writers: dict[int, Operation]) -> dict[tuple[str, str], int]:
        """Return the number of the content by profile and digest."""
        numbers: dict[tuple[str, str], int] = {}
        found = [
            (o.request["profile"], o.response["digest"], o.request["number"])
            for o in self._operations
            if o.kind == "register" and o.ok
        ]
        found += [
            (event.name, event.detail, writers[event.position].request["number"])
            for event in self._replay.events
            if event.action == "register" and event.position in writers
        ]
        for profile, digest, number in found:
            if numbers.setdefault((profile, digest), number) != number:
                self._wrong("doubled", f"{profile}: two contents have the digest {digest}")
        digests = {(profile, number): digest for (profile, digest), number in numbers.items()}
        if len(digests) < len(numbers):
            self._wrong("doubled", "one content has two digests")
        return numbers

    def _policy_numbers(self, writers: dict[int, Operation]) -> dict[tuple[str, int], int]:
        """Return the number of the rules by policy and version."""
        return {
            (event.name, int(event.suffix)): writers[event.position].request["number"]
            for event in self._replay.events
            if event.action == "set policy" and event.position in writers
        }

    def check_operations(self) -> list[Violation]:
        """Return the violations that operations show."""
        for operation in by_return(self._operations):
            if operation.response.get("defect"):
                self._wrong(
                    "lost", f"{_description(operation)}: defect: {operation.response['error']}"
                )
            if operation.kind in WRITES:
                self._write(operation)
            else:
                self._answers.check(operation)
        return self.violations

    def _write(self, operation: Operation) -> None:
        events = self._events.get(operation.request["request_id"], [])
        if len(events) > 1:
            self._wrong("doubled", f"{_description(operation)}: took effect {len(events)} times")
        if events and operation.outcome == "refused":
            self._wrong(
                "doubled", f"{_description(operation)}: took effect although it was refused"
            )
        if events:
            self._effect(operation, events[0])
        elif operation.outcome == "ok":
            self._no_effect(operation)
        elif operation.outcome == "refused":
            self._refusal(operation)

    def _effect(self, operation: Operation, event: Event) -> None:
        """Compare a recorded write with its request, its response and the writes before it."""
        before = self._order.fewest(operation.invoked_ns)
        if event.position < before:
            self._wrong(
                "lost",
                f"{_description(operation)}: is write {event.position} of the record, although "
                f"{before} writes were seen before it was requested",
            )
        done = _done(self._replay, event)
        fits = event.action in _ACTIONS[operation.kind] and _matches_request(operation, done)
        if not fits:
            self._wrong("doubled", f"{_description(operation)}: the record has {event}")
        if operation.ok:
            wrong = {k: v for k, v in operation.response.items() if k in done and done[k] != v}
            if wrong or not operation.response.get("created", True):
                self._wrong(
                    "lost",
                    f"{_description(operation)}: answered {wrong}, but the record has {event}",
                )
            self._order.saw(operation.returned_ns, event.position + 1)

    def _no_effect(self, operation: Operation) -> None:
        """Compare an acknowledged write without effect with the states during its call."""
        request, response = operation.request, operation.response
        seen = False
        match operation.kind:
            case "register" if not response["created"]:
                seen = self._some_profile(
                    operation,
                    lambda state: state.versions.get(response["version"]) == response["digest"],
                )
            case "set_alias" if not request["etag"]:
                alias, version = request["alias"], request["version"]
                seen = response["version"] == response[
                    "previous"
                ] == version and self._some_profile(
                    operation,
                    lambda s: (
                        (s.aliases.get(alias), s.moves.get(alias)) == (version, response["moves"])
                    ),
                )
            case "set_policy" if not response["created"]:
                seen = self._some_policy(
                    operation,
                    lambda latest: (
                        latest == response["version"]
                        and self.policy_numbers.get((request["policy"], latest))
                        == request["number"]
                    ),
                )
        if not seen:
            self._wrong("lost", f"{_description(operation)}: acknowledged, but not in the record")

    def _refusal(self, operation: Operation) -> None:
        """Check that a state during the call justifies a refusal."""
        request = operation.request
        expected, etag = request.get("expected_version"), request.get("etag", "")
        alias, version = request.get("alias", ""), request.get("version", 0)
        seen = False
        match operation.response["reason"]:
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
                f"{_description(operation)}: refused ({operation.response['reason']}), "
                "but no state justifies it",
            )

    def _some_profile(self, operation: Operation, fits: Callable[[ProfileState], bool]) -> bool:
        fewest = self._order.fewest(operation.invoked_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.profile(operation.request["profile"])
        for writes, state in timeline.between(fewest, most):
            if fits(state):
                self._order.saw(operation.returned_ns, writes)
                return True
        return False

    def _some_policy(self, operation: Operation, fits: Callable[[int], bool]) -> bool:
        fewest = self._order.fewest(operation.invoked_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.policy(operation.request["policy"])
        return any(fits(latest) for _, latest in timeline.between(fewest, most))


def _description(operation: Operation) -> str:
    return f"{operation.id} {operation.kind} {operation.request}"


def _done(replay: Replay, event: Event) -> Values:
    """Return the effect of an event with the keys of requests and responses."""
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


def _matches_request(operation: Operation, done: Values) -> bool:
    """Return whether an effect is the requested one and meets the conditions of the request."""
    request = operation.request
    if operation.kind == "set_policy":
        expected = request["expected_version"]
        return done["policy"] == request["policy"] and expected in {None, done["version"] - 1}
    fits = done["profile"] == request["profile"]
    if operation.kind in {"set_alias", "delete_alias"}:
        fits = fits and done["alias"] == request["alias"]
        fits = fits and request["etag"] in {"", str(done["moves"] - 1)}
        fits = fits and request.get("expected_version") in {None, done["previous"]}
    if operation.kind in {"set_alias", "delete_profile"}:
        fits = fits and done["version"] == request["version"]
    return bool(fits)


def _end(replay: Replay, checker: _Checker, final: Values) -> list[Violation]:
    """Compare the final state of the registry with its audit record."""
    violations: list[Violation] = []
    for name in sorted({*replay.profiles, *final["profiles"]}):
        state = replay.profile(name).last
        read = final["profiles"].get(name, {"versions": {}, "aliases": {}})
        versions = {int(version): tuple(what) for version, what in read["versions"].items()}
        recorded = {
            version: (digest, checker.digests.get((name, digest)))
            for version, digest in state.versions.items()
        }
        aliases = {alias: tuple(what) for alias, what in read["aliases"].items()}
        named = {a: (version, state.moves[a]) for a, version in state.aliases.items()}
        violations += _differences(f"version of {name}", recorded, versions)
        violations += _differences(f"alias of {name}", named, aliases)
    for name in sorted({*replay.policies, *final["policies"]}):
        read_rules = {int(v): number for v, number in final["policies"].get(name, {}).items()}
        recorded_rules = {
            version: checker.policy_numbers.get((name, version))
            for version in range(1, replay.policy(name).last + 1)
        }
        violations += _differences(f"version of policy {name}", recorded_rules, read_rules)
    return violations


def _differences(
    what: str, recorded: Mapping[_Key, object], read: Mapping[_Key, object]
) -> list[Violation]:
    lost = [
        Violation("lost", f"{what}: {key} is {read.get(key)} at the end, but must be {value}")
        for key, value in recorded.items()
        if read.get(key) != value
    ]
    doubled = [
        Violation("doubled", f"{what}: {key} exists at the end, but no client created it")
        for key in read
        if key not in recorded
    ]
    return lost + doubled
