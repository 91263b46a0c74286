"""Recipes: tables that say how a group's training follows from how much the group has grown."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from advisor.policy import GroupKind, InvalidValueError, shown
from advisor.policy.control_characters import check_controls
from advisor.policy.counts import count_of
from advisor.policy.optimizer_families import FAMILIES, optimizer_family
from advisor.policy.ratios import GIVEN_RATIOS, Powers, Ratio

MAX_ROWS = 64
MAX_CONDITIONS = 32
MAX_TEXT_CHARACTERS = 4_096
_ANY_OTHER = ""  # family of optimizers
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Field(enum.Enum):
    """What a recipe gives a factor for."""

    LEARNING_RATE = "learning_rate"
    WEIGHT_DECAY = "weight_decay"  # of the coefficient c in w -= learning_rate * c * w
    EPSILON = "epsilon"
    ONE_MINUS_BETA1 = "one_minus_beta1"  # 1 - beta, so that it can be a power
    ONE_MINUS_BETA2 = "one_minus_beta2"
    INITIAL_SCALE = "initial_scale"  # of the RMS of the initial values, relative to the base's


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a recipe: which groups it is for, and their factors.

    Attributes:
        kinds: The kinds of the groups; empty: all kinds, unknown ones too.
        residual_output: Whether the groups write into the residual stream; None: both.
        in_block: Whether the groups are in a block; None: both.
        optimizers: The families of their optimizers; empty: all that the recipe holds for.
        powers: The factor of each field. Where a field is missing, the factor is 1.
    """

    kinds: tuple[GroupKind, ...] = ()
    residual_output: bool | None = None
    in_block: bool | None = None
    optimizers: tuple[str, ...] = ()
    powers: Mapping[Field, Powers] = field(default_factory=dict, hash=False)

    def fits(self, kind: GroupKind, *, residual_output: bool, in_block: bool) -> bool:
        """Return whether the row is for a group, if the group's optimizer is right.

        Args:
            kind: The group's kind.
            residual_output: Whether it writes into the residual stream.
            in_block: Whether it is in a block.
        """
        return (
            (not self.kinds or kind in self.kinds)
            and self.residual_output in {None, residual_output}
            and self.in_block in {None, in_block}
        )

    @property
    def ratios(self) -> frozenset[Ratio]:
        """The ratios that the row's factors need."""
        return frozenset(r for powers in self.powers.values() for r, _ in powers.exponents)

    def fitted(self, optimizers: Sequence[str]) -> frozenset[tuple[object, ...]]:
        """Return all groups that the row fits, by what rows tell groups apart by.

        Args:
            optimizers: The families of optimizers that the recipe holds for; empty: all.
        """
        return frozenset(
            itertools.product(
                self.kinds or tuple(GroupKind),
                (True, False) if self.residual_output is None else (self.residual_output,),
                (True, False) if self.in_block is None else (self.in_block,),
                self.optimizers or optimizers or (*FAMILIES, _ANY_OTHER),
            )
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A table of factors. Build it with :meth:`of`, which checks it.

    Attributes:
        name: 1 to 63 characters of [a-z0-9-], beginning with a letter.
        description: What it is for, in one sentence.
        source: Where it is published, with section or table.
        optimizers: The families of optimizers that it holds for; empty: all.
        covers: The ratios that the source makes a statement about, including those that its factors
            do not depend on.
        conditions: What must hold for the model and its training, in sentences.
        rows: The rows. The first one that fits a group is the group's.
    """

    name: str
    description: str = ""
    source: str = ""
    optimizers: tuple[str, ...] = ()
    covers: tuple[Ratio, ...] = ()
    conditions: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        rows: Sequence[Row],
        *,
        description: str = "",
        source: str = "",
        optimizers: Sequence[str] = (),
        covers: Sequence[Ratio] = (),
        conditions: Sequence[str] = (),
    ) -> Recipe:
        """Return a recipe, checked.

        Args:
            name: See the attribute.
            rows: At least one.
            description: See the attribute.
            source: See the attribute.
            optimizers: See the attribute.
            covers: See the attribute; the ratios of the rows are added.
            conditions: See the attribute.

        Raises:
            InvalidValueError: The name is not valid, a text is too long, a family of optimizers is
                not known, there is no row, or a row can never apply.
        """
        if not _NAME.fullmatch(name):
            raise InvalidValueError(
                "name",
                f"{shown(name)} is not 1 to 63 characters of [a-z0-9-], beginning with a letter",
            )
        _check_text("description", description)
        _check_text("source", source)
        if len(conditions) > MAX_CONDITIONS:
            raise InvalidValueError(
                "conditions", f"{len(conditions)}, but at most {MAX_CONDITIONS} are allowed"
            )
        for i, condition in enumerate(conditions):
            _check_text(f"conditions[{i}]", condition)
        _check_families("optimizers", optimizers)
        _check_rows(rows, optimizers)
        used = {ratio for row in rows for ratio in row.ratios} | {*covers}
        return cls(
            name,
            description,
            source,
            tuple(optimizers),
            tuple(ratio for ratio in Ratio if ratio in used),
            tuple(conditions),
            tuple(rows),
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that some row has a factor for. The recipe says nothing of the others."""
        return tuple(f for f in Field if any(f in row.powers for row in self.rows))

    @property
    def given_ratios(self) -> tuple[Ratio, ...]:
        """The ratios of its factors that layouts do not show."""
        used = {ratio for row in self.rows for ratio in row.ratios}
        return tuple(ratio for ratio in GIVEN_RATIOS if ratio in used)


def _check_text(path: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidValueError(
            path, f"{len(text)} characters, but at most {MAX_TEXT_CHARACTERS} are allowed"
        )
    check_controls(path, text)


def _check_families(path: str, families: Sequence[str]) -> None:
    if len({*families}) < len(families):
        raise InvalidValueError(path, "a family is given twice; remove one of the two")
    for i, family in enumerate(families):
        if family not in FAMILIES:
            own = optimizer_family(family)
            hint = f"it belongs to {own}" if own in FAMILIES else f"use {', '.join(FAMILIES)}"
            raise InvalidValueError(
                f"{path}[{i}]", f"{shown(family)} is not a family of optimizers; {hint}"
            )


def check_row_count(rows: int) -> None:
    """Refuse a recipe with too many rows, or without any.

    Args:
        rows: Number of rows.

    Raises:
        InvalidValueError: It is not from 1 to ``MAX_ROWS``.
    """
    if not 1 <= rows <= MAX_ROWS:
        raise InvalidValueError(
            "groups", f"{count_of(rows, 'row')}, but 1 to {MAX_ROWS} are needed"
        )


def _check_rows(rows: Sequence[Row], optimizers: Sequence[str]) -> None:
    check_row_count(len(rows))
    fitted = [row.fitted(optimizers) for row in rows]
    for i, row in enumerate(rows):
        path = f"groups[{i}]"
        _check_families(f"{path}.optimizers", row.optimizers)
        outside = [family for family in row.optimizers if optimizers and family not in optimizers]
        if outside:
            raise InvalidValueError(
                f"{path}.optimizers",
                f"{outside[0]} is not among the recipe's optimizers: {', '.join(optimizers)}",
            )
        own, earlier = fitted[i], fitted[:i]
        if own <= frozenset().union(*earlier):
            taking = next(([j] for j, other in enumerate(earlier) if own <= other), None)
            taking = taking or [j for j, other in enumerate(earlier) if own & other]
            names = " and ".join(f"groups[{j}]" for j in taking)
            raise InvalidValueError(
                path,
                f"never applies, because {names} {'fits' if len(taking) == 1 else 'fit'} all its "
                "groups; put the row for fewer groups first, or remove one of them",
            )
