"""Exported labels for optax, with the real package."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.export.formats import FORMATS, FormatName
from advisor.export.rows import Export, ExportRow, Settings, keeping_decay
from tests.unit.export import trainers

jax = pytest.importorskip("jax", reason="needs jax")
optax = pytest.importorskip("optax", reason="needs optax")

FACTORS = {
    "params/embed/embedding": 1.0,
    "params/Block_0/Dense_0/kernel": 0.5,
    "params/Block_0/Dense_0/bias": 2.0,
    "params/Block_1/Dense_0/kernel": 0.5,
    "params/Block_1/Dense_0/bias": 0.25,
}


def tree(separator: str = "/") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in FACTORS:
        node = found
        *path, last = name.split(separator)
        for key in path:
            node = node.setdefault(key, {})
        node[last] = jax.numpy.ones(2)
    return found


def export() -> Export:
    return Export(tuple(ExportRow(name, name, factor) for name, factor in FACTORS.items()), ())


def by_name(found: object) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def test_each_leaf_has_its_label_and_its_multiplier() -> None:
    module = trainers.load(FORMATS[FormatName.OPTAX].write(export(), Settings()).text)
    labels = by_name(module.param_labels(tree()))
    assert len(set(labels.values())) == len(set(FACTORS.values()))
    transform = optax.chain(optax.sgd(1.0), module.scale_by_multipliers())
    params = tree()
    state = transform.init(params)
    gradients = jax.tree.map(jax.numpy.ones_like, params)
    updates, _ = jax.jit(transform.update)(gradients, state, params)
    found = {name: float(update[0]) for name, update in by_name(updates).items()}
    assert found == {name: -factor for name, factor in FACTORS.items()}


def test_the_decay_of_a_step_is_kept_by_a_partition() -> None:
    settings = Settings(weight_decay=0.1)
    text = FORMATS[FormatName.OPTAX].write(keeping_decay(export(), settings), settings).text
    module = trainers.load(text)
    assert not hasattr(module, "scale_by_multipliers")
    transform = module.partition(
        lambda multiplier, decay: optax.adamw(1e-2 * multiplier, weight_decay=0.1 * decay)
    )
    params = tree()
    zeros = jax.tree.map(jax.numpy.zeros_like, params)
    updates, _ = transform.update(zeros, transform.init(params), params)
    for update in by_name(updates).values():  # without gradients a step is its decay
        assert float(update[0]) == pytest.approx(-1e-2 * 0.1, rel=1e-5)


def test_a_leaf_without_a_multiplier_is_refused() -> None:
    module = trainers.load(FORMATS[FormatName.OPTAX].write(export(), Settings()).text)
    with pytest.raises(ValueError, match=r"params\.new has no multiplier in this file"):
        module.param_labels({"params": {"new": jax.numpy.ones(1)}})
