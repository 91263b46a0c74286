"""Checks what clients read: profiles, and recommendations with the version that they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tests.chaos import values
from tests.chaos.history import History, Operation
from tests.chaos.order import Order
from tests.chaos.replay import ProfileState, Replay

_TOLERANCE = 1e-3  # of content numbers; rates are exact, multipliers nearly so
_EQUAL_IN_A_STREAM = ("profile", "digest", "stale", "policy")
_NOT_FOUND = ("PROFILE_NOT_FOUND", "VERSION_NOT_FOUND")


class AnswerChecker:
    """Compares answers with the states of the registry over time.

    Args:
        replay: The states.
        order: Bounds for the states that were possible at a time.
        digests: The number of the content by profile and digest.
        policy_numbers: The number of the rules by policy and version.
        history: The history with all answers of each stream.
        wrong: Records a violation.
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
                self._streams.setdefault(operation.response["stream"], operation)

    def check(self, operation: Operation) -> None:
        """Check a read or a recommendation."""
        if operation.outcome == "refused":
            self._refused(operation)
        elif operation.ok and operation.kind == "read":
            self._read(operation)
        elif operation.ok:
            self._recommended(operation)

    def _about(self, operation: Operation) -> str:
        request, response = operation.request, operation.response
        shown = {key: value for key, value in response.items() if key not in {"versions", "error"}}
        return f"{operation.id} {operation.kind} {request['profile']}@{request['suffix']}: {shown}"

    def _some(
        self, operation: Operation, fits: Callable[[ProfileState], bool], *, stale: bool = False
    ) -> bool:
        """Return whether a state during the operation fits, or any earlier one if it is stale."""
        started_ns = operation.response.get("opened_ns", operation.invoked_ns)
        fewest = 0 if stale else self._order.fewest(started_ns)
        most = self._order.most(operation.returned_ns)
        timeline = self._replay.profile(operation.request["profile"])
        for writes, state in timeline.between(fewest, most):
            if fits(state):
                if not stale:
                    self._order.saw(operation.returned_ns, writes)
                return True
        return False

    def _refused(self, operation: Operation) -> None:
        suffix = operation.request["suffix"]
        if operation.response["reason"] not in _NOT_FOUND or not self._some(
            operation, lambda state: not state.resolve(suffix)
        ):
            self._wrong(
                "wrong_version", f"{self._about(operation)}: refused, but no state justifies it"
            )

    def _read(self, operation: Operation) -> None:
        suffix, response = operation.request["suffix"], operation.response
        version, digest = response["version"], response["digest"]
        aliases = {alias: tuple(named) for alias, named in response["aliases"].items()}

        def fits(state: ProfileState) -> bool:
            named = {alias: (v, state.moves[alias]) for alias, v in state.aliases.items()}
            return bool(
                state.resolve(suffix) == version
                and state.versions[version] == digest
                and sorted(state.versions) == response["versions"]
                and named == aliases
            )

        if not self._some(operation, fits):
            self._wrong(
                "wrong_version", f"{self._about(operation)}: no state during the call was like this"
            )
        elif response["number"] != self._digests.get((operation.request["profile"], digest)):
            self._wrong(
                "wrong_version", f"{self._about(operation)}: has the content of a different version"
            )

    def _recommended(self, operation: Operation) -> None:
        first = self._streams[operation.response["stream"]]
        if first is operation:
            self._first(operation)
        elif any(operation.response[key] != first.response[key] for key in _EQUAL_IN_A_STREAM):
            self._wrong(
                "wrong_version",
                f"{self._about(operation)}: differs from the first answer of its stream",
            )
        self._multipliers(operation)

    def _first(self, operation: Operation) -> None:
        suffix, response = operation.request["suffix"], operation.response
        version, digest, stale = response["version"], response["digest"], response["stale"]

        def fits(state: ProfileState) -> bool:
            return bool(state.resolve(suffix) == version and state.versions[version] == digest)

        if not self._some(operation, fits, stale=stale):
            self._wrong(
                "wrong_version",
                f"{self._about(operation)}: the suffix did not name this version during the call",
            )
        followed = response["policy"]
        if (followed is not None) != (operation.request["profile"] in values.FOLLOWS_POLICY):
            self._wrong(
                "wrong_version", f"{self._about(operation)}: does not follow the profile's policy"
            )
        elif followed is not None:
            started_ns = response.get("opened_ns", operation.invoked_ns)
            fewest = 0 if stale else self._order.fewest(started_ns)
            most = self._order.most(operation.returned_ns)
            latest = self._replay.policy(values.POLICY).between(fewest, most)
            if followed not in {version for _, version in latest}:
                self._wrong(
                    "wrong_version", f"{self._about(operation)}: does not follow the latest policy"
                )

    def _multipliers(self, operation: Operation) -> None:
        """Compare the multipliers with the version and the policy that the answer names."""
        response = operation.response
        profile, multipliers = operation.request["profile"], response["multipliers"]
        policy = response["policy"]
        rules = None if policy is None else self._policy_numbers.get((values.POLICY, policy))
        least, most = values.bounds(rules)
        if not all(math.isfinite(each) and least <= each <= most for each in multipliers):
            self._wrong(
                "non_finite", f"{self._about(operation)}: a multiplier is not in [{least}, {most}]"
            )
        number = self._digests.get((profile, response["digest"]))
        if number is None:
            self._wrong(
                "wrong_version", f"{self._about(operation)}: no client registered this digest"
            )
            return
        shown = [
            values.number_of(reference, 1.0 + group)
            for group, reference in enumerate(response["references"])
        ]
        if not all(abs(each - number) < _TOLERANCE for each in shown):
            self._wrong(
                "wrong_version", f"{self._about(operation)}: has the rates of contents {shown}"
            )
        if operation.request["fixed_rates"]:
            expected = values.expected_multipliers(number, rules)
            if not all(
                math.isclose(one, other, rel_tol=1e-6)
                for one, other in zip(multipliers, expected, strict=True)
            ):
                self._wrong(
                    "wrong_version", f"{self._about(operation)}: the multipliers must be {expected}"
                )
