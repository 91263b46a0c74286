"""Builds the models of settings and draws their batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.char_gpt import CharGPT, CharGPTConfig, NormPlacement
from benchmarks.digits import draw_digits
from benchmarks.image_models import ResMLP, SmallConvNet
from benchmarks.text import load_corpus, load_tokens
from benchmarks.training import loss_of
from benchmarks.transfer.lora import with_adapters
from benchmarks.transfer.settings import ModelName, Setting

_PLACEMENTS: dict[ModelName, NormPlacement] = {
    "char_gpt_pre": "pre",
    "char_gpt_post": "post",
    "char_gpt_post_mod": "post_mod",
    "lora_gpt": "pre",
    "moe_gpt": "pre",
    "bpe_gpt": "pre",
}
_PRETRAINING_STEPS = 300
_PRETRAINING_LEARNING_RATE = 2.0**-7


@dataclass(frozen=True, slots=True)
class Task:
    """A model and the data that it is trained on.

    Attributes:
        model: The model, with initial weights from torch's global generator.
        draw: Draws the inputs and targets of a batch.
    """

    model: nn.Module
    draw: Callable[[torch.Generator], tuple[Tensor, Tensor]]


def build_task(setting: Setting) -> Task:
    """Build the model of a setting, with the data that it is trained on.

    Args:
        setting: The setting.
    """
    if setting.model in _PLACEMENTS:
        return _text_task(setting)
    model = (
        ResMLP(width=setting.width, blocks=setting.depth)
        if setting.model == "res_mlp"
        else SmallConvNet(setting.width)
    )
    scale_initial_weights(model, setting.init_scale)
    return Task(model, draw_digits(setting.batch_size))


def _text_task(setting: Setting) -> Task:
    corpus = (
        load_tokens(setting.vocabulary)
        if setting.model == "bpe_gpt"
        else load_corpus("sources" if setting.model == "lora_gpt" else setting.documents)
    )
    config = CharGPTConfig(
        len(corpus.vocabulary),
        setting.width,
        setting.depth,
        setting.context,
        norm=_PLACEMENTS[setting.model],
        experts=setting.experts,
    )
    if setting.model == "lora_gpt":
        model = with_adapters(copy.deepcopy(_pretrained(config)), setting.rank)
    else:
        model = CharGPT(config)
        scale_initial_weights(model, setting.init_scale)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return corpus.batch(corpus.train, setting.batch_size, setting.context, generator)

    return Task(model, draw)


def residual_outputs(model: nn.Module) -> tuple[str, ...]:
    """Return patterns of the tensors that write into the residual stream.

    Args:
        model: A model of a setting.

    Returns:
        The patterns; empty if the tensors' names say it.
    """
    return ("blocks.*.1.*",) if isinstance(model, ResMLP) else ()


def scale_initial_weights(model: nn.Module, factor: float) -> None:
    """Multiply the feed-forward weights in the blocks of a model, in place.

    Args:
        model: A character GPT or a residual MLP.
        factor: The factor.

    Raises:
        ValueError: The factor is not 1, and the model has no such layers.
    """
    if factor == 1.0:
        return
    layers = [
        module
        for name, module in model.named_modules()
        if name.startswith("blocks.") and isinstance(module, nn.Linear) and "attention" not in name
    ]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no feed-forward layers in blocks to scale by {factor:g}; "
            "use the factor 1"
        )
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(factor)


@cache
def _pretrained(config: CharGPTConfig) -> CharGPT:
    """Train a model on the help topics; the adapters then learn the sources."""
    corpus = load_corpus("topics")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CharGPT(config)
    batches = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=_PRETRAINING_LEARNING_RATE)
    for _ in range(_PRETRAINING_STEPS):
        loss = loss_of(model, *corpus.batch(corpus.train, 16, config.context, batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
