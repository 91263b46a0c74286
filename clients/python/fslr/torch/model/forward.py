"""Calls a model the way its training loop does, and gives the output that is measured."""

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
"""Which tensor of a model's result is the output: a key, attribute or index, or a function."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and data-parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.get_submodule("module")
        elif "_orig_mod" in model._modules:  # noqa: SLF001 - torch.compile's own wrapper
            model = model.get_submodule("_orig_mod")
        else:
            return model


def select_output(result: Any, output: Output) -> Tensor:
    """Return the output tensor of what a model returned.

    Args:
        result: What the model returned.
        output: Which tensor of it; None: the result is the tensor.

    Raises:
        MeasurementError: There is no such tensor.
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
    what = f"the model returns a {type(result).__name__}"
    there = ", ".join(f"{key!r} {shape}" for key, shape in tensors.items()) or "none"
    if output is None:
        raise MeasurementError(
            f"{what}, not a tensor; say which tensor is the output, for example "
            f"output={next(iter(tensors), 'logits')!r} (tensors in it: {there})"
        )
    raise MeasurementError(
        f"output={output!r} gives a {type(chosen).__name__}, not a tensor; {what} with the "
        f"tensors: {there}"
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
    """Calls a model for a measurement: uncompiled, without reentrant checkpoints, isolated.

    Args:
        model: The module inside all wrappers.
        output: Which tensor of its result is the output.
    """

    def __init__(self, model: nn.Module, output: Output) -> None:
        self.model = model
        self._output = output

    def __call__(self, batch: Batch) -> Tensor:
        """Return the model's output on a batch, under the autocast state of the training call.

        Raises:
            MeasurementError: There is no such output, or its leading dimension is not the batch.
        """
        reshard(self.model)
        with ExitStack() as stack:
            for autocast in batch.autocasts:
                stack.enter_context(autocast.again())
            result = self.model(*batch.args, **batch.kwargs)
        outputs = select_output(result, self._output)
        if outputs.dim() == 0 or outputs.shape[0] != batch.examples:
            raise MeasurementError(
                f"the output has shape {tuple(outputs.shape)}, but the batch has {batch.examples} "
                "examples; select an output whose leading dimension is the batch (output=...), "
                "such as the logits before any mean over the batch"
            )
        return outputs


@contextmanager
def plainly_called() -> Iterator[None]:
    """Let compiled modules run as they were written, and reentrant checkpoints not at all.

    Compiled code hides its functions; a reentrant checkpoint would call ``backward`` and so touch
    the training's gradients.
    """
    stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    reentrant = checkpoint.CheckpointFunction
    with nullcontext() if stance is None else stance("force_eager"):
        own = vars(reentrant).get("apply")
        try:
            setattr(reentrant, "apply", _run_plainly)  # noqa: B010 - of the class, and for now
            yield
        finally:
            if own is None:
                delattr(reentrant, "apply")
            else:
                setattr(reentrant, "apply", own)  # noqa: B010


def _run_plainly(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
    return function(*args)
