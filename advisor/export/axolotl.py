"""axolotl: ``lr_groups``, ``learning_rate`` and ``embedding_lr`` of a configuration, in YAML.

Read from ``src/axolotl/core/trainers/mixins/optimizer.py``. Parameters are divided into three:

* Names with ``embed_tokens`` or ``lm_head`` have ``embedding_lr`` and no weight decay.
* Parameters without weight decay by the rule of Hugging Face's ``Trainer`` (biases and norms) have
  ``learning_rate``.
* All others have the learning rate of the first substring of ``lr_groups`` that is in their name,
  else ``learning_rate``. All have the same weight decay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import yaml

from advisor.export.errors import ExportError
from advisor.export.patterns import first_contained, substrings
from advisor.export.rows import (
    Export,
    ExportRow,
    Settings,
    Written,
    header,
    one_optimizer,
    significant,
)

VERSION = "axolotl 0.18.0 (main of 2026-07-24, 067b021)"
_EMBEDDINGS = ("embed_tokens", "lm_head")
_SAVED_MODULES = "modules_to_save.default.weight"
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def write(export: Export, settings: Settings) -> Written:
    """Return a part of a YAML configuration.

    Raises:
        ExportError: The base learning rate or the weight decay is needed and unknown.
    """
    embeddings = [row for row in export.rows if is_embedding(row.name)]
    plain = [r for r in export.rows if not is_embedding(r.name) and not has_decay(r)]
    grouped_rows = [r for r in export.rows if not is_embedding(r.name) and has_decay(r)]
    losses = [
        *_one_value(embeddings, settings, "embeddings and heads", "embedding_lr"),
        *_one_value(plain, settings, "biases and norms", "learning_rate"),
    ]
    # Groups and `embedding_lr` are absolute, so `learning_rate` is free for biases and norms.
    learning_rate = _mean(plain, settings) if plain else settings.learning_rate_of(_UNSCALED)
    body: dict[str, object] = {"learning_rate": learning_rate}
    if embeddings:
        body["embedding_lr"] = _mean(embeddings, settings)
    decay, decay_losses = _weight_decay(grouped_rows, settings)
    losses += decay_losses
    if decay is not None:
        body["weight_decay"] = decay
    groups = lr_groups({r.name: settings.learning_rate_of(r) for r in grouped_rows}, learning_rate)
    if groups:
        body["lr_groups"] = groups
    losses += one_optimizer(export, settings, "a configuration")
    lines = header(
        export,
        "axolotl",
        VERSION,
        "`learning_rate` is that of biases, norms and parameters without a group",
        "Names that contain a substring of `lr_groups` and were not in the layout have its value "
        "too",
    )
    comment = "".join(f"# {line}\n" for line in lines)
    text = yaml.safe_dump(body, sort_keys=False, width=10_000, allow_unicode=True)
    return Written(comment + text, tuple(losses))


_UNSCALED = ExportRow("", "", 1.0)


def is_embedding(name: str) -> bool:
    """Return whether axolotl takes a parameter for an embedding or a head."""
    return name.endswith(_SAVED_MODULES) or any(text in name for text in _EMBEDDINGS)


def has_decay(row: ExportRow) -> bool:
    """Return whether the rule of Hugging Face's ``Trainer`` gives a parameter weight decay.

    The rule looks at names and at the type of a module; a vector called ``weight`` is taken for the
    gain of a norm.
    """
    is_gain = row.is_vector and row.name.rsplit(".", 1)[-1] == "weight"
    return not is_gain and _NO_DECAY.search(row.name.lower()) is None


def lr_groups(learning_rates: dict[str, float], default: float) -> list[dict[str, object]]:
    """Return groups in which the first substring in a name gives its learning rate.

    The groups of one learning rate share a name, so they are one group of the optimizer.

    Args:
        learning_rates: The absolute learning rate of each name.
        default: That of names without a substring.
    """
    wanted = {name: repr(value) for name, value in learning_rates.items()}
    ordered = substrings(wanted, repr(default))
    by_value: dict[str, list[str]] = {}
    for text, value in ordered:
        by_value.setdefault(value, []).append(text)
    joined = [(text, value) for value, texts in by_value.items() for text in texts]
    if any(first_contained(name, joined, repr(default)) != wanted[name] for name in wanted):
        entries = [(value, [text]) for text, value in ordered]
    else:
        entries = list(by_value.items())
    return [
        {"name": f"lr_{value}", "modules": texts, "lr": float(value)} for value, texts in entries
    ]


def _mean(rows: Sequence[ExportRow], settings: Settings) -> float:
    """Return the geometric mean of learning rates, that of one value unchanged."""
    values = [settings.learning_rate_of(row) for row in rows]
    if len(set(values)) == 1:
        return values[0]
    return significant(float(np.exp(np.mean(np.log(np.maximum(values, 1e-30))))))


def _one_value(rows: Sequence[ExportRow], settings: Settings, what: str, setting: str) -> list[str]:
    """Return what is lost by giving all rows one learning rate."""
    values = [settings.learning_rate_of(row) for row in rows]
    if len(set(values)) < 2:
        return []
    loss = (
        f"axolotl gives all {what} one learning rate, `{setting}`, and these {len(rows)} have "
        f"{len(set(values))} different ones, from {min(values):.4g} to {max(values):.4g}; with "
        f"--allow-loss they get the geometric mean {_mean(rows, settings):.4g}"
    )
    return [loss]


def _weight_decay(rows: Sequence[ExportRow], settings: Settings) -> tuple[float | None, list[str]]:
    """Return the weight decay, and what is lost by giving all rows the same one."""
    factors = {row.decay_factor for row in rows}
    if len(factors) > 1:
        loss = (
            "the policy or the recipe gives parameters a weight decay of their own, and axolotl "
            "has no weight decay per group; with --allow-loss all have the trainer's"
        )
        return settings.weight_decay, [loss]
    if settings.weight_decay is None and factors - {1.0}:
        raise ExportError("the policy or the recipe scales the weight decay; give --weight-decay")
    return settings.weight_decay_of(rows[0]) if rows else settings.weight_decay, []
