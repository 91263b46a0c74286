"""How trainers read what is exported: their matching rules, after their sources.

They are written anew here, so that the tests need none of the trainers. Each says which source it
follows; the versions are those in the modules of :mod:`advisor.export`.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest import mock

import yaml


def load(text: str, modules: Mapping[str, Mapping[str, Any]] | None = None) -> ModuleType:
    """Run an exported Python file.

    Args:
        text: The file.
        modules: Names in the modules that stand for the trainer's.
    """
    stand_ins = {}
    for name, names in (modules or {}).items():
        stand_ins[name] = ModuleType(name)
        vars(stand_ins[name]).update(names)
    module = ModuleType("exported")
    with mock.patch.dict(sys.modules, stand_ins):
        exec(compile(text, "exported.py", "exec"), vars(module))
    return module


@dataclass(kw_only=True, slots=True)
class ParamGroupConfig:
    """torchtitan's, ``torchtitan/components/optimizer/optimizer.py``."""

    pattern: str
    optimizer_name: str
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)


def torchtitan(text: str, names: Iterable[str], **kwargs: Any) -> dict[str, dict[str, Any]]:
    """Return each parameter's settings: the first match wins, and all patterns must match."""
    modules = {"torchtitan.components.optimizer": {"ParamGroupConfig": ParamGroupConfig}}
    packages: dict[str, dict[str, Any]] = {"torchtitan": {}, "torchtitan.components": {}}
    groups = load(text, packages | modules).param_groups(**kwargs)
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        matched = [n for n in names if n not in found and re.search(group.pattern, n)]
        if not matched:
            raise ValueError(f"pattern {group.pattern!r} matched no parameters")
        settings = {**group.optimizer_kwargs, "optimizer": group.optimizer_name}
        found |= dict.fromkeys(matched, settings)
    return found


@dataclass
class NemoOverride:
    """``ParamGroupOverride`` of ``nemo_automodel/components/optim/optimizer.py``."""

    pattern: str
    lr_mult: float = 1.0
    wd_mult: float = 1.0


def nemo_automodel(text: str, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return each parameter's factors: the first match wins, and others have 1."""
    entries = yaml.safe_load(text)["optimizer"]["param_group_overrides"]
    overrides = [NemoOverride(**entry) for entry in entries]
    for override in overrides:
        assert any(re.search(override.pattern, name) for name in names)
    found = {}
    for name in names:
        first = next((o for o in overrides if re.search(o.pattern, name)), NemoOverride(""))
        found[name] = (first.lr_mult, first.wd_mult)
    return found


@dataclass(frozen=True, slots=True)
class ParamKey:
    """Names of Megatron-LM's, ``megatron/core/optimizer/optimizer_config.py``."""

    name: tuple[str, ...] = ()

    def matches(self, _parameter: object, name: str) -> bool:
        return any(fnmatch.fnmatch(name, glob) for glob in self.name)


MEGATRON_OVERRIDES = {"max_lr", "min_lr", "start_wd", "end_wd", "wd_mult", "optimizer"}
"""Keys of ``ParamGroupOverride`` in ``megatron/core/optimizer_param_scheduler.py``."""


def megatron_module(text: str, *, pipeline_stages: int = 1) -> ModuleType:
    """Run an exported file for Megatron-LM."""
    core = ModuleType("parallel_state")
    vars(core)["get_pipeline_model_parallel_world_size"] = lambda: pipeline_stages
    return load(
        text,
        {
            "megatron": {},
            "megatron.core": {"parallel_state": core},
            "megatron.core.optimizer": {},
            "megatron.core.optimizer.optimizer_config": {"ParamKey": ParamKey},
            "megatron.core.optimizer_param_scheduler": {"ParamGroupOverride": dict},
        },
    )


def megatron_lm(
    text: str, names: Iterable[str], *, vectors: frozenset[str] = frozenset(), prefix: str = ""
) -> dict[str, dict[str, float]]:
    """Return each parameter's overrides: all matches are merged, and conflicts are errors."""
    standard = {ParamKey(tuple(prefix + name for name in vectors)): {"wd_mult": 0.0}}
    overrides = megatron_module(text).config_overrides(standard)
    found: dict[str, dict[str, float]] = {}
    for name in names:
        merged: dict[str, float] = {}
        for key, override in overrides.items():
            assert override.keys() <= MEGATRON_OVERRIDES
            if key.matches(None, prefix + name):
                for setting, value in override.items():
                    if merged.setdefault(setting, value) != value:
                        raise ValueError(f"Conflicting overrides for {setting}")
        found[name] = merged
    return found


def axolotl(text: str, names: Iterable[str], no_decay: frozenset[str]) -> dict[str, float]:
    """Return each parameter's learning rate, after ``core/trainers/mixins/optimizer.py``."""
    config = yaml.safe_load(text)
    substrings: dict[str, str] = {}
    learning_rates: dict[str, float] = {}
    for group in config.get("lr_groups", []):
        assert group.keys() == {"name", "modules", "lr"}
        substrings |= dict.fromkeys(group["modules"], group["name"])
        learning_rates[group["name"]] = float(group["lr"])
    found = {}
    for name in names:
        if any(text in name for text in ("embed_tokens", "lm_head")):
            found[name] = config.get("embedding_lr") or config["learning_rate"]
        elif name in no_decay:
            found[name] = config["learning_rate"]
        else:
            group = next((substrings[part] for part in substrings if part in name), None)
            found[name] = learning_rates[group] if group else config["learning_rate"]
    return found
