"""Every kind of layer with parameters, against the exact oracle."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.image_models import BasicBlock, ConvNet, ResMLP
from tests.measuring import assert_converges, measurable
from tests.models import Recurrent, SelfAttention


def before_a_head(layer: nn.Module, features: int) -> nn.Module:
    """Put a nonlinearity and a linear layer behind a layer."""
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(features, 3))


def images(*size: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(8, 4, *size)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x[:, :4], x[:, 4:]))


class Bag(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.layer = nn.EmbeddingBag(11, 6, mode=mode, padding_idx=0)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.layer(x)))
        return out


def in_eval_mode(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            assert module.running_mean is not None
            module.running_mean.normal_()
    return model


# A layer, its input, and whether all its groups are measured per example.
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], bool]] = {
    "Linear": (lambda: before_a_head(nn.Linear(5, 6), 24), images(5), True),
    "Bilinear": (TwoInputs, lambda: torch.randn(8, 9), True),
    "Conv1d": (lambda: before_a_head(nn.Conv1d(4, 6, 3, stride=2), 24), images(9), True),
    "Conv2d": (
        lambda: before_a_head(nn.Conv2d(4, 6, 3, groups=2, padding="same"), 96),
        images(4, 4),
        True,
    ),
    "Conv2d, circular padding": (
        lambda: before_a_head(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), 96),
        images(4, 4),
        True,
    ),
    "Conv3d": (lambda: before_a_head(nn.Conv3d(4, 3, 2), 24), images(3, 3, 3), True),
    "ConvTranspose1d": (lambda: before_a_head(nn.ConvTranspose1d(4, 3, 3), 18), images(4), True),
    "ConvTranspose2d": (
        lambda: before_a_head(nn.ConvTranspose2d(4, 3, 2, stride=2), 48),
        images(2, 2),
        True,
    ),
    "ConvTranspose3d": (
        lambda: before_a_head(nn.ConvTranspose3d(4, 2, 2), 54),
        images(2, 2, 2),
        True,
    ),
    "Embedding": (
        lambda: before_a_head(nn.Embedding(11, 6), 42),
        lambda: torch.randint(0, 11, (8, 7)),
        True,
    ),
    "EmbeddingBag, mean": (lambda: Bag("mean"), lambda: torch.randint(0, 11, (8, 7)), True),
    "EmbeddingBag, sum": (lambda: Bag("sum"), lambda: torch.randint(0, 11, (8, 7)), True),
    "LayerNorm": (lambda: before_a_head(nn.LayerNorm((4, 5)), 20), images(5), True),
    "RMSNorm": (lambda: before_a_head(nn.RMSNorm(5), 20), images(5), True),
    "GroupNorm": (lambda: before_a_head(nn.GroupNorm(2, 4), 36), images(3, 3), True),
    "InstanceNorm2d": (
        lambda: before_a_head(nn.InstanceNorm2d(4, affine=True), 36),
        images(3, 3),
        True,
    ),
    # Scale and shift are applied after the statistics, so they act on each example separately.
    "BatchNorm1d, train": (lambda: before_a_head(nn.BatchNorm1d(4), 20), images(5), True),
    "BatchNorm2d, train": (lambda: before_a_head(nn.BatchNorm2d(4), 36), images(3, 3), True),
    "BatchNorm2d, eval": (
        lambda: in_eval_mode(before_a_head(nn.BatchNorm2d(4), 36)),
        images(3, 3),
        True,
    ),
    "BatchNorm3d, train": (lambda: before_a_head(nn.BatchNorm3d(4), 32), images(2, 2, 2), True),
    "PReLU": (lambda: before_a_head(nn.PReLU(4), 20), images(5), True),
    "PReLU, one slope": (lambda: before_a_head(nn.PReLU(), 20), images(5), True),
    "MultiheadAttention": (SelfAttention, lambda: torch.randn(8, 5, 8), True),
    "MultiheadAttention, sequence first": (
        lambda: SelfAttention(batch_first=False),
        lambda: torch.randn(8, 5, 8),
        True,
    ),
    "MultiheadAttention, bias_kv": (
        lambda: SelfAttention(add_bias_kv=True),
        lambda: torch.randn(8, 5, 8),
        False,
    ),
    "TransformerEncoderLayer, post-norm": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda: torch.randn(8, 5, 8),
        True,
    ),
    "TransformerEncoderLayer, pre-norm": (
        # No dropout: the oracle's kernel of attention draws different masks.
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True),
        lambda: torch.randn(8, 5, 8),
        True,
    ),
    "LSTM": (
        lambda: Recurrent(nn.LSTM(4, 6, batch_first=True)),
        lambda: torch.randn(8, 5, 4),
        False,
    ),
    "GRU, two layers": (
        lambda: Recurrent(nn.GRU(4, 6, num_layers=2, batch_first=True)),
        lambda: torch.randn(8, 5, 4),
        False,
    ),
    "ResMLP": (lambda: ResMLP(16, 24, 3), lambda: torch.randn(8, 1, 4, 4), True),
    "ResNet-18 shape": (lambda: ConvNet(4), lambda: torch.randn(8, 1, 8, 8), False),
    "ResNet block": (
        lambda: nn.Sequential(BasicBlock(4, 6, 2), nn.Flatten(), nn.Linear(24, 3)),
        images(4, 4),
        False,
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_rates_converge_to_the_exact_ones(case: str) -> None:
    torch.manual_seed(0)
    make, inputs, per_example = LAYERS[case]
    measured = measurable(make(), inputs())
    # Embedding bags have no forward-mode derivative, so differences are the oracle.
    assert_converges(measured, exact=measured.differences() if "Bag" in case else None)
    if per_example:
        estimator = measured.estimator()
        estimator.estimate(measured.batch, measured.update)
        assert not estimator.slow_groups


def test_the_two_oracles_agree() -> None:
    torch.manual_seed(0)
    measured = measurable(Recurrent(nn.LSTM(4, 6, batch_first=True)), torch.randn(8, 5, 4))
    assert measured.differences() == pytest.approx(measured.exact(), rel=1e-3)


def test_the_convergence_test_detects_a_rate_that_is_wrong_by_a_quarter() -> None:
    torch.manual_seed(0)
    make, inputs, _ = LAYERS["Linear"]
    measured = measurable(make(), inputs())
    exact = measured.exact()
    assert_converges(measured, exact=exact)
    for wrong in range(len(exact)):
        rates = [rate * (1.25 if i == wrong else 1) for i, rate in enumerate(exact)]
        with pytest.raises(AssertionError, match=re.escape(measured.names[wrong])):
            assert_converges(measured, exact=rates)
