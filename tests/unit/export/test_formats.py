"""Every format gives each parameter its learning rate and weight decay, by the trainer's rule."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.export import axolotl
from advisor.export.errors import ExportError
from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings, keeping_decay
from tests.unit.export import trainers

SETTINGS = Settings(learning_rate=1e-3, min_learning_rate=1e-4, weight_decay=0.1)
ROLES = ("norm.weight", "attn.qkv.weight", "mlp.up.weight", "mlp.up.bias")
NAMES = [
    "embed_tokens.weight",
    *(f"layers.{i}.{role}" for i in range(12) for role in ROLES),
    "lm_head.weight",
]
VECTORS = frozenset(name for name in NAMES if "norm" in name or "bias" in name)
FACTORS = (0.125, 0.25, 1.0, 2.0)
OTHERS = ["layers.12.attn.qkv.weight", "layers.1.attn.qkv.weight.1", "xlayers.0.norm.weight"]


def export_of(multipliers: dict[str, float]) -> Export:
    rows = (
        ExportRow(
            name=name,
            role=name if "layers" not in name else f"layers.*.{name.split('.', 2)[2]}",
            multiplier=multiplier,
            is_vector=name in VECTORS,
            outcome="matched",
        )
        for name, multiplier in multipliers.items()
    )
    return Export(tuple(rows), ("From run big",))


_MULTIPLIERS = st.fixed_dictionaries({name: st.sampled_from(FACTORS) for name in NAMES})


def write(name: str, export: Export, settings: Settings = SETTINGS) -> str:
    written = FORMATS[FormatName(name)].write(export, settings)
    assert not written.losses
    return written.text


@pytest.mark.compatibility("torchtitan", "learning rates", "weight decay")
@given(_MULTIPLIERS, st.booleans())
def test_torchtitan_gives_each_parameter_its_settings(
    multipliers: dict[str, float], keeps_decay: bool
) -> None:
    export = export_of(multipliers)
    export = keeping_decay(export, SETTINGS) if keeps_decay else export
    found = trainers.torchtitan(write("torchtitan", export), NAMES + OTHERS, eps=1e-8)
    assert found.keys() == set(NAMES)
    for name, factor in multipliers.items():
        decay = 0.1 / factor if keeps_decay else 0.1
        assert found[name] == {
            "optimizer": "AdamW",
            "lr": pytest.approx(1e-3 * factor),
            "weight_decay": pytest.approx(decay),
            "eps": 1e-8,
        }


def test_torchtitan_finds_blocks_under_activation_checkpointing() -> None:
    from torch import nn
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    blocks = nn.ModuleList(checkpoint_wrapper(nn.Linear(2, 2)) for _ in range(3))
    model = nn.ModuleDict({"layers": blocks, "head": nn.Linear(2, 2)})
    wrapped = [name for name, _ in model.named_parameters()]
    assert "layers.1._checkpoint_wrapped_module.weight" in wrapped
    plain = [name.replace("_checkpoint_wrapped_module.", "") for name in wrapped]
    rows = tuple(ExportRow(name, name, 1 + i) for i, name in enumerate(plain))
    text = write("torchtitan", Export(rows, ()))
    for names in (wrapped, plain):
        found = trainers.torchtitan(text, names)
        learning_rates = [found[name]["lr"] for name in names]
        assert learning_rates == pytest.approx([1e-3 * (1 + i) for i in range(len(names))])


def test_a_parameter_group_of_torchtitan_has_all_parameters_with_equal_settings() -> None:
    multipliers = {name: 0.5 if "mlp" in name else 1.0 for name in NAMES}
    assert write("torchtitan", export_of(multipliers)).count("ParamGroupConfig(") == 2


@pytest.mark.compatibility(
    "torchtitan", "several optimizers", refused="its groups name one optimizer"
)
def test_torchtitan_has_no_group_for_other_optimizers() -> None:
    export = export_of(dict.fromkeys(NAMES, 1.0))
    for optimizers in (["Muon"], ["Muon", "Lion"]):
        own = [
            replace(row, optimizer=name) for row, name in zip(export.rows, optimizers, strict=False)
        ]
        rows = (*own, *export.rows[len(own) :])
        (loss,) = FORMATS[FormatName.TORCHTITAN].write(replace(export, rows=rows), SETTINGS).losses
        named = (
            f"{len(own)} of {len(NAMES)} parameters are updated by {', '.join(sorted(optimizers))}"
        )
        assert f"{named}; give --optimizer" in loss


@pytest.mark.compatibility("nemo-automodel", "learning rates", "weight decay")
@given(_MULTIPLIERS, st.booleans())
def test_nemo_automodel_gives_each_parameter_its_factors(
    multipliers: dict[str, float], keeps_decay: bool
) -> None:
    export = export_of(multipliers)
    export = keeping_decay(export, SETTINGS) if keeps_decay else export
    text = write("nemo-automodel", export, Settings())
    found = trainers.nemo_automodel(text, NAMES + OTHERS)
    for name, factor in multipliers.items():
        assert found[name] == (factor, 1 / factor if keeps_decay else 1.0)
    assert {found[name] for name in OTHERS} == {(1.0, 1.0)}


@pytest.mark.compatibility("megatron-lm", "learning rates", "weight decay")
@given(_MULTIPLIERS, st.booleans(), st.sampled_from(["", "module.", "module.module."]))
def test_megatron_lm_gives_each_parameter_its_settings(
    multipliers: dict[str, float], keeps_decay: bool, prefix: str
) -> None:
    export = export_of(multipliers)
    export = keeping_decay(export, SETTINGS) if keeps_decay else export
    text = write("megatron-lm", export)
    found = trainers.megatron_lm(text, NAMES + OTHERS, vectors=VECTORS, prefix=prefix)
    for name, factor in multipliers.items():
        given_values = found[name]
        assert given_values.get("max_lr", 1e-3) == pytest.approx(1e-3 * factor)
        assert given_values.get("min_lr", 1e-4) == pytest.approx(1e-4 * factor)
        decay = 0.0 if name in VECTORS else 1 / factor if keeps_decay else 1.0
        assert given_values.get("wd_mult", 1.0) == decay
    assert [found[name] for name in OTHERS] == [{}, {}, {}]


def test_megatron_lm_refuses_layers_that_differ_under_pipeline_parallelism() -> None:
    multipliers = dict.fromkeys(NAMES, 0.5)
    text = write("megatron-lm", export_of(multipliers))
    assert trainers.megatron_module(text, pipeline_stages=2).config_overrides({})
    text = write("megatron-lm", export_of(multipliers | {"layers.3.mlp.up.weight": 2.0}))
    module = trainers.megatron_module(text, pipeline_stages=2)
    with pytest.raises(ValueError, match="export with --per-role"):
        module.config_overrides({})
    assert trainers.megatron_module(text).config_overrides({})


def test_megatron_lm_reports_a_parameter_without_a_learning_rate() -> None:
    from torch import nn

    multipliers = {"head.weight": 1.0, "head.bias": 0.5}
    module = trainers.megatron_module(write("megatron-lm", export_of(multipliers)))
    model = nn.ModuleDict({"head": nn.Linear(2, 2)})
    module.check([model])
    model["other"] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"other\.weight has no learning rate in this file"):
        module.check([model])
    model["other"].requires_grad_(requires_grad=False)
    module.check([model])


@pytest.mark.compatibility("axolotl", "learning rates")
@given(_MULTIPLIERS)
def test_axolotl_gives_each_parameter_its_learning_rate_or_reports_a_loss(
    multipliers: dict[str, float],
) -> None:
    written = axolotl.write(export_of(multipliers), SETTINGS)
    found = trainers.axolotl(written.text, NAMES, VECTORS)
    embeddings = {multipliers["embed_tokens.weight"], multipliers["lm_head.weight"]}
    vectors = {multipliers[name] for name in VECTORS}
    assert len(written.losses) == (len(embeddings) > 1) + (len(vectors) > 1)
    for name, factor in multipliers.items():
        same = embeddings if name in NAMES[::49] else vectors if name in VECTORS else {factor}
        if len(same) == 1:
            assert found[name] == pytest.approx(1e-3 * factor)
        else:
            assert 1e-3 * min(same) <= found[name] <= 1e-3 * max(same)


def test_axolotl_expresses_one_value_of_norms_and_one_of_embeddings() -> None:
    multipliers = {name: 0.5 if name in VECTORS else 0.125 for name in NAMES}
    multipliers |= {"embed_tokens.weight": 2.0, "lm_head.weight": 2.0}
    text = write("axolotl", export_of(multipliers))
    found = trainers.axolotl(text, NAMES, VECTORS)
    assert found == pytest.approx({name: 1e-3 * factor for name, factor in multipliers.items()})
    assert text.count("modules:") == 1  # all matrices of blocks are one group


@pytest.mark.compatibility("axolotl", "weight decay", refused="one weight decay for all parameters")
def test_axolotl_says_that_it_has_one_weight_decay() -> None:
    multipliers = {name: 0.5 if name in VECTORS else 0.125 for name in NAMES}
    multipliers |= {"embed_tokens.weight": 2.0, "lm_head.weight": 2.0}
    same = keeping_decay(export_of(multipliers), SETTINGS)
    assert "weight_decay: 0.8\n" in write("axolotl", same)
    multipliers["layers.3.mlp.up.weight"] = 2.0
    written = axolotl.write(keeping_decay(export_of(multipliers), SETTINGS), SETTINGS)
    assert "axolotl has no weight decay per group" in written.losses[0]
    assert "weight_decay: 0.1\n" in written.text


@pytest.mark.compatibility("pytorch", "learning rates", "weight decay")
def test_pytorch_groups_name_each_parameter_once() -> None:
    multipliers = {name: FACTORS[i % 4] for i, name in enumerate(NAMES)}
    groups = json.loads(write("pytorch", export_of(multipliers)))["groups"]
    assert len(groups) == len(FACTORS)
    found = {
        name: (group["options"]["lr"], group["options"]["weight_decay"])
        for group in groups
        for name in group["names"]
    }
    assert sum(len(group["names"]) for group in groups) == len(NAMES)
    assert found == {name: (1e-3 * factor, 0.1) for name, factor in multipliers.items()}


@pytest.mark.compatibility("csv", "learning rates", "weight decay")
def test_csv_has_a_line_for_each_parameter() -> None:
    multipliers = {name: FACTORS[i % 4] for i, name in enumerate(NAMES)}
    text = write("csv", export_of({**multipliers, 'odd,"name': 1.0}), Settings())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["name"]: float(row["multiplier"]) for row in rows} == {
        **multipliers,
        'odd,"name': 1.0,
    }
    assert {row["learning_rate"] for row in rows} == {""}
    (first, *_) = csv.DictReader(io.StringIO(write("csv", export_of(multipliers))))
    assert (first["learning_rate"], first["weight_decay"]) == ("0.000125", "0.1")


def test_vectors_may_have_no_weight_decay() -> None:
    settings = replace(SETTINGS, vectors_decay=False)
    export = export_of(dict.fromkeys(NAMES, 0.5))
    found = trainers.torchtitan(write("torchtitan", export, settings), NAMES)
    assert {name for name in NAMES if found[name]["weight_decay"] == 0} == VECTORS
    factors = trainers.nemo_automodel(write("nemo-automodel", export, settings), NAMES)
    assert {name for name in NAMES if factors[name] == (0.5, 0.0)} == VECTORS


@pytest.mark.parametrize("name", [name for name, f in FORMATS.items() if f.is_absolute])
def test_a_format_with_absolute_values_needs_the_base_learning_rate(name: FormatName) -> None:
    with pytest.raises(ExportError, match="give --learning-rate, the largest one"):
        FORMATS[name].write(export_of({"a.weight": 0.5}), Settings())


@pytest.mark.parametrize("name", ["torchtitan", "deepspeed", "pytorch", "axolotl"])
def test_a_policy_that_keeps_decay_needs_the_weight_decay(name: str) -> None:
    settings = Settings(learning_rate=1e-3)
    export = keeping_decay(export_of({"a.weight": 0.5}), settings)
    with pytest.raises(ExportError, match="give --weight-decay"):
        FORMATS[FormatName(name)].write(export, settings)


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_header_names_version_and_origin(name: FormatName) -> None:
    text = FORMATS[name].write(export_of({"a.weight": 0.5}), SETTINGS).text
    if name is FormatName.CSV:
        assert text.startswith("name,role,")
        return
    assert f"The format is that of {FORMATS[name].version}" in text
    assert "From run big." in text


@pytest.mark.compatibility(
    "nemo-automodel", "several optimizers", refused="the trainer has one optimizer"
)
@pytest.mark.compatibility(
    "megatron-lm", "several optimizers", refused="the trainer has one optimizer"
)
@pytest.mark.compatibility("axolotl", "several optimizers", refused="the trainer has one optimizer")
@pytest.mark.compatibility(
    "hf-trainer", "several optimizers", refused="the trainer has one optimizer"
)
@pytest.mark.compatibility(
    "deepspeed", "several optimizers", refused="the trainer has one optimizer"
)
@pytest.mark.compatibility("optax", "several optimizers", refused="the trainer has one optimizer")
@pytest.mark.parametrize(
    "name", ["nemo-automodel", "megatron-lm", "axolotl", "hf-trainer", "deepspeed", "optax"]
)
def test_a_second_optimizer_is_a_loss_where_a_trainer_has_one(name: str) -> None:
    rows = (ExportRow("a.weight", "a", 0.5, optimizer="Muon"), ExportRow("b.weight", "b", 1.0))
    written = FORMATS[FormatName(name)].write(Export(rows, ()), SETTINGS)
    assert "the parameters are updated by Muon, AdamW" in written.losses[0]
