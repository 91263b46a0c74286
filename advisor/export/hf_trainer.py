"""Hugging Face Trainer: a function that returns ``optimizer_cls_and_kwargs``.

Read from ``transformers/trainer.py``. The entry ``params`` of the keyword arguments replaces the
groups that the Trainer would make. The file holds factors: the learning rate and the weight decay
are those of the ``TrainingArguments``, and the Trainer's own rule says which parameters have no
weight decay. Its schedulers multiply the learning rate that each group starts with.
"""

from __future__ import annotations

from advisor.export.patterns import regex
from advisor.export.python_source import PARAMETERS_BY_GROUP, docstring, raw, tuple_lines
from advisor.export.rows import (
    Export,
    ExportRow,
    Settings,
    Written,
    grouped,
    header,
    one_optimizer,
)

VERSION = "transformers 5.24.0"
_CODE = '''
def optimizer_cls_and_kwargs(model, args):
    """Return what `Trainer(optimizer_cls_and_kwargs=...)` takes.

    Args:
        model: The model that the Trainer gets.
        args: Its TrainingArguments.

    Raises:
        ValueError: The file was written for a different model, or the optimizer of `args` makes
            its groups itself.
    """
    optimizer_cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    makes_groups = {"params", "model", "optimizer_dict"} & kwargs.keys()
    if makes_groups or not issubclass(optimizer_cls, torch.optim.Optimizer):
        name = getattr(args.optim, "value", args.optim)
        raise ValueError(f"{name} makes its groups itself, so it takes no multipliers")
    decaying = set(Trainer.get_decay_parameter_names(None, model))
    groups = []
    for (_, factor, decay_factor), found in zip(GROUPS, parameters_by_group(model)):
        for has_decay in (True, False):
            own = [p for name, p in found if (name in decaying) == has_decay]
            decay = args.weight_decay * decay_factor if has_decay else 0.0
            if own:
                groups.append(
                    {"params": own, "lr": args.learning_rate * factor, "weight_decay": decay}
                )
    return optimizer_cls, {**kwargs, "params": groups}
'''


def write(export: Export, settings: Settings) -> Written:
    """Return a Python module with the function."""

    def key(row: ExportRow) -> tuple[float, float]:
        return row.factor, row.decay_factor

    rows = [
        (raw(regex([row.name for row in rows])), *map(repr, values))
        for values, rows in grouped(export.rows, key).items()
    ]
    lines = header(
        export,
        "the Hugging Face Trainer",
        VERSION,
        "The learning rate and the weight decay are those of the TrainingArguments",
    )
    text = (
        docstring(lines) + "\nimport re\n\nimport torch\nfrom transformers import Trainer\n\n"
        "# Names, and factors on the learning rate and the weight decay.\n"
        f"GROUPS = [\n{tuple_lines(rows)}]\n" + PARAMETERS_BY_GROUP + "\n" + _CODE
    )
    return Written(text, one_optimizer(export, settings, "a Trainer"))
