"""Trainings with padding: what a mask changes, what is recorded of it, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch import MeasuringOptions, Recorder, attach
from tests.fixed_advisor import FixedAdvisor
from tests.measuring import ROUNDING, SIGMAS

VOCABULARY, EXAMPLES, LENGTH, LEARNING_RATE = 12, 8, 12, 1e-3


class Encoder(nn.Module):
    """A transformer that no token of which attends to padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Any:
        x = self.block(self.embedding(tokens), src_key_padding_mask=~attention_mask)
        return self.head(x)


def padded_batch() -> tuple[Tensor, Tensor]:
    """Return tokens and which of them are none of the 34 % padding."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([12, 2, 11, 12, 4, 1, 12, 9])
    mask = torch.arange(LENGTH) < lengths[:, None]
    assert round(float(1 - mask.float().mean()), 2) == 0.34
    tokens = torch.randint(1, VOCABULARY, (EXAMPLES, LENGTH), generator=generator)
    return tokens * mask, mask


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tokens, mask = padded_batch()
    logits = model(tokens, attention_mask=mask)
    nn.functional.cross_entropy(logits[mask], (5 * tokens[mask] + 2) % VOCABULARY).backward()
    optimizer.step()
    optimizer.zero_grad()


def recorded(width: int, options: MeasuringOptions) -> tuple[list[float], list[float], list[float]]:
    """Return the unit rates of a first step, their errors, and the true rates off the padding."""
    torch.manual_seed(width)
    model = Encoder(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().double() for p in model.parameters()]
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        train_step(model, optimizer)
        estimate = recorder.estimate
    assert estimate is not None
    tokens, mask = padded_batch()
    model = model.double()
    rates: list[float] = []
    with torch.no_grad():
        after = [p.clone() for p in model.parameters()]
        for parameter, start in zip(model.parameters(), before, strict=True):
            parameter.copy_(start)
        for parameter, start, end in zip(model.parameters(), before, after, strict=True):
            sides = []
            for sign in (1, -1):  # a tenth of the step, in both directions
                parameter.copy_(start + 0.1 * sign * (end - start))
                sides.append(model(tokens, attention_mask=mask)[mask])
            parameter.copy_(start)
            change = (sides[0] - sides[1]) / (0.2 * LEARNING_RATE)
            rates.append(float(change.square().mean().sqrt()))
    return estimate.unit_rates, estimate.relative_errors, rates


def test_multipliers_between_widths_do_not_depend_on_padding() -> None:
    masked = MeasuringOptions(mask="attention_mask", probes=40)
    base, base_errors, base_true = recorded(8, masked)
    wide, wide_errors, wide_true = recorded(32, masked)
    for i, (one, other) in enumerate(zip(base, wide, strict=True)):
        error = math.hypot(base_errors[i], wide_errors[i])
        assert (
            abs(math.log(one / other) - math.log(base_true[i] / wide_true[i]))
            < SIGMAS * error + ROUNDING
        )
        assert error < 0.1
    base, wide = (recorded(width, MeasuringOptions(probes=40))[0] for width in (8, 32))
    wrong = [
        base[i] / wide[i] / (base_true[i] / wide_true[i])
        for i in range(len(base))  # padding counts, and its share of the outputs' change differs
    ]
    assert max(abs(math.log(ratio)) for ratio in wrong) > math.log(1.2)


def test_profiles_and_measurements_say_which_mask_they_have() -> None:
    model = Encoder(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    options = MeasuringOptions(mask="attention_mask")
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        train_step(model, optimizer)
        assert recorder.profile("an encoder").mask == "attention_mask"
    with Recorder(model, optimizer, every=1) as recorder:
        train_step(model, optimizer)
        assert not recorder.profile("an encoder").mask
    advisor = FixedAdvisor([1.0] * len(recorder.groups))
    with attach(model, optimizer, profile="x", advisor=advisor, options=options):
        train_step(model, optimizer)
    assert [measurement.mask for measurement in advisor.measurements] == ["attention_mask"]


def test_a_recording_is_not_continued_with_a_different_mask(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Encoder(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    with Recorder(model, optimizer, every=1) as recorder:
        train_step(model, optimizer)
        state = recorder.state_dict()
    options = MeasuringOptions(mask="attention_mask")
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        recorder.load_state_dict(state)
        train_step(model, optimizer)
        assert "mask is 'attention_mask', and it was '' before the recording" in caplog.text
        assert not recorder.profile("an encoder").mask


def test_a_batch_of_padding_only_is_not_measured_and_says_so() -> None:
    model = Encoder(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    options = MeasuringOptions(mask=lambda inputs, _: torch.zeros_like(inputs["attention_mask"]))
    message = r"8 measured example\(s\) the weight 0"
    with (
        Recorder(model, optimizer, every=1, options=options),
        pytest.raises(MeasurementError, match=message),
    ):
        train_step(model, optimizer)
