"""Estimators of unit rates, one algorithm per file."""

from fslr.torch.estimators.base import Estimator
from fslr.torch.estimators.exact import exact_unit_rates
from fslr.torch.estimators.full import FullEstimator
from fslr.torch.estimators.iid import IidEstimator
from fslr.torch.estimators.kronecker import KroneckerEstimator
from fslr.torch.estimators.per_example.estimator import PerExampleEstimator
from fslr.training.estimate import RateEstimate
from fslr.training.projections import ProjectionSums

ESTIMATORS: dict[str, type[Estimator]] = {
    "per_example": PerExampleEstimator,
    "kronecker": KroneckerEstimator,
    "full": FullEstimator,
    "iid": IidEstimator,
}
"""The estimators by name; the default is first."""

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "FullEstimator",
    "IidEstimator",
    "KroneckerEstimator",
    "PerExampleEstimator",
    "ProjectionSums",
    "RateEstimate",
    "exact_unit_rates",
]
