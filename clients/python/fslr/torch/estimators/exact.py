"""The slow oracle: unit rates without sampling, one forward-mode derivative per group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from fslr.torch.batch import Batch
from fslr.torch.groups import ParameterGroup
from fslr.torch.isolation import isolated


def exact_unit_rates(
    model: nn.Module,
    groups: Iterable[ParameterGroup],
    batch: Batch,
    updates: Mapping[nn.Parameter, Tensor],
    output: Callable[[Any], Tensor],
) -> list[float]:
    """Return the exact unit rate of every group from a Jacobian-vector product each.

    Costs about two forward passes per group: an oracle for tests and benchmarks, no estimator for
    training. No bias, no sampling error; float32 rounding alone.

    Args:
        model: The model, at the weights at which to expand.
        groups: The groups in layout order.
        batch: The measurement batch.
        updates: Unit update of each group's parameter, of the parameter's shape.
        output: Selects the output tensor from what the model returns.

    Returns:
        One unit rate per group, in output units per learning rate.

    Source: Milsom, Anson, Aitchison, "Function-Space Learning Rates", arXiv 2502.17405, definition
    of the function-space learning rate.
    """
    rates: list[float] = []
    with isolated(model), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        state = torch.get_rng_state()
        for group in groups:

            def outputs_at(weight: Tensor, name: str = group.name) -> Tensor:
                torch.set_rng_state(state)  # the same dropout masks for every group
                # Copies made in here may be written to under the transformation, captured ones not.
                buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
                call = {**buffers, name: weight}
                return output(functional_call(model, call, batch.args, batch.kwargs))

            parameter = group.parameter
            change = jvp(outputs_at, (parameter.detach(),), (updates[parameter],))[1]
            rates.append(float(change.float().square().mean().sqrt()))
    return rates
