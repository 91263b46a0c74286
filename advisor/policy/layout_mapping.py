r"""A layout mapped onto a profile's layout: turns base rates into references.

With m blocks in the base, n in the run, :math:`r_i` the base's rates and :math:`o_{ij}` the overlap
of the base's part i with the run's part j, as fractions of [0, 1], the references are

* ``sum``:  :math:`R_j = \sum_i m\,o_{ij}\, r_i`: the parts of a base block add up to its rate, and
  :math:`\sum_j R_j = \sum_i r_i` exactly;
* ``sqrt``: :math:`R_j^2 = \sum_i m\,o_{ij}\, r_i^2`: the same for squares;
* ``copy``: :math:`R_j = \sum_i n\,o_{ij}\, r_i`: each part keeps the mean rate of what it covers;
* ``measured``: ``sum`` times the factor that keeps the size of the whole output change, see
  :meth:`LayoutMapping._size_factors`.

A different number of experts also changes rates. Each expert sees its own tokens, so their output
changes are orthogonal whatever the depth rule: :math:`R_j = \sqrt{m / n} \sum_i n\,o_{ij}\, r_i`,
with the sum of squares under a root where the rule is ``sqrt``. Where a role has several indices,
the factors multiply.

Source of ``sum``: FLeRM's depth rule, Milsom, Anson, Aitchison, arXiv 2502.17405.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.policy.arrays import Floats
from advisor.policy.rules import DepthRule, Match

_SQRT, _MEASURED = DepthRule.SQRT, DepthRule.MEASURED  # members of an enum are slow to look up


@dataclass(frozen=True, slots=True)
class LayoutMapping:
    """A sparse map from base rates to references, in coordinate form.

    Each entry takes a part of one base group's rate for one group of the run.

    Attributes:
        depth_rule: How references follow from base rates where depth differs.
        targets: Index of the run's group of each entry, shape [entries].
        sources: Index of the base group of each entry, shape [entries].
        shares: Factor on the source's rate (its squared rate under ``sqrt``), shape [entries].
        spans: Fraction of the target that the source covers, shape [entries]; those of one target
            add up to 1.
        blocks: Index of the base block that each entry takes from, shape [entries]; the experts of
            one block count as one.
        block_families: The family of each base block, shape [blocks].
        matches: How each group of the run found its counterpart, shape [groups].
        families: Index of each group's family, shape [groups]; -1: no counterpart. A family is the
            groups of one role that share a row of blocks and correspond to groups of one role.
        base_roles: The base role of each family, as an index of the base's ``Layout.roles``, shape
            [families].
        matched: Whether each group of the run has a counterpart, shape [groups].
    """

    depth_rule: DepthRule
    targets: NDArray[np.intp]
    sources: NDArray[np.intp]
    shares: Floats
    spans: Floats
    blocks: NDArray[np.intp]
    block_families: NDArray[np.intp]
    matches: tuple[Match, ...]
    families: NDArray[np.intp]
    base_roles: NDArray[np.intp]

    matched: NDArray[np.bool_] = field(init=False)
    _one_to_one: bool = field(init=False)

    def __post_init__(self) -> None:
        """Compute what every measurement needs."""
        matched = np.array([match is not Match.NONE for match in self.matches], dtype=np.bool_)
        one_to_one = np.array_equal(self.targets, np.arange(len(self.matches)))
        object.__setattr__(self, "matched", matched)
        object.__setattr__(self, "_one_to_one", one_to_one)

    def references(self, base_rates: Floats, coherences: Floats | None = None) -> Floats:
        """Return the reference of each group of the run, 0 where unmatched, shape [..., groups].

        Args:
            base_rates: Unit rate of each base group, shape [..., base groups].
            coherences: Mean correlation of the blocks' changes in each role of the base, shape
                [..., base roles]; only the rule ``measured`` needs it.
        """
        if self.depth_rule is _MEASURED and coherences is not None and base_rates.ndim > 1:
            return np.stack([*map(self.references, base_rates, coherences)])
        rates = np.take(base_rates, self.sources, axis=-1)
        if self.depth_rule is _SQRT:
            return np.sqrt(self._summed(self.shares * np.square(rates)))
        references = self._summed(self.shares * rates)
        if self.depth_rule is _MEASURED and coherences is not None:
            references *= self._size_factors(references, base_rates, coherences)
        return references

    def depth_factors(self, references: Floats, base_rates: Floats) -> Floats:
        """Return each reference over the mean base rate of what its group covers, 0 if that is 0.

        Args:
            references: What :meth:`references` returned for ``base_rates``, shape [..., groups].
            base_rates: Unit rate of each base group, shape [..., base groups].
        """
        covered = self._summed(self.spans * np.take(base_rates, self.sources, axis=-1))
        known = covered > 0
        if np.count_nonzero(known) == covered.size:
            return references / covered
        factors = np.zeros_like(references)
        np.divide(references, covered, out=factors, where=known)
        return factors

    def sources_of(self, group: int) -> list[int]:
        """Return the indices of the base groups that a group's reference is made of."""
        return [int(source) for source in self.sources[self.targets == group]]

    def combined(self, base_errors: Floats) -> Floats:
        """Return the mean over what each group covers, 0 where unmatched, shape [..., groups].

        Args:
            base_errors: A number for each base group, shape [..., base groups].
        """
        return self._summed(self.spans * np.take(base_errors, self.sources, axis=-1))

    def _summed(self, terms: Floats) -> Floats:
        """Return the sum of each target's terms, shape [..., groups]."""
        if self._one_to_one:
            return terms
        if terms.ndim > 1:
            return np.stack([*map(self._summed, terms)])
        summed = np.bincount(self.targets, weights=terms, minlength=len(self.matches))
        return summed.astype(np.float64)

    def _size_factors(self, summed: Floats, base_rates: Floats, coherences: Floats) -> Floats:
        r"""Return the factors on sums that keep the size of each family's whole output change.

        With coherence :math:`\rho` (the mean correlation of the output changes of a role's blocks),
        blocks of rates r change the outputs by :math:`T^2 = (1-\rho)\sum_i r_i^2 + \rho(\sum_i
        r_i)^2`. A family of the run's groups covers parts :math:`c_i r_i` of the base's blocks. Its
        sums :math:`S_j` are multiplied by one factor, so that the same formula gives the same T.
        Coherence 1 is the rule ``sum``; 0 is ``sqrt`` where depth grows by an integer factor;
        negative coherences count as 0.
        """
        count = len(self.base_roles)
        rho = np.clip(coherences[self.base_roles], 0.0, 1.0)
        covered = np.bincount(
            self.blocks,
            weights=self.shares * base_rates[self.sources],
            minlength=len(self.block_families),
        ).astype(np.float64)
        wanted = _joint_change(covered, self.block_families, rho)
        there = self.families >= 0
        given = _joint_change(summed[there], self.families[there], rho)
        ratios = np.ones(count)
        np.divide(wanted, given, out=ratios, where=given > 0)
        factors = np.ones(len(summed))
        factors[there] = ratios[self.families[there]]
        return factors


def _joint_change(rates: Floats, families: NDArray[np.intp], coherences: Floats) -> Floats:
    """Return the RMS output change of each family's blocks together, shape [families].

    Args:
        rates: RMS change of each block, shape [blocks].
        families: The family of each block, shape [blocks].
        coherences: Mean correlation of the changes in each family, shape [families].
    """
    order = np.lexsort((rates, families))  # so that sums are bit-identical in any order of groups
    rates, families = rates[order], families[order]
    sums = np.bincount(families, weights=rates, minlength=len(coherences))
    squares = np.bincount(families, weights=np.square(rates), minlength=len(coherences))
    return np.sqrt((1 - coherences) * squares + coherences * np.square(sums))
