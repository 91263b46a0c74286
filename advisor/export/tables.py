"""PyTorch's parameter groups as JSON, and all rows as CSV: for programs of one's own."""

from __future__ import annotations

import csv
import io
import json

from advisor.export.rows import Export, ExportRow, Settings, Written, grouped, header

GROUPS_VERSION = "torch.optim of PyTorch 2"
_COLUMNS = (
    *("name", "role", "multiplier", "learning_rate_factor", "weight_decay_factor"),
    *("learning_rate", "weight_decay", "optimizer", "outcome"),
)


def write_groups(export: Export, settings: Settings) -> Written:
    """Return JSON with the options and the names of each group.

    Raises:
        ExportError: The base learning rate or the weight decay is needed and unknown.
    """

    def key(row: ExportRow) -> tuple[str, float, float | None, float]:
        return (
            settings.optimizer_of(row),
            settings.learning_rate_of(row),
            settings.weight_decay_of(row),
            row.factor,
        )

    groups = [
        {
            "optimizer": optimizer,
            "learning_rate_factor": factor,
            "options": {
                "lr": learning_rate,
                **({} if decay is None else {"weight_decay": decay}),
            },
            "names": [row.name for row in rows],
        }
        for (optimizer, learning_rate, decay, factor), rows in grouped(export.rows, key).items()
    ]
    body = {"comment": header(export, "PyTorch", GROUPS_VERSION), "groups": groups}
    return Written(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def write_csv(export: Export, settings: Settings) -> Written:
    """Return a line for each parameter; what is unknown is empty.

    Raises:
        ExportError: The weight decay is needed and unknown.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
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
        ])
    return Written(text.getvalue())
