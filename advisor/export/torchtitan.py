"""torchtitan: a list of ``ParamGroupConfig``.

Read from ``torchtitan/components/optimizer/optimizer.py``. Patterns are searched in the names of
``named_parameters()``, in which activation checkpointing adds a segment to each block. The first
match wins, and settings are absolute. A pattern that matches nothing raises an error, and so does a
parameter without a match.
"""

from __future__ import annotations

import re

from advisor.export.patterns import regex
from advisor.export.python_source import docstring, quoted, raw
from advisor.export.rows import Export, ExportRow, Settings, Written, grouped, header
from advisor.policy.optimizer_families import plain_name

VERSION = "torchtitan (main of 2026-08-21, b5bcd76)"
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}
_MARK = "\0"  # names contain no control characters
_BLOCK = re.compile(r"((?:^|(?<=\.))[0-9]+\.)")
_WRAPPER = r"(?:_checkpoint_wrapped_module\.)?"


def write(export: Export, settings: Settings) -> Written:
    """Return a Python module with a function that returns the list.

    Raises:
        ExportError: The base learning rate or the weight decay is needed and unknown.
    """

    def key(row: ExportRow) -> tuple[str, float, float | None]:
        return (
            _optimizer(settings.optimizer_of(row)),
            settings.learning_rate_of(row),
            settings.weight_decay_of(row),
        )

    groups = "".join(
        f"        ParamGroupConfig(\n"
        f"            pattern={raw(_pattern([row.name for row in rows]))},\n"
        f"            optimizer_name={quoted(optimizer)},\n"
        f"            optimizer_kwargs={{**optimizer_kwargs, {_settings(learning_rate, decay)}}},\n"
        f"        ),\n"
        for (optimizer, learning_rate, decay), rows in grouped(export.rows, key).items()
    )
    lines = header(
        export,
        "torchtitan",
        VERSION,
        "Every group must match a parameter of every model part, so pipeline parallelism raises an "
        "error",
    )
    text = (
        docstring(lines) + "\nfrom torchtitan.components.optimizer import ParamGroupConfig\n\n\n"
        "def param_groups(**optimizer_kwargs):\n"
        '    """Return what `OptimizersContainer.Config(param_groups=...)` takes.\n\n'
        "    Args:\n"
        "        optimizer_kwargs: Settings of all groups, such as betas and eps.\n"
        '    """\n'
        f"    return [\n{groups}    ]\n"
    )
    return Written(text, _losses(export, settings))


def _pattern(names: list[str]) -> str:
    """Return a regular expression that also finds the names of checkpointed blocks."""
    return regex([_BLOCK.sub(rf"\1{_MARK}.", name) for name in names]).replace(
        rf"{_MARK}\.", _WRAPPER
    )


def _settings(learning_rate: float, weight_decay: float | None) -> str:
    decay = "" if weight_decay is None else f', "weight_decay": {weight_decay!r}'
    return f'"lr": {learning_rate!r}{decay}'


def _optimizer(name: str) -> str:
    return _OPTIMIZERS.get(plain_name(name), name)


def _losses(export: Export, settings: Settings) -> tuple[str, ...]:
    known = set(_OPTIMIZERS.values())
    names = [_optimizer(settings.optimizer_of(row)) for row in export.rows]
    unknown = [name for name in names if name not in known]
    if not unknown:
        return ()
    loss = (
        f"torchtitan's optimizers with settings of this form are {' and '.join(sorted(known))}, "
        f"and {len(unknown)} of {len(names)} parameters are updated by "
        f"{', '.join(sorted(set(unknown)))}; give --optimizer"
    )
    return (loss,)
