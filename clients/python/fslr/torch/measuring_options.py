"""How the steps of a training are measured."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fslr.errors import MeasurementError
from fslr.torch.distributed import Ranks, is_sharded
from fslr.torch.estimators import ESTIMATORS, Estimator, PerExampleEstimator
from fslr.torch.model.batch import AutocastState, Batch
from fslr.torch.model.forward import Output, unwrap
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.mask import Mask
from fslr.torch.model.structure import arguments_by_name
from fslr.training.argument_checks import is_integer

_RANK_STRIDE = 1_000_003  # between the seeds of two ranks


@dataclass(frozen=True, slots=True)
class MeasuringOptions:
    """How to measure.

    Attributes:
        output: The tensor of the model's result to measure, with a dimension for the batch. A key,
            attribute or index (``"logits"``, ``0``), or a function of the result. None: the result
            itself is the tensor.
        batch_dim: The dimension of inputs and of the output that counts the examples, >= 0; or a
            pair, if they differ. If the sizes of the first input and of the output do not agree,
            the output's counts.
        count_examples: Returns the number of examples B of a call, from its arguments by name. It
            has to be the size of the output's batch dimension. None: the size of the first tensor
            among the arguments.
        mask: How much each output element counts. A key of the batch (an argument's name, or a key
            of an argument, such as ``"attention_mask"``), or a function of (inputs, result): the
            call's arguments by name, and the model's result. It gives a tensor of weights, >= 0 or
            bool, whose shape broadcasts to the output's leading dimensions, such as [B, T] for
            logits of [B, T, V]; or None if every element counts. The function is called with a part
            of the batch at a time. Rates are weighted RMS values. None: every element counts. A
            profile and its runs should have the same.
        estimator: Name of the estimator, one of ``ESTIMATORS``.
        probes: Number of probes K, >= 1; the relative error falls with ``1 / sqrt(K)``. If the
            advisor's policy sets the error that it wants (``target_relative_error``), this is only
            the initial number.
        examples: Maximum number of examples B to measure on. They are taken from the front of the
            latest training call, and then from earlier ones. None: all of them.
        accumulated_examples: Maximum number of examples of several training calls of one step (of
            accumulated gradients) that are measured together, >= 1. The latest calls count, and the
            last one in any case. References to their inputs are kept until the step, as long as
            those of earlier calls take no more memory than the parameters, or 64 MiB.
        micro_batches: Number of parts that the batch is cut into, >= 1, if the model allows it and
            at least 4 examples remain in each. With the default, a measurement needs less memory
            for activations than a training step; 1 is somewhat faster.
        linearity: Whether to measure the linearity error, by one more forward pass on one part of
            the batch.
        snapshot_on_host: Whether the weights from before a measured step are kept in host memory.
        averaging: Decay per probe of a running average of the unit rates over measurements, in
            [0, 1). 0: no average.
        seed: Seed of the probes.
        exclude_weight_decay: Whether the update is measured without its weight decay, where the
            optimizer keeps the two apart: decoupled decay (AdamW) exactly, L2 in SGD with momentum
            approximately. Not possible for L2 in adaptive optimizers. A profile and its runs should
            have the same.
    """

    output: Output = None
    batch_dim: int | tuple[int, int] = 0
    count_examples: Callable[[Mapping[str, Any]], int] | None = None
    mask: Mask = None
    estimator: str = "per_example"
    probes: int = 1
    examples: int | None = None
    accumulated_examples: int = 64
    micro_batches: int = 4
    linearity: bool = True
    snapshot_on_host: bool = False
    averaging: float = 0.0
    seed: int = 0
    exclude_weight_decay: bool = False

    @property
    def batch_dims(self) -> tuple[int, int]:
        """The dimensions that count the examples: of inputs, and of the output.

        Raises:
            MeasurementError: ``batch_dim`` is not one or two integers of at least 0.
        """
        dims = self.batch_dim if isinstance(self.batch_dim, tuple) else (self.batch_dim,) * 2
        if len(dims) != 2 or not all(isinstance(dim, int) and dim >= 0 for dim in dims):
            raise MeasurementError(
                f"batch_dim is {self.batch_dim!r}; it must be a dimension of at least 0, or a pair "
                "of them, for inputs and output"
            )
        return dims

    def batch_of(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        autocasts: tuple[AutocastState, ...] = (),
    ) -> Batch:
        """Return the batch of a call of the model.

        Args:
            model: The model.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
            autocasts: The states of autocast during the call.

        Raises:
            MeasurementError: ``count_examples`` does not return a number of at least 1.
        """
        batch = Batch.from_call(args, kwargs, autocasts, dim=self.batch_dims[0])
        if self.count_examples is None:
            return batch
        arguments = arguments_by_name(unwrap(model), args, kwargs)
        try:
            examples = int(self.count_examples(arguments))
        except Exception as error:
            raise MeasurementError(
                f"count_examples raised {error!r}; it is called with the model's arguments by "
                f"name: {', '.join(map(repr, arguments)) or 'none'}"
            ) from error
        if examples < 1:
            raise MeasurementError(f"count_examples returned {examples}; it must be at least 1")
        return replace(batch, examples=examples, is_guess=False)

    def estimator_of(
        self, model: nn.Module, groups: ModelGroups, ranks: Ranks | None = None
    ) -> Estimator:
        """Return the estimator that these options describe.

        Args:
            model: The model.
            groups: Its groups.
            ranks: The processes that train it.

        Raises:
            MeasurementError: The estimator does not exist or does not support sharded models, or
                an option is out of its range.
        """
        kind = ESTIMATORS.get(self.estimator)
        if kind is None:
            raise MeasurementError(
                f"estimator is {self.estimator!r}; it must be one of {', '.join(ESTIMATORS)}"
            )
        if not (self.mask is None or isinstance(self.mask, str) or callable(self.mask)):
            raise MeasurementError(
                f"mask is a {type(self.mask).__name__}; it must be a key of the batch or a "
                "function of (inputs, result)"
            )
        if not (self.count_examples is None or callable(self.count_examples)):
            raise MeasurementError(
                f"count_examples is {self.count_examples!r}; it must be a function of the call's "
                "arguments by name"
            )
        for name in ("probes", "examples", "accumulated_examples", "micro_batches"):
            number = getattr(self, name)
            is_unlimited = name == "examples" and number is None
            if not (is_unlimited or is_integer(number, least=1)):
                raise MeasurementError(f"{name} is {number!r}; it must be an integer, at least 1")
        if not is_integer(self.seed):
            raise MeasurementError(f"seed is {self.seed!r}; it must be an integer")
        if not isinstance(self.averaging, numbers.Real):
            raise MeasurementError(f"averaging is {self.averaging!r}; it must be in [0, 1)")
        ranks = ranks or Ranks()
        seed = self.seed + _RANK_STRIDE * ranks.rank  # each rank draws its own probes
        if kind is PerExampleEstimator:
            return PerExampleEstimator(
                model,
                groups,
                output=self.output,
                mask=self.mask,
                probes=self.probes,
                seed=seed,
                micro_batches=self.micro_batches,
                output_dim=self.batch_dims[1],
                any_rank=ranks.any if is_sharded(model) else None,
            )
        if is_sharded(model):
            raise MeasurementError(
                f"the estimator {self.estimator!r} needs whole gradients, and the model is "
                'sharded; use "per_example"'
            )
        return kind(
            model,
            groups,
            output=self.output,
            mask=self.mask,
            probes=self.probes,
            seed=seed,
            output_dim=self.batch_dims[1],
        )
