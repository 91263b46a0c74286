"""The shipped recipes have the values of their sources.

The tables here are written down as in the sources: with the multipliers that the models of the
sources have in their code. ``Published.without_multiplier`` moves a multiplier into the weights,
which ``test_multipliers`` proves to be the same training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import pytest

from advisor.policy.optimizer_families import optimizer_family
from advisor.recipes import Field, Ratio, shipped_recipe, shipped_recipe_names
from advisor.recipes.multipliers import POWERS_OF_MULTIPLIER
from tests.unit.recipes.layouts import applied, factors_of, mixture, transformer

N, L, B, D = 4.0, 3.0, 2.0, 5.0  # growth of width, depth, batch and tokens
BASE = transformer(64, 2)
RUN = transformer(256, 6)
MIXTURE_BASE, MIXTURE = mixture(32, 2), mixture(128, 6)
PARTS = {
    "embedding": "tokens.weight",
    "norm": "blocks.1.norm.weight",
    "hidden": "blocks.2.attn.qkv.weight",
    "hidden bias": "blocks.3.attn.qkv.bias",
    "query norm": "blocks.3.attn.q_norm.weight",
    "branch output": "blocks.4.attn.out_proj.weight",
    "branch output bias": "blocks.0.attn.out_proj.bias",
    "up": "blocks.5.mlp.fc1.weight",
    "down": "blocks.5.mlp.fc2.weight",
    "final norm": "norm.weight",
    "readout": "head.weight",
}
PARTS_OF_MIXTURE = {
    "input": "stem.weight",
    "convolution": "blocks.1.conv1.weight",
    "convolution output": "blocks.2.conv2.weight",
    "router": "blocks.3.moe.router.weight",
    "expert up": "blocks.4.moe.experts.1.w1.weight",
    "expert down": "blocks.5.moe.experts.0.w2.weight",
}
MODELS = ((RUN, BASE, PARTS), (MIXTURE, MIXTURE_BASE, PARTS_OF_MIXTURE))
BRANCH_OUTPUTS = {
    *("branch output", "branch output bias", "down"),
    *("convolution output", "expert down"),
}
# In the sources, what convolutions and experts are follows from which of their dimensions grow.
MATRICES = {
    *("hidden", "branch output", "up", "down"),
    *("convolution", "convolution output", "expert up", "expert down"),
}
READOUTS = {"readout", "router"}
BLOCK_VECTORS = {"norm", "hidden bias", "query norm", "branch output bias"}


@dataclass(frozen=True)
class Published:
    """The factors of one part as a source gives them, relative to the base.

    ``decay`` is on the coefficient of AdamW; ``init`` on the standard deviation; ``multiplier``
    on the output of the layer; ``beta`` on 1 - beta of both moments.
    """

    lr: float = 1.0
    init: float = 1.0
    multiplier: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0
    beta: float = 1.0

    def without_multiplier(self, optimizer: str) -> dict[Field, float]:
        powers = POWERS_OF_MULTIPLIER[optimizer_family(optimizer)]
        found = {
            Field.LEARNING_RATE: self.lr,
            Field.WEIGHT_DECAY: self.decay,
            Field.EPSILON: self.epsilon,
            Field.ONE_MINUS_BETA1: self.beta,
            Field.ONE_MINUS_BETA2: self.beta,
            Field.INITIAL_SCALE: self.init,
        }
        moved = {f: v * self.multiplier ** powers.get(f, 0.0) for f, v in found.items()}
        return {field: value for field, value in moved.items() if value != pytest.approx(1)}


def mup_package(part: str, optimizer: str) -> Published:
    """Rules of the package mup 1.0: MuAdamW, MuSGD, MuReadout and set_base_shapes.

    They count the dimensions that differ from the base: with two, a tensor is like a matrix.
    """
    name = (PARTS | PARTS_OF_MIXTURE)[part]
    group = next(g for run in (RUN, MIXTURE) for g in run.groups if g.name == name)
    bases = (*BASE.groups, *MIXTURE_BASE.groups)
    base = next(base.shape for base in bases if base.role == group.role)
    grown = [a / b for a, b in zip(group.shape, base, strict=True) if a != b]
    if len(grown) == 2:  # like a matrix: PyTorch's shapes are (fan_out, fan_in)
        fan_out, fan_in = grown
        if optimizer == "SGD":
            ratio = fan_in / fan_out
            return Published(lr=1 / ratio, decay=ratio, init=fan_in**-0.5)
        return Published(lr=1 / fan_in, decay=fan_in, init=fan_in**-0.5)
    width = grown[0] if grown else 1.0
    lr, decay = (width, 1 / width) if optimizer == "SGD" else (1.0, 1.0)
    # The readout starts with a variance of 1 / fan_in, times its growth, times the multiplier.
    multiplier = 1 / width if part in READOUTS else 1.0
    return Published(lr=lr, decay=decay, multiplier=multiplier)


def depth_mup(part: str, optimizer: str) -> Published:
    """2310.02244, as stated in 2505.01618, table 1 with alpha = 1 / 2.

    Branches are multiplied by 1 / sqrt(L), Adam's learning rates in blocks, too.
    """
    wide = mup_package(part, optimizer)
    in_block = part in MATRICES | BLOCK_VECTORS | {"router"}
    return Published(
        lr=wide.lr * (L**-0.5 if in_block and optimizer == "AdamW" else 1.0),
        init=wide.init,
        multiplier=wide.multiplier * (L**-0.5 if part in BRANCH_OUTPUTS else 1.0),
        decay=wide.decay,
    )


def depth_standard(part: str, optimizer: str) -> Published:
    """2407.05872, standard parametrization, full alignment; depth as in depth_mup.

    Its learning rates are N ** -c, with c by layer of embedding, hidden and readout: 0, 1 and 1 for
    Adam, -1/2, 1/2 and 1 for SGD. Their product with the decay does not depend on the width.
    """
    width = 1.0 if part == "query norm" else N
    kind = 1 if part in MATRICES else 2 if part in READOUTS else 0
    lr = width ** -((0, 1, 1) if optimizer == "AdamW" else (-0.5, 0.5, 1))[kind]
    deep = depth_mup(part, optimizer)
    return Published(
        lr=lr * deep.lr / mup_package(part, optimizer).lr,
        init=width ** (0, -0.5, -0.5)[kind],
        multiplier=L**-0.5 if part in BRANCH_OUTPUTS else 1.0,
        decay=1 / lr,
    )


def complete_p(part: str, _optimizer: str, alpha: float = 1.0) -> Published:
    """2505.01618, table 1, with m_N and m_L written N and L."""
    branch = L**-alpha if part in BRANCH_OUTPUTS else 1.0
    if part in MATRICES:
        return Published(
            lr=N**-1 * L ** (alpha - 1),
            init=N**-0.5,
            multiplier=branch,
            decay=N,
            epsilon=N**-1 * L**-alpha,
        )
    if part in BLOCK_VECTORS:
        width = (
            1.0 if part == "query norm" else N
        )  # the source has none; the gradient keeps its size
        return Published(
            lr=L ** (alpha - 1), multiplier=branch, epsilon=width**-1 * L**-alpha
        )  # fmt: skip
    if part == "router":  # the source has none; it has muP's rule, and its epsilon is unchanged
        return Published(lr=N**-1, init=N**-1, decay=N)
    return Published(multiplier=N**-1) if part == "readout" else Published()


def completed_p(part: str, _optimizer: str, alpha: float = 1.0) -> Published:
    """2512.22382, table 1, with m_N, m_L, m_B and m_D written N, L, B and D."""
    time = sqrt(B / D)
    branch = L**-alpha if part in BRANCH_OUTPUTS else 1.0
    variance = {"hidden": N**-1, "readout": N**-2}
    lr = {"hidden": N**-1 * L ** (alpha - 1), "block vector": L ** (alpha - 1), "readout": N**-1}
    epsilon = {
        "hidden": N**-1 * L**-alpha,
        "block vector": N**-1 * L**-alpha,
        "query norm": L**-alpha,
        "embedding": N**-1,
    }
    decay = {"hidden": N, "readout": N}
    kinds = {"input": "embedding", "router": "readout"}  # the source has no router
    kind = (
        "hidden"
        if part in MATRICES
        else "block vector"
        if part in BLOCK_VECTORS
        else kinds.get(part, part)
    )
    return Published(
        lr=lr.get(kind, 1.0) * time,
        init=sqrt(variance.get(kind, 1.0)),
        multiplier=branch,
        decay=decay.get(kind, 1.0) * time,
        epsilon=epsilon.get(part, epsilon.get(kind, 1.0)) / time,
        beta=B / D,
    )


def muon(part: str, _optimizer: str) -> Published:
    """2512.05620 and train.py of its authors; the decay there is the product with lr, 1 / width."""
    branch = 1 / L if part in BRANCH_OUTPUTS else 1.0
    if part in MATRICES:
        lr = sqrt(N / N)
        decay, epsilon = (1 / N) / lr, sqrt(N / N) / L
        return Published(lr=lr, init=N**-0.5, multiplier=branch, decay=decay, epsilon=epsilon)
    if part in READOUTS:
        return Published(lr=1 / N, init=1 / N, decay=(1 / N) / (1 / N))
    width = 1.0 if part == "query norm" else N
    depth = L if part in BLOCK_VECTORS else 1.0
    return Published(multiplier=branch, decay=1 / width, epsilon=1 / width / depth)


def muon_matched_rms(part: str, optimizer: str) -> Published:
    """As muon; the optimizer multiplies a step by sqrt(max(fan_in, fan_out)), which grows by N."""
    found = muon(part, optimizer)
    if part not in MATRICES:
        return found
    lr = found.lr / sqrt(N)
    return Published(lr, found.init, found.multiplier, (1 / N) / lr, found.epsilon)


def square_root(_part: str, _optimizer: str) -> Published:
    """2205.10287, as stated in the batch column of 2512.22382, with the ratio written B."""
    return Published(lr=sqrt(B), beta=B, epsilon=1 / sqrt(B))


def standard(part: str, _optimizer: str) -> Published:
    """2203.03466, table 3, in parentheses."""
    return Published(init=N**-0.5 if part in MATRICES | READOUTS else 1.0)


Source = Callable[[str, str], Published]
SOURCES: Mapping[tuple[str, str], Source] = {
    ("mup-adam", "AdamW"): mup_package,
    ("mup-sgd", "SGD"): mup_package,
    ("depth-mup", "AdamW"): depth_mup,
    ("depth-mup", "SGD"): depth_mup,
    ("depth-standard", "AdamW"): depth_standard,
    ("depth-standard", "SGD"): depth_standard,
    ("completep", "AdamW"): complete_p,
    ("completed-p", "AdamW"): completed_p,
    ("muon", "Muon"): muon,
    ("muon-matched-rms", "Muon"): muon_matched_rms,
    ("square-root-batch", "AdamW"): square_root,
    ("standard", "AdamW"): standard,
}


def test_each_shipped_recipe_is_compared_with_its_source() -> None:
    assert {name for name, _ in SOURCES} == {*shipped_recipe_names()}


@pytest.mark.parametrize(("name", "optimizer"), list(SOURCES))
def test_factors_are_those_of_the_source(name: str, optimizer: str) -> None:
    recipe = shipped_recipe(name)
    given = {Ratio.BATCH: B, Ratio.TOKENS: D}
    for run, base, parts in MODELS:
        found = applied(recipe, run, base, optimizer=optimizer, given=given)
        assert found.has_rule.all()
        for part, group in parts.items():
            published = SOURCES[name, optimizer](part, optimizer).without_multiplier(optimizer)
            assert factors_of(found, run, group) == pytest.approx(published), part


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("standard", "AdamW"),
        ("mup-adam", "AdamW"),
        ("mup-sgd", "SGD"),
        ("depth-mup", "AdamW"),
        ("depth-mup", "SGD"),
        ("depth-standard", "AdamW"),
        ("depth-standard", "SGD"),
    ],
)
def test_inputs_start_with_a_variance_of_one_over_their_fan_in(name: str, optimizer: str) -> None:
    """2203.03466, table 3; with more channels, all other factors stay the same."""
    recipe, group = shipped_recipe(name), PARTS_OF_MIXTURE["input"]
    found = applied(recipe, MIXTURE, MIXTURE_BASE, optimizer=optimizer)
    wider = mixture(128, 6, channels=6)
    grown = applied(recipe, wider, MIXTURE_BASE, optimizer=optimizer)
    expected = {**factors_of(found, MIXTURE, group), Field.INITIAL_SCALE: 2**-0.5}
    assert factors_of(grown, wider, group) == pytest.approx(expected)


def test_steps_of_muon_follow_both_fans() -> None:
    """Authors' train.py: (dout / din) ** 0.5; _muon.py: eps * (din / dout) ** 0.5 / N."""
    run = transformer(256, 6, expansion=9)
    found = applied(shipped_recipe("muon"), run, BASE, optimizer="Muon")
    grown_in, grown_out = 4.0, 9.0  # of 64 -> 256 and 256 -> 2304
    assert factors_of(found, run, PARTS["up"]) == pytest.approx({
        Field.LEARNING_RATE: sqrt(grown_out / grown_in),
        Field.WEIGHT_DECAY: (1 / grown_in) / sqrt(grown_out / grown_in),
        Field.EPSILON: sqrt(grown_in / grown_out) / L,
        Field.INITIAL_SCALE: grown_in**-0.5,
    })


@pytest.mark.parametrize("name", ["muon", "muon-matched-rms"])
def test_matrices_that_adam_updates_have_its_rule_in_the_recipes_of_muon(name: str) -> None:
    """Authors' train.py: 1 / din for Adam; the product with the decay is 1 / width for all."""
    transformer_run = transformer(256, 6, optimizer_of_matrices="AdamW")
    mixture_run = mixture(128, 6, optimizer_of_matrices="AdamW")
    for run, (_, base, parts) in zip((transformer_run, mixture_run), MODELS, strict=True):
        found = applied(shipped_recipe(name), run, base, optimizer="Muon")
        for part in MATRICES & parts.keys():
            published = Published(
                lr=1 / N,
                init=N**-0.5,
                multiplier=1 / L if part in BRANCH_OUTPUTS else 1.0,
                decay=(1 / N) / (1 / N),
                epsilon=1 / N / L,
            ).without_multiplier("AdamW")
            assert factors_of(found, run, parts[part]) == pytest.approx(published), part
