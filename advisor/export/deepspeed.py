"""DeepSpeed: a function that returns ``model_parameters`` for ``deepspeed.initialize``.

Read from ``deepspeed/runtime/engine.py`` and ``deepspeed/runtime/lr_schedules.py``. The groups go
unchanged to the optimizer of the configuration, so their learning rates and weight decays are in
force. A ``WarmupLR`` or ``WarmupDecayLR`` with one ``warmup_max_lr`` gives all groups that
learning rate; it takes a list.
"""

from __future__ import annotations

from advisor.export.patterns import regex
from advisor.export.python_source import PARAMETERS_BY_GROUP, docstring, raw, tuple_lines
from advisor.export.rows import Export, ExportRow, Settings, Written, grouped, header, one_optimizer

VERSION = "DeepSpeed 0.19.6 (main of 2026-08-22, edaa722)"
_CODE = '''
def model_parameters(model):
    """Return what `deepspeed.initialize(model_parameters=...)` takes.

    Raises:
        ValueError: The file was written for a different model.
    """
    groups = []
    for (_, learning_rate, decay), found in zip(GROUPS, parameters_by_group(model)):
        group = {"params": [parameter for _, parameter in found], "lr": learning_rate}
        groups.append(group if decay is None else {**group, "weight_decay": decay})
    return groups


def warmup_max_lr():
    """Return the value of the setting of that name, for the schedulers that have it."""
    return [learning_rate for _, learning_rate, _ in GROUPS]
'''


def write(export: Export, settings: Settings) -> Written:
    """Return a Python module with the function.

    Raises:
        ExportError: The base learning rate or the weight decay is needed and unknown.
    """

    def key(row: ExportRow) -> tuple[float, float | None]:
        return settings.learning_rate_of(row), settings.weight_decay_of(row)

    rows = [
        (raw(regex([row.name for row in rows])), *map(repr, values))
        for values, rows in grouped(export.rows, key).items()
    ]
    lines = header(
        export,
        "DeepSpeed",
        VERSION,
        "WarmupLR, WarmupDecayLR and OneCycle need one learning rate for each group, as "
        "`warmup_max_lr()` returns them; WarmupCosineLR does not",
    )
    text = (
        docstring(lines) + "\nimport re\n\n"
        "# Names, the learning rate and the weight decay; None: that of the configuration.\n"
        f"GROUPS = [\n{tuple_lines(rows)}]\n" + PARAMETERS_BY_GROUP + "\n" + _CODE
    )
    return Written(text, one_optimizer(export, settings, "a configuration"))
