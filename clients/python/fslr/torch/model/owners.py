"""Which modules own a model's parameters, and under which names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

# Modules that wrap another one, as they occur in names.
_WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})


@dataclass(frozen=True, slots=True)
class Owner:
    """A module that uses a parameter as its own.

    Attributes:
        module: The module. If the parameter is parametrized (weight norm, for example), the module
            whose tensor is computed from it.
        path: The module's name in the model, split at its dots, without wrappers.
        name: The parameter's name in the module, such as ``weight``.
        parent: The module that holds the module; None for the model itself.
    """

    module: nn.Module
    path: tuple[str, ...]
    name: str
    parent: nn.Module | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the module's class and its base classes; FSDP2 replaces the class itself."""
        return tuple(kind.__name__ for kind in type(self.module).__mro__)


def owners_of(model: nn.Module) -> Mapping[int, Sequence[Owner]]:
    """Return the owners of each parameter by the parameter's id; tied ones have several.

    Args:
        model: The module inside all wrappers.
    """
    modules = dict(model.named_modules())
    owners: defaultdict[int, list[Owner]] = defaultdict(list)
    for full_name, module in modules.items():
        path = tuple(full_name.split(".")) if full_name else ()
        if len(path) > 1 and path[-2] == "parametrizations":
            path = path[:-2]
        owning = modules[".".join(path)]
        parent = modules[".".join(path[:-1])] if path else None
        for name, parameter in module.named_parameters(recurse=False):
            owner = Owner(owning, _without_wrappers(path), name, parent)
            owners[id(parameter)].append(owner)
    return owners


def _without_wrappers(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in path if part not in _WRAPPERS)
