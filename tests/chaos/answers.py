"""Judges what clients read: profiles, and recommendations with the version they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tests.chaos import values
from tests.chaos.history import History, Operation
from tests.chaos.order import Order
from tests.chaos.replay import ProfileState, Replay

_WHOLE = 1e-3  # how far a number may be from a whole one: rates are exact, multipliers nearly
_SAME = ("profile", "digest", "stale", "policy")  # in all answers of one stream
_GONE = ("PROFILE_NOT_FOUND", "VERSION_NOT_FOUND")


class AnswerJudge:
    """Holds answers against the states that the registry went through.

    Args:
        replay: The states.
        order: Which of them were possible when.
        digests: The number of the content of each profile and digest.
        policy_numbers: The number of the rules of each policy and version.
        history: Where streams are found whole.
        wrong: Takes down a violation.
    """

    def __init__(
        self,
        replay: Replay,
        order: Order,
        digests: Mapping[tuple[str, str], int],
        policy_numbers: Mapping[tuple[str, int], int],
        history: History,
        wrong: Callable[[str, str], None],
    ) -> None:
        self._replay, self._order, self._wrong = replay, order, wrong
        self._digests, self._policy_numbers = digests, policy_numbers
        self._streams: dict[str, Operation] = {}  # the first answer of each
        for operation in history.operations:
            if operation.kind == "recommend" and operation.ok:
                self._streams.setdefault(operation.told["stream"], operation)

    def judge(self, operation: Operation) -> None:
        """Judge a read or a recommendation."""
        if operation.outcome == "refused":
            self._refused(operation)
        elif operation.ok and operation.kind == "read":
            self._read(operation)
        elif operation.ok:
            self._recommended(operation)

    def _about(self, operation: Operation) -> str:
        asked, told = operation.asked, operation.told
        shown = {key: value for key, value in told.items() if key not in {"versions", "error"}}
        return f"{operation.id} {operation.kind} {asked['profile']}@{asked['suffix']}: {shown}"

    def _some(
        self, operation: Operation, fits: Callable[[ProfileState], bool], *, stale: bool = False
    ) -> bool:
        """Return whether a state of the operation's time fits; of any time before, if stale."""
        begun_ns = operation.told.get("opened_ns", operation.invoked_ns)
        fewest = 0 if stale else self._order.fewest(begun_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.profile(operation.asked["profile"])
        for writes, state in timeline.between(fewest, most):
            if fits(state):
                if not stale:
                    self._order.saw(operation.returned_ns, writes)
                return True
        return False

    def _refused(self, operation: Operation) -> None:
        suffix = operation.asked["suffix"]
        if operation.told["reason"] not in _GONE or not self._some(
            operation, lambda state: not state.resolve(suffix)
        ):
            self._wrong("wrong_version", f"{self._about(operation)}: refused without a reason")

    def _read(self, operation: Operation) -> None:
        suffix, told = operation.asked["suffix"], operation.told
        version, digest = told["version"], told["digest"]
        aliases = {alias: tuple(named) for alias, named in told["aliases"].items()}

        def fits(state: ProfileState) -> bool:
            named = {alias: (v, state.moves[alias]) for alias, v in state.aliases.items()}
            return bool(
                state.resolve(suffix) == version
                and state.versions[version] == digest
                and sorted(state.versions) == told["versions"]
                and named == aliases
            )

        if not self._some(operation, fits):
            self._wrong("wrong_version", f"{self._about(operation)}: never was so in its time")
        elif told["number"] != self._digests.get((operation.asked["profile"], digest)):
            self._wrong("wrong_version", f"{self._about(operation)}: another version's content")

    def _recommended(self, operation: Operation) -> None:
        first = self._streams[operation.told["stream"]]
        if first is operation:
            self._first(operation)
        elif any(operation.told[key] != first.told[key] for key in _SAME):
            self._wrong("wrong_version", f"{self._about(operation)}: changed within a stream")
        self._multipliers(operation)

    def _first(self, operation: Operation) -> None:
        suffix, told = operation.asked["suffix"], operation.told
        version, digest, stale = told["version"], told["digest"], told["stale"]

        def fits(state: ProfileState) -> bool:
            return bool(state.resolve(suffix) == version and state.versions[version] == digest)

        if not self._some(operation, fits, stale=stale):
            self._wrong("wrong_version", f"{self._about(operation)}: not named so in its time")
        followed = told["policy"]
        if (followed is not None) != (operation.asked["profile"] in values.FOLLOWS_POLICY):
            self._wrong("wrong_version", f"{self._about(operation)}: not the profile's policy")
        elif followed is not None:
            begun_ns = told.get("opened_ns", operation.invoked_ns)
            fewest = 0 if stale else self._order.fewest(begun_ns)
            most = self._order.most(operation.returned_ns)
            latest = self._replay.policy(values.POLICY).between(fewest, most)
            if followed not in {version for _, version in latest}:
                self._wrong("wrong_version", f"{self._about(operation)}: not the latest policy")

    def _multipliers(self, operation: Operation) -> None:
        """Hold the numbers themselves against the version and the policy that they name."""
        told = operation.told
        profile, multipliers = operation.asked["profile"], told["multipliers"]
        policy = told["policy"]
        rules = None if policy is None else self._policy_numbers.get((values.POLICY, policy))
        least, most = values.bounds(rules)
        if not all(math.isfinite(each) and least <= each <= most for each in multipliers):
            self._wrong("non_finite", f"{self._about(operation)}: outside {least} to {most}")
        number = self._digests.get((profile, told["digest"]))
        if number is None:
            self._wrong("wrong_version", f"{self._about(operation)}: nobody registered it")
            return
        shown = [
            values.number_of(reference, 1.0 + group)
            for group, reference in enumerate(told["references"])
        ]
        if not all(abs(each - number) < _WHOLE for each in shown):
            self._wrong("wrong_version", f"{self._about(operation)}: the rates of {shown}")
        if operation.asked["fixed_rates"]:
            expected = values.expected_multipliers(number, rules)
            if not all(
                math.isclose(one, other, rel_tol=1e-6)
                for one, other in zip(multipliers, expected, strict=True)
            ):
                self._wrong("wrong_version", f"{self._about(operation)}: must be {expected}")
