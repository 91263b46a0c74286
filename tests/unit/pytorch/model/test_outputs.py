"""Selecting the output tensor from a model's result."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch.model.forward import Output, select_output
from tests.measuring import assert_converges, measurable

Named = namedtuple("Named", ["loss", "logits"])  # noqa: PYI024 - as users write them


@dataclass
class Result:
    loss: Tensor
    logits: Tensor


class Returning(nn.Module):
    """A model that returns its output inside a container."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        logits = torch.tanh(self.layer(x))
        loss = logits.square().mean()
        if self.kind == "dict":
            return {"loss": loss, "logits": logits}
        if self.kind == "tuple":
            return loss, logits
        if self.kind == "named tuple":
            return Named(loss, logits)
        return Result(loss, logits)


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("dict", "logits"),
        ("dict", lambda result: result["logits"]),
        ("tuple", 1),
        ("named tuple", "logits"),
        ("named tuple", 1),
        ("dataclass", "logits"),
        ("dataclass", lambda result: result.logits),
    ],
)
def test_rates_converge_for_each_kind_of_result(kind: str, output: Output) -> None:
    torch.manual_seed(0)
    assert_converges(measurable(Returning(kind), torch.randn(8, 4), output))


@pytest.mark.parametrize(
    ("result", "output", "message"),
    [
        (
            {"loss": torch.zeros(()), "logits": torch.zeros(8, 3)},
            None,
            r"a dict, not a tensor; select .*='loss' \(.*: 'loss' \(\), 'logits' \(8, 3\)\)",
        ),
        ((1, torch.zeros(2)), None, r"returns a tuple, .* output=1 \(tensors in it: 1 \(2,\)\)"),
        ("words", None, r"returns a str, .*output='logits' \(tensors in it: none\)"),
        (
            {"logits": torch.zeros(8, 3)},
            "logit",
            r"output='logit' does not exist; .* a dict with the tensors: 'logits' \(8, 3\)",
        ),
        ({"n": 3}, lambda result: result["n"], r"selects a int, not a tensor; .* tensors: none"),
    ],
)
def test_an_output_that_is_not_a_tensor_is_an_error_that_lists_the_tensors(
    result: Any, output: Output, message: str
) -> None:
    with pytest.raises(MeasurementError, match=message):
        select_output(result, output)
