"""Models, optimizers and trainings of the transfer benchmark."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from benchmarks import text
from benchmarks.char_gpt import Block, CharGPT, CharGPTConfig, NormPlacement
from benchmarks.image_models import ResMLP, SmallConvNet
from benchmarks.text import Corpus
from benchmarks.transfer import models
from benchmarks.transfer.cases import CASES, LARGER, Case, quick
from benchmarks.transfer.lora import LoRALinear, with_adapters
from benchmarks.transfer.models import build_task, scale_initial_weights
from benchmarks.transfer.optimizers import OPTIMIZERS, OptimizerName, build_optimizer
from benchmarks.transfer.parametrization import Factors
from benchmarks.transfer.settings import Setting
from benchmarks.transfer.training import Recording, Training, run_training
from fslr.advisor.v1 import profile_pb2

CONFIG = CharGPTConfig(vocabulary=20, width=32, blocks=2, context=8)
TINY = Setting("res_mlp", width=8, depth=2, batch_size=8)


@pytest.mark.parametrize("placement", ["pre", "post", "post_mod"])
def test_norms_are_at_the_positions_of_the_placement(placement: NormPlacement) -> None:
    torch.manual_seed(0)
    block = Block(replace(CONFIG, norm=placement))
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = stream = torch.randn(3, 8, 32)

    def fed(x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = block.down(nn.functional.gelu(block.up(x)))
        return inner

    for branch, norm in ((block.attention, block.norm1), (fed, block.norm2)):
        expected = {
            "pre": lambda y, f=branch, n=norm: y + f(n(y)),
            "post": lambda y, f=branch, n=norm: n(y + f(y)),
            "post_mod": lambda y, f=branch, n=norm: y + n(f(y)),
        }
        stream = expected[placement](stream)
    torch.testing.assert_close(block(x), stream)


def test_a_post_norm_model_has_no_final_norm() -> None:
    final = {p: CharGPT(replace(CONFIG, norm=p)).norm for p in ("pre", "post", "post_mod")}
    assert [type(norm) for norm in final.values()] == [nn.LayerNorm, nn.Identity, nn.LayerNorm]


def test_examples_of_the_small_conv_net_do_not_interact() -> None:
    model = SmallConvNet(8)
    images = torch.randn(4, 1, 8, 8)
    assert model(images).shape == (4, 10)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_models_have_the_sizes_of_their_settings(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_pretrained", CharGPT)
    for setting in (case.base, case.big):
        task = build_task(setting)
        inputs, targets = task.draw(torch.Generator().manual_seed(0))
        assert len(inputs) == setting.batch_size
        logits = task.model(inputs)
        assert logits.shape[:-1] == targets.shape
        blocks = getattr(task.model, "blocks", None)
        assert blocks is None or len(blocks) == setting.depth
        widths = {p.shape[0] for p in task.model.parameters() if p.ndim > 1}
        assert setting.width in widths
        assert logits.ndim == 2 or targets.shape[1] == setting.context


def test_the_larger_case_has_the_stated_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = torch.arange(1000)
    monkeypatch.setattr(models, "load_tokens", lambda size: Corpus(indices, indices, ("x",) * size))

    def parameters(setting: Setting) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in build_task(setting).model.parameters())

    assert 0.4e6 < parameters(LARGER.base) < 0.6e6
    assert parameters(LARGER.big) >= 20e6
    assert LARGER.steps >= 300
    assert parameters(quick(LARGER).big) < 0.4e6


def test_tokens_are_trained_on_training_documents_and_give_the_text_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = [f"def f{i}(value):\n    return value\n" for i in range(20)]
    monkeypatch.setattr(text, "_texts", lambda: {"all": documents})
    corpus = text.load_tokens.__wrapped__(270)
    assert len(corpus.vocabulary) == 270
    words = "".join(corpus.vocabulary[i] for i in corpus.validation)
    assert words.replace("Ġ", " ").replace("Ċ", "\n") == documents[0] + documents[10]
    assert len(corpus.validation) < len(words) / 2
    with pytest.raises(ValueError, match="a vocabulary of 255 has no token for each byte; use 256"):
        text.load_tokens(255)


def test_only_feed_forward_weights_in_blocks_are_scaled() -> None:
    torch.manual_seed(0)
    model = CharGPT(CONFIG)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scale_initial_weights(model, 4.0)
    for name, parameter in model.named_parameters():
        scaled = name.endswith(("up.weight", "down.weight"))
        torch.testing.assert_close(parameter.detach(), before[name] * (4 if scaled else 1))


def test_initial_weights_of_a_model_without_blocks_cannot_be_scaled() -> None:
    with pytest.raises(
        ValueError, match=r"SmallConvNet has no feed-forward layers .* use the factor 1"
    ):
        scale_initial_weights(SmallConvNet(8), 2.0)


def test_an_adapted_model_starts_as_the_frozen_one_and_trains_only_its_adapters() -> None:
    torch.manual_seed(0)
    model = CharGPT(CONFIG)
    indices = torch.randint(20, (2, 8))
    frozen = model(indices)
    with_adapters(model, 4)
    torch.testing.assert_close(model(indices), frozen)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer("AdamW", model, 0.01, {})
    for _ in range(2):  # the first step moves only B, since A has no gradient while B is zero
        optimizer.zero_grad()
        model(indices).square().sum().backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    adapters = {n for n in before if n.endswith((".a.weight", ".b.weight"))}
    assert moved == adapters
    assert len(adapters) == 2 * 4 * CONFIG.blocks
    assert {before[n].shape[0] for n in adapters if n.endswith(".a.weight")} == {4}


def test_an_adapter_adds_its_product_times_alpha_over_rank() -> None:
    layer = LoRALinear(nn.Linear(6, 5), rank=2, alpha=8.0)
    nn.init.normal_(layer.b.weight)
    x = torch.randn(3, 6)
    weight = layer.frozen.weight + 4 * layer.b.weight @ layer.a.weight
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.frozen.bias))


def test_muon_is_used_only_for_the_matrices_in_blocks() -> None:
    model = CharGPT(CONFIG)
    optimizer = build_optimizer("Muon", model, 0.01, {})
    muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert {name.split(".", 2)[2] for name in names} == {
        *("attention.qkv.weight", "attention.out.weight", "up.weight", "down.weight")
    }
    total = sum(len(group["params"]) for group in optimizer.param_groups)
    assert total == len(list(model.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_scales_only_the_step_of_its_parameter(name: OptimizerName) -> None:
    def first_step(learning_rates: dict[str, float]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = ResMLP(width=8, blocks=1)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        factors = {n: Factors(learning_rate=factor) for n, factor in learning_rates.items()}
        optimizer = build_optimizer(name, model, 0.01, factors)
        model(torch.randn(4, 64)).square().sum().backward()
        optimizer.step()
        return {n: p.detach() - before[n] for n, p in model.named_parameters()}

    plain, scaled = first_step({}), first_step({"blocks.0.1.weight": 0.5, "head.bias": 3.0})
    factors = {"blocks.0.1.weight": 0.5, "head.bias": 3.0}
    for parameter, change in plain.items():
        assert change.abs().max() > 0
        torch.testing.assert_close(
            scaled[parameter], change * factors.get(parameter, 1.0), rtol=1e-3, atol=1e-6
        )


@dataclass(frozen=True)
class FrozenHead:
    name: str = "frozen head"

    def prepare(self, model: nn.Module, setting: Setting, base: Setting) -> dict[str, Factors]:
        assert (setting.width, base.width) == (8, 4)
        with torch.no_grad():
            model.get_parameter("head.weight").zero_()
            model.get_parameter("head.bias").zero_()
        frozen = Factors(learning_rate=0.0)
        return {"head.weight": frozen, "head.bias": frozen}


TRAINING = Training(TINY, TINY, "Adam", 2.0**-7, 20, 0)


def test_a_training_is_reproducible_after_any_other_training() -> None:
    first = run_training(TRAINING)
    run_training(replace(TRAINING, seed=5))
    again = run_training(pickle.loads(pickle.dumps(TRAINING)))  # as sent to a worker process
    assert again.losses == first.losses
    assert run_training(replace(TRAINING, seed=5)).losses != first.losses
    assert run_training(replace(TRAINING, recording=Recording(every=5))).losses == first.losses


def test_a_parametrization_prepares_the_model_and_its_learning_rates() -> None:
    frozen = replace(TRAINING, base=replace(TINY, width=4), parametrization=FrozenHead())
    assert run_training(frozen).losses == pytest.approx([math.log(10)] * 20)
    assert run_training(TRAINING).losses[-1] < 2.1


def test_a_training_that_diverges_ends_without_a_profile() -> None:
    diverging = replace(
        TRAINING, optimizer="SGD", learning_rate=1e12, recording=Recording(every=100)
    )
    result = run_training(diverging)
    assert result.loss == math.inf
    assert len(result.losses) < 20
    assert result.content == b""


def test_a_recorded_training_returns_its_profile() -> None:
    content = run_training(replace(TRAINING, recording=Recording(every=10))).content
    profile = profile_pb2.ProfileContent.FromString(content)
    assert [point.step for point in profile.points] == [0, 10]
    assert profile.provenance.width == 8
    assert profile.base_learning_rate == 2.0**-7
