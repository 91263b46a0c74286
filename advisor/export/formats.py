"""The formats by name."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from advisor.export import (
    axolotl,
    deepspeed,
    hf_trainer,
    megatron_lm,
    nemo_automodel,
    optax_labels,
    tables,
    torchtitan,
)
from advisor.export.rows import Export, Settings, Written


class FormatName(enum.StrEnum):
    """The names of the formats."""

    TORCHTITAN = "torchtitan"
    NEMO_AUTOMODEL = "nemo-automodel"
    MEGATRON_LM = "megatron-lm"
    AXOLOTL = "axolotl"
    HF_TRAINER = "hf-trainer"
    DEEPSPEED = "deepspeed"
    OPTAX = "optax"
    PYTORCH = "pytorch"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Format:
    """A format of exports.

    Attributes:
        write: Returns the file.
        version: Name and version of what reads it.
        is_absolute: Whether the file has absolute learning rates, so that the base learning rate
            must be known.
        has_recipe: Whether it has a recipe's factors on epsilon and betas.
    """

    write: Callable[[Export, Settings], Written]
    version: str
    is_absolute: bool
    has_recipe: bool = False


FORMATS: Mapping[FormatName, Format] = {
    FormatName.TORCHTITAN: Format(torchtitan.write, torchtitan.VERSION, is_absolute=True),
    FormatName.NEMO_AUTOMODEL: Format(
        nemo_automodel.write, nemo_automodel.VERSION, is_absolute=False
    ),
    FormatName.MEGATRON_LM: Format(megatron_lm.write, megatron_lm.VERSION, is_absolute=True),
    FormatName.AXOLOTL: Format(axolotl.write, axolotl.VERSION, is_absolute=True),
    FormatName.HF_TRAINER: Format(hf_trainer.write, hf_trainer.VERSION, is_absolute=False),
    FormatName.DEEPSPEED: Format(deepspeed.write, deepspeed.VERSION, is_absolute=True),
    FormatName.OPTAX: Format(optax_labels.write, optax_labels.VERSION, is_absolute=False),
    FormatName.PYTORCH: Format(
        tables.write_groups, tables.GROUPS_VERSION, is_absolute=True, has_recipe=True
    ),
    FormatName.CSV: Format(tables.write_csv, "any program", is_absolute=False, has_recipe=True),
}
