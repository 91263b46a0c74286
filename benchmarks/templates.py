"""``python -m benchmarks templates``: record the profiles that come with the service."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from advisor.registry.merging import merge
from advisor.wire import content_from_proto, content_to_proto
from benchmarks.training import loss_of
from benchmarks.workloads import Workload, char_gpt, conv_net, res_mlp
from fslr import Provenance, save_profile
from fslr.advisor.v1 import profile_pb2
from fslr.torch import MeasuringOptions, Recorder

_FOLDER = Path(__file__).parents[1] / "advisor" / "registry" / "templates"
_GUIDELINES = Path(__file__).parent / "guidelines"
_STEPS, _INTERVAL_STEPS, _TAIL_STEPS = 400, 25, 40
_SEEDS = (0, 1, 2)

_console = Console()


@dataclass(frozen=True, slots=True)
class Template:
    """A profile to record, with its description.

    Attributes:
        name: Name of the profile and of its guideline.
        workload: Model and data.
        optimizer: Builds the optimizer.
        octaves: log2 of the learning rates of the sweep.
        model: Description of the model.
        width: Width of the model.
        depth: Number of blocks.
        dataset: Description of the data.
        labels: Labels of the profile.
        aliases: Names of parameters in other frameworks, each with the name in this model.
    """

    name: str
    workload: Workload
    optimizer: Callable[..., torch.optim.Optimizer]
    octaves: Sequence[int]
    model: str
    width: int
    depth: int
    dataset: str
    labels: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)


_GPT_2 = {
    "transformer.h.*.ln_1.**": "blocks.*.norm1.**",
    "transformer.h.*.attn.c_attn.**": "blocks.*.attention.qkv.**",
    "transformer.h.*.attn.c_proj.**": "blocks.*.attention.out.**",
    "transformer.h.*.ln_2.**": "blocks.*.norm2.**",
    "transformer.h.*.mlp.c_fc.**": "blocks.*.up.**",
    "transformer.h.*.mlp.c_proj.**": "blocks.*.down.**",
    "transformer.ln_f.**": "norm.**",
    "transformer.wte.weight": "characters.weight",
    "transformer.wpe.weight": "positions.weight",
    "lm_head.weight": "head.weight",
}
_FLAX = {
    "blocks_*/attention/**/kernel": "blocks.*.attention.**.weight",
    "blocks_*/attention/**/bias": "blocks.*.attention.**.bias",
    "blocks_*/norm1/scale": "blocks.*.norm1.weight",
    "blocks_*/norm1/bias": "blocks.*.norm1.bias",
    "blocks_*/norm2/scale": "blocks.*.norm2.weight",
    "blocks_*/norm2/bias": "blocks.*.norm2.bias",
    "blocks_*/**/kernel": "blocks.*.**.weight",
    "blocks_*/**/bias": "blocks.*.**.bias",
    "characters/embedding": "characters.weight",
    "positions/embedding": "positions.weight",
    "norm/scale": "norm.weight",
    "norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}


def _templates() -> list[Template]:
    return [
        Template(
            "transformer-pre-norm-adamw",
            char_gpt(width=64, blocks=4, examples=20),
            partial(torch.optim.AdamW, weight_decay=0.01),
            (-5, -6, -7, -8, -9),
            "decoder transformer, pre-norm, learned positions, untied head",
            64,
            4,
            "characters of the Python standard library's sources, 64 per sequence",
            {"architecture": "transformer", "norm": "pre", "task": "language-modelling"},
            {**_GPT_2, **_FLAX},
        ),
        Template(
            "residual-mlp-adam",
            res_mlp(),
            torch.optim.Adam,
            (-8, -9, -10, -11, -12),
            "residual MLP, pre-norm blocks of one linear layer and a ReLU",
            128,
            4,
            "scikit-learn's handwritten digits, 8 x 8",
            {"architecture": "residual-mlp", "norm": "pre", "task": "classification"},
        ),
        Template(
            "convnet-batch-norm-sgd",
            conv_net(),
            partial(torch.optim.SGD, momentum=0.9),
            (-2, -3, -4, -5, -6),
            "residual convolutional network in the shape of ResNet-18, batch norm",
            16,
            8,
            "scikit-learn's handwritten digits, 8 x 8",
            {"architecture": "convnet", "norm": "batch", "task": "classification"},
        ),
    ]


def _train(
    template: Template, learning_rate: float, seed: int, *, record: bool
) -> tuple[float, profile_pb2.ProfileContent | None]:
    """Train and return the mean loss of the last steps, and the recording if there is one."""
    torch.manual_seed(seed)
    model = template.workload.build()
    optimizer = template.optimizer(model.parameters(), lr=learning_rate)
    batches = torch.Generator().manual_seed(seed + 1)
    options = MeasuringOptions(probes=4, seed=seed)
    recorder = (
        Recorder(model, optimizer, every=_INTERVAL_STEPS, options=options) if record else None
    )
    losses: list[float] = []
    for _ in range(_STEPS):
        loss = loss_of(model, *template.workload.draw(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tail = statistics.fmean(losses[-_TAIL_STEPS:])
    if recorder is None:
        return tail, None
    recorder.close()
    return tail, recorder.profile(
        Provenance(
            model=template.model,
            width=template.width,
            depth=template.depth,
            dataset=template.dataset,
            batch_size=template.workload.examples,
            loss_name="cross-entropy",
            commit=f"fslr-advisor {version('fslr-advisor')}",
            author="the makers of fslr-advisor",
        ),
        labels={"kind": "template", **template.labels, "optimizer": _optimizer_name(template)},
    )


def _optimizer_name(template: Template) -> str:
    optimizer = template.optimizer([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return type(optimizer).__name__.lower()


def _record(template: Template) -> profile_pb2.ProfileContent:
    sweep: dict[int, float] = {}
    for octave in template.octaves:
        sweep[octave] = _train(template, 2.0**octave, _SEEDS[0], record=False)[0]
        _console.print(f"{template.name}: 2^{octave}: loss {sweep[octave]:.4f}")
    best = min(sweep, key=lambda octave: sweep[octave])
    recordings = [_train(template, 2.0**best, seed, record=True)[1] for seed in _SEEDS]
    merged = merge([content_from_proto(content) for content in recordings if content is not None])
    content = content_to_proto(merged)
    spreads = sorted(s for point in content.points for s in point.spreads)
    guideline = (_GUIDELINES / f"{template.name}.md").read_text("utf-8")
    content.docs = guideline.format(
        octave=best,
        sweep=", ".join(f"2^{octave}: {loss:.3f}" for octave, loss in sweep.items()),
        steps=_STEPS,
        seeds=len(_SEEDS),
        spread=f"{spreads[len(spreads) // 2]:.0%}",
    )
    for pattern, target in template.aliases.items():
        content.group_aliases.add(pattern=pattern, target=target)
    return content


def templates(
    only: Annotated[
        list[str] | None, typer.Argument(help="Names of templates. Default: all.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder to write to.")] = _FOLDER,
) -> None:
    """Tune, record and write the templates (about 3 minutes on 2 cores)."""
    for template in _templates():
        if only and template.name not in only:
            continue
        content = _record(template)
        save_profile(content, folder / f"{template.name}.yaml")
        _console.print(f"wrote {template.name}: {len(content.layout.groups)} groups")
