"""Small models in JAX, each with one use of parameters that is hard to measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from fslr.jax.estimators import ExactEstimator, LeafGroup, PerExampleEstimator, leaf_groups

SIGMAS = 5.0  # by chance, one group in two million exceeds it
ROUNDING = 1e-3
_PROBES_AT_ONCE, _MAX_PROBES = 40, 160
_DECISIVE_ERROR = 0.04  # a rate that is wrong by 20 % is off by five standard errors

Params = Any


@dataclass
class Case:
    """A model, a batch, and an update of all parameters whose elements have a common part."""

    apply: Callable[[Params, Any], Any]
    params: Params
    batch: Any
    stacked: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        leaves, structure = jax.tree.flatten(self.params)
        updates = [0.3 + normal(50 + n, *leaf.shape) for n, leaf in enumerate(leaves)]
        self.updates = jax.tree.unflatten(structure, updates)

    @property
    def groups(self) -> list[LeafGroup]:
        return leaf_groups(self.params, stacked=self.stacked)

    def exact(self, **options: Any) -> list[float]:
        estimator = ExactEstimator(self.apply, self.groups, **options)
        measured = estimator.measure(self.params, self.updates, self.batch, jax.random.key(0))
        return measured.estimate().unit_rates

    def estimator(self, **options: Any) -> PerExampleEstimator:
        return PerExampleEstimator(self.apply, self.groups, **options)


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    """Return weights whose products have the scale of their inputs, made without compiling."""
    scale = math.sqrt(shape[-2]) if len(shape) > 1 else 1.0
    values = np.random.default_rng(seed).standard_normal(shape) / scale
    return values.astype(np.float32)


def layer_norm(x: Array, scale: Array, shift: Array) -> Any:
    centered = x - x.mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt(centered.var(-1, keepdims=True) + 1e-5) * scale + shift


def mlp() -> Case:
    def apply(params: Params, x: Array) -> Any:
        x = jax.nn.relu(x @ params["in"]["kernel"] + params["in"]["bias"])
        x = layer_norm(x, params["norm"]["scale"], params["norm"]["bias"])
        return x @ params["out"]["kernel"] + params["out"]["bias"]

    params = {
        "in": {"kernel": normal(0, 5, 7), "bias": normal(1, 7)},
        "norm": {"scale": 1 + 0.1 * normal(2, 7), "bias": normal(3, 7)},
        "out": {"kernel": normal(4, 7, 3), "bias": normal(5, 3)},
    }
    return Case(apply, params, normal(6, 8, 5))


def scanned_mlp() -> Case:
    """Three stacked layers, which are scanned, and computed again in the backward pass."""

    def apply(params: Params, x: Array) -> Any:
        def layer(x: Array, block: Params) -> tuple[Array, None]:
            return x + jnp.tanh(x @ block["kernel"] + block["bias"]), None

        return jax.lax.scan(jax.checkpoint(layer), x, params["layers"])[0] @ params["head"]

    layers = {"kernel": normal(0, 3, 5, 5), "bias": normal(1, 3, 5)}
    params = {"head": normal(2, 5, 3), "layers": layers}
    return Case(apply, params, normal(3, 8, 5), {"layers": 0})


def cnn() -> Case:
    def apply(params: Params, x: Array) -> Any:
        for kernel in params["convolutions"]:
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = jnp.tanh(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x.reshape(len(x), -1) @ params["head"]

    kernels = [normal(0, 3, 3, 2, 4), normal(1, 3, 3, 4, 4)]
    params = {"convolutions": kernels, "head": normal(2, 16, 3)}
    return Case(apply, params, normal(3, 6, 4, 4, 2))


def attention(x: Array, qkv: Array, out: Array, heads: int = 2) -> Any:
    examples, length, width = x.shape
    query, key, value = (
        part.reshape(examples, length, heads, -1) for part in jnp.split(x @ qkv, 3, axis=-1)
    )
    logits = jnp.einsum("bthd,bshd->bhts", query, key) / math.sqrt(width / heads)
    seen = np.tril(np.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhts,bshd->bthd", weights, value)
    return mixed.reshape(examples, length, width) @ out


def gpt_block(x: Array, block: Params) -> Any:
    x = x + attention(layer_norm(x, block["scale"], block["bias"]), block["qkv"], block["out"])
    return x + jax.nn.gelu(x @ block["up"]) @ block["down"]


def gpt_params(layers: int, width: int = 8, words: int = 11, length: int = 5) -> Params:
    def stacked(seed: int, *shape: int) -> NDArray[np.float32]:
        return np.stack([normal(100 * layer + seed, *shape) for layer in range(layers)])

    blocks = {
        "scale": np.ones((layers, width), np.float32),
        "bias": np.zeros((layers, width), np.float32),
        "qkv": stacked(1, width, 3 * width),
        "out": stacked(2, width, width),
        "up": stacked(3, width, 2 * width),
        "down": stacked(4, 2 * width, width),
    }
    return {
        "embedding": normal(5, words, width) * 2,
        "positions": normal(6, length, width),
        "blocks": blocks,
        "final": np.ones(width, np.float32),
    }


def tokens(examples: int = 6, length: int = 5) -> NDArray[np.int32]:
    return np.random.default_rng(7).integers(0, 11, (examples, length), dtype=np.int32)


def tied_gpt() -> Case:
    """Embedding and head share one leaf; the layer is sliced from stacked leaves."""

    def apply(params: Params, x: Array) -> Any:
        hidden = params["embedding"][x] + params["positions"]
        hidden = gpt_block(hidden, jax.tree.map(lambda leaf: leaf[0], params["blocks"]))
        return (hidden * params["final"]) @ params["embedding"].T

    return Case(apply, gpt_params(1), tokens(), {"blocks": 0})


def scanned_gpt() -> Case:
    """The layers are scanned, and each is computed again in the backward pass."""

    def apply(params: Params, x: Array) -> Any:
        hidden = jnp.take(params["embedding"], x, axis=0) + params["positions"]

        def step(hidden: Array, block: Params) -> tuple[Array, None]:
            return jax.checkpoint(gpt_block)(hidden, block), None

        hidden, _ = jax.lax.scan(step, hidden, params["blocks"])
        return (hidden * params["final"]) @ params["embedding"].T

    return Case(apply, gpt_params(3), tokens(), {"blocks": 0})


def batch_norm() -> Case:
    """Examples see each other before the second layer, and not after it."""

    def apply(params: Params, x: Array) -> Any:
        x = x @ params["in"]
        x = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-5)
        return jnp.tanh(x * params["scale"]) @ params["out"]

    params = {"in": normal(0, 4, 6), "scale": 1 + 0.1 * normal(1, 6), "out": normal(2, 6, 3)}
    return Case(apply, params, normal(3, 8, 4))


CASES: dict[str, Callable[[], Case]] = {
    "MLP": mlp,
    "CNN": cnn,
    "GPT with tied embeddings": tied_gpt,
    "scanned layers": scanned_mlp,
    "batch norm": batch_norm,
}


def assert_converges(case: Case, **options: Any) -> PerExampleEstimator:
    """Check that rates from many probes match the exact ones within their relative errors."""
    exact = np.array(case.exact(**options))
    estimator = case.estimator(probes=_PROBES_AT_ONCE, **options)
    squares, variances = np.zeros(len(exact)), np.zeros(len(exact))
    measurements, errors = 0, np.full(len(exact), np.inf)
    while measurements * _PROBES_AT_ONCE < _MAX_PROBES and (errors > _DECISIVE_ERROR).any():
        key = jax.random.key(measurements)
        measured = estimator.measure(case.params, case.updates, case.batch, key)
        estimate = measured.estimate()
        square = np.square(estimate.unit_rates)
        squares += square
        variances += np.square(2 * np.array(estimate.relative_errors) * square)
        errors = 0.5 * np.sqrt(variances) / np.maximum(squares, 1e-30)
        measurements += 1
    rates = np.sqrt(squares / measurements)
    for group, rate, error, true in zip(case.groups, rates, errors, exact, strict=True):
        if true < 1e-5 * exact.max():
            assert rate < 1e-4 * exact.max(), (group.name, rate, true)
            continue
        assert abs(math.log(rate / true)) <= SIGMAS * error + ROUNDING, (group.name, rate, true)
    return estimator
