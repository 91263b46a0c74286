"""Trainings with padding: what a mask changes, what is recorded of it, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advisor.local.in_process import InProcessAdvisor
from fslr import MeasurementError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.testing import FakeAdvisor
from fslr.torch import MeasuringOptions, RateEstimate, Recorder, attach
from tests.measuring import SIGMAS

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


def recorded(width: int) -> tuple[RateEstimate, list[float], list[float]]:
    """Return a masked measurement of a first step, and true rates off the padding and with it."""
    torch.manual_seed(width)
    model = Encoder(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    before = [p.detach().double() for p in model.parameters()]
    options = MeasuringOptions(mask="attention_mask", probes=25)
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        train_step(model, optimizer)
    assert recorder.estimate is not None
    tokens, mask = padded_batch()
    model = model.double()
    off_padding: list[float] = []
    everywhere: list[float] = []
    with torch.no_grad():
        after = [p.clone() for p in model.parameters()]
        for parameter, start in zip(model.parameters(), before, strict=True):
            parameter.copy_(start)
        for parameter, start, end in zip(model.parameters(), before, after, strict=True):
            sides = []
            for sign in (1, -1):  # a tenth of the step, in both directions
                parameter.copy_(start + 0.1 * sign * (end - start))
                sides.append(model(tokens, attention_mask=mask))
            parameter.copy_(start)
            squares = ((sides[0] - sides[1]) / (0.2 * LEARNING_RATE)).square()
            off_padding.append(float(squares[mask].mean().sqrt()))
            everywhere.append(float(squares.mean().sqrt()))
    return recorder.estimate, off_padding, everywhere


def test_multipliers_between_widths_do_not_depend_on_padding() -> None:
    base, base_true, base_padded = recorded(8)
    wide, wide_true, wide_padded = recorded(32)
    for i, true in enumerate(base_true):
        multiplier = base.unit_rates[i] / wide.unit_rates[i]
        error = max(math.hypot(base.relative_errors[i], wide.relative_errors[i]), 1e-3)
        assert abs(math.log(multiplier / (true / wide_true[i]))) < SIGMAS * error
        assert error < 0.12
    # Without a mask they do.
    wrong = [
        (b / w) / (base_true[i] / wide_true[i])
        for i, (b, w) in enumerate(zip(base_padded, wide_padded, strict=True))
    ]
    assert max(max(ratio, 1 / ratio) for ratio in wrong) > 1.2


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
    advisor = FakeAdvisor([1.0] * len(recorder.groups))
    with attach(model, optimizer, profile="x", advisor=advisor, options=options):
        train_step(model, optimizer)
    assert [measurement.mask for measurement in advisor.measurements] == ["attention_mask"]


@pytest.mark.parametrize("mask", ["attention_mask", None])
def test_a_run_with_another_mask_than_its_profile_is_warned(
    mask: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    model = Encoder(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    options = MeasuringOptions(mask="attention_mask")
    with Recorder(model, optimizer, every=1, options=options) as recorder:
        train_step(model, optimizer)
    advisor = InProcessAdvisor(recorder.profile("an encoder"))
    options = MeasuringOptions(mask=mask)
    with attach(model, optimizer, profile="x", advisor=advisor, options=options) as attachment:
        train_step(model, optimizer)
    assert attachment.answer is not None
    kinds = [warning.kind for warning in attachment.answer.warnings]
    assert (pb.WARNING_KIND_MASK in kinds) == (mask is None)
    assert ("measure both with mask='attention_mask'" in caplog.text) == (mask is None)


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
