"""One measured step of any model, compared with exact rates."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fslr.torch import Batch, ModelGroups, PerExampleEstimator, Update, exact_unit_rates
from fslr.torch.model.forward import Output, select_output
from fslr.torch.model.mask import Mask

SIGMAS = 5.0  # by chance, one group in two million exceeds it
ROUNDING = 1e-3
_PROBES_AT_ONCE, _MAX_PROBES = 20, 160
_DECISIVE_ERROR = 0.04  # a rate that is wrong by 20 % is off by five standard errors


@dataclass
class Measurable:
    """A model before its first Adam step on random targets, and the updates of that step."""

    model: nn.Module
    groups: ModelGroups
    batch: Batch
    updates: list[Tensor]
    output: Output = None
    mask: Mask = None

    @property
    def update(self) -> Update:
        return Update(lambda index: self.updates[index])

    @property
    def names(self) -> list[str]:
        return [group.name for group in self.groups]

    def exact(self) -> list[float]:
        return exact_unit_rates(
            self.model, self.groups, self.batch, self.update, self.output, mask=self.mask
        )

    def changes(self, scales: list[float] | None = None, epsilon: float = 1e-4) -> list[Tensor]:
        """Return output changes by central differences in float64, for any model.

        Args:
            scales: Factors of the unit updates, which are applied together and give one change.
                None: one change per unit update.
            epsilon: Half the distance between the two points.
        """
        model = copy.deepcopy(self.model).double()
        for parameter in model.parameters():
            if parameter.is_complex():
                parameter.data = parameter.data.to(torch.complex128)
        named = dict(model.named_parameters())
        args = [a.double() if a.is_floating_point() else a for a in self.batch.args]
        steps = [
            update.to(torch.complex128 if update.is_complex() else torch.float64)
            for update in self.updates
        ]
        chosen = [[i] for i in range(len(steps))] if scales is None else [list(range(len(steps)))]
        found: list[Tensor] = []
        for indices in chosen:
            sides: list[Tensor] = []
            for sign in (1, -1):
                start = {i: named[self.names[i]].detach().clone() for i in indices}
                with torch.no_grad():
                    for i in indices:
                        scale = epsilon if scales is None else epsilon * scales[i]
                        named[self.names[i]].add_(sign * scale * steps[i])
                    sides.append(select_output(model(*args), self.output))
                    for i in indices:
                        named[self.names[i]].copy_(start[i])
            found.append((sides[0] - sides[1]) / (2 * epsilon))
        return found

    def differences(self) -> list[float]:
        return [float(change.abs().square().mean().sqrt()) for change in self.changes()]

    def estimator(self, **options: Any) -> PerExampleEstimator:
        return PerExampleEstimator(
            self.model, self.groups, output=self.output, mask=self.mask, **options
        )


def measurable(
    model: nn.Module, inputs: Any, output: Output = None, mask: Mask = None
) -> Measurable:
    args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})
    if isinstance(inputs, Tensor):
        args = (inputs,)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    groups = ModelGroups(model, optimizer)
    before = [group.parameter.detach().clone() for group in groups]
    buffers = [buffer.clone() for buffer in model.buffers()]
    outputs = select_output(model(*args, **kwargs), output)
    if not outputs.is_complex():
        outputs = outputs.float()
    (outputs - torch.randn_like(outputs)).abs().square().mean().backward()
    optimizer.step()
    updates = [(g.parameter.detach() - b) / 1e-3 for g, b in zip(groups, before, strict=True)]
    with torch.no_grad():
        for group, start in zip(groups, before, strict=True):
            group.parameter.copy_(start)
            group.parameter.grad = None
        for buffer, start in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(start)
    return Measurable(model, groups, Batch.from_call(args, dict(kwargs)), updates, output, mask)


@dataclass
class Sample:
    """Rates from all probes of several measurements, with their relative errors."""

    rates: list[float]
    errors: list[float]
    probes: int


def sample_rates(case: Measurable, estimator: PerExampleEstimator) -> Sample:
    """Measure until all errors are small enough to decide, or the sample has its maximum size.

    The seeds are fixed, so the size of the sample is the same every time.
    """
    squares = torch.zeros(len(case.groups), dtype=torch.float64)
    variances = torch.zeros_like(squares)  # of the sums of squares
    measurements, errors = 0, torch.full_like(squares, math.inf)
    max_measurements = _MAX_PROBES // estimator.probes
    while measurements < max_measurements and (errors > _DECISIVE_ERROR).any():
        torch.manual_seed(1)  # the same dropout masks; probes use separate generators
        estimate = estimator.estimate(case.batch, case.update)
        square = torch.tensor(estimate.unit_rates, dtype=torch.float64) ** 2
        squares += square
        variances += (2 * torch.tensor(estimate.relative_errors) * square) ** 2
        errors = 0.5 * variances.sqrt() / squares
        measurements += 1
    rates = (squares / measurements).sqrt().tolist()
    return Sample(rates, errors.tolist(), measurements * estimator.probes)


def assert_converges(case: Measurable, *, exact: list[float] | None = None) -> None:
    """Check that rates from many probes match the exact ones within their relative errors."""
    estimator = case.estimator(probes=1)
    torch.manual_seed(1)  # the same dropout masks for both
    exact = case.exact() if exact is None else exact
    # The checks of the first estimate draw dropout masks too.
    estimator.estimate(case.batch, case.update)
    estimator.probes = _PROBES_AT_ONCE
    sample = sample_rates(case, estimator)
    assert len(sample.rates) == len(exact) == len(case.groups)
    largest = max(exact)
    for name, rate, error, true in zip(case.names, sample.rates, sample.errors, exact, strict=True):
        if true < 1e-5 * largest:  # zero up to rounding, such as a bias before batch norm
            assert rate < 1e-4 * largest, (name, rate, true)
            continue
        # Rates at the outputs are exact: their errors are 0, apart from rounding.
        assert abs(math.log(rate / true)) <= SIGMAS * error + ROUNDING, (name, rate, true, error)
        assert error <= 0.5 * math.sqrt(2 / sample.probes) * 1.5, (name, error)
