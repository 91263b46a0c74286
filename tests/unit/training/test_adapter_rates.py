"""Both factors of a low-rank adapter have one rate."""

from __future__ import annotations

import numpy as np
import pytest

from fslr.training.adapter_rates import adapter_pairs, with_joint_rates
from fslr.training.estimate import RateEstimate

_CHANGES = np.array([[1.0, 2.0, -1.0], [0.5, 1.0, 3.0], [1.0, 0.0, 0.0]])
_GRAM = _CHANGES @ _CHANGES.T


def estimate(gram: np.ndarray | None = _GRAM) -> RateEstimate:
    rates = np.sqrt(np.diag(_GRAM if gram is None else gram))
    return RateEstimate(rates.tolist(), [0.1, 0.3, 0.2], 1, 4, gram)


def test_the_factors_of_an_adapter_are_found_by_their_names() -> None:
    names = [
        *("h.0.q.lora_A.default.weight", "h.0.q.lora_B.default.weight"),
        *("h.0.q.lora_A.other.weight", "h.1.q.lora_B.other.weight"),  # of different layers
        *("wte.lora_embedding_B.default", "wte.lora_embedding_A.default"),
        *("up.lora_down.weight", "up.lora_up.weight", "layers.0.lora_a", "layers.0.lora_b"),
        *("up.a.weight", "up.b.weight", "lora_A.bias"),
    ]
    pairs = adapter_pairs(names)
    assert sorted(pairs) == [(0, 1), (5, 4), (6, 7), (8, 9)]


@pytest.mark.parametrize("learning_rates", [(1.0, 1.0, 1.0), (1e-3, 16e-3, 1.0)])
def test_a_joint_rate_is_that_of_the_change_that_both_steps_make(
    learning_rates: tuple[float, ...],
) -> None:
    found = with_joint_rates(estimate(), [(0, 1)], learning_rates)
    of_a, of_b, _ = learning_rates
    change = float(np.linalg.norm(of_a * _CHANGES[0] + of_b * _CHANGES[1]))
    assert found.unit_rates == pytest.approx([change / of_a, change / of_b, 1.0])
    assert found.relative_errors == [0.3, 0.3, 0.2]
    assert found.gram is _GRAM


def test_noise_never_makes_a_joint_rate_impossible() -> None:
    noisy = np.array([[1.0, -1.1, 0.0], [-1.1, 1.0, 0.0], [0.0, 0.0, 1.0]])  # no true Gram matrix
    found = with_joint_rates(estimate(noisy), [(0, 1)], (1.0, 1.0, 1.0))
    assert found.unit_rates == pytest.approx([0.1**0.5, 0.1**0.5, 1.0])


def test_rates_stay_apart_without_a_gram_matrix_and_if_one_factor_does_not_move() -> None:
    for one, rates in ((estimate(None), (1.0, 1.0, 1.0)), (estimate(), (0.0, 1.0, 1.0))):
        assert with_joint_rates(one, [(0, 1)], rates).unit_rates == one.unit_rates
