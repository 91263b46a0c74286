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

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

_COLLECTION = "params."
_WEIGHTS = {"kernel", "scale", "embedding"}


def common_spelling(name: str) -> str:
    """Return a name or a role as PyTorch would spell it.

    Args:
        name: The name, or a role with ``*`` for block indices.
    """
    *parts, last = name.replace("/", ".").removeprefix(_COLLECTION).split(".")
    pieces = [piece for part in parts for piece in _split_number(part)]
    return ".".join([*pieces, "weight" if last in _WEIGHTS else last])


# The names of a model have few different parts.
@lru_cache(maxsize=1_024)
def _split_number(part: str) -> tuple[str, ...]:
    """Return a part of a name, and the number at its end as a part of its own: ``blocks_3``."""
    word, _, number = part.rpartition("_")
    before = word.rstrip("_")[-1:]
    if (number == "*" or _is_number(number)) and before.isascii() and before.isalpha():
        return word, number
    return (part,)


class FrameworkSpellings:
    """Rewrites names into a base model's spelling, if only the framework's spelling differs.

    Args:
        roles: The roles of the base model.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self._roles: defaultdict[str, list[tuple[list[str], list[str]]]] = defaultdict(list)
        for role in dict.fromkeys(roles):
            spelled = common_spelling(role).split(".")
            self._roles[_key(spelled)].append((spelled, role.split("*")))

    def rewritten(self, name: str) -> str | None:
        """Return the base model's spelling of a name or role; None if it has none, or several."""
        spelled = common_spelling(name).split(".")
        found = []
        for role, pieces in self._roles.get(_key(spelled), ()):
            indices = _indices(role, spelled)
            if indices is not None:
                found.append("".join(p + i for p, i in zip(pieces, [*indices, ""], strict=True)))
        return found[0] if len(found) == 1 else None


def _indices(role: list[str], name: list[str]) -> list[str] | None:
    """Return what stands in a name for each ``*`` of a role of the same key.

    Returns:
        The numbers, or ``*`` where the name is a role too; None if a number of the role differs.
    """
    found: list[str] = []
    for of_role, of_name in zip(role, name, strict=True):
        if of_role == "*":
            found.append(of_name)
        elif of_role != of_name:
            return None
        else:
            found += ["*"] * of_role.count("*")
    return found


def _key(parts: list[str]) -> str:
    """Return parts with ``*`` for each number."""
    return ".".join("*" if _is_number(part) else part for part in parts)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()
