"""Names of the leaves of a pytree, in the spelling of its framework."""

from __future__ import annotations

from typing import Any

import jax

_WRAPPED = frozenset({"value", "raw_value"})  # where nnx keeps the array of a variable


def name_of(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf, such as ``params.Dense_0.kernel`` or ``layers.0.weight``.

    Args:
        path: The path of the leaf, as :func:`jax.tree_util.tree_flatten_with_path` returns it.
    """
    return ".".join(parts_of(path))


def parts_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return the parts of a leaf's name.

    Args:
        path: The path of the leaf.
    """
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in keys_of(path))


def keys_of(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the path of a leaf, without the attribute in which nnx keeps a variable's array.

    Args:
        path: The path of the leaf.
    """
    last = path[-1] if path else None
    is_wrapped = isinstance(last, jax.tree_util.GetAttrKey) and last.name in _WRAPPED
    return path[:-1] if is_wrapped and path[1:] else path


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by name, in the order of its flattening.

    Args:
        tree: The pytree.

    Raises:
        ValueError: Two leaves have the same name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = name_of(path)
        if name in found:
            raise ValueError(
                f"two leaves of the pytree are called {name!r}; give them different names"
            )
        found[name] = leaf
    return found
