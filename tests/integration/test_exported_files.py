"""Exported files with the packages that read them, and the page that shows how."""

from __future__ import annotations

import re
import shlex
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fslr.torch
from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings, keeping_decay
from fslr import AdvisorClient, save_layout, save_profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.resource_names import profile_name, run_name
from tests.building import content_message
from tests.commands import Cli
from tests.docs.blocks import ROOT, commands
from tests.unit.export import trainers
from tests.unit.export.models import SETTINGS, export_of, exported, model, values_by_name
from tests.waiting import eventually

PAGE = ROOT / "docs" / "how-to" / "export.md"
_NEEDS_FILES = re.compile(
    r"<!-- not run: needs the file of the command -->\n```python\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_VERSIONS = re.compile(r"^\| `([a-z][a-z-]+)` \|[^|]*\|[^|]*\| ([^|]*) \|$", re.MULTILINE)


def imported(name: str) -> Any:
    """Return a package, or skip the test if it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports
        package = pytest.importorskip(name, reason=f"needs {name}")
        getattr(package, "Trainer", None)  # loads what a Trainer needs
        return package


@pytest.mark.compatibility("hf-trainer", "learning rates", "weight decay")
@pytest.mark.parametrize("keeps_decay", [False, True])
def test_a_trainer_gives_each_parameter_its_learning_rate_and_decay(
    tmp_path: Path, keeps_decay: bool
) -> None:
    transformers = imported("transformers")
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
    transformers = imported("transformers")
    net = model()
    args = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    module = exported(FormatName.HF_TRAINER, export_of(net)[0])
    makes_groups = (torch.optim.AdamW, {"params": [], "lr": 1e-3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.Trainer, "get_optimizer_cls_and_kwargs", lambda *_: makes_groups)
        with pytest.raises(ValueError, match=r"adamw_torch\w* makes its groups itself"):
            module.optimizer_cls_and_kwargs(net, args)


LEAVES = {
    "params/embed/embedding": 1.0,
    "params/Block_0/Dense_0/kernel": 0.5,
    "params/Block_0/Dense_0/bias": 2.0,
    "params/Block_1/Dense_0/kernel": 0.5,
    "params/Block_1/Dense_0/bias": 0.25,
}


def tree() -> dict[str, Any]:
    jax = imported("jax")
    found: dict[str, Any] = {}
    for name in LEAVES:
        node = found
        *path, last = name.split("/")
        for key in path:
            node = node.setdefault(key, {})
        node[last] = jax.numpy.ones(2)
    return found


def export_of_leaves() -> Export:
    return Export(tuple(ExportRow(name, name, factor) for name, factor in LEAVES.items()), ())


def by_name(found: object) -> dict[str, Any]:
    jax = imported("jax")
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


@pytest.mark.compatibility("optax", "learning rates")
def test_each_leaf_has_its_label_and_its_multiplier() -> None:
    jax, optax = imported("jax"), imported("optax")
    module = trainers.load(FORMATS[FormatName.OPTAX].write(export_of_leaves(), Settings()).text)
    labels = by_name(module.param_labels(tree()))
    assert len(set(labels.values())) == len(set(LEAVES.values()))
    transform = optax.chain(optax.sgd(1.0), module.scale_by_multipliers())
    params = tree()
    state = transform.init(params)
    gradients = jax.tree.map(jax.numpy.ones_like, params)
    updates, _ = jax.jit(transform.update)(gradients, state, params)
    found = {name: float(update[0]) for name, update in by_name(updates).items()}
    assert found == {name: -factor for name, factor in LEAVES.items()}


@pytest.mark.compatibility("optax", "weight decay")
def test_the_decay_of_a_step_is_kept_by_a_partition() -> None:
    jax, optax = imported("jax"), imported("optax")
    settings = Settings(weight_decay=0.1)
    text = (
        FORMATS[FormatName.OPTAX].write(keeping_decay(export_of_leaves(), settings), settings).text
    )
    module = trainers.load(text)
    assert not hasattr(module, "scale_by_multipliers")
    transform = module.partition(
        lambda multiplier, decay: optax.adamw(1e-2 * multiplier, weight_decay=0.1 * decay)
    )
    params = tree()
    zeros = jax.tree.map(jax.numpy.zeros_like, params)
    updates, _ = transform.update(zeros, transform.init(params), params)
    for update in by_name(updates).values():  # without gradients a step is its decay
        assert float(update[0]) == pytest.approx(-1e-2 * 0.1, rel=1e-5)


@pytest.mark.parametrize("attribute", ["value", "raw_value"])
def test_a_leaf_may_be_the_array_of_a_variable_of_nnx(attribute: str) -> None:
    jax = imported("jax")
    imported("optax")

    module = trainers.load(FORMATS[FormatName.OPTAX].write(export_of_leaves(), Settings()).text)
    keys = jax.tree_util.DictKey, jax.tree_util.GetAttrKey
    path = [keys[0](part) for part in ("params", "Block_0", "Dense_0", "kernel")]
    label = module._label((*path, keys[1](attribute)), None)
    assert {name: factor for _, name, factor, _ in module.GROUPS}[label] == 0.5


def test_layers_of_a_stacked_array_have_their_own_multipliers_and_one_label_if_they_are_equal() -> (
    None
):
    jax, optax = imported("jax"), imported("optax")

    def module_of(*factors: float, decay: float = 1.0) -> Any:
        rows = tuple(
            ExportRow(f"blocks.{i}.Dense_0.kernel", "blocks.*.Dense_0.kernel", factor, decay)
            for i, factor in enumerate(factors)
        )
        export = Export((*rows, ExportRow("head.kernel", "head.kernel", 2.0, decay)), ())
        return trainers.load(
            FORMATS[FormatName.OPTAX].write(export, Settings(weight_decay=0.1)).text
        )

    ones = jax.numpy.ones((3, 2), jax.numpy.bfloat16)
    tree = {"blocks": {"Dense_0": {"kernel": ones}}, "head": {"kernel": jax.numpy.ones(2)}}
    module = module_of(0.5, 1.0, 0.25)
    for axis, leaf in ((0, ones), (1, ones.T)):
        params = {**tree, "blocks": {"Dense_0": {"kernel": leaf}}}
        transform = optax.chain(optax.sgd(1.0), module.scale_by_multipliers(axis))
        updates, _ = jax.jit(transform.update)(params, transform.init(params), params)
        found = updates["blocks"]["Dense_0"]["kernel"]
        assert found.dtype == ones.dtype
        assert jax.numpy.moveaxis(found, axis, 0)[:, 1].tolist() == [-0.5, -1.0, -0.25]
        assert updates["head"]["kernel"].tolist() == [-2.0, -2.0]
    labels = module_of(0.5, 0.5, 0.5).param_labels(tree)
    assert labels["blocks"]["Dense_0"]["kernel"] != labels["head"]["kernel"]
    with pytest.raises(ValueError, match=r"stacks 3 layers whose values differ.* scale_by_mult"):
        module.param_labels(tree)
    with pytest.raises(ValueError, match=r"one label; export it again with --per-role"):
        module_of(0.5, 1.0, 0.25, decay=2.0).param_labels(tree)
    with pytest.raises(ValueError, match=r"has the shape \(3, 2\), and this file has 2 layers for"):
        module_of(0.5, 1.0).scale_by_multipliers().update(tree, optax.EmptyState())


def test_a_leaf_without_a_multiplier_is_refused() -> None:
    jax = imported("jax")
    imported("optax")
    module = trainers.load(FORMATS[FormatName.OPTAX].write(export_of_leaves(), Settings()).text)
    with pytest.raises(ValueError, match=r"params\.new has no multiplier in this file"):
        module.param_labels({"params": {"new": jax.numpy.ones(1)}})


def page_model(width: int) -> nn.ModuleDict:
    return nn.ModuleDict({
        "embed": nn.Embedding(4, width),
        "layers": nn.ModuleList(nn.Linear(width, width) for _ in range(2)),
        "head": nn.Linear(width, 4, bias=False),
    })


def groups_of(net: nn.Module) -> fslr.torch.ModelGroups:
    return fslr.torch.ModelGroups(net, torch.optim.AdamW(net.parameters()))


@pytest.fixture
def page(
    cli: Cli,
    client: AdvisorClient,
    project: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> nn.ModuleDict:
    """Run the page's commands in a folder of their own, and return the model of the layout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = content_message()
    content.layout.CopyFrom(groups_of(page_model(4)).layout())
    for point in content.points:
        point.unit_rates[:] = [1.0] * len(content.layout.groups)
    save_profile(content, "char-gpt.yaml")
    client.register_profile("char-gpt", content, project=project)
    client.set_alias("char-gpt", "prod", project=project)
    big = page_model(16)
    layout = groups_of(big).layout()
    save_layout(layout, "layout.json")
    opening = pb.RunOpening(
        profile=profile_name("char-gpt", project),
        run=run_name("big-run", project),
        layout=layout,
        total_steps=10,
        base_learning_rate=3e-4,
    )
    session = client.open_run(opening)
    session.recommend(pb.Measurement(unit_rates=[1.0] * len(layout.groups)))
    session.close()
    eventually(lambda: any(True for _ in client.list_runs(project=project)))
    lines = [line for line in commands(PAGE) if line.startswith("advisor export")]
    assert len(lines) >= 6
    for line in lines:
        cli.run(*shlex.split(line)[1:])
    return big


def test_the_page_shows_how_files_are_used(page: nn.ModuleDict) -> None:
    transformers, optax = map(imported, ("transformers", "optax"))
    names: dict[str, Any] = {
        "Trainer": transformers.Trainer,
        "TrainingArguments": lambda **k: transformers.TrainingArguments(use_cpu=True, **k),
        "model": page,
        "optax": optax,
        "torch": torch,
    }
    code = _NEEDS_FILES.findall(PAGE.read_text("utf-8"))
    assert len(code) == 3
    for block in code:
        exec(compile(block, str(PAGE), "exec"), names)
    hidden = page["layers"].get_parameter("1.weight")
    names["trainer"].create_optimizer()
    for optimizer in (names["optimizer"], names["trainer"].optimizer):
        (found,) = (
            group["lr"]
            for group in optimizer.param_groups
            if any(parameter is hidden for parameter in group["params"])
        )
        assert found == pytest.approx(3e-4 / 4)  # four times as wide as the base
    params = {name.replace(".", "/"): 1.0 for name, _ in page.named_parameters()}
    updates, _ = names["tx"].update(params, names["tx"].init(params), params)
    assert updates["layers/1/weight"] / updates["embed/weight"] == pytest.approx(1 / 4)
    groups = import_module("deepspeed_rates").model_parameters(page)
    assert sorted(group["lr"] for group in groups) == pytest.approx([3e-4 / 4, 3e-4])


def test_the_page_lists_every_format_with_its_version() -> None:
    table = _VERSIONS.findall(PAGE.read_text("utf-8"))
    assert dict(table) == {name.value: known.version for name, known in FORMATS.items()}
