"""How the steps of a training are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fslr.errors import MeasurementError
from fslr.jax.estimators import ESTIMATORS, ApplyFn, Estimator, LeafGroup
from fslr.jax.estimators.mask import Mask
from fslr.training.summaries import mask_label


@dataclass(frozen=True, slots=True)
class MeasuringOptions:
    """How to measure.

    Attributes:
        output_axis: The axis of the outputs that counts the examples, >= 0.
        mask: How much each output element counts. A key of the batch, or a function of (batch,
            outputs). It gives an array of weights, >= 0 or bool, whose shape broadcasts to the
            outputs' leading dimensions, such as [B, T] for logits of [B, T, V]. Rates are weighted
            RMS values. None: every element counts. A profile and its runs should have the same.
        estimator: Name of the estimator, one of ``fslr.jax.estimators.ESTIMATORS``. None: the
            default.
        probes: Number of probes K, >= 1; the relative error falls with ``1 / sqrt(K)``. If the
            advisor's policy sets the error that it wants (``target_relative_error``), this is only
            the initial number.
        examples: Maximum number of examples B to measure on, from the front of the batch, >= 1.
            None: all of them.
        linearity: Whether to measure the linearity error, by one more forward pass.
        averaging: Decay per probe of a running average of the unit rates over measurements, in
            [0, 1). 0: no average.
        seed: Seed of the probes.
        exclude_weight_decay: Whether the update is measured without its weight decay, where
            ``scale_by_advice`` knows it. A profile and its runs should have the same.
    """

    output_axis: int = 0
    mask: Mask = None
    estimator: str | None = None
    probes: int = 1
    examples: int | None = None
    linearity: bool = True
    averaging: float = 0.0
    seed: int = 0
    exclude_weight_decay: bool = False

    def estimator_of(self, apply_fn: ApplyFn, groups: Sequence[LeafGroup]) -> Estimator:
        """Return the estimator that these options describe.

        Args:
            apply_fn: Returns the outputs for parameters and a batch.
            groups: The groups.

        Raises:
            MeasurementError: The estimator does not exist, or an option is out of its range.
        """
        name = next(iter(ESTIMATORS)) if self.estimator is None else self.estimator
        if name not in ESTIMATORS:
            raise MeasurementError(
                f"estimator is {self.estimator!r}; it must be one of {', '.join(ESTIMATORS)}"
            )
        if not (self.mask is None or isinstance(self.mask, str) or callable(self.mask)):
            raise MeasurementError(
                f"mask is a {type(self.mask).__name__}; it must be a key of the batch or a "
                "function of (batch, outputs)"
            )
        if self.examples is not None and self.examples < 1:
            raise MeasurementError(f"examples is {self.examples}; it must be at least 1")
        return ESTIMATORS[name](
            apply_fn, groups, mask=self.mask, probes=self.probes, output_axis=self.output_axis
        )

    @property
    def mask_name(self) -> str:
        """What weighs the output elements, for profiles: a key, or the name of a function."""
        return mask_label(self.mask)
