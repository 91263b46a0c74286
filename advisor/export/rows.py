"""What is exported: a row for each parameter of the trainer, and the settings around them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from advisor.export.errors import ExportError
from advisor.policy.control_characters import without_controls
from advisor.policy.optimizer_families import optimizer_family, plain_name

_Key = TypeVar("_Key", bound=Hashable)
_WRAPPERS = re.compile(
    r"(?:^|(?<=[./]))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[./]"
)
_DATA_PARALLEL = "module."
_SIGNIFICANT_DIGITS = 6
_KEPT_DECAY = ("adamw", "lion", "muon", "adafactor")  # names of optimizers with decoupled decay


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """What a recipe says of one parameter.

    Attributes:
        learning_rate: Factor on the learning rate, which the recipe's weight decay presumes.
        epsilon: Factor on the optimizer's epsilon.
        one_minus_beta1: Factor on one minus the decay of the first moment.
        one_minus_beta2: Factor on one minus the decay of the second moment.
        initial_rms: RMS that the parameter should have before the first step; None: its own.
    """

    learning_rate: float
    epsilon: float
    one_minus_beta1: float
    one_minus_beta2: float
    initial_rms: float | None

    @property
    def scaled(self) -> tuple[str, ...]:
        """The settings of the optimizer that the recipe scales."""
        factors = {
            "epsilon": self.epsilon,
            "beta1": self.one_minus_beta1,
            "beta2": self.one_minus_beta2,
        }
        return tuple(name for name, factor in factors.items() if factor != 1)


@dataclass(frozen=True, slots=True)
class ExportRow:
    """The learning rate of one parameter, relative to the trainer's settings.

    Attributes:
        name: The parameter's name in the trainer.
        role: The name without its block indices.
        multiplier: Factor on the scheduled learning rate of its group.
        decay_factor: Factor on the weight decay setting.
        is_vector: Whether it is a bias, a gain or another tensor of one dimension or less.
        optimizer: Name of the optimizer that updates it; empty: the trainer's only one.
        outcome: Why the multiplier is what it is, in words.
        base_factor: Scheduled learning rate of its group over the largest one.
        recipe: What a recipe says beside the multiplier; None: nothing.
    """

    name: str
    role: str
    multiplier: float
    decay_factor: float = 1.0
    is_vector: bool = False
    optimizer: str = ""
    outcome: str = ""
    base_factor: float = 1.0
    recipe: RecipeRow | None = None

    @property
    def factor(self) -> float:
        """The factor on the base learning rate of the schedule, the largest one."""
        return significant(self.multiplier * self.base_factor)


@dataclass(frozen=True, slots=True)
class Settings:
    """The trainer's settings.

    Attributes:
        learning_rate: The largest learning rate of the schedule, absolute; None: unknown.
        min_learning_rate: The smallest one, absolute.
        weight_decay: The weight decay of an optimizer's group; None: unknown.
        vectors_decay: Whether biases, gains and other vectors have weight decay.
        optimizer: Name of the trainer's optimizer, for parameters that name none.
    """

    learning_rate: float | None = None
    min_learning_rate: float = 0.0
    weight_decay: float | None = None
    vectors_decay: bool = True
    optimizer: str = "AdamW"

    def learning_rate_of(self, row: ExportRow) -> float:
        """Return a parameter's learning rate at the top of the schedule, absolute.

        Raises:
            ExportError: The base learning rate is unknown.
        """
        if self.learning_rate is None:
            raise ExportError(
                "this format has absolute learning rates, and the base learning rate is unknown; "
                "give --learning-rate, the largest one of the trainer's schedule"
            )
        return significant(self.learning_rate * row.factor)

    def weight_decay_of(self, row: ExportRow) -> float | None:
        """Return a parameter's weight decay setting; None: the trainer's own.

        Raises:
            ExportError: It differs from the trainer's own, which is unknown.
        """
        if row.is_vector and not self.vectors_decay:
            return 0.0
        if self.weight_decay is None:
            if row.decay_factor != 1:
                raise ExportError(
                    "the policy or the recipe gives parameters a weight decay of their own; give "
                    "--weight-decay, the trainer's setting"
                )
            return None
        return significant(self.weight_decay * row.decay_factor)

    def optimizer_of(self, row: ExportRow) -> str:
        """Return the name of the optimizer that updates a parameter."""
        return row.optimizer or self.optimizer


@dataclass(frozen=True, slots=True)
class Export:
    """What is written in a format.

    Attributes:
        rows: The parameters, in the model's order.
        origin: Where the multipliers come from, as sentences without their full stops.
        notes: What a person should know before using them.
        learning_rate: The base learning rate that the source reports, absolute; None: unknown.
    """

    rows: tuple[ExportRow, ...]
    origin: tuple[str, ...]
    notes: tuple[str, ...] = ()
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A file in a format.

    Attributes:
        text: Its contents.
        losses: What the format cannot express, as sentences; empty: nothing is lost.
    """

    text: str
    losses: tuple[str, ...] = ()


def significant(value: float, digits: int = _SIGNIFICANT_DIGITS) -> float:
    """Return a number with a number of significant digits."""
    return float(f"{value:.{digits}g}")


def rounded(export: Export, values_per_octave: int) -> Export:
    """Return an export with rounded multipliers, so that similar ones share a group.

    Args:
        export: The export.
        values_per_octave: Number of values between a multiplier and its double; 0: multipliers
            keep four significant digits.
    """

    def near(multiplier: float) -> float:
        if multiplier <= 0 or not values_per_octave:
            return significant(multiplier, 4)
        octaves = round(np.log2(multiplier) * values_per_octave) / values_per_octave
        return significant(float(2.0**octaves), 4)

    return replace(
        export, rows=tuple(replace(row, multiplier=near(row.multiplier)) for row in export.rows)
    )


def by_role(export: Export) -> Export:
    """Return an export in which all blocks of a role have the geometric mean of their multipliers.

    A multiplier of 0 stays 0.
    """
    logarithms: defaultdict[str, list[float]] = defaultdict(list)
    for row in export.rows:
        if row.multiplier > 0:
            logarithms[row.role].append(float(np.log(row.multiplier)))
    means = {role: float(np.exp(np.mean(found))) for role, found in logarithms.items()}
    largest = max(
        (abs(x - np.log(means[role])) for role, found in logarithms.items() for x in found),
        default=0.0,
    )
    averaged = (
        "All blocks of a role have the geometric mean of their multipliers, which differs from "
        f"their own by at most a factor of {np.exp(largest):.3g}"
    )
    rows = tuple(
        replace(row, multiplier=means[row.role] if row.multiplier > 0 else 0.0)
        for row in export.rows
    )
    return replace(export, rows=rows, origin=(*export.origin, averaged))


def keeping_decay(export: Export, settings: Settings) -> Export:
    """Return an export whose multipliers leave the weight decay of a step unchanged.

    A step's decay is ``learning_rate * weight_decay * weight``, so the setting is divided by the
    multiplier. For optimizers that normalize a gradient with the decay in it, it is not. Under a
    recipe, what is kept is the decay of a step that the recipe wants.
    """
    lost = [row for row in export.rows if not _decay_can_be_kept(settings.optimizer_of(row))]
    notes = export.notes
    if lost:
        note = (
            f"The policy keeps the weight decay of a step, but {settings.optimizer_of(lost[0])} "
            f"normalizes the gradient that the decay is part of: for {len(lost)} parameters the "
            "multiplier scales the decay too"
        )
        notes += (note,)
    names = {row.name for row in lost}
    rows = tuple(
        replace(row, decay_factor=significant(_step_decay(row) / row.multiplier))
        if row.multiplier > 0 and row.name not in names
        else row
        for row in export.rows
    )
    return replace(export, rows=rows, notes=notes)


def _step_decay(row: ExportRow) -> float:
    """Return the factor on the decay of a step that is wanted, 1 without a recipe."""
    return 1.0 if row.recipe is None else row.decay_factor * row.recipe.learning_rate


def recipe_losses(export: Export) -> tuple[str, ...]:
    """Return what is lost if a format has no epsilon and no betas for each parameter."""
    scaled = [row.recipe.scaled for row in export.rows if row.recipe is not None]
    names = sorted({name for each in scaled for name in each})
    if not names:
        return ()
    count = sum(map(bool, scaled))
    loss = (
        f"the recipe scales {' and '.join(names)} of {count} parameters, and this format has no "
        "setting for each of them; csv and pytorch have the factors"
    )
    return (loss,)


def _decay_can_be_kept(optimizer: str) -> bool:
    plain = plain_name(optimizer)
    return any(known in plain for known in _KEPT_DECAY) or optimizer_family(optimizer) == "SGD"


def trainer_names(names: Sequence[str]) -> list[str]:
    """Return parameter names without what torch.compile, FSDP, checkpointing and DDP add to them.

    Names that would become equal are left unchanged.
    """
    found = [_WRAPPERS.sub("", name) for name in names]
    while all(name.startswith(_DATA_PARALLEL) for name in found):
        found = [name.removeprefix(_DATA_PARALLEL) for name in found]
    counts = Counter(found)
    return [
        short if counts[short] == 1 and short else name
        for name, short in zip(names, found, strict=True)
    ]


def grouped(
    rows: Sequence[ExportRow], key: Callable[[ExportRow], _Key]
) -> dict[_Key, list[ExportRow]]:
    """Return the rows of each key, in the order of their first ones."""
    found: defaultdict[_Key, list[ExportRow]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return dict(found)


def one_optimizer(export: Export, settings: Settings, what: str) -> tuple[str, ...]:
    """Return what is lost if the parameters are updated by several optimizers.

    Args:
        export: What is written.
        settings: The trainer's settings.
        what: What has only one, such as "a recipe".
    """
    names = dict.fromkeys(settings.optimizer_of(row) for row in export.rows)
    if len(names) == 1:
        return ()
    loss = (
        f"{what} has one optimizer, and the parameters are updated by {', '.join(names)}; give "
        "--optimizer to name the one that updates all of them"
    )
    return (loss,)


def header(export: Export, trainer: str, version: str, *more: str) -> list[str]:
    """Return the lines of a file's comment.

    Args:
        export: What is written.
        trainer: What reads the file.
        version: The version whose source the format was read from.
        more: Further lines.
    """
    lines = [
        f"Learning rates for {trainer}, written by `advisor export`",
        f"The format is that of {version}",
        *export.origin,
        *more,
        *export.notes,
    ]
    return [f"{without_controls(line).rstrip('.')}." for line in lines]
