"""Which steps of several optimizers make up one step of the training.

A step of the training begins with the first optimizer that steps after a call of the model, and
ends when the last of them has stepped. Optimizers may step at different cadence, in any order, or
skip steps. So the last one is expected from what happened before: an optimizer that steps every
fourth time is expected every fourth time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fslr.errors import AttachError

_PATIENCE = 8  # steps of the training without an optimizer, until it is not waited for


class Rounds:
    """The steps of a training that one or several optimizers make together.

    Args:
        count: Number of optimizers, >= 1.

    Attributes:
        is_open: Whether a step of the training has begun and not ended.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._stepped: set[int] = set()
        self._expected: set[int] = set()
        self.is_open = False
        self._was_called = True
        self._round = -1
        self._last = [-1] * count
        self._gaps = [1] * count
        self._latest_gaps = [1] * count
        self._measured = [-1] * count
        self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to expect the optimizers as before."""
        return {
            "stepped": sorted(self._stepped),
            "expected": sorted(self._expected),
            "is_open": self.is_open,
            "was_called": self._was_called,
            "numbers": [self._round, self._waited],
            "by_optimizer": [
                list(each) for each in (self._last, self._gaps, self._latest_gaps, self._measured)
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Args:
            state: What it returned; empty: a checkpoint from before it had one, which leaves the
                rounds as they are.

        Raises:
            AttachError: It belongs to another number of optimizers.
        """
        if not state:
            return
        columns = [list(each) for each in state["by_optimizer"]]
        if len(columns[0]) != self._count:
            raise AttachError(
                f"the checkpoint is of a training with {len(columns[0])} optimizers, and there are "
                f"{self._count}; load the one that belongs to this training"
            )
        self._stepped, self._expected = set(state["stepped"]), set(state["expected"])
        self.is_open, self._was_called = bool(state["is_open"]), bool(state["was_called"])
        self._round, self._waited = state["numbers"]
        self._last, self._gaps, self._latest_gaps, self._measured = columns

    @property
    def has_steps(self) -> bool:
        """Whether an optimizer has stepped since the latest step of the training began."""
        return bool(self._stepped)

    def suits(self) -> bool:
        """Return whether the step under way is one to measure, if one is to be measured.

        A step of all optimizers is. If there is none for a while, the next step of one that was
        measured longest ago is.
        """
        active = self._active()
        longest_gap = max((self._gaps[member] for member in active), default=1)
        longest_ago = min((self._measured[member] for member in active), default=-1)
        suits = self._expected >= set(active) or (
            self._waited >= longest_gap
            and any(self._measured[member] == longest_ago for member in self._expected)
        )
        self._waited = 0 if suits else self._waited + 1
        return suits

    def measured(self) -> None:
        """Take note that the step under way was measured."""
        for member in self._stepped:
            self._measured[member] = self._round

    def called(self) -> None:
        """Take note that the model is called: optimizers that step after it begin a new step."""
        self._was_called = True

    def begins(self, members: Collection[int]) -> bool:
        """Return whether optimizers that are about to step begin a new step of the training.

        Args:
            members: The optimizers.
        """
        if not self._stepped or self._stepped.intersection(members):
            return True  # the step before ended with an exception, or they have stepped already
        return self._was_called

    def begin(self) -> None:
        """Begin a step of the training."""
        if self._stepped or self._round < 0:  # else the one before ended with an exception
            self._round += 1
        self.is_open, self._was_called = True, False
        self._stepped = set()
        # A single optimizer makes each step.
        expected = (0,) if self._count == 1 else filter(self._is_expected, self._active())
        self._expected = set(expected)

    def stepped(self, members: Collection[int]) -> bool:
        """Take note that optimizers have stepped; return whether that ends the training's step.

        Args:
            members: The optimizers.
        """
        for member in set(members) - self._stepped:
            gap = self._round - self._last[member]
            # One that skipped a step is expected at the next one again.
            if (
                gap <= self._gaps[member]
                or gap == self._latest_gaps[member]
                or self._last[member] < 0
            ):
                self._gaps[member] = gap
            self._latest_gaps[member] = gap
            self._last[member] = self._round
            self._stepped.add(member)
        return self.is_open and self._expected <= self._stepped

    def end(self) -> None:
        """End the training's step."""
        self.is_open = False

    def _is_expected(self, member: int) -> bool:
        if self._last[member] < 0:  # at first, all of them may step each time
            return True
        return self._round - self._last[member] >= self._gaps[member]

    def _active(self) -> list[int]:
        """Return the optimizers that have not stopped stepping, as far as is known."""
        return [
            member
            for member in range(self._count)
            if (
                self._round == 0
                if self._last[member] < 0
                else self._round - self._last[member] <= max(2 * self._gaps[member], _PATIENCE)
            )
        ]
