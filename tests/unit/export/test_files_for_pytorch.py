"""Exported Python files for trainers of PyTorch, with real models and optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings, keeping_decay
from tests.unit.export import trainers
from tests.unit.export.models import (
    SETTINGS,
    export_of,
    exported,
    model,
    values_by_name,
)


@pytest.mark.compatibility("deepspeed", "learning rates", "weight decay")
@pytest.mark.parametrize("keeps_decay", [False, True])
def test_deepspeeds_optimizer_has_each_parameter_with_its_values(keeps_decay: bool) -> None:
    """DeepSpeed gives the groups to the optimizer of its configuration, such as AdamW."""
    net = model()
    export, factors = export_of(net)
    export = keeping_decay(export, SETTINGS) if keeps_decay else export
    module = exported(FormatName.DEEPSPEED, export)
    optimizer = torch.optim.AdamW(module.model_parameters(net), lr=7.0, weight_decay=7.0)
    expected: dict[str, Any] = {
        name: (pytest.approx(1e-3 * factor), pytest.approx(0.1 / factor if keeps_decay else 0.1))
        for name, factor in factors.items()
    }
    assert values_by_name(net, optimizer) == expected
    assert module.warmup_max_lr() == [group["lr"] for group in optimizer.param_groups]


def test_the_weight_decay_of_a_deepspeed_configuration_stays_if_none_is_given() -> None:
    net = model()
    written = FORMATS[FormatName.DEEPSPEED].write(export_of(net)[0], Settings(learning_rate=1.0))
    groups = trainers.load(written.text).model_parameters(net)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.7)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.7}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda net: net.update({"new": nn.Linear(1, 1)}), r"new\.weight has no learning rate"),
        (lambda net: net.pop("head"), r"no parameter matches .*head"),
    ],
)
def test_a_file_for_a_different_model_is_refused(
    change: Callable[[nn.Module], object], match: str
) -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(2, 2), "head": nn.Linear(2, 2, bias=False)})
    rows = tuple(ExportRow(name, name, 1.0 + i) for i, name in enumerate(("embed.weight",)))
    rows += (ExportRow("head.weight", "head", 0.5),)
    module = exported(FormatName.DEEPSPEED, Export(rows, ()))
    assert len(module.model_parameters(net)) == 2
    change(net)
    with pytest.raises(ValueError, match=match):
        module.model_parameters(net)


def test_wrapped_and_frozen_parameters_are_told_apart() -> None:
    net = model()
    export, factors = export_of(net)
    module = exported(FormatName.DEEPSPEED, export)
    net["head"].requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="no parameter matches"):
        exported(
            FormatName.DEEPSPEED, Export((*export.rows, ExportRow("absent.x", "x", 9.0)), ())
        ).model_parameters(net)
    net["layers"] = nn.ModuleList(
        checkpoint_wrapper(block) for block in list(net["layers"].children())
    )
    groups = module.model_parameters(nn.DataParallel(net))
    trained = sum(len(group["params"]) for group in groups)
    assert trained == len(factors) - 2
