"""Runs a model on part of a batch, and projects the changes by its groups onto probes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fslr.torch.estimators.backward import edges_beside
from fslr.torch.estimators.per_example.output_uses import OutputParts
from fslr.torch.estimators.per_example.rows import RowLayout, inner_products
from fslr.torch.estimators.per_example.tracer import LocalMapTracer, Use, UseKey
from fslr.torch.model.batch import Batch
from fslr.torch.model.forward import Forward
from fslr.torch.model.groups import ModelGroups
from fslr.torch.model.isolation import preserved_attributes, preserved_generators
from fslr.torch.model.mask import Weights
from fslr.torch.model.sharding import ParameterFinder
from fslr.torch.model.update import Update


@dataclass(frozen=True, slots=True)
class Trace:
    """One forward pass, with the data for projecting it.

    Attributes:
        outputs: The output, with leading dimension B.
        uses: The places where groups act on the examples.
        leaves: For each group whose tensor was seen, the leaf of the autograd graph; in a sharded
            model this is the gathered parameter.
        by_gradient: Groups that are projected by their gradients.
        update: The step to measure.
        groups: Number of groups.
        scales: The divisor of each group's unit update, for groups whose update was scaled to fit
            float16.
        weights: The weights of the outputs' elements; None: all count the same.
    """

    outputs: Tensor
    uses: list[Use]
    leaves: dict[int, Tensor]
    by_gradient: list[int]
    update: Update
    groups: int
    scales: dict[int, Tensor]
    weights: Weights | None = None
    _beside: dict[tuple[int, ...], list[GradientEdge]] = field(default_factory=dict, repr=False)

    def backward(
        self, cotangent: Tensor, leaves: Sequence[Tensor] = (), *, keeps_graph: bool = True
    ) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
        """Return the cotangents at the uses, and the gradients of some leaves.

        Args:
            cotangent: The cotangent at the outputs.
            leaves: The leaves whose gradients are computed.
            keeps_graph: Whether there will be more backward passes.
        """
        edges = [use.edge for use in self.uses] + [get_gradient_edge(leaf) for leaf in leaves]
        if not edges:
            return (), ()
        requested = tuple(map(id, leaves))  # all probes request the same
        beside = self._beside.get(requested)
        if beside is None:
            beside = edges_beside(self.outputs, edges, leaves) if leaves else []
            self._beside[requested] = beside
        found = torch.autograd.grad(
            self.outputs, edges + beside, cotangent, retain_graph=keeps_graph, allow_unused=True
        )
        uses = len(self.uses)
        return found[:uses], found[uses : len(edges)]

    def projecting(self, by_gradient: Collection[int]) -> Trace:
        """Return the same pass with more groups that are projected by their gradients.

        Args:
            by_gradient: The groups.
        """
        uses = [
            replace(use, parts=parts)
            for use in self.uses
            if (parts := [part for part in use.parts if part[0] not in by_gradient])
        ]
        groups = sorted({*self.by_gradient, *by_gradient})
        return replace(self, uses=uses, by_gradient=groups, _beside={})

    def examplewise(self, layouts: list[RowLayout | None]) -> Tensor:
        """Return whether each group's rows belong to examples, bool [groups], on the CPU."""
        found = torch.ones(self.groups, dtype=torch.bool, device="cpu")
        found[self.by_gradient] = False
        for use, layout in zip(self.uses, layouts, strict=True):
            if layout is None:
                found[[index for index, _ in use.parts]] = False
        return found


class Projector:
    """Runs a model and projects the changes by its groups onto probes.

    Args:
        forward: Calls the model.
        groups: The groups of the model.
    """

    def __init__(self, forward: Forward, groups: ModelGroups) -> None:
        self.forward = forward
        self.groups = groups
        self._parameters = ParameterFinder(forward.model, (group.parameter for group in groups))

    def trace(self, batch: Batch, update: Update, *, by_gradient: Collection[int] = ()) -> Trace:
        """Run the model on a batch and follow its parameters.

        Args:
            batch: The examples.
            update: The step to measure.
            by_gradient: Groups that are not followed.
        """
        scales: dict[int, Tensor] = {}
        is_half = any(a.enabled and a.dtype == torch.float16 for a in batch.autocasts)

        def scaled_update(index: int) -> Tensor:
            unit = update.unit_update(index)
            if not is_half and unit.dtype != torch.float16:
                return unit
            largest = unit.abs().amax().float()
            scales[index] = torch.where(largest > 0, largest, 1.0)
            return unit / scales[index].to(unit.dtype)

        tracer = LocalMapTracer(scaled_update, batch, ignored=by_gradient)
        with self._parameters.followed(tracer.follow) as leaves, tracer:
            outputs, weights = self.forward.with_weights(batch)
        by_gradient = sorted({*tracer.unfollowed, *by_gradient})
        uses = tracer.followed_uses()
        leaves = {index: leaf for index, leaf in leaves.items() if leaf.requires_grad}
        return Trace(outputs, uses, leaves, by_gradient, update, len(self.groups), scales, weights)

    @torch.no_grad()
    def outputs_after(self, batch: Batch, update: Update) -> Tensor | None:
        """Return the outputs with the weights after the step, or None if those are unknown.

        Generators and attributes are restored, so that the traced pass starts from the same state.
        """
        if update.applied is None:
            return None
        model = self.forward.model
        with (
            preserved_generators(model.parameters()),
            preserved_attributes(model.modules()),
            update.applied(),
        ):
            return self.forward.without_graph(batch)

    def rows(
        self,
        trace: Trace,
        cotangent: Tensor,
        layouts: list[RowLayout | None],
        *,
        output_uses: Mapping[UseKey, frozenset[int]],
        with_squares: bool = False,
        last: bool = False,
    ) -> tuple[Tensor, OutputParts]:
        """Return the projections ``u`` of one probe, float32 of shape [B, groups], and exact parts.

        Projections that belong to no single example are in row 0; only the sum of the rows of such
        a group is meaningful.

        Args:
            trace: The forward pass.
            cotangent: The probe, of the outputs' shape.
            layouts: The layout of each use; None: unknown.
            output_uses: The groups that act directly on the outputs, by use.
            with_squares: Whether the exact parts have their squares, which are the same for each
                probe.
            last: Whether the graph of the forward pass may be freed.
        """
        by_gradient = [index for index in trace.by_gradient if index in trace.leaves]
        cotangents, gradients = trace.backward(
            cotangent, [trace.leaves[index] for index in by_gradient], keeps_graph=not last
        )
        examples = trace.outputs.shape[0]
        columns: list[Tensor | None] = [None] * trace.groups
        at_outputs = OutputParts(output_uses, trace.scales, with_squares=with_squares)

        def add(index: int, values: Tensor) -> Tensor:
            if index in trace.scales:
                values = values * trace.scales[index]
            if (rows := values.shape[0]) < examples:
                values = nn.functional.pad(values, (0, examples - rows))
            column = columns[index]
            columns[index] = values if column is None else column + values
            return values

        for use, layout, at_result in zip(trace.uses, layouts, cotangents, strict=True):
            if at_result is not None:
                for index, change in use.parts:
                    values = add(index, inner_products(at_result, change, layout, examples))
                    at_outputs.add(use.key, index, values, at_result, change)
        for index, gradient in zip(by_gradient, gradients, strict=True):
            if gradient is not None:
                unit = trace.update.unit_update(index)
                # A group that was followed at first has a scale, which add() multiplies by.
                scale = trace.scales.get(index, 1.0)
                add(index, inner_products(gradient, unit, None, examples) / scale)
        zero = torch.zeros(examples, device=trace.outputs.device)
        rows = torch.stack([zero if column is None else column for column in columns], dim=1)
        return rows, at_outputs
