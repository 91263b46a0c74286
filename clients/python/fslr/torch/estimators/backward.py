"""What a backward pass asks of the functions of a graph: no less than training asks of them.

A backward pass for only some tensors asks each function only for the gradients on the way to them.
Training asks for more: of a normalization for the gradients of its input, its weight and its bias
together. A request that no training makes runs code that is hardly tested, in PyTorch and in
custom functions. PyTorch's ``group_norm`` crashes the process if only its weight's gradient is
requested and the input is in the channels-last format.

So where a gradient of a parameter is requested, everything else that training requests of the same
function is requested as well. A function that is asked for no parameter's gradient is asked for
its inputs' gradients only, as if its parameters were frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


def edges_beside(
    outputs: Tensor, edges: Sequence[GradientEdge], leaves: Iterable[Tensor]
) -> list[GradientEdge]:
    """Return what has to be requested along with some gradients, so that no request is partial.

    It completes the requests to the functions that use the leaves, directly or after functions of
    one input such as a cast, and to custom functions (:class:`torch.autograd.Function`).

    Args:
        outputs: The tensor that the backward pass starts from.
        edges: The edges whose gradients are requested anyway, those of the leaves included.
        leaves: The parameters whose gradients are requested.
    """
    graph = Graph(outputs)
    requested = {edge.node for edge in edges}
    executed = graph.leading_to(requested)
    incomplete = graph.users_of(get_gradient_edge(leaf).node for leaf in leaves)
    incomplete += [
        node for node in executed if isinstance(node, torch.autograd.function.BackwardCFunction)
    ]
    found: dict[tuple[Node, int], GradientEdge] = {}
    for node in incomplete:
        for below, position in node.next_functions:
            if below is not None and below not in executed and below not in requested:
                found[below, position] = GradientEdge(below, position)
    return list(found.values())


class Graph:
    """The functions of an autograd graph, from the outputs down to the leaves.

    Args:
        outputs: The tensor that the graph computes.

    Attributes:
        nodes: The functions, each after all that it leads to.
    """

    def __init__(self, outputs: Tensor) -> None:
        self.nodes: list[Node] = []
        self._users: dict[Node, list[Node]] = {}
        if outputs.grad_fn is None:
            return
        seen: set[Node] = set()
        stack: list[tuple[Node, bool]] = [(outputs.grad_fn, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                self.nodes.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                for below in _below(node):
                    self._users.setdefault(below, []).append(node)
                    stack.append((below, False))

    def leading_to(self, requested: set[Node]) -> set[Node]:
        """Return the functions that a backward pass executes, if it is to reach some of them."""
        executed: set[Node] = set()
        for node in self.nodes:
            if any(below in executed or below in requested for below in _below(node)):
                executed.add(node)
        return executed

    def users_of(self, leaves: Iterable[Node]) -> list[Node]:
        """Return the functions that combine leaves with something else."""
        found: list[Node] = []
        pending = list(leaves)
        while pending:
            for user in self._users.get(pending.pop(), []):
                if len(_below(user)) == 1:
                    pending.append(user)
                else:
                    found.append(user)
        return found


def _below(node: Node) -> list[Node]:
    return [below for below, _ in node.next_functions if below is not None]


@contextmanager
def gradients_visited(
    leaves: Sequence[Tensor], visit: Callable[[int, Tensor], None]
) -> Iterator[None]:
    """Pass each leaf's whole gradient to a function during backward passes, and then drop it.

    So a backward pass for all leaves holds one gradient at a time. What
    :func:`torch.autograd.grad` returns for the leaves is zero.

    Args:
        leaves: Tensors without hooks.
        visit: Called with the position of a leaf and its gradient.
    """

    def hook_of(position: int) -> Callable[[Tensor], Tensor | None]:
        def hook(gradient: Tensor) -> Tensor | None:
            visit(position, gradient)
            if gradient.layout is not torch.strided:
                return None
            return gradient.new_zeros(()).expand_as(gradient)

        return hook

    handles = [leaf.register_hook(hook_of(position)) for position, leaf in enumerate(leaves)]
    try:
        yield
    finally:
        for leaf, handle in zip(leaves, handles, strict=True):
            handle.remove()
            if not leaf._backward_hooks:  # noqa: SLF001 - as it was before, for pickles of it
                leaf._backward_hooks = None  # noqa: SLF001
