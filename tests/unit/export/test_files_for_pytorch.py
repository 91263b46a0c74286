"""Exported Python files for the Hugging Face Trainer and DeepSpeed, with real models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings, keeping_decay
from tests.unit.export import trainers

SETTINGS = Settings(learning_rate=1e-3, weight_decay=0.1)
FACTORS = (0.25, 0.5, 1.0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 4)


def model() -> nn.ModuleDict:
    blocks = nn.ModuleList(Block() for _ in range(3))
    return nn.ModuleDict({"embed": nn.Embedding(5, 4), "layers": blocks, "head": nn.Linear(4, 5)})


def export_of(net: nn.Module) -> tuple[Export, dict[str, float]]:
    factors = {name: FACTORS[i % 3] for i, (name, _) in enumerate(net.named_parameters())}
    rows = tuple(ExportRow(name, name, factor) for name, factor in factors.items())
    return Export(rows, ()), factors


def exported(name: FormatName, export: Export) -> ModuleType:
    written = FORMATS[name].write(export, SETTINGS)
    assert not written.losses
    return trainers.load(written.text)


def imported_transformers() -> Any:
    """Return the package, with the parts that a Trainer needs loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        package = pytest.importorskip("transformers", reason="needs transformers")
        assert package.Trainer
        return package


def values_by_name(
    net: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("keeps_decay", [False, True])
def test_a_trainer_gives_each_parameter_its_learning_rate_and_decay(
    tmp_path: Path, keeps_decay: bool
) -> None:
    transformers = imported_transformers()
    net = model()
    export, factors = export_of(net)
    export = keeping_decay(export, SETTINGS) if keeps_decay else export
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=2e-3,
        weight_decay=0.3,
        adam_beta2=0.9,
        lr_scheduler_type="linear",
        use_cpu=True,
        report_to=[],
    )
    module = exported(FormatName.HF_TRAINER, export)
    chosen = module.optimizer_cls_and_kwargs(net, args)
    trainer = transformers.Trainer(net, args, optimizer_cls_and_kwargs=chosen)
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.9, 0.9)}
    expected: dict[str, Any] = {}
    for name, factor in factors.items():
        decay = 0.3 / factor if keeps_decay else 0.3
        decays = "norm" not in name and "bias" not in name  # the Trainer's own rule
        expected[name] = (pytest.approx(2e-3 * factor), pytest.approx(decay if decays else 0.0))
    assert values_by_name(net, trainer.optimizer) == expected
    for _ in range(5):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    halved = values_by_name(net, trainer.optimizer)
    assert {n: v[0] for n, v in halved.items()} == {
        n: pytest.approx(1e-3 * factor) for n, factor in factors.items()
    }


def test_a_trainer_whose_optimizer_makes_its_groups_is_refused(tmp_path: Path) -> None:
    transformers = imported_transformers()
    net = model()
    args = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    module = exported(FormatName.HF_TRAINER, export_of(net)[0])
    makes_groups = (torch.optim.AdamW, {"params": [], "lr": 1e-3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.Trainer, "get_optimizer_cls_and_kwargs", lambda *_: makes_groups)
        with pytest.raises(ValueError, match=r"adamw_torch\w* makes its groups itself"):
            module.optimizer_cls_and_kwargs(net, args)


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
