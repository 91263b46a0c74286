"""Runs a model on a part of a batch, and projects what its groups do on probes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from fslr.torch.estimators.per_example.rows import RowLayout, inner_products
from fslr.torch.estimators.per_example.tracer import LocalMapTracer, Use
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import attributes_kept, generators_kept
from fslr.torch.model.sharding import ParameterPlaces
from fslr.torch.model.update import Update


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass with what is needed to project it.

    Attributes:
        outputs: The output, leading dimension B.
        uses: Where groups act on the examples.
        leaves: The tensor of each group that is in the graph, as far as one was seen: of a sharded
            model the gathered parameter.
        by_gradient: Groups to be projected on their gradients.
        update: The step.
        groups: Number of groups.
        scales: By what each group's unit update was divided, so that it fits a 16-bit type.
    """

    outputs: Tensor
    uses: list[Use]
    leaves: dict[int, Tensor]
    by_gradient: list[int]
    update: Update
    groups: int
    scales: dict[int, Tensor]

    def at_uses(self, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        """Return the cotangent at each use, for one at the outputs; the graph is kept."""
        if not self.uses:
            return ()
        edges = [use.edge for use in self.uses]
        return torch.autograd.grad(
            self.outputs, edges, cotangent, retain_graph=True, allow_unused=True
        )

    def examplewise(self, layouts: list[RowLayout | None]) -> Tensor:
        """Return whether each group's rows belong to examples, bool [groups], on the CPU."""
        kept = torch.ones(self.groups, dtype=torch.bool, device="cpu")
        kept[self.by_gradient] = False
        for use, layout in zip(self.uses, layouts, strict=True):
            if layout is None:
                kept[[index for index, _ in use.parts]] = False
        return kept


class Projector:
    """Runs a model and projects what its groups do on probes.

    Args:
        forward: Calls the model.
        groups: Its groups.
    """

    def __init__(self, forward: Forward, groups: ModelGroups) -> None:
        self.forward = forward
        self.groups = groups
        self._places = ParameterPlaces(forward.model, (group.parameter for group in groups))

    def trace(self, batch: Batch, update: Update, *, by_gradient: Collection[int] = ()) -> Trace:
        """Run the model on a batch and follow its parameters.

        Args:
            batch: The examples.
            update: The step.
            by_gradient: Groups that need not be followed.
        """
        scales: dict[int, Tensor] = {}
        half = any(a.enabled and a.dtype == torch.float16 for a in batch.autocasts)

        def update_of(index: int) -> Tensor:
            unit = update.of_group(index)
            if not half and unit.dtype != torch.float16:
                return unit
            largest = unit.abs().amax().float()
            scales[index] = torch.where(largest > 0, largest, 1.0)
            return unit / scales[index].to(unit.dtype)

        tracer = LocalMapTracer(update_of, batch, ignored=by_gradient)
        with self._places.followed(tracer.follow) as leaves, tracer:
            outputs = self.forward(batch)
        by_gradient = sorted({*tracer.unfollowed, *by_gradient})
        uses = tracer.followed_uses()
        return Trace(outputs, uses, leaves, by_gradient, update, len(self.groups), scales)

    @torch.no_grad()
    def outputs_after(self, batch: Batch, update: Update) -> Tensor | None:
        """Return the outputs at the weights after the step, or None if those are not known.

        Generators and attributes are left as they were: the traced pass begins with the same ones.
        """
        if update.applied is None:
            return None
        model = self.forward.model
        kept = generators_kept(model.parameters()), attributes_kept(model.modules())
        with kept[0], kept[1], update.applied():
            return self.forward(batch)

    def rows(
        self,
        trace: Trace,
        cotangent: Tensor,
        layouts: list[RowLayout | None],
        *,
        last: bool = False,
    ) -> Tensor:
        """Return the projections ``u`` of one probe, float32 of shape [B, groups].

        What belongs to no example is in row 0; only the sum of such a group's rows has a meaning.

        Args:
            trace: The forward pass.
            cotangent: The probe, of the outputs' shape.
            layouts: Where each use carries its examples.
            last: Whether the forward pass is not needed any more.
        """
        slow = [index for index in trace.by_gradient if index in trace.leaves]
        leaves = [get_gradient_edge(trace.leaves[index]) for index in slow]
        found = torch.autograd.grad(
            trace.outputs,
            [use.edge for use in trace.uses] + leaves,
            cotangent,
            retain_graph=not last,
            allow_unused=True,
        )
        examples = trace.outputs.shape[0]
        columns: list[Tensor | None] = [None] * trace.groups

        def add(index: int, values: Tensor) -> None:
            if index in trace.scales:
                values = values * trace.scales[index]
            values = nn.functional.pad(values, (0, examples - len(values)))
            present = columns[index]
            columns[index] = values if present is None else present + values

        at_uses, gradients = found[: len(trace.uses)], found[len(trace.uses) :]
        for use, layout, at_result in zip(trace.uses, layouts, at_uses, strict=True):
            if at_result is not None:
                for index, change in use.parts:
                    add(index, inner_products(at_result, change, layout, examples))
        for index, gradient in zip(slow, gradients, strict=True):
            if gradient is not None:
                unit = trace.update.of_group(index)
                # Where a part of it was followed before it got lost, the scale is undone in add.
                scale = trace.scales.get(index, 1.0)
                add(index, inner_products(gradient, unit, None, examples) / scale)
        zero = torch.zeros(examples, device=trace.outputs.device)
        return torch.stack([zero if column is None else column for column in columns], dim=1)
