"""Lets ``torch.jit.script`` compile a module whose calls are watched.

TorchScript compiles forward pre-hooks too, and ours cannot be compiled. It first asks a module for
what to compile (``__prepare_scriptable__``), and gets a shallow copy without our hooks.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from typing import Any

from torch import nn

_ATTRIBUTE = "__prepare_scriptable__"
MARK = "fslr_watches_calls"
"""Attribute of the forward pre-hooks that are left out."""


def allow_scripting(model: nn.Module) -> None:
    """Leave our hooks out when a module is compiled to TorchScript."""
    if not isinstance(model.__dict__.get(_ATTRIBUTE), _WithoutHooks):
        model.__dict__[_ATTRIBUTE] = _WithoutHooks(model)


def end_scripting(model: nn.Module) -> None:
    """Undo :func:`allow_scripting`, unless the module still has one of our hooks."""
    hooks = model._forward_pre_hooks.values()  # noqa: SLF001 - there is no public way
    if not any(map(_is_ours, hooks)) and isinstance(model.__dict__.get(_ATTRIBUTE), _WithoutHooks):
        del model.__dict__[_ATTRIBUTE]


class _WithoutHooks:
    """Returns what to compile in place of a module.

    Args:
        model: The module. In a copy of the module it is the copy.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self) -> Any:
        # TorchScript replaces submodules in their parent by what it gets: the training would lose
        # the watched module.
        if sys._getframe(2).f_code is sys._getframe(1).f_code:  # noqa: SLF001 - no other way
            return self._model
        prepared: Any = copy.copy(self._model)
        state = prepared.__dict__
        del state[_ATTRIBUTE]
        hooks = state["_forward_pre_hooks"]
        state["_forward_pre_hooks"] = OrderedDict(
            (key, hook) for key, hook in hooks.items() if not _is_ours(hook)
        )
        own = getattr(type(prepared), _ATTRIBUTE, None)
        return prepared if own is None else own(prepared)


def _is_ours(hook: object) -> bool:
    return getattr(hook, MARK, False) is True
