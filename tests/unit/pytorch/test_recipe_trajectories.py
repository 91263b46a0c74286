"""A recipe needs no change of a model: trainings equal those with the factors in its code.

The reference has multipliers on its outputs and its residual branches, and an optimizer with a
group for each tensor, both as papers write them. The other training has neither: ``attach`` scales
its initial weights, and the steps of an ordinary optimizer. Both run in float64, so they differ by
rounding only, in each step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fslr import RunInfo
from fslr.torch import ModelGroups, attach
from tests.recipe_advisor import RecipeAdvisor

VOCABULARY, LENGTH, HEAD = 11, 6, 4
BASE_WIDTH, BASE_DEPTH = 8, 1
LEARNING_RATE, EPSILON, DECAY = 0.02, 1e-4, 0.3


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (-1, HEAD)).transpose(1, 2)
            for part in self.qkv_proj(x).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / HEAD)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    def __init__(self, width: int, branch: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = nn.ModuleDict({
            "up_proj": nn.Linear(width, 2 * width),
            "down_proj": nn.Linear(2 * width, width),
        })
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.branch * self.attn(self.norm1(x))
        hidden = functional.gelu(self.mlp["up_proj"](self.norm2(x)))
        out: Tensor = self.mlp["down_proj"](hidden)
        return x + self.branch * out


class Transformer(nn.Module):
    """A pre-norm transformer with factors in its code.

    Args:
        width: Its width.
        depth: Its number of blocks.
        branch: Factor on the output of each residual branch.
        output: Factor on the logits.
    """

    def __init__(self, width: int, depth: int, branch: float = 1.0, output: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, branch) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.output = output
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=0.2)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return self.output * logits


@dataclass(frozen=True)
class Factors:
    """What a paper multiplies of one tensor, in the form with multipliers in the model's code."""

    learning_rate: float = 1.0
    epsilon: float = 1.0
    decay: float = 1.0
    init: float = 1.0
    one_minus_beta: float = 1.0


@dataclass(frozen=True)
class Form:
    """A paper's parametrization, with factors in the model's code.

    Attributes:
        branch: Factor on the output of residual branches.
        output: Factor on the logits.
        of: The factors of a tensor by its kind: embedding, hidden, readout, vector or norm.
        ratios: How much larger the run is than its base in what layouts do not show.
    """

    branch: float
    output: float
    of: Mapping[str, Factors]
    ratios: Mapping[str, float] = field(default_factory=dict)


def kind_of(name: str) -> str:
    if "norm" in name or name.endswith("bias"):
        return "norm" if name.startswith("norm.") else "vector"
    return {"embed": "embedding", "head": "readout"}.get(name.split(".", maxsplit=1)[0], "hidden")


def mup_adam(width: float, depth: float) -> Form:
    """Tensor Programs V, table 8, with the output multiplier in the code; decay as in MuAdamW."""
    del depth
    hidden = Factors(learning_rate=1 / width, decay=width, init=width**-0.5)
    return Form(1.0, 1 / width, {"hidden": hidden})


def mup_sgd(width: float, depth: float) -> Form:
    """Tensor Programs V, table 8; the decay of a step stays what it is."""
    del depth
    vector = Factors(learning_rate=width, decay=1 / width)
    return Form(
        1.0,
        1 / width,
        {
            "embedding": vector,
            "vector": vector,
            "norm": vector,
            "hidden": Factors(init=width**-0.5),
            "readout": Factors(learning_rate=width, decay=1 / width),
        },
    )


def depth_mup_adam(width: float, depth: float) -> Form:
    """CompleteP's table with alpha = 1 / 2, which states the rule of Tensor Programs VI."""
    rate = depth**-0.5
    return Form(
        depth**-0.5,
        1 / width,
        {
            "vector": Factors(learning_rate=rate),
            "hidden": Factors(rate / width, decay=width, init=width**-0.5),
        },
    )


def depth_mup_sgd(width: float, depth: float) -> Form:
    """The same for SGD, whose learning rates do not depend on the depth."""
    return replace(mup_sgd(width, depth), branch=depth**-0.5)


def completep(width: float, depth: float) -> Form:
    """CompleteP, arXiv 2505.01618, table 1, with alpha = 1."""
    epsilon = 1 / (width * depth)
    return Form(
        1 / depth,
        1 / width,
        {
            "vector": Factors(epsilon=epsilon),
            "hidden": Factors(1 / width, epsilon, decay=width, init=width**-0.5),
        },
    )


def completed_p(width: float, depth: float) -> Form:
    """Complete(d)P, arXiv 2512.22382, table 1, with alpha = 1; a larger batch and more tokens."""
    batch, tokens = 2.0, 6.0
    time = sqrt(batch / tokens)
    kinds = {
        "embedding": Factors(epsilon=1 / width),
        "vector": Factors(epsilon=1 / (width * depth)),
        "hidden": Factors(1 / width, 1 / (width * depth), decay=width, init=width**-0.5),
        "norm": Factors(),
        "readout": Factors(1 / width, decay=width, init=1 / width),
    }
    timed = {
        kind: Factors(
            of.learning_rate * time, of.epsilon / time, of.decay * time, of.init, batch / tokens
        )
        for kind, of in kinds.items()
    }
    return Form(1 / depth, 1.0, timed, {"batch": batch, "tokens": tokens})


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 20
) -> list[list[Tensor]]:
    """Train a model and return its parameters before the first step and after each."""
    generator = torch.Generator().manual_seed(0)
    path = [[p.detach().clone() for p in model.parameters()]]
    for _ in range(steps):
        tokens = torch.randint(VOCABULARY, (8, LENGTH + 1), generator=generator)
        optimizer.zero_grad()
        logits = model(tokens[:, :-1])
        functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        path.append([p.detach().clone() for p in model.parameters()])
    return path


def rms_by_role(model: nn.Module) -> dict[str, float]:
    """Return the RMS of tensors by name without the number of a block, over all blocks."""
    squares: defaultdict[str, list[float]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        squares[role_of(name)].append(parameter.detach().square().mean().item())
    return {role: sqrt(fmean(each)) for role, each in squares.items()}


def role_of(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Adam": (torch.optim.Adam, {"eps": EPSILON, "betas": (0.9, 0.95)}),
    "AdamW": (torch.optim.AdamW, {"eps": EPSILON, "weight_decay": DECAY}),
    "SGD": (torch.optim.SGD, {"weight_decay": DECAY}),
    "SGD with momentum": (
        torch.optim.SGD,
        {"weight_decay": DECAY, "momentum": 0.9, "nesterov": True},
    ),
}


@pytest.mark.parametrize(
    ("recipe", "form", "optimizer", "width", "depth"),
    [
        ("mup-adam", mup_adam, "Adam", 4, 1),
        ("mup-adam", mup_adam, "AdamW", 2, 2),
        ("mup-sgd", mup_sgd, "SGD", 2, 1),
        ("depth-mup", depth_mup_adam, "Adam", 1, 3),
        ("depth-mup", depth_mup_adam, "AdamW", 2, 2),
        ("depth-mup", depth_mup_sgd, "SGD", 0.5, 4),
        ("depth-mup", depth_mup_sgd, "SGD with momentum", 2, 2),
        ("completep", completep, "AdamW", 1, 4),
        ("completep", completep, "AdamW", 4, 2),
        ("completed-p", completed_p, "AdamW", 2, 3),
    ],
)
def test_trajectories_equal_those_of_a_model_with_the_factors_in_its_code(
    recipe: str, form: Callable[[float, float], Form], optimizer: str, width: float, depth: int
) -> None:
    torch.manual_seed(0)
    base = Transformer(BASE_WIDTH, BASE_DEPTH)
    kind, options = OPTIMIZERS[optimizer]
    base_groups = ModelGroups(base, kind(base.parameters(), lr=LEARNING_RATE, **options))
    advisor = RecipeAdvisor(base_groups.layout(), optimizer=kind.__name__)

    plain = Transformer(int(width * BASE_WIDTH), depth * BASE_DEPTH)
    plain_optimizer = kind(plain.parameters(), lr=LEARNING_RATE, **options)
    written = form(width, depth)
    attachment = attach(
        *(plain, plain_optimizer),
        profile="x",
        advisor=advisor,
        recipe=recipe,
        initialize=True,
        run=RunInfo(ratios=written.ratios),
    )
    coded = Transformer(int(width * BASE_WIDTH), depth * BASE_DEPTH, written.branch, written.output)
    in_code = {
        name: written.output
        if name.startswith("head")
        else written.branch
        if "out_proj" in name or "down_proj" in name
        else 1.0
        for name, _ in coded.named_parameters()
    }
    factors = {name: written.of.get(kind_of(name), Factors()) for name in in_code}
    base_rms, plain_rms = rms_by_role(base), rms_by_role(plain)
    for name, multiplier in in_code.items():
        wanted = base_rms[role_of(name)] * factors[name].init * multiplier
        assert plain_rms[role_of(name)] == pytest.approx(wanted, rel=1e-6), name
    with torch.no_grad():
        for (name, ours), theirs in zip(coded.named_parameters(), plain.parameters(), strict=True):
            ours.copy_(theirs / in_code[name])
    coded_optimizer = kind([
        {"params": [parameter], **settings_of(options, factors[name])}
        for name, parameter in coded.named_parameters()
    ])
    path = train(plain, plain_optimizer)
    coded_path = train(coded, coded_optimizer)
    attachment.close()
    for i, (name, multiplier) in enumerate(in_code.items()):
        for now, coded_now in zip(path[1:], coded_path[1:], strict=True):
            moved = (now[i] - path[0][i]).abs().max()
            assert (now[i] - coded_now[i] * multiplier).abs().max() < 1e-10 * moved, name
        assert moved > 1e-6, name


def settings_of(options: Mapping[str, Any], factors: Factors) -> dict[str, Any]:
    """Return the settings of a tensor's optimizer, as a paper writes them."""
    found = {**options, "lr": LEARNING_RATE * factors.learning_rate}
    if "eps" in options:
        found["eps"] = EPSILON * factors.epsilon
        betas = options.get("betas", (0.9, 0.999))
        found["betas"] = tuple(1 - (1 - beta) * factors.one_minus_beta for beta in betas)
    if "weight_decay" in options:
        found["weight_decay"] = DECAY * factors.decay
    return found
