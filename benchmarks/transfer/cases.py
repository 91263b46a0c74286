"""The cases of the transfer benchmark, in full and in quick form.

``docs/decisions/0023-cases-that-choose-and-cases-that-claim.md`` says which of them choose the
default method and which the claim is made on. :data:`CHOOSING` is that split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from benchmarks.transfer.optimizers import OptimizerName
from benchmarks.transfer.settings import ModelName, Setting

AxisName = Literal[
    "width",
    "depth",
    "width_depth",
    "init_scale",
    "lora_rank",
    "sequence_length",
    "batch_size",
    "duration",
    "experts",
]
AXES: tuple[AxisName, ...] = get_args(AxisName)
_SEEDS = tuple(range(5))
_FEW_SEEDS = (0, 1, 2)  # of the most expensive trainings
# Losses on digits are close to zero, where seeds differ by more than octaves. Trainings are short.
_DIGITS_SEEDS = tuple(range(8))


@dataclass(frozen=True, slots=True)
class Case:
    """A transfer from a base to a big model.

    Attributes:
        axis: The size that grows.
        optimizer: The optimizer of both models.
        base: The model on which the learning rate is tuned and the profile recorded.
        big: The model that uses them.
        octaves: log2 of the learning rates that sweeps start with.
        steps: Optimizer steps of the big model's trainings, and of the base's.
        seeds: Seeds of every training.
        weight_decay: Coefficient of AdamW's weight decay; None for PyTorch's default.
        base_steps: Optimizer steps of the base's trainings; None for those of the big model.
        finer_octaves: Octaves between the learning rates that are added near an optimum.
    """

    axis: AxisName
    optimizer: OptimizerName
    base: Setting
    big: Setting
    octaves: tuple[int, ...]
    steps: int = 150
    seeds: tuple[int, ...] = _SEEDS
    weight_decay: float | None = None
    base_steps: int | None = None
    finer_octaves: float = 0.25

    @property
    def steps_of_base(self) -> int:
        """Optimizer steps of the base's trainings."""
        return self.base_steps or self.steps

    @property
    def model(self) -> ModelName:
        """The kind of model of both."""
        return self.base.model

    @property
    def name(self) -> str:
        """Axis, model and optimizer, which identify the case."""
        return f"{self.axis} {self.model} {self.optimizer}"


def _octaves(high: int, low: int) -> tuple[int, ...]:
    return tuple(range(high, low - 1, -1))


_ADAM = _octaves(-4, -9)
_GPT = Setting("char_gpt_pre", width=16)
_POST = replace(_GPT, model="char_gpt_post")
_POST_MOD = replace(_GPT, model="char_gpt_post_mod")
_MLP = Setting("res_mlp", width=32, depth=4, batch_size=32)
_CONV = Setting("conv_net", width=8, batch_size=32)
_LORA = Setting("lora_gpt", width=64, rank=1)
_LARGE = Setting("char_gpt_pre", width=32, context=64, batch_size=20)
_MOE = Setting("moe_gpt", width=32, experts=2)
_LONG_STEPS = 2000
_LONG_DECAY = 0.1


def _wide(
    base: Setting, optimizer: OptimizerName, octaves: tuple[int, ...], steps: int = 150
) -> Case:
    big = replace(base, width=8 * base.width)
    return Case("width", optimizer, base, big, octaves, steps)


def _deep(base: Setting, optimizer: OptimizerName, octaves: tuple[int, ...]) -> Case:
    base = replace(base, depth=2)
    return Case("depth", optimizer, base, replace(base, depth=16), octaves)


_CASES = (
    replace(_wide(_LARGE, "Adam", _ADAM, steps=200), seeds=_FEW_SEEDS),
    _wide(_POST, "Adam", _ADAM),
    _wide(_POST_MOD, "Adam", _ADAM),
    _wide(_GPT, "SGD", _octaves(1, -4)),
    _wide(_GPT, "Adagrad", _octaves(-2, -7)),
    replace(_wide(_GPT, "Muon", _ADAM), seeds=_FEW_SEEDS),  # its bfloat16 is slow on CPUs
    _wide(_MLP, "Adam", _octaves(-5, -10)),
    _wide(_MLP, "SGD", _octaves(0, -5)),
    _wide(_CONV, "Adam", _octaves(-3, -8)),
    _wide(_CONV, "SGD", _octaves(0, -5)),
    _deep(replace(_GPT, width=32), "Adam", _ADAM),
    _deep(replace(_POST, width=32), "Adam", _ADAM),
    _deep(replace(_POST_MOD, width=32), "Adam", _ADAM),
    _deep(_MLP, "Adam", _octaves(-5, -10)),
    Case("width_depth", "Adam", _GPT, replace(_GPT, width=64, depth=8), _ADAM),
    Case(
        "width_depth",
        "Adam",
        replace(_MLP, depth=2),
        replace(_MLP, width=256, depth=16),
        _octaves(-5, -10),
    ),
    Case(
        "init_scale",
        "Adam",
        replace(_GPT, width=64),
        replace(_GPT, width=64, init_scale=8.0),
        _ADAM,
    ),
    Case(
        "init_scale",
        "Adam",
        replace(_MLP, width=128),
        replace(_MLP, width=128, init_scale=8.0),
        _octaves(-5, -10),
    ),
    Case(
        "sequence_length",
        "Adam",
        replace(_GPT, width=32, context=16),
        replace(_GPT, width=32, context=128),
        _ADAM,
    ),
    Case(
        "batch_size",
        "Adam",
        replace(_GPT, width=32, batch_size=4),
        replace(_GPT, width=32, batch_size=32),
        _ADAM,
    ),
    Case(
        "batch_size",
        "SGD",
        replace(_MLP, width=64, batch_size=4),
        replace(_MLP, width=64, batch_size=32),
        _octaves(-2, -7),
    ),
    Case(
        "duration",
        "Adam",
        replace(_GPT, width=32),
        replace(_GPT, width=32),
        _ADAM,
        steps=1200,
        base_steps=150,
    ),
    Case("experts", "Adam", _MOE, replace(_MOE, experts=8), _ADAM),
)


def _long(axis: AxisName, base: Setting, big: Setting, base_steps: int | None = None) -> Case:
    return Case(
        axis,
        "AdamW",
        base,
        big,
        _ADAM,
        _LONG_STEPS,
        _FEW_SEEDS,
        weight_decay=_LONG_DECAY,
        base_steps=base_steps,
        finer_octaves=0.5,
    )


_GPT_32 = replace(_GPT, width=32)
_MOE_16 = replace(_MOE, width=16)
# Sizes grow 4 times, not 8 times as in short cases, and the steps near an optimum are half octaves,
# not quarters: all of these cases have to be affordable.
_LONG_CASES = (
    _long("width", _GPT, replace(_GPT, width=64)),
    _long("width", _POST, replace(_POST, width=64)),
    _long("width", _MOE_16, replace(_MOE_16, width=64)),
    _long("depth", _GPT, replace(_GPT, depth=8)),
    _long("depth", _POST_MOD, replace(_POST_MOD, depth=8)),
    _long("width_depth", _GPT, replace(_GPT, width=32, depth=8)),
    _long("init_scale", _GPT_32, replace(_GPT_32, init_scale=8.0)),
    _long("sequence_length", replace(_GPT, context=16), replace(_GPT, context=64)),
    _long("batch_size", replace(_GPT, batch_size=4), replace(_GPT, batch_size=16)),
    _long("duration", _GPT, _GPT, base_steps=_LONG_STEPS // 8),
    _long("experts", _MOE_16, replace(_MOE_16, experts=8)),
    replace(_long("lora_rank", _LORA, replace(_LORA, rank=16)), octaves=_octaves(-3, -8)),
)
CASES = (
    *(case if case.base.reads_text else replace(case, seeds=_DIGITS_SEEDS) for case in _CASES),
    *_LONG_CASES,
)

_BPE = Setting("bpe_gpt", width=64, depth=4, context=128, batch_size=8, vocabulary=2048)
LARGER = Case(
    "width_depth",
    "AdamW",
    _BPE,
    replace(_BPE, width=512, depth=8),
    (-6, -7, -8, -9),
    steps=300,
    seeds=(0,),
    weight_decay=_LONG_DECAY,
)
"""The larger case: 0.5 million parameters, scaled to 27 million, in whole octaves, run once."""

_LONG_PARTS: dict[str, tuple[AxisName, ...]] = {
    "long-width": ("width", "init_scale", "lora_rank"),
    "long-depth": ("depth",),
    "long-mixed": ("width_depth", "sequence_length", "batch_size", "duration"),
    "long-experts": ("experts",),
}
PARTS = ("short", *_LONG_PARTS)
"""Parts of the cases that each fit a night on 2 cores; the Makefile has the hours."""

CHOOSING = frozenset({
    "width char_gpt_pre Adam",
    "width char_gpt_post Adam",
    "width char_gpt_pre SGD",
    "width res_mlp Adam",
    "width conv_net SGD",
    "depth char_gpt_pre Adam",
    "depth res_mlp Adam",
    "width_depth char_gpt_pre Adam",
    "init_scale res_mlp Adam",
    "sequence_length char_gpt_pre Adam",
    "batch_size char_gpt_pre Adam",
    "duration char_gpt_pre Adam",
})
"""Names of the cases that choose the default method. The others make the claim."""


def part_of(case: Case) -> str:
    """Return the part that a case is measured in.

    Args:
        case: A full case.
    """
    if case.steps < _LONG_STEPS:
        return "short"
    return next(part for part, axes in _LONG_PARTS.items() if case.axis in axes)


_QUICK_SEEDS = (0, 1)
_QUICK_STEPS = 40
_QUICK_MODELS: dict[AxisName, ModelName] = {
    "width": "char_gpt_pre",
    "depth": "char_gpt_pre",
    "width_depth": "res_mlp",
    "init_scale": "res_mlp",
    "lora_rank": "lora_gpt",
    "sequence_length": "char_gpt_pre",
    "batch_size": "char_gpt_pre",
    "duration": "char_gpt_pre",
    "experts": "moe_gpt",
}


def quick(case: Case) -> Case:
    """Return a case with two seeds, fewer steps and octaves, and a smaller model than the largest.

    Args:
        case: A full case.
    """
    if case == LARGER:
        small = replace(_BPE, width=16, depth=2, vocabulary=512, context=32)
        return replace(case, base=small, big=replace(small, width=64, depth=4), steps=_QUICK_STEPS)
    if case.base == _LARGE:
        case = replace(case, base=_GPT, big=replace(_GPT, width=8 * _GPT.width))
    shorter = case.steps_of_base / case.steps
    base_steps = None if case.base_steps is None else round(_QUICK_STEPS * shorter)
    return replace(
        case,
        octaves=case.octaves[1:-1],  # a sweep goes on beyond them if its best is at an edge
        seeds=_QUICK_SEEDS,
        steps=_QUICK_STEPS,
        base_steps=base_steps,
    )


def chosen_cases(
    axis: str | None = None,
    model: str | None = None,
    optimizer: str | None = None,
    part: str | None = None,
    *,
    is_quick: bool = False,
) -> list[Case]:
    """Return the cases with the given axis, model, optimizer and part.

    Args:
        axis: The axis; None for any.
        model: The kind of model; None for any.
        optimizer: The optimizer; None for any.
        part: The part that they are measured in; None for any.
        is_quick: Whether to return quick forms, and only one case per axis if neither model nor
            optimizer is given.
    """
    matching = [
        case
        for case in CASES
        if axis in {None, case.axis}
        and model in {None, case.model}
        and optimizer in {None, case.optimizer}
        and part in {None, part_of(case)}
    ]
    if not is_quick:
        return matching
    if model is None and optimizer is None:
        first: dict[str, Case] = {}
        for case in matching:
            if case.model == _QUICK_MODELS[case.axis]:
                first.setdefault(case.axis, case)
        matching = list(first.values())
    return [quick(case) for case in matching]
