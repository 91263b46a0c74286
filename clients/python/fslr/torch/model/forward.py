"""Calls a model as its training loop does, and selects the output that is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from fslr.errors import MeasurementError
from fslr.torch.model.batch import Batch
from fslr.torch.model.sharding import reshard

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
        chosen = _entries(result).get(output)
    if isinstance(chosen, Tensor):
        return chosen
    entries = _entries(result)
    tensors = {key: tuple(v.shape) for key, v in entries.items() if isinstance(v, Tensor)}
    returned = f"the model returns a {type(result).__name__}"
    listed = ", ".join(f"{key!r} {shape}" for key, shape in tensors.items()) or "none"
    if output is None:
        raise MeasurementError(
            f"{returned}, not a tensor; select the output, for example with "
            f"output={next(iter(tensors), 'logits')!r} (tensors in it: {listed})"
        )
    if not callable(output) and output not in entries:
        raise MeasurementError(
            f"output={output!r} does not exist; {returned} with the tensors: {listed}"
        )
    raise MeasurementError(
        f"output={output!r} selects a {type(chosen).__name__}, not a tensor; {returned} with the "
        f"tensors: {listed}"
    )


def _entries(result: Any) -> dict[Any, Any]:
    """Return the entries of a model's result by key, attribute or index."""
    if isinstance(result, Mapping):
        return dict(result)
    if isinstance(result, (tuple, list)):
        named = result._asdict() if hasattr(result, "_asdict") else {}
        return {**dict(enumerate(result)), **named}
    if is_dataclass(result):
        return {field.name: getattr(result, field.name) for field in fields(result)}
    return dict(vars(result)) if hasattr(result, "__dict__") else {}


class Forward:
    """Calls a model and selects its output.

    Args:
        model: The module inside all wrappers.
        output: Selects the output tensor of the model's result.
    """

    def __init__(self, model: nn.Module, output: Output) -> None:
        self.model = model
        self._output = output

    def __call__(self, batch: Batch) -> Tensor:
        """Return the model's output on a batch, under the autocast states of the training call.

        Raises:
            MeasurementError: The output is not a tensor, or its leading dimension is not the batch.
        """
        reshard(self.model)
        with ExitStack() as stack:
            for autocast in batch.autocasts:
                stack.enter_context(autocast.restored())
            result = self.model(*batch.args, **batch.kwargs)
        outputs = select_output(result, self._output)
        if outputs.dim() == 0 or outputs.shape[0] != batch.examples:
            raise MeasurementError(
                f"the output has shape {tuple(outputs.shape)}, but the batch has {batch.examples} "
                "examples; select an output whose leading dimension is the batch (output=...), "
                "such as the logits before they are averaged over the batch"
            )
        return outputs


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
