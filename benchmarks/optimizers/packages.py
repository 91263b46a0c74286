"""The packages with optimizers, and the classes that are in them."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = {
    "torch.optim": ("torch", "torch.optim"),
    "pytorch_optimizer": ("pytorch_optimizer", "pytorch_optimizer"),
    "schedulefree": ("schedulefree", "schedulefree"),
    "prodigyopt": ("prodigyopt", "prodigyopt"),
    "lion-pytorch": ("lion-pytorch", "lion_pytorch"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes.optim"),
    "torchao": ("torchao", "torchao.optim"),
    "heavyball": ("heavyball", "heavyball"),
}
"""The distribution and the module of each package."""


def installed_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed.

    Args:
        package: A key of :data:`PACKAGES`.
    """
    try:
        return version(PACKAGES[package][0])
    except PackageNotFoundError:
        return None


def optimizers_in(package: str) -> dict[str, type[torch.optim.Optimizer]]:
    """Return the optimizer classes of an installed package by name, base classes left out.

    Args:
        package: A key of :data:`PACKAGES`.

    Raises:
        ImportError: The package cannot be imported here.
    """
    module = importlib.import_module(PACKAGES[package][1])
    found = {name: getattr(module, name, None) for name in sorted(dir(module))}
    return {
        name: kind
        for name, kind in found.items()
        if inspect.isclass(kind)
        and issubclass(kind, torch.optim.Optimizer)
        and kind is not torch.optim.Optimizer
        and not name.startswith("_")
        and not name.endswith("Base")
        and not inspect.isabstract(kind)
    }
