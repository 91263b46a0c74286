"""The exact oracle: unit rates without sampling, one forward-mode derivative per group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward, Output, eager_execution, select_output, unwrap
from fslr.torch.model.groups import ParameterGroup
from fslr.torch.model.isolation import isolated
from fslr.torch.model.mask import Mask
from fslr.torch.model.update import Update


def exact_unit_rates(
    model: nn.Module,
    groups: Iterable[ParameterGroup],
    batch: Batch,
    update: Update,
    output: Output = None,
    *,
    mask: Mask = None,
) -> list[float]:
    """Return the exact unit rate of every group, from one Jacobian-vector product per group.

    Costs about two forward passes per group: this is an oracle for tests and benchmarks, and not an
    estimator for training. It has no bias and no sampling error, only float32 rounding errors.

    Args:
        model: The model, with the weights from before the step.
        groups: The groups in layout order.
        batch: The measurement batch.
        update: The step to measure.
        output: Selects the output from the model's result.
        mask: Weighs the output's elements; None: all count the same.

    Returns:
        One unit rate per group, in output units per learning rate.

    Source: Milsom, Anson, Aitchison, "Function-Space Learning Rates", arXiv 2502.17405, definition
    of the function-space learning rate.
    """
    rates: list[float] = []
    model = unwrap(model)
    kernels = sdpa_kernel(SDPBackend.MATH), _without_mkldnn()
    with ExitStack() as stack:
        for context in (isolated(model), eager_execution(), *kernels, torch.no_grad()):
            stack.enter_context(context)
        for autocast in batch.autocasts:
            stack.enter_context(autocast.restored())
        state = torch.get_rng_state()
        weights = None if mask is None else Forward(model, output, mask).with_weights(batch)[1]
        for index, group in enumerate(groups):
            names = [
                name
                for name, parameter in model.named_parameters(remove_duplicate=False)
                if parameter is group.parameter
            ]

            def outputs_at(weight: Tensor, names: list[str] = names) -> Tensor:
                torch.set_rng_state(state)  # the same dropout masks for every group
                # The model may write to buffers; jvp allows that only for tensors made in here.
                buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
                call = {**buffers, **dict.fromkeys(names, weight)}
                result = functional_call(model, call, batch.args, batch.kwargs, tie_weights=False)
                return select_output(result, output)

            before = group.parameter.detach()
            change = jvp(outputs_at, (before,), (update.unit_update(index),))[1]
            squares = change.abs().float().square()
            mean = squares.mean() if weights is None else weights.mean(squares)
            rates.append(float(mean.sqrt()))
    return rates


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Disable oneDNN, whose recurrent kernels have no forward-mode derivatives."""
    enabled = torch.backends.mkldnn.set_flags(_enabled=False, _allow_tf32=None)[0]
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled, _allow_tf32=None)
