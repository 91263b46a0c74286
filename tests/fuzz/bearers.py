"""Tokens that callers of a service send: mostly the right one, else every kind of wrong one."""

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
        in_force: By project and role.
        revoked: One that is not any more.
    """

    in_force: dict[tuple[str, str], str]
    revoked: str

    @property
    def secrets(self) -> list[str]:
        """All tokens, of which none may be logged."""
        return [*self.in_force.values(), self.revoked]

    @classmethod
    def created_at(cls, redis_url: str) -> Bearers:
        """Make a token of each role in each project that inputs name, and revoke one more."""
        tokens = Tokens(redis_url, PROJECTS[0])
        in_force = {
            (project, role): tokens.create(role, project)["token"]
            for project in (*PROJECTS, CANARY_PROJECT)
            for role in _ROLES
        }
        gone = tokens.create(_WRITES_ALL)
        tokens.run("revoke", gone["id"])
        return cls(in_force, gone["token"])

    def _right(self, sent: Input) -> Metadata:
        """Return an operator's token of the project that an input names first, if there is one."""
        named = next(filter(None, map(_PROJECT.search, sent.messages)), None)
        token = self.in_force.get((named[1].decode(), _WRITES_ALL)) if named else None
        return () if token is None else _bearer(token)

    def authorized(self, sent: Input) -> Input:
        """Return an input with the operator's token of the project that it names first, if any."""
        return replace(sent, metadata=(*sent.metadata, *self._right(sent)))

    def shown(self, sent: Input, chance: random.Random) -> Input:
        """Return an input with a token, or what stands in its place, in its metadata."""
        return replace(sent, metadata=(*sent.metadata, *self._some(sent, chance)))

    def _some(self, sent: Input, chance: random.Random) -> Metadata:
        """Return the right token mostly, else another, a damaged one, several or none."""
        if chance.random() < _RIGHT_RATIO:
            return self._right(sent)
        one, other = chance.choices(list(self.in_force.values()), k=2)
        at = chance.randrange(len(one))
        return chance.choice((
            _bearer(one),
            _bearer(self.revoked),
            _bearer(one[:at]),
            _bearer(one[:at] + chance.choice("x_.%~") + one[at + 1 :]),
            _bearer(one + one),
            (*_bearer(one), *_bearer(other)),
            (("authorization", one),),
            (("authorization", f"bearer  {one}"),),
            (("authorization-bin", one.encode()),),
            (),
        ))


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
