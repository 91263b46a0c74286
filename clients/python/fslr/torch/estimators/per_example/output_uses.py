"""Uses of parameters that act directly on the outputs, whose squared effect needs no probe.

The result of a use may *be* the output, or become it by functions of single elements: a reshape, a
cast, a factor, a cap. Then each element of the result affects one element of the output, and each
element of the output depends on one of the result. For a probe ``z`` of signs the cotangent there
is ``a * z`` by element, where ``a`` is the derivative, so the change of the outputs by a local map
``y`` has the square ``sum (a y)^2 = sum (cotangent * y)^2``, whatever the signs are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from fslr.torch.estimators.backward import Graph
from fslr.torch.estimators.per_example.tracer import Use, UseKey
from fslr.training.projections import ExactParts

_NATIVE = re.compile(r"(\w+)Backward\d+")
_REARRANGEMENTS = {
    *("View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "T", "Squeeze", "Unsqueeze"),
    *("Alias", "Slice", "Select"),
}
_ELEMENTWISE = {
    *("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "ToCopy", "Clone", "MaskedFill", "Where"),
    *("Tanh", "Sigmoid", "Relu", "Gelu", "Silu", "Softplus", "LeakyRelu", "Elu", "Exp", "Log"),
    *("Abs", "Pow", "Clamp", "ClampMin", "ClampMax", "Hardtanh"),
}
_ELEMENTS_AT_ONCE = 1 << 22

_Place = tuple[Node, int]


def find_output_uses(outputs: Tensor, uses: Sequence[Use]) -> dict[UseKey, frozenset[int]]:
    """Return the groups that act directly on the outputs, by use.

    A group with several such uses is left out, because its parts at one output element would have
    to be added first.

    Args:
        outputs: The outputs of a forward pass.
        uses: The uses in this pass.
    """
    if outputs.is_complex():
        return {}
    paths = _PathsToOutputs(outputs)
    direct = [use for use in uses if paths.are_elementwise(use.edge)]
    parts = [index for use in direct for index, _ in use.parts]
    found = {
        use.key: frozenset(index for index, _ in use.parts if parts.count(index) == 1)
        for use in direct
    }
    return {key: groups for key, groups in found.items() if groups}


class _PathsToOutputs:
    """Follows the graph of a forward pass from results to the outputs."""

    def __init__(self, outputs: Tensor) -> None:
        edge = get_gradient_edge(outputs)
        self._end: _Place = edge.node, edge.output_nr
        self._users: dict[_Place, list[Node]] = {}
        for node in Graph(outputs).nodes:
            for below, position in node.next_functions:
                if below is not None:
                    self._users.setdefault((below, position), []).append(node)

    def are_elementwise(self, edge: GradientEdge) -> bool:
        """Return whether a result reaches the outputs only by one path, element by element."""
        place: _Place = edge.node, edge.output_nr
        while place != self._end:
            users = self._users.get(place, [])
            if len(users) != 1 or not _is_elementwise(users[0], _shape(place)):
                return False
            place = users[0], 0
        return place not in self._users


def _is_elementwise(node: Node, shape: object) -> bool:
    """Return whether a function maps the elements of an argument of this shape one by one."""
    native = _NATIVE.fullmatch(node.name())
    if native is None:
        return False  # a custom function may have any name
    if native[1] in _REARRANGEMENTS:
        return True
    # An argument of a different shape is expanded, so its elements affect several of the result's.
    return native[1] in _ELEMENTWISE and shape is not None and _shape((node, 0)) == shape


def _shape(place: _Place) -> object:
    """Return the shape of a function's result; None if PyTorch does not say."""
    node, position = place
    results: Sequence[object] = getattr(node, "_input_metadata", ())
    return getattr(results[position], "shape", None) if position < len(results) else None


class OutputParts:
    """The parts of projections that come from uses directly at the outputs, for one probe.

    Args:
        output_uses: The groups that act directly on the outputs, by use.
        scales: The divisor of the unit updates of some groups.
        with_squares: Whether the squares are computed.
    """

    def __init__(
        self,
        output_uses: Mapping[UseKey, frozenset[int]],
        scales: Mapping[int, Tensor],
        *,
        with_squares: bool,
    ) -> None:
        self._output_uses = output_uses
        self._scales = scales
        self._with_squares = with_squares
        self.rows: dict[int, Tensor] = {}
        self.squares: dict[int, Tensor] = {}

    def add(
        self, key: UseKey, index: int, values: Tensor, cotangent: Tensor, change: Tensor
    ) -> None:
        """Keep a group's projections at a use, if the use is directly at the outputs.

        Args:
            key: The use.
            index: The group.
            values: The projections, shape [B].
            cotangent: The cotangent at the use.
            change: The change by the group.
        """
        if index not in self._output_uses.get(key, ()):
            return
        self.rows[index] = values
        if self._with_squares:
            scale = self._scales.get(index)
            square = _sum_of_squares(cotangent, change)
            self.squares[index] = square if scale is None else square * scale.double().square()


def _sum_of_squares(cotangent: Tensor, change: Tensor) -> Tensor:
    """Return ``sum (cotangent * change)^2``, a few elements at a time."""
    change = change.expand(cotangent.shape)
    pieces = max(1, cotangent.numel() // _ELEMENTS_AT_ONCE)
    total = torch.zeros((), dtype=_precise(cotangent), device=cotangent.device)
    for left, right in zip(cotangent.chunk(pieces), change.chunk(pieces), strict=True):
        products = left.float() * right.float()
        total += torch.linalg.vector_norm(products, dtype=total.dtype).square()
    return total


def _precise(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def exact_parts(by_probe: Iterable[OutputParts]) -> ExactParts | None:
    """Return the exact parts of a measurement's projections, or None if there are none.

    Args:
        by_probe: The parts for each probe; the first has the squares.
    """
    parts = list(by_probe)
    squares = parts[0].squares if parts else {}
    groups = [i for i in squares if all(i in each.rows for each in parts)]
    if not groups:
        return None
    rows = torch.stack([torch.stack([each.rows[i] for i in groups], dim=-1) for each in parts])
    return ExactParts(
        groups,
        rows.to("cpu", torch.float64).numpy(),
        torch.stack([squares[i] for i in groups]).to("cpu", torch.float64).numpy(),
    )
