"""PyTorch's parameter groups as JSON, and all rows as CSV: for programs of one's own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from advisor.export.rows import Export, ExportRow, Settings, Written, grouped, header

_Factors = tuple[float | None, ...]
GROUPS_VERSION = "torch.optim of PyTorch 2"
_COLUMNS = (
    *("name", "role", "multiplier", "learning_rate_factor", "weight_decay_factor"),
    *("learning_rate", "weight_decay", "optimizer", "outcome"),
)
_RECIPE_COLUMNS = (
    *("epsilon_factor", "one_minus_beta1_factor", "one_minus_beta2_factor", "initial_rms"),
)


def write_groups(export: Export, settings: Settings) -> Written:
    """Return JSON with the options and the names of each group.

    Raises:
        ExportError: The base learning rate or the weight decay is needed and unknown.
    """

    def key(row: ExportRow) -> tuple[str, float, float | None, float, _Factors]:
        return (
            settings.optimizer_of(row),
            settings.learning_rate_of(row),
            settings.weight_decay_of(row),
            row.factor,
            _factors(row)[:3],
        )

    groups = [
        {
            "optimizer": optimizer,
            "learning_rate_factor": factor,
            "options": {
                "lr": learning_rate,
                **({} if decay is None else {"weight_decay": decay}),
            },
            **{
                name: each
                for name, each in zip(_RECIPE_COLUMNS, factors, strict=False)
                if each != 1
            },
            "names": [row.name for row in rows],
            **_initial_rms(rows),
        }
        for (optimizer, learning_rate, decay, factor, factors), rows in grouped(
            export.rows, key
        ).items()
    ]
    body = {"comment": header(export, "PyTorch", GROUPS_VERSION), "groups": groups}
    return Written(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def _factors(row: ExportRow) -> _Factors:
    """Return what a recipe says of a row, in the order of the columns; 1 is no factor."""
    found = row.recipe
    if found is None:
        return 1.0, 1.0, 1.0, None
    return found.epsilon, found.one_minus_beta1, found.one_minus_beta2, found.initial_rms


def _initial_rms(rows: Sequence[ExportRow]) -> dict[str, list[float | None]]:
    """Return the initial RMS of each name of a group if any is known."""
    found = [_factors(row)[3] for row in rows]
    return {"initial_rms": found} if any(rms is not None for rms in found) else {}


def write_csv(export: Export, settings: Settings) -> Written:
    """Return a line for each parameter; what is unknown is empty.

    Raises:
        ExportError: The weight decay is needed and unknown.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    has_recipe = any(row.recipe is not None for row in export.rows)
    table.writerow((*_COLUMNS, *(_RECIPE_COLUMNS if has_recipe else ())))
    for row in export.rows:
        learning_rate = None if settings.learning_rate is None else settings.learning_rate_of(row)
        decay = None if settings.weight_decay is None else settings.weight_decay_of(row)
        table.writerow([
            row.name,
            row.role,
            row.multiplier,
            row.factor,
            row.decay_factor,
            learning_rate,
            decay,
            settings.optimizer_of(row),
            row.outcome,
            *(_factors(row) if has_recipe else ()),
        ])
    return Written(text.getvalue())
