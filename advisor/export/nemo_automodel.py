"""NeMo Automodel: ``param_group_overrides`` of the section ``optimizer``, in YAML.

Read from ``nemo_automodel/components/optim/optimizer.py`` and ``scheduler.py``. Patterns are
searched in names without wrappers, and the first match wins. The learning-rate scheduler multiplies
the learning rate of each step, warmup and minimum included, by ``lr_mult`` and the weight decay by
``wd_mult``. Parameters without a match keep 1. A pattern that matches nothing is only logged.
"""

from __future__ import annotations

import yaml

from advisor.export.patterns import regex
from advisor.export.rows import (
    Export,
    ExportRow,
    Settings,
    Written,
    grouped,
    header,
    one_optimizer,
)

VERSION = "NeMo Automodel 0.5.0 (main of 2026-08-22, 36044ad)"


def write(export: Export, settings: Settings) -> Written:
    """Return a section of a YAML recipe."""

    def key(row: ExportRow) -> tuple[float, float]:
        has_decay = settings.vectors_decay or not row.is_vector
        return row.factor, row.decay_factor if has_decay else 0.0

    overrides = [
        {"pattern": regex([row.name for row in rows]), "lr_mult": factor, "wd_mult": decay_factor}
        for (factor, decay_factor), rows in grouped(export.rows, key).items()
        if (factor, decay_factor) != (1, 1)
    ]
    lines = header(
        export,
        "NeMo Automodel",
        VERSION,
        "Merge it into the section `optimizer` of a recipe, beside `_target_`, `lr` and "
        "`weight_decay`",
        "Parameters that match no pattern have the multiplier 1",
    )
    comment = "".join(f"# {line}\n" for line in lines)
    body = {"optimizer": {"param_group_overrides": overrides}}
    text = yaml.safe_dump(body, sort_keys=False, width=10_000, allow_unicode=True)
    return Written(comment + text, one_optimizer(export, settings, "a recipe"))
