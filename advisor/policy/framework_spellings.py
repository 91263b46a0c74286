"""How frameworks spell the same parameter, so that profiles serve runs in any of them.

=====================  ==============================  ===========================
PyTorch, Equinox       Flax nnx                        Flax linen
=====================  ==============================  ===========================
``blocks.3.up.weight``   ``blocks.3.up.kernel``          ``params.blocks_3.up.kernel``
``norm.weight``          ``norm.scale``                  ``params.norm.scale``
``tokens.weight``        ``tokens.embedding``            ``params.tokens.embedding``
``head.bias``            ``head.bias``                   ``params.head.bias``
=====================  ==============================  ===========================

A name is brought into the spelling of PyTorch to be compared: the leading collection ``params`` is
left out, a number at the end of a part is a part of its own, slashes are dots, and ``kernel``,
``scale`` and ``embedding`` at the end are ``weight``. What a model calls its modules is not
changed; an alias table of the profile does that.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_COLLECTION = "params."
_NUMBERED = re.compile(r"([A-Za-z][A-Za-z_]*?)_([0-9]+|\*)(?=\.)")  # blocks_3, blocks_*
_WEIGHT = re.compile(r"(^|\.)(?:kernel|scale|embedding)$")
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")


def common_spelling(name: str) -> str:
    """Return a name or a role as PyTorch would spell it.

    Args:
        name: The name, or a role with ``*`` for block indices.
    """
    plain = name.replace("/", ".").removeprefix(_COLLECTION)
    return _WEIGHT.sub(r"\1weight", _NUMBERED.sub(r"\1.\2", plain))


class FrameworkSpellings:
    """Rewrites names into a base model's spelling, if only the framework's spelling differs.

    Args:
        roles: The roles of the base model.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self._rules: defaultdict[str, list[tuple[re.Pattern[str], list[str]]]] = defaultdict(list)
        for role in dict.fromkeys(roles):
            spelled = common_spelling(role)
            pattern = r"([0-9]++|\*)".join(map(re.escape, spelled.split("*")))
            self._rules[_key(spelled)].append((re.compile(pattern), role.split("*")))

    def rewritten(self, name: str) -> str | None:
        """Return the base model's spelling of a name or role; None if it has none, or several."""
        spelled = common_spelling(name)
        found = []
        for pattern, pieces in self._rules.get(_key(spelled), ()):
            fitting = pattern.fullmatch(spelled)
            if fitting:
                filled = [*fitting.groups(), ""]
                found.append("".join(p + f for p, f in zip(pieces, filled, strict=True)))
        return found[0] if len(found) == 1 else None


def _key(spelled: str) -> str:
    return _NUMBER.sub("*", spelled)
