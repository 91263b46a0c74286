"""Estimators of unit rates, one algorithm a file."""

from fslr.torch.estimators.estimate import RateEstimate
from fslr.torch.estimators.exact import exact_unit_rates
from fslr.torch.estimators.per_example import PerExampleEstimator

__all__ = ["PerExampleEstimator", "RateEstimate", "exact_unit_rates"]
