r"""One rate for both factors of a low-rank adapter (LoRA, arXiv 2106.09685).

An adapter adds ``B A`` to a frozen matrix. Only the product acts on the outputs, so the steps of
both factors make one change of them, and both factors have the rate of that change:

.. math:: r^2 = l_A^2 G_{AA} + l_B^2 G_{BB} + 2 l_A l_B G_{AB}

with the learning rates ``l`` of the step and the Gram matrix ``G`` of unit updates. The unit rate
of each factor is ``r`` divided by its own learning rate. So one ratio of reference and measurement,
and one multiplier, belongs to both, from the first step on: alone, A has no rate until B, which
starts at zero, has moved. docs/decisions/0022-adapters-have-one-rate.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fslr.training.estimate import RateEstimate
from fslr.training.parameter_words import ADAPTERS

# Of the sum of both squares. Entries of an estimated Gram matrix are unbiased, and so may give a
# squared joint rate below any true one.
_LEAST = 0.05


def adapter_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the indices of the factors A and B of each adapter, as PEFT and others name them.

    Names of a pair differ in one part only, such as ``q.lora_A.default.weight`` and
    ``q.lora_B.default.weight``.

    Args:
        names: The groups' names, in layout order.
    """
    places = {name: place for place, name in enumerate(names)}
    found = []
    for name, place in places.items():
        parts = name.split(".")
        for at in (at for at, part in enumerate(parts) if part in ADAPTERS):
            partner = ".".join([*parts[:at], ADAPTERS[parts[at]], *parts[at + 1 :]])
            if partner in places:
                found.append((place, places[partner]))
    return found


def is_low_rank(
    a: Sequence[int], b: Sequence[int], *, inputs: int | None = None, outputs: int | None = None
) -> bool:
    """Return whether two matrices have the shapes of factors A and B, in either layout.

    These are (r, in) and (out, r), or (in, r) and (r, out), with the rank r below in and out.

    Args:
        a: Shape of the factor that would read the layer's input.
        b: Shape of the factor that would write its output.
        inputs: Number of inputs of the layer; None: any.
        outputs: Number of its outputs; None: any.
    """
    if len(a) != 2 or len(b) != 2:
        return False
    for (rank, read), (written, same) in ((a, b), (a[::-1], b[::-1])):
        is_of_layer = inputs in {None, read} and outputs in {None, written}
        if rank == same < min(read, written) and is_of_layer:
            return True
    return False


def all_pairs(
    named: Sequence[tuple[int, int]], found: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return pairs that are known by their names, and others that have no group in common.

    Args:
        named: Those that :func:`adapter_pairs` found.
        found: Those that were found by shape and use.
    """
    taken = {group for pair in named for group in pair}
    return [*named, *(pair for pair in found if taken.isdisjoint(pair))]


def with_joint_rates(
    estimate: RateEstimate, pairs: Sequence[tuple[int, int]], learning_rates: Sequence[float]
) -> RateEstimate:
    """Return an estimate in which both factors of each adapter have the rate of their change.

    Their relative errors become the larger one of both. The Gram matrix and shares stay. A factor
    with the learning rate 0 did not move, and keeps its own rate.

    Args:
        estimate: The estimate; without a Gram matrix it is returned unchanged.
        pairs: The indices of the factors of each adapter.
        learning_rates: Learning rate of each group in the step, multiplier included.
    """
    gram = estimate.gram
    if gram is None or not pairs:
        return estimate
    rates, errors = list(estimate.unit_rates), list(estimate.relative_errors)
    for a, b in pairs:
        of_a, of_b = learning_rates[a], learning_rates[b]
        if not (of_a > 0 and of_b > 0):
            continue
        apart = float(of_a**2 * gram[a, a] + of_b**2 * gram[b, b])
        joint = math.sqrt(max(apart + 2 * of_a * of_b * float(gram[a, b]), _LEAST * apart))
        rates[a], rates[b] = joint / of_a, joint / of_b
        errors[a] = errors[b] = max(errors[a], errors[b])
    return replace(estimate, unit_rates=rates, relative_errors=errors)
