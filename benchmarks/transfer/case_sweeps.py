"""The sweeps of a case: one of the base that all methods share, and one of each method."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case
from benchmarks.transfer.methods import STANDARD, MethodName, method_of, same_as
from benchmarks.transfer.optimum import optimum
from benchmarks.transfer.sweeps import PLAIN, Sweep, base_sweep, big_sweep


class CaseSweeps:
    """Sweeps the base and the big model of a case, each only once.

    Args:
        bench: Where to train.
        case: The case.
        is_fine: Whether sweeps have finer steps near their optimum.
    """

    def __init__(self, bench: Bench, case: Case, *, is_fine: bool) -> None:
        self._bench = bench
        self._case = case
        self._is_fine = is_fine
        self._base: Sweep | None = None
        self._by_method: dict[MethodName, Sweep] = {}

    @property
    def base(self) -> Sweep:
        """The base, with its profiles."""
        if self._base is None:
            self._base = base_sweep(self._bench, self._case, PLAIN, is_fine=self._is_fine)
        return self._base

    def big(self, name: MethodName) -> Sweep:
        """Return the sweep of the big model with a method.

        Args:
            name: The method.

        Raises:
            ValueError: The method says nothing of the case.
        """
        if name not in self._by_method:
            equal = same_as(name, self._case)
            self._by_method[name] = self.big(equal) if equal else self._swept(name)
        return self._by_method[name]

    def _swept(self, name: MethodName) -> Sweep:
        method = method_of(name, self._case)
        if method is None:
            raise ValueError(f"{name} says nothing of the case {self._case.name}")
        # Parametrizations leave the base unchanged, so that they share its profiles. A method that
        # records differently needs profiles of its own, which big_sweep records where needed.
        base = self.base if method.recording == PLAIN.recording else Sweep()
        return big_sweep(
            self._bench, self._case, method, base, self._octaves(name), is_fine=self._is_fine
        )

    def _octaves(self, name: MethodName) -> Sequence[int]:
        """Return the octaves to start with: the base's best one and its neighbors.

        The standard method, whose best loss all regrets refer to, also has all octaves of the case:
        losses of a deep and wide residual MLP have a first minimum near the base's optimum, and the
        lowest one five octaves below.
        """
        best = optimum(self.base.losses)
        if best is None:
            return self._case.octaves
        # Both octaves next to the optimum, between which the regret is evaluated.
        low, high = math.floor(best), math.ceil(best)
        nearest = round(best)
        everywhere = self._case.octaves if name == STANDARD else ()
        return sorted({low, high, nearest - 1, nearest, nearest + 1, *everywhere}, reverse=True)
