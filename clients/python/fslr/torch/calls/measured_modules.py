"""The modules that are measured at present, in the whole process.

Several attachments and recorders may watch one model. While one of them measures, it calls the
model itself, and none of the others may take that call for one of the training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_measured: Counter[int] = Counter()  # ids of modules; several threads may measure shared ones


@contextmanager
def being_measured(model: nn.Module) -> Iterator[None]:
    """Mark a model and all of its modules as measured inside the context.

    Args:
        model: The model, inside or outside of its wrappers.
    """
    modules = [id(module) for module in model.modules()]
    _measured.update(modules)
    try:
        yield
    finally:
        _measured.subtract(modules)
        for module in modules:
            if not _measured[module]:
                del _measured[module]


def is_being_measured(module: nn.Module) -> bool:
    """Return whether a measurement of this module, or of one that contains it, is under way."""
    return id(module) in _measured
