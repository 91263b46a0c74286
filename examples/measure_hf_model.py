"""Measure a Hugging Face model while it trains: a table of its layers, and a chart of their shares.

    pip install '.[torch]' transformers matplotlib rich
    python examples/measure_hf_model.py

It trains a tiny, randomly initialized GPT-2 on Python's own documentation for a minute at most, and
asks what each tensor's step did to the logits. No advisor is needed to look.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table
from transformers import GPT2Config, GPT2LMHeadModel

import fslr.torch

mpl.use("agg")
from matplotlib import pyplot as plt

_SHOWN = 12  # layers in the table, those with the largest shares


def text() -> torch.Tensor:
    """Return Python's help topics as bytes."""
    return torch.tensor(list("".join(topics.values()).encode()), dtype=torch.int64)


def train(steps: int, examples: int) -> fslr.torch.Recorder:
    """Train a tiny GPT-2, measuring every tenth step."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=64,
        n_embd=64,
        n_layer=3,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = fslr.torch.MeasuringOptions(output="logits", probes=4)
    data = text()
    with fslr.torch.Recorder(model, optimizer, every=10, options=options) as recorder:
        for _ in range(steps):
            starts = torch.randint(0, len(data) - 64, (examples,))
            tokens = data[starts[:, None] + torch.arange(64)]
            logits = model(input_ids=tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return recorder


def table(names: list[str], estimate: fslr.torch.RateEstimate, order: list[int]) -> Table:
    """Return the layers with the largest shares, largest first."""
    shown = Table("tensor", "unit rate", "relative error", "share of the change")
    shares = estimate.shares or [0.0] * len(names)
    for i in order[:_SHOWN]:
        shown.add_row(
            names[i],
            f"{estimate.unit_rates[i]:.3g}",
            f"{estimate.relative_errors[i]:.0%}",
            f"{shares[i]:+.1%}",
        )
    return shown


def draw(names: list[str], shares: list[float], file: Path) -> None:
    """Draw the shares as bars, in the model's order."""
    figure, axes = plt.subplots(figsize=(8, 0.22 * len(names) + 1.2), layout="constrained")
    axes.barh(names, shares, color=["tab:blue" if s >= 0 else "tab:orange" for s in shares])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the squared change of the logits in one step")
    axes.set_title("What each tensor of a tiny GPT-2 contributes", loc="left")
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Train, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=51, help="optimizer steps")
    parser.add_argument("--examples", type=int, default=16, help="sequences a batch")
    parser.add_argument("--out", type=Path, default=Path("out/shares.png"), help="the chart")
    options = parser.parse_args()
    recorder = train(options.steps, options.examples)
    estimate = recorder.estimate
    if estimate is None or estimate.shares is None or estimate.total_rate is None:
        raise SystemExit("nothing moved, so there is nothing to show; train for a step at least")
    shares = estimate.shares
    names = [group.name.removeprefix("transformer.") for group in recorder.groups]
    order = sorted(range(len(names)), key=lambda i: -abs(shares[i]))
    console = Console()
    console.print(table(names, estimate, order))
    if len(names) > _SHOWN:
        console.print(f"and {len(names) - _SHOWN} more")
    linearity = estimate.linearity_error
    console.print(
        f"All together moved the logits by {estimate.total_rate:.3g} (RMS) in one step"
        + ("" if linearity is None else f", {linearity:.0%} of it beyond first order")
        + f". Slow groups: {', '.join(recorder.slow_groups) or 'none'}."
    )
    draw(names, shares, options.out)
    console.print(f"Chart: {options.out}")


if __name__ == "__main__":
    main()
