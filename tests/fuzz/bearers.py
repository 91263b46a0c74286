"""Tokens that fuzzed calls send: mostly the right one, otherwise wrong ones of every kind."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from tests.fuzz.inputs import Input, Metadata
from tests.fuzz.values import PROJECTS
from tests.operator_tokens import Tokens

CANARY_PROJECT = "canary"
_ROLES = ("viewer", "trainer", "operator")
_WRITES_ALL = "operator"
_RIGHT_RATIO = 0.7
_PROJECT = re.compile(rb"projects/([a-z0-9-]{1,63})")


@dataclass(frozen=True, slots=True)
class Bearers:
    """Tokens of a service.

    Attributes:
        in_force: The valid tokens by project and role.
        revoked: A revoked token.
    """

    in_force: dict[tuple[str, str], str]
    revoked: str

    @property
    def secrets(self) -> list[str]:
        """All tokens; none of them may be logged."""
        return [*self.in_force.values(), self.revoked]

    @classmethod
    def created_at(cls, redis_url: str) -> Bearers:
        """Create a token for each role and project that inputs name, and one that is revoked."""
        tokens = Tokens(redis_url, PROJECTS[0])
        in_force = {
            (project, role): tokens.create(role, project)["token"]
            for project in (*PROJECTS, CANARY_PROJECT)
            for role in _ROLES
        }
        revoked = tokens.create(_WRITES_ALL)
        tokens.run("revoke", revoked["id"])
        return cls(in_force, revoked["token"])

    def _right(self, sent: Input) -> Metadata:
        """Return metadata with an operator's token for the first project in an input, if any."""
        named = next(filter(None, map(_PROJECT.search, sent.messages)), None)
        token = self.in_force.get((named[1].decode(), _WRITES_ALL)) if named else None
        return () if token is None else _bearer(token)

    def authorized(self, sent: Input) -> Input:
        """Return an input with an operator's token for the first project that it names, if any."""
        return replace(sent, metadata=(*sent.metadata, *self._right(sent)))

    def shown(self, sent: Input, rng: random.Random) -> Input:
        """Return an input with a right or wrong token, several tokens or none in its metadata."""
        return replace(sent, metadata=(*sent.metadata, *self._some(sent, rng)))

    def _some(self, sent: Input, rng: random.Random) -> Metadata:
        """Return mostly the right token, otherwise a different or damaged one, several or none."""
        if rng.random() < _RIGHT_RATIO:
            return self._right(sent)
        one, other = rng.choices(list(self.in_force.values()), k=2)
        at = rng.randrange(len(one))
        return rng.choice((
            _bearer(one),
            _bearer(self.revoked),
            _bearer(one[:at]),
            _bearer(one[:at] + rng.choice("x_.%~") + one[at + 1 :]),
            _bearer(one + one),
            (*_bearer(one), *_bearer(other)),
            (("authorization", one),),
            (("authorization", f"bearer  {one}"),),
            (("authorization-bin", one.encode()),),
            (),
        ))


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
