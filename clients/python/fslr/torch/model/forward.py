"""Calls a model as its training loop does, and selects the output that is measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from fslr.errors import MeasurementError
from fslr.torch.model.batch import Batch
from fslr.torch.model.mask import Mask, Weights, weights_of
from fslr.torch.model.sharding import reshard
from fslr.torch.model.structure import arguments_by_name, entries, map_tensors

_LOSS_FUNCTION = re.compile("Loss|CrossEntropy|KlDiv")  # in names of functions of graphs

Output = Callable[[Any], Tensor] | str | int | None
"""Selects the output tensor of a model's result: a key, attribute, index or function."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and data-parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.get_submodule("module")
        elif "_orig_mod" in model._modules:  # noqa: SLF001 - torch.compile's own wrapper
            model = model.get_submodule("_orig_mod")
        else:
            return model


def select_output(result: Any, output: Output) -> Tensor:
    """Return the output tensor of a model's result.

    Args:
        result: The result of the model call.
        output: Selects the tensor; None: the result is the tensor.

    Raises:
        MeasurementError: The selected value does not exist or is not a tensor.
    """
    chosen: Any
    if callable(output):
        chosen = output(result)
    elif output is None:
        chosen = result
    else:
        chosen = entries(result).get(output)
    if isinstance(chosen, Tensor):
        return chosen
    found = entries(result)
    tensors = {key: tuple(v.shape) for key, v in found.items() if isinstance(v, Tensor)}
    returned = f"the model returns a {type(result).__name__}"
    listed = ", ".join(f"{key!r} {shape}" for key, shape in tensors.items()) or "none"
    if output is None:
        raise MeasurementError(
            f"{returned}, not a tensor; select the output, for example with "
            f"output={next(iter(tensors), 'logits')!r} (tensors in it: {listed})"
        )
    if not callable(output) and output not in found:
        raise MeasurementError(
            f"output={output!r} does not exist; {returned} with the tensors: {listed}"
        )
    raise MeasurementError(
        f"output={output!r} selects a {type(chosen).__name__}, not a tensor; {returned} with the "
        f"tensors: {listed}"
    )


class BatchSizeError(MeasurementError):
    """The output does not have as many examples as the batch.

    Attributes:
        size: Number of examples of the output.
    """

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Forward:
    """Calls a model and selects its output.

    Args:
        model: The module inside all wrappers.
        output: Selects the output tensor of the model's result.
        mask: Weighs the output's elements; None: all count the same.
        dim: The dimension of the output that counts the examples, >= 0. If it is 0, an output of
            shape [] has one example.

    Attributes:
        returns_loss: Whether the output was one number that is surely the training's loss.
    """

    def __init__(
        self, model: nn.Module, output: Output, mask: Mask = None, *, dim: int = 0
    ) -> None:
        self.model = model
        self._output = output
        self._mask = mask
        self._dim = dim
        self.returns_loss = False
        self._differentiates = False  # whether the model computes gradients in its forward pass

    def __call__(self, batch: Batch) -> Tensor:
        """Return the model's output on a batch, with leading dimension B.

        The states of autocast are those of the training call.

        Raises:
            MeasurementError: The output is not a tensor, or has too few dimensions.
            BatchSizeError: The output does not have as many examples as the batch.
        """
        return self._with_leading_batch(self._selected(self._result(batch)), batch)

    def with_weights(self, batch: Batch) -> tuple[Tensor, Weights | None]:
        """Return the model's output on a batch, and the weights of its elements.

        Raises:
            MeasurementError: As for a call; or the mask does not fit the output.
            BatchSizeError: The output does not have as many examples as the batch.
        """
        result = self._result(batch)
        raw = self._selected(result)
        outputs = self._with_leading_batch(raw, batch)
        if self._mask is None:
            return outputs, None
        arguments = arguments_by_name(self.model, batch.args, batch.kwargs)
        weights = weights_of(self._mask, arguments, result, raw)
        return outputs, None if weights is None else weights.moved(self._dim)

    def without_graph(self, batch: Batch) -> Tensor:
        """Return the model's output on a batch as a call does, without a graph.

        A model that computes gradients in its forward pass (forces from energies) runs with
        gradients enabled.

        Raises:
            OutOfMemoryError: The batch does not fit into memory.
            MeasurementError: As for a call.
            BatchSizeError: The output does not have as many examples as the batch.
        """
        return self._with_leading_batch(self._raw_without_graph(batch), batch)

    def examples_of_output(self, batch: Batch) -> int:
        """Return how many examples the output for a batch has.

        Raises:
            OutOfMemoryError: The batch does not fit into memory.
            MeasurementError: The output is not a tensor, or has too few dimensions.
        """
        return self._moved(self._raw_without_graph(batch)).shape[0]

    def _raw_without_graph(self, batch: Batch) -> Tensor:
        if not self._differentiates:
            try:
                with torch.no_grad():
                    return self._selected(self._result(batch))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                self._differentiates = True
        with torch.enable_grad():
            return self._selected(self._result(batch)).detach()

    def _result(self, batch: Batch) -> Any:
        reshard(self.model)
        args, kwargs = batch.args, batch.kwargs
        if batch.is_written_to:
            args, kwargs = (map_tensors(each, torch.clone) for each in (args, kwargs))
        with ExitStack() as stack:
            for autocast in batch.autocasts:
                stack.enter_context(autocast.restored())
            return self.model(*args, **kwargs)

    def _selected(self, result: Any) -> Tensor:
        """Return the output of a model's result; one number is an output of one example."""
        outputs = select_output(result, self._output)
        if outputs.dim() or self._dim:
            return outputs
        function = type(outputs.grad_fn).__name__
        if self._output == "loss" or _LOSS_FUNCTION.search(function):
            self.returns_loss = True
        return outputs[None]

    def _moved(self, outputs: Tensor) -> Tensor:
        if outputs.dim() <= self._dim:
            raise MeasurementError(
                f"the output has shape {tuple(outputs.shape)}, so no dimension {self._dim} that "
                "counts the examples; select an output that has one (output=...), such as the "
                "logits before they are averaged over the batch"
            )
        return outputs.movedim(self._dim, 0) if self._dim else outputs

    def _with_leading_batch(self, outputs: Tensor, batch: Batch) -> Tensor:
        moved = self._moved(outputs)
        if moved.shape[0] != batch.examples:
            raise BatchSizeError(
                f"the output has shape {tuple(outputs.shape)}, but the batch has {batch.examples} "
                f"examples, and dimension {self._dim} of the output counts them; correct batch_dim "
                "or count_examples, or select a different output (output=...)",
                moved.shape[0],
            )
        return moved


@contextmanager
def eager_execution() -> Iterator[None]:
    """Run compiled modules eagerly, and reentrant checkpoints as plain functions.

    Compiled code would hide the functions that it calls. A reentrant checkpoint would call
    ``backward`` and so change the gradients of the training.
    """
    stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    reentrant = checkpoint.CheckpointFunction
    with nullcontext() if stance is None else stance("force_eager"):
        own = vars(reentrant).get("apply")
        try:
            setattr(reentrant, "apply", _run_without_checkpoint)  # noqa: B010 - mypy refuses an assignment
            yield
        finally:
            if own is None:
                delattr(reentrant, "apply")
            else:
                setattr(reentrant, "apply", own)  # noqa: B010


def _run_without_checkpoint(
    function: Callable[..., Any], _preserve_rng_state: bool, *args: Any
) -> Any:
    return function(*args)
