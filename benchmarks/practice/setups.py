"""The training setups of the practice benchmark, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

InitialWeights = Literal["pytorch", "gpt2", "zero_projections", "mup"]
"""How the weights start.

``pytorch``: PyTorch's defaults. ``gpt2``: std 0.02, and 0.02 / sqrt(2 L) for the projections of L
blocks into the residual stream. ``zero_projections``: as ``gpt2``, with projections of zero.
``mup``: embeddings of std 0.02, hidden matrices of std 1 / sqrt(fan-in), a head of zero
(arXiv 2203.03466, appendix B; its multipliers of outputs are not used).
"""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of GPT, without its size.

    Attributes:
        initial: How the weights start.
        tied: Whether the head and the embedding of characters share their weight.
        norm: ``layer``: LayerNorm; ``rms``: RMSNorm.
        feed_forward: ``gelu``: two matrices, 4 times as wide; ``swiglu``: three, 3 times as wide.
        positions: Learned embeddings, or rotary ones.
        placement: Where a block normalizes, before or after its branch; ``post`` as in the first
            transformer.
        biases: Whether linear layers have biases.
    """

    initial: InitialWeights = "gpt2"
    tied: bool = True
    norm: Literal["layer", "rms"] = "layer"
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    positions: Literal["learned", "rotary"] = "learned"
    placement: Literal["pre", "post"] = "pre"
    biases: bool = True


@dataclass(frozen=True, slots=True)
class Procedure:
    """How a model is trained.

    Attributes:
        optimizer: ``AdamW`` with betas 0.9 and 0.95, or ``Muon``: Muon for the matrices in blocks
            and this AdamW for the rest.
        schedule: Warm-up, then ``cosine`` decay to a tenth, or ``wsd``: constant, with a linear
            decay to zero over the last fifth. ``constant``: no warm-up.
        warm_up: Part of the steps over which the learning rate rises.
        weight_decay: Decoupled weight decay of all matrices; vectors have none.
        clip: Largest norm of the gradients; None to not clip.
        accumulation: Micro-batches of a step.
        micro_batch: Sequences of a micro-batch.
        context: Characters of a sequence.
        bf16: Whether forward passes run in bfloat16 autocast.
        steps: Optimizer steps.
    """

    optimizer: Literal["AdamW", "Muon"] = "AdamW"
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warm_up: float = 0.1
    weight_decay: float = 0.1
    clip: float | None = 1.0
    accumulation: int = 1
    micro_batch: int = 12
    context: int = 32
    bf16: bool = False
    steps: int = 300


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a model.

    Attributes:
        width: Channels of the residual stream, a multiple of 8.
        blocks: Number of blocks.
    """

    width: int
    blocks: int = 2


_BASE, _WIDE, _WIDE_AND_DEEP = Size(24), Size(96), Size(96, 8)
_TINY_BASE, _TINY = Size(16), Size(64)  # for what is slow on a processor


@dataclass(frozen=True, slots=True)
class Setup:
    """A training setup: what is trained, and how, on a base and on a big model.

    Attributes:
        name: Its name.
        architecture: The kind of model.
        procedure: How it is trained.
        base: Size of the base.
        big: Size of the big model.
        base_hidden_scale: Factor on the initial matrices of the base's blocks.
        octaves_above: Octaves from the base's best learning rate to the one in use.
    """

    name: str
    architecture: Architecture = field(default_factory=Architecture)
    procedure: Procedure = field(default_factory=Procedure)
    base: Size = _BASE
    big: Size = _WIDE
    base_hidden_scale: float = 1.0
    octaves_above: int = 0


_GPT2 = Architecture()
_PYTORCH = Architecture(initial="pytorch", tied=False)
_LLAMA = Architecture(
    tied=False, norm="rms", feed_forward="swiglu", positions="rotary", biases=False
)
_USUAL = Procedure()
_ACCUMULATED = Procedure(accumulation=4, micro_batch=4)

SETUPS: tuple[Setup, ...] = (
    Setup("pytorch", _PYTORCH),
    Setup("gpt2-tied", _GPT2),
    Setup("gpt2-untied", replace(_GPT2, tied=False), _ACCUMULATED),
    Setup("zero-projections", replace(_GPT2, initial="zero_projections")),
    Setup("base-hidden-0.04", _GPT2, base_hidden_scale=2.0),
    Setup("rms-swiglu-rotary", _LLAMA),
    Setup("gpt2-deep", _GPT2, big=_WIDE_AND_DEEP),
    Setup("gpt2-octave-above", _GPT2, octaves_above=1),
    Setup("mup-wsd", replace(_GPT2, initial="mup", tied=False), replace(_USUAL, schedule="wsd")),
    Setup("muon", _LLAMA, replace(_USUAL, optimizer="Muon", schedule="wsd"), _TINY_BASE, _TINY),
    Setup("post-norm", replace(_PYTORCH, placement="post"), _ACCUMULATED),
    Setup("decay-0.3-long", _GPT2, replace(_USUAL, weight_decay=0.3, steps=1000)),
    Setup(
        "constant-no-decay",
        _PYTORCH,
        replace(_USUAL, schedule="constant", weight_decay=0.0, clip=None),
    ),
    Setup("bf16", replace(_GPT2, tied=False), replace(_USUAL, bf16=True), _TINY_BASE, _TINY),
    Setup(
        "zero-projections-rms-wsd",
        replace(_LLAMA, initial="zero_projections"),
        replace(_USUAL, schedule="wsd", weight_decay=0.0),
    ),
    Setup("pytorch-octave-above", _PYTORCH, replace(_USUAL, clip=None), octaves_above=1),
    Setup(
        "rms-swiglu-rotary-2000-steps",
        replace(_LLAMA, tied=True),
        replace(_USUAL, steps=2000),
        _TINY_BASE,
        _TINY,
    ),
    Setup(
        "mup-rms-deep",
        replace(_LLAMA, initial="mup"),
        big=_WIDE_AND_DEEP,
    ),
)
"""All setups, the most common ones first."""
