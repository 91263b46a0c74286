r"""The ``per_example`` estimator: unbiased unit rates with one degree of freedom per example.

Theory. Outputs ``f`` hold ``N`` elements over ``B`` examples. For a group with unit update ``U``
the outputs move, to first order, by ``d f = J U``, and the unit rate is ``sqrt(|d f|^2 / N)``. A
probe ``z`` has independent entries of mean 0 and variance 1, so ``E[(z . d f)^2] = |d f|^2``. Write
``z . d f = sum_b u_b`` with ``u_b`` the part of example ``b``. The entries of ``z`` that belong to
different examples are independent, hence ``E[u_b u_c] = 0`` for ``b != c`` and

.. math:: E\Big[\sum_b u_b^2\Big] = E\Big[\big(\sum_b u_b\big)^2\Big] = |d f|^2 .

Squaring per example drops only cross terms of mean zero: the same expectation, ``B`` times the
degrees of freedom.

How ``u_b`` needs no per-example gradient. For a module that is linear in its own parameters
``u_b`` is the sum over the rows of example ``b`` of ``<dL/dy, y(U; x)>``, where ``dL/dy`` is the
cotangent at the module's output and ``y(U; x)`` its local map (see :mod:`fslr.torch.modules`). The
local map does not depend on ``z``: K probes cost one forward pass, one set of local maps and K
backward passes for activations alone.

Three checks instead of guesses, at the first measurement of each batch shape.

1. Which row is whose: with ``z`` zero on a random half of the examples, the rows of that half must
   be exactly zero. Groups that fail have their rows summed: one degree of freedom a probe, and
   still no bias.
2. Whether the batch may be cut: if the model gives the same outputs on chunks of the batch as on
   all of it, such groups get a row a chunk at no further cost; else (batch norm) more probes.
3. Nothing is missed: for one probe the rows of each group must add up to ``<dL/dW, U>`` of the
   true parameter gradient, which finds parameters that are used without calling their module.

Source: the probe identity is Milsom, Anson, Aitchison, arXiv 2502.17405; squaring per example and
the checks are this project's (docs/decisions/0002-per-example-estimator.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fslr.errors import MeasurementError
from fslr.torch.batch import Batch
from fslr.torch.estimators.estimate import RateEstimate, rates_of_rows
from fslr.torch.groups import ModelGroups
from fslr.torch.isolation import isolated
from fslr.torch.modules import Rule, rule_for, supported_layers

_SUMMED_ROWS = 8  # rows a probe for groups whose rows belong to no example
_CUT_TOLERANCE = 1e-3  # relative to the largest output; other kernels for other shapes stay below
_MISSED_TOLERANCE = 0.01  # relative to the norm of the rows; float32 rounding stays below 1e-4
_MISSED_TOLERANCE_16_BIT = 0.1
# An embedding's options for its gradient do not change what it puts out, and that is measured: a
# padding row gets no gradient, yet acts.
_EMBEDDING_GRADIENTS = {"padding_idx": None, "scale_grad_by_freq": False, "sparse": False}


@dataclass(frozen=True, slots=True)
class _Use:
    """One call of a measured module: where its cotangent arrives, and its local change."""

    edge: GradientEdge
    leading: int  # leading dimension of the module's output
    parts: list[tuple[int, Tensor]]  # group index, output change (broadcasts over the output)


@dataclass(frozen=True, slots=True)
class _Route:
    """How a batch of some shape is measured."""

    examplewise: Tensor  # whether each group's rows belong to examples, bool [groups], on the CPU
    chunks: int  # into how many chunks the batch is cut
    probes: int  # probes on each chunk


class PerExampleEstimator:
    """Estimates the unit rate of every group of a model, unbiased, from a few backward passes.

    Relative standard error of a rate: about ``0.5 * sqrt(2 / (B * K))`` for groups measured per
    example, ``0.5 * sqrt(2 / (8 * K))`` for groups whose rows are summed.

    Args:
        model: The model to measure.
        groups: Its groups.
        output: Selects the output tensor, leading dimension B, from what the model returns.
        probes: Number of probes K per measurement, >= 1.
        seed: Seed of the probes' own generator; the global generators are never touched.

    Raises:
        MeasurementError: A group's parameter belongs to a layer type that has no local map, or
            ``probes`` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: ModelGroups,
        *,
        output: Callable[[Any], Tensor],
        probes: int = 1,
        seed: int = 0,
    ) -> None:
        if probes < 1:
            raise MeasurementError(f"probes is {probes}; a measurement needs at least 1")
        self._model = model
        self._groups = groups
        self._output = output
        self._probes = probes
        self._seed = seed
        self._modules = self._measured_modules()
        self._generators: dict[torch.device, torch.Generator] = {}
        self._routes: dict[tuple[object, ...], _Route] = {}

    def estimate(self, batch: Batch, update_of: Callable[[Tensor], Tensor]) -> RateEstimate:
        """Measure all groups at the model's present weights.

        Args:
            batch: The measurement batch.
            update_of: Gives the unit update of a group's parameter (of its shape, per learning
                rate); called once per use of the parameter, so that no second copy of all
                parameters is ever held.

        Returns:
            Unit rates and relative errors in layout order.

        Raises:
            MeasurementError: The output's leading dimension is not the batch, a parameter is used
                without calling its module, or a rate is not finite.
        """
        with isolated(self._model), torch.enable_grad():
            route = self._routes.get(batch.shapes()) or self._find_route(batch, update_of)
            rows, elements = [], 0
            for chunk in batch.chunks(route.chunks):
                outputs, uses = self._forward(chunk, update_of)
                elements += outputs.numel()
                rows.append(self._probe_rows(outputs, uses, route))
                del outputs, uses  # before the next chunk's are made
        rates, errors = rates_of_rows(torch.cat(rows), probes=route.probes, elements=elements)
        if not bool(torch.isfinite(rates).all()):
            names = [
                g.name for g, rate in zip(self._groups, rates, strict=True) if not rate.isfinite()
            ]
            raise MeasurementError(
                f"the unit rate of {len(names)} group(s) is not finite, first {names[0]!r}; "
                "the model's outputs, gradients or weights hold NaN or inf"
            )
        return RateEstimate(rates.tolist(), errors.tolist(), route.probes, batch.examples)

    def _measured_modules(self) -> list[tuple[nn.Module, Rule]]:
        """Return the modules that own a group's parameter, each with its rule."""
        found: list[tuple[nn.Module, Rule]] = []
        without_rule: list[str] = []
        for name, module in self._model.named_modules():
            own = [
                p for p in module.parameters(recurse=False) if self._groups.index_of(p) is not None
            ]
            rule = rule_for(module)
            if own and rule is None:
                without_rule.append(f"{name or 'the model itself'} ({type(module).__name__})")
            elif own and rule is not None:
                found.append((module, rule))
        if without_rule:
            raise MeasurementError(
                f"no local map for {len(without_rule)} module(s) that own trained parameters: "
                f"{', '.join(without_rule[:8])}; layers that can be measured: "
                f"{', '.join(supported_layers())}. Leave these parameters out of the optimizer or "
                "train them with an optimizer of their own"
            )
        return found

    @contextmanager
    def _taps(self, uses: list[_Use], update_of: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Record a :class:`_Use` for each call of a measured module made inside."""

        def update_or_none(parameter: Tensor | None) -> Tensor | None:
            if parameter is None or self._groups.index_of(parameter) is None:
                return None
            return update_of(parameter)

        def tap(rule: Rule) -> Callable[..., None]:
            def record(
                module: nn.Module, args: Any, kwargs: dict[str, Any], result: Tensor
            ) -> None:
                if not result.requires_grad:
                    return  # under no_grad: the outputs do not depend on this call
                with torch.no_grad():
                    change = rule(module, (*args, *kwargs.values()), update_or_none)
                parts = [
                    (index, part)
                    for parameter, part in change
                    if (index := self._groups.index_of(parameter)) is not None
                ]
                # The edge, not the tensor: it stays right if the output is changed in place later.
                uses.append(_Use(get_gradient_edge(result), result.shape[0], parts))

            return record

        handles = [
            # First, so that it sees the module's own output, whatever other hooks make of it.
            module.register_forward_hook(tap(rule), with_kwargs=True, prepend=True)
            for module, rule in self._modules
        ]
        embeddings = [m for m, _ in self._modules if isinstance(m, nn.Embedding)]
        kept = [{name: getattr(m, name) for name in _EMBEDDING_GRADIENTS} for m in embeddings]
        try:
            for module in embeddings:
                vars(module).update(_EMBEDDING_GRADIENTS)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, options in zip(embeddings, kept, strict=True):
                vars(module).update(options)

    def _forward(
        self, batch: Batch, update_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, list[_Use]]:
        uses: list[_Use] = []
        with self._taps(uses, update_of):
            outputs = self._output(self._model(*batch.args, **batch.kwargs))
        if outputs.dim() == 0 or outputs.shape[0] != batch.examples:
            raise MeasurementError(
                f"the output has shape {tuple(outputs.shape)}, but the batch has {batch.examples} "
                "examples; select an output whose leading dimension is the batch (output=...), "
                "such as the logits before any mean over the batch"
            )
        if not outputs.requires_grad or not uses:
            raise MeasurementError(
                "the output does not depend on any measured module; select another output "
                "(output=...) and check that the model does not detach it"
            )
        return outputs, uses

    def _generator(self, device: torch.device) -> torch.Generator:
        generator = self._generators.get(device)
        if generator is None:
            generator = torch.Generator(device).manual_seed(self._seed)
            self._generators[device] = generator
        return generator

    def _cotangent(self, outputs: Tensor) -> Tensor:
        """Return one probe: independent signs, the least variance of all unit-variance entries."""
        generator = self._generator(outputs.device)
        signs = torch.randint(0, 2, outputs.shape, generator=generator, device=outputs.device)
        return signs.mul_(2).sub_(1).to(outputs.dtype)

    def _project(self, outputs: Tensor, uses: list[_Use], cotangent: Tensor) -> Tensor:
        """Return the projections ``u`` of one probe, shape [B, groups].

        What belongs to no example (leading dimension other than B) is added to row 0; the caller
        sums such a group's rows.
        """
        cotangents = torch.autograd.grad(
            outputs, [use.edge for use in uses], cotangent, retain_graph=True, allow_unused=True
        )
        examples = outputs.shape[0]
        rows = torch.zeros(examples, len(self._groups), device=outputs.device)
        for use, at_output in zip(uses, cotangents, strict=True):
            if at_output is None:
                continue
            count = examples if use.leading == examples else 1
            for index, change in use.parts:
                rows[:count, index] += _inner_products(at_output, change, count)
        return rows

    def _probe_rows(self, outputs: Tensor, uses: list[_Use], route: _Route) -> Tensor:
        """Return the rows of all probes on one chunk, shape [K * B, groups]."""
        keep = (route.examplewise & self._leading(outputs, uses)).to(outputs.device)
        probes = []
        for _ in range(route.probes):
            rows = self._project(outputs, uses, self._cotangent(outputs))
            summed = torch.zeros_like(rows)
            summed[0] = rows.sum(0)
            probes.append(torch.where(keep, rows, summed))
        return torch.cat(probes)

    def _leading(self, outputs: Tensor, uses: list[_Use]) -> Tensor:
        """Return whether every use of a group has the leading dimension B, bool [groups], CPU."""
        leading = torch.ones(len(self._groups), dtype=torch.bool, device="cpu")
        for use in uses:
            for index, _ in use.parts:
                leading[index] &= use.leading == outputs.shape[0]
        return leading

    def _find_route(self, batch: Batch, update_of: Callable[[Tensor], Tensor]) -> _Route:
        """Check how a batch of this shape is to be measured.

        The route counts for the shape from then on, unless a group showed nothing but zeros: then
        there is no evidence, and the next measurement checks again.
        """
        outputs, uses = self._forward(batch, update_of)
        self._check_nothing_missed(outputs, uses, update_of)
        silent = self._silent_examples(outputs)
        cotangent = self._cotangent(outputs)
        cotangent[silent] = 0
        rows = self._project(outputs, uses, cotangent)
        leading = self._leading(outputs, uses)
        examplewise = leading & (rows[silent] == 0).all(0).cpu()
        if bool(examplewise.all()) or batch.examples == 1:
            route = _Route(examplewise, chunks=1, probes=self._probes)
        elif self._may_be_cut(batch):
            route = _Route(examplewise, chunks=_SUMMED_ROWS, probes=self._probes)
        else:
            route = _Route(examplewise, chunks=1, probes=self._probes * _SUMMED_ROWS)
        if batch.examples == 1 or bool(((rows != 0).any(0).cpu() | ~leading).all()):
            self._routes[batch.shapes()] = route
        return route

    def _silent_examples(self, outputs: Tensor) -> Tensor:
        """Return half of the examples (none of one), drawn at random, bool [B].

        At random, because neighbours that see each other, or time steps of which the later see the
        earlier, would not cross the boundary between a first and a second half.
        """
        count = outputs.shape[0]
        generator = self._generator(outputs.device)
        drawn = torch.randperm(count, generator=generator, device=outputs.device)
        return drawn < count // 2

    @torch.no_grad()
    def _may_be_cut(self, batch: Batch) -> bool:
        """Return whether the model's outputs on chunks are those on the whole batch.

        Dropout modules are off meanwhile; a model that draws random numbers elsewhere differs from
        itself and counts as one that must not be cut.
        """
        dropouts = [
            module
            for module in self._model.modules()
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.training  # noqa: SLF001
        ]
        try:
            for module in dropouts:
                module.training = False
            whole = self._output(self._model(*batch.args, **batch.kwargs)).float()
            parts = [
                self._output(self._model(*chunk.args, **chunk.kwargs)).float()
                for chunk in batch.chunks(_SUMMED_ROWS)
            ]
        except (RuntimeError, ValueError):
            return False  # such as batch norm, which refuses a single example
        finally:
            for module in dropouts:
                module.training = True
        if sum(part.shape[0] for part in parts) != whole.shape[0]:
            return False
        difference = (torch.cat(parts) - whole).abs().max()
        return bool(difference <= _CUT_TOLERANCE * whole.abs().max())

    def _check_nothing_missed(
        self, outputs: Tensor, uses: list[_Use], update_of: Callable[[Tensor], Tensor]
    ) -> None:
        cotangent = self._cotangent(outputs)
        rows = self._project(outputs, uses, cotangent)
        gradients = torch.autograd.grad(
            outputs,
            [group.parameter for group in self._groups],
            cotangent,
            retain_graph=True,
            allow_unused=True,
        )
        true = torch.stack([
            torch.zeros((), device=rows.device)
            if gradient is None
            else (gradient.float() * update_of(group.parameter).float()).sum().to(rows.device)
            for group, gradient in zip(self._groups, gradients, strict=True)
        ])
        tolerance = _MISSED_TOLERANCE if outputs.element_size() > 2 else _MISSED_TOLERANCE_16_BIT
        scale = rows.norm(dim=0) + true.abs()
        missed = (rows.sum(0) - true).abs() > tolerance * scale
        if bool(missed.any()):
            names = [g.name for g, is_missed in zip(self._groups, missed, strict=True) if is_missed]
            raise MeasurementError(
                f"{len(names)} parameter(s) act on the output without a call of the module that "
                f"owns them: {', '.join(names[:8])}; call the module (for example "
                "`self.head(x)` instead of `F.linear(x, self.head.weight)`)"
            )


def _inner_products(cotangent: Tensor, change: Tensor, count: int) -> Tensor:
    """Return ``<cotangent, change>`` per example, shape [count], in float32.

    Args:
        cotangent: At the module's output, its elements divisible into ``count`` leading rows.
        change: Local change of the output's shape, or of trailing dimensions that repeat over it.
        count: Number of examples, or 1 for the sum over everything.
    """
    change = change.float()
    if change.shape == cotangent.shape:
        left, right = cotangent.float().reshape(count, -1), change.reshape(count, -1)
        return torch.bmm(left.unsqueeze(1), right.unsqueeze(2)).flatten()
    summed = cotangent.float().reshape(count, -1, change.numel()).sum(1)
    return summed @ change.flatten()
