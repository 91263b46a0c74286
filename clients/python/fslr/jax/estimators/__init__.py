"""Estimators of unit rates in JAX, one algorithm per file."""

from fslr.jax.estimators.base import ApplyFn, Estimator
from fslr.jax.estimators.exact import ExactEstimator
from fslr.jax.estimators.groups import LeafGroup, leaf_groups
from fslr.jax.estimators.measurement import Measurement
from fslr.jax.estimators.per_example.estimator import PerExampleEstimator

ESTIMATORS: dict[str, type[Estimator]] = {
    "per_example": PerExampleEstimator,
    "exact": ExactEstimator,
}
"""The estimators by name; the default is first."""

__all__ = [
    "ESTIMATORS",
    "ApplyFn",
    "Estimator",
    "ExactEstimator",
    "LeafGroup",
    "Measurement",
    "PerExampleEstimator",
    "leaf_groups",
]
