"""Models with complex parameters and complex outputs, against exact rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fslr.torch import ESTIMATORS, MeasuringOptions, Recorder
from fslr.torch.model.snapshot import Snapshot
from tests.measuring import ROUNDING, SIGMAS, assert_converges, measurable


class SpectralFilter(nn.Module):
    """Multiplies frequencies by complex weights, as Fourier neural operators and AFNO do."""

    def __init__(self, *, is_complex: bool) -> None:
        super().__init__()
        self.lift = nn.Linear(2, 3)
        weight = torch.randn(3, 3, 4, dtype=torch.cfloat) / 3
        shift = torch.randn(3, 4, dtype=torch.cfloat)
        self.is_complex = is_complex
        self.weight = nn.Parameter(weight if is_complex else torch.view_as_real(weight).clone())
        self.shift = nn.Parameter(shift if is_complex else torch.view_as_real(shift).clone())
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        shift: Tensor = self.shift
        if not self.is_complex:
            weight, shift = torch.view_as_complex(weight), torch.view_as_complex(shift)
        frequencies = torch.fft.rfft(self.lift(x).transpose(1, 2))
        kept = torch.zeros_like(frequencies)
        kept[..., :4] = torch.einsum("bct,cdt->bdt", frequencies[..., :4], weight) + shift
        mixed = torch.fft.irfft(kept, n=x.shape[1]).transpose(1, 2)
        out: Tensor = self.head(torch.tanh(mixed))
        return out


class DiagonalStateSpace(nn.Module):
    """A convolution with the kernel of a diagonal linear state space model (S4D)."""

    def __init__(self) -> None:
        super().__init__()
        self.poles = nn.Parameter(torch.complex(-torch.rand(3, 4), torch.randn(3, 4)))
        self.outputs = nn.Parameter(torch.randn(3, 4, dtype=torch.cfloat))
        self.skip = nn.Parameter(torch.randn(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        powers = torch.exp(self.poles[..., None] * torch.arange(length))
        kernel = 2 * torch.einsum("hn,hnl->hl", self.outputs, powers).real
        spectrum = torch.fft.rfft(kernel, n=2 * length) * torch.fft.rfft(x.mT, n=2 * length)
        mixed = torch.fft.irfft(spectrum, n=2 * length)[..., :length].mT + self.skip * x
        out: Tensor = self.head(torch.tanh(mixed))
        return out


class LongConvolution(nn.Module):
    """A convolution whose real kernel is transformed, in parts that are real and imaginary."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 8))
        self.real = nn.Parameter(torch.randn(3, 1))
        self.imaginary = nn.Parameter(torch.randn(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        factor = torch.complex(self.real, self.imaginary)
        spectrum = torch.fft.rfft(self.kernel) * torch.fft.rfft(x.mT)
        return torch.tanh(torch.fft.irfft(spectrum * factor.conj(), n=8))


class ComplexOutput(nn.Module):
    """Returns complex numbers, from complex and real parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4, dtype=torch.cfloat)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(torch.complex(x, torch.zeros_like(x)))
        out: Tensor = inner * torch.sigmoid(inner.abs()) * self.scale
        return out


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "complex filter": (lambda: SpectralFilter(is_complex=True), 2),
    "complex filter, stored as pairs": (lambda: SpectralFilter(is_complex=False), 2),
    "state space": (DiagonalStateSpace, 3),
    "long convolution": (LongConvolution, 3),
    "complex output": (ComplexOutput, 3),
}


@pytest.mark.parametrize("case", MODELS)
def test_rates_converge_to_those_of_finite_differences(case: str) -> None:
    torch.manual_seed(0)
    make, features = MODELS[case]
    measured = measurable(make(), torch.randn(8, 8, features))
    differences = measured.differences()
    assert_converges(measured, exact=differences)
    assert measured.exact() == pytest.approx(differences, rel=1e-3)


@pytest.mark.parametrize("case", ["complex filter", "complex output"])
def test_the_full_estimator_is_unbiased_too(case: str) -> None:
    torch.manual_seed(0)
    make, features = MODELS[case]
    measured = measurable(make(), torch.randn(8, 8, features))
    estimator = ESTIMATORS["full"](measured.model, measured.groups, probes=400)
    estimate = estimator.estimate(measured.batch, measured.update)
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, measured.exact(), strict=True
    ):
        assert abs(math.log(rate / exact)) < SIGMAS * error + ROUNDING


@pytest.mark.parametrize("name", ["kronecker", "iid"])
def test_a_rotation_of_the_complex_plane_changes_no_estimate(name: str) -> None:
    # Gradient and update turn together, so the real part of their product stays the same.
    estimates = []
    for angle in (0.0, 0.7, math.pi / 2):
        torch.manual_seed(0)
        turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
        measured = measurable(Turned(turn), torch.randn(8, 3))
        measured.updates[0] = torch.tensor([1.0, 2.0, -0.5]) * turn.conj()
        estimator = ESTIMATORS[name](measured.model, measured.groups, probes=20)
        estimates.append(estimator.estimate(measured.batch, measured.update).unit_rates)
    assert estimates[1] == pytest.approx(estimates[0], rel=1e-4)
    assert estimates[2] == pytest.approx(estimates[0], rel=1e-4)


class Turned(nn.Module):
    """Multiplies by a complex weight that is turned by an angle."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.turn = turn
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.cfloat) * turn.conj())

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh((x * (self.weight * self.turn)).real)


@pytest.mark.parametrize("foreach", [None, True, False])
def test_weights_and_updates_count_by_their_absolute_values(foreach: bool | None) -> None:
    torch.manual_seed(0)
    model = SpectralFilter(is_complex=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=foreach)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with Recorder(model, optimizer, every=1, options=MeasuringOptions(probes=4)) as recorder:
        model(torch.randn(8, 8, 2)).square().mean().backward()
        optimizer.step()
    estimate = recorder.estimate
    assert estimate is not None
    updates = [(p.detach() - b) / 1e-3 for p, b in zip(model.parameters(), before, strict=True)]
    for found, tensors in ((estimate.weight_rms, before), (estimate.update_rms, updates)):
        expected = [float(tensor.abs().square().mean().sqrt()) for tensor in tensors]
        assert found == pytest.approx(expected, rel=1e-3)
    assert estimate.linearity_error is not None
    assert estimate.linearity_error < 0.1


def test_the_update_of_complex_weights_is_scaled() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, dtype=torch.cfloat))
    before = weight.detach().clone()
    snapshot = Snapshot([weight])
    with torch.no_grad():
        weight.add_(torch.randn_like(weight))
    after = weight.detach().clone()
    snapshot.rescale([0.25], [0.0])
    torch.testing.assert_close(weight.detach(), before + 0.25 * (after - before))
    with snapshot.restored() as step:
        assert torch.equal(weight, before)
        torch.testing.assert_close(step.change(0), 0.25 * (after - before))
