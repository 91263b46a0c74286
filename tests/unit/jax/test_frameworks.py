"""Trainings of models in Flax linen, Flax nnx and Equinox."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import fslr.jax
from fslr import AttachError
from fslr.advisor.v1 import layout_pb2
from fslr.jax import multipliers_of
from tests.unit.jax.nets import batches
from tests.unit.jax.trainings import EXACT, SCHEDULE, advised_tx, advisor, assert_same

BATCHES = batches(4)


class NnxNet(nnx.Module):
    """A perceptron with statistics and keys of its own."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)])
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        for layer in self.layers:
            inputs = jnp.tanh(layer(inputs))
        outputs: jax.Array = self.head(self.dropout(self.norm(inputs)))
        return outputs


def nnx_step() -> Any:
    @nnx.jit
    def train_step(model: NnxNet, optimizer: Any, batch: Any) -> Any:
        def loss_of(model: NnxNet) -> jax.Array:
            loss: jax.Array = jnp.mean((model(batch[0]) - batch[1]) ** 2)
            return loss

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    return train_step


def nnx_training(tx: optax.GradientTransformation, attach: Any = None) -> tuple[Any, Any, Any]:
    model = NnxNet(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    attached = attach(lambda net, batch: net(batch[0]), model, optimizer) if attach else None
    step = nnx_step() if attached is None else attached.wrap(nnx_step())
    for batch in BATCHES:
        step(model, optimizer, batch)
    return model, optimizer, attached


@pytest.mark.compatibility("Flax nnx", "record", "advised", "observe only")
def test_a_module_of_nnx_is_advised_in_place() -> None:
    groups = 8
    to = advisor(*[0.5] * groups)
    plain, _, _ = nnx_training(optax.adamw(SCHEDULE))
    recorded, _, recorder = nnx_training(
        optax.adamw(SCHEDULE),
        lambda *of: fslr.jax.Recorder(*of, learning_rate=SCHEDULE, every=2, options=EXACT),
    )
    for kind in (nnx.Param, nnx.BatchStat):
        assert_same(nnx.state(plain, kind), nnx.state(recorded, kind))
    assert recorder.failures == 0
    described = {g.name: g for g in recorder.profile("net").layout.groups}
    assert list(described) == [
        *("head.bias", "head.kernel", "layers.0.bias", "layers.0.kernel", "layers.1.bias"),
        *("layers.1.kernel", "norm.bias", "norm.scale"),
    ]
    assert described["head.kernel"].kind == layout_pb2.GROUP_KIND_READOUT
    _, optimizer, attached = nnx_training(
        advised_tx(),
        lambda *of: fslr.jax.attach(
            *of,
            profile="net",
            advisor=to,
            learning_rate=SCHEDULE,
            options=EXACT,
            answers="wait",
        ),
    )
    assert (attached.failures, [m.step for m in to.measurements]) == (0, [0, 3])
    assert set(multipliers_of(optimizer.opt_state).values()) == {0.5}


@pytest.mark.compatibility("Equinox", "record", "advised", "observe only")
def test_an_equinox_module_is_recorded_and_advised() -> None:
    def apply_fn(model: Any, batch: Any) -> jax.Array:
        outputs: jax.Array = jax.vmap(model)(batch[0])
        return outputs

    def training(tx: optax.GradientTransformation, attach: Any = None) -> tuple[Any, Any, Any]:
        model = eqx.nn.MLP(3, 2, 6, 2, key=jax.random.key(0))
        opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def train_step(model: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
            def loss_of(model: Any) -> jax.Array:
                return jnp.mean((apply_fn(model, batch) - batch[1]) ** 2)

            loss, grads = eqx.filter_value_and_grad(loss_of)(model)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, opt_state = tx.update(grads, opt_state, params)
            return eqx.apply_updates(model, updates), opt_state, loss

        attached = attach(apply_fn, model, opt_state) if attach else None
        step = train_step if attached is None else attached.wrap(train_step)
        for batch in BATCHES:
            model, opt_state, _ = step(model, opt_state, batch)
        return model, opt_state, attached

    plain, _, _ = training(optax.adamw(SCHEDULE))
    recorded, _, recorder = training(
        optax.adamw(SCHEDULE),
        lambda *of: fslr.jax.Recorder(*of, learning_rate=SCHEDULE, every=2, options=EXACT),
    )
    assert_same(eqx.filter(plain, eqx.is_array), eqx.filter(recorded, eqx.is_array))
    described = {g.name: g for g in recorder.profile("net").layout.groups}
    assert list(described) == [
        f"layers.{i}.{part}" for i in range(3) for part in ("weight", "bias")
    ]
    first, last = described["layers.0.weight"], described["layers.2.weight"]
    assert (first.kind, first.fan_in, first.fan_out) == (layout_pb2.GROUP_KIND_INPUT, 3, 6)
    assert (last.kind, last.fan_in, last.fan_out) == (layout_pb2.GROUP_KIND_READOUT, 6, 2)
    to = advisor(*[2.0] * 6)
    model, opt_state, attached = training(
        advised_tx(),
        lambda *of: fslr.jax.attach(
            *of,
            profile="net",
            advisor=to,
            learning_rate=SCHEDULE,
            options=EXACT,
            answers="wait",
        ),
    )
    assert (attached.failures, len(to.measurements)) == (0, 2)
    assert set(multipliers_of(opt_state).values()) == {2.0}
    assert isinstance(model, eqx.nn.MLP)


class LinenNet(linen.Module):
    """A perceptron with the automatic names of Flax linen."""

    @linen.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = linen.tanh(linen.Dense(6)(inputs))
        return linen.Dense(2)(linen.LayerNorm()(hidden))


def test_variables_of_linen_have_their_own_names() -> None:
    net = LinenNet()
    variables = net.init(jax.random.key(0), BATCHES[0][0])
    tx = optax.adamw(SCHEDULE)
    recorder = fslr.jax.Recorder(
        lambda params, batch: net.apply(params, batch[0]),
        variables,
        tx.init(variables),
        learning_rate=SCHEDULE,
        options=EXACT,
    )
    assert recorder.groups.names == [
        *("params.Dense_0.bias", "params.Dense_0.kernel"),
        *("params.Dense_1.bias", "params.Dense_1.kernel"),
        *("params.LayerNorm_0.bias", "params.LayerNorm_0.scale"),
    ]
    with pytest.raises(AttachError, match=r"LinenNet is a module of Flax linen, .* pass those"):
        fslr.jax.Recorder(net.apply, net, tx.init(variables), learning_rate=1e-3)


@pytest.mark.compatibility("Flax linen", "advised")
def test_each_layer_of_a_scanned_stack_is_a_group() -> None:
    class Block(linen.Module):
        @linen.compact
        def __call__(self, inputs: jax.Array, _: None) -> tuple[jax.Array, None]:
            return inputs + linen.tanh(linen.Dense(3)(inputs)), None

    class Stack(linen.Module):
        @linen.compact
        def __call__(self, inputs: jax.Array) -> jax.Array:
            scan: Any = linen.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            outputs, _ = scan(name="blocks")(inputs, None)
            return linen.Dense(2, name="head")(outputs)

    net = Stack()
    params = net.init(jax.random.key(0), BATCHES[0][0])["params"]
    stacked = {"blocks": 0}
    tx = optax.chain(optax.sgd(1e-2), fslr.jax.scale_by_advice(stacked=stacked))

    def apply_fn(params: Any, batch: Any) -> Any:
        return net.apply({"params": params}, batch[0])

    @jax.jit
    def train_step(params: Any, opt_state: Any, batch: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean((apply_fn(p, batch) - batch[1]) ** 2))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    to = advisor(0.5, 1.0, 2.0, 0.25, 1.0, 4.0, 1.0, 1.0)
    plain, _ = train_step(params, tx.init(params), BATCHES[0])
    attachment = fslr.jax.attach(
        apply_fn,
        params,
        tx.init(params),
        profile="stack",
        advisor=to,
        learning_rate=1e-2,
        stacked=stacked,
        options=EXACT,
        answers="wait",
    )
    assert attachment.groups.names == [
        *(f"blocks.{i}.Dense_0.bias" for i in range(3)),
        *(f"blocks.{i}.Dense_0.kernel" for i in range(3)),
        *("head.bias", "head.kernel"),
    ]
    advised, opt_state = attachment.wrap(train_step)(params, tx.init(params), BATCHES[0])
    start = params["blocks"]["Dense_0"]["kernel"]
    moved = plain["blocks"]["Dense_0"]["kernel"] - start
    factors = np.array([0.25, 1.0, 4.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(
        advised["blocks"]["Dense_0"]["kernel"] - start, factors * moved, rtol=1e-3, atol=1e-6
    )
    opt_state = attachment.before_step(advised, opt_state)
    assert multipliers_of(opt_state)["blocks.Dense_0.kernel"] == [0.25, 1.0, 4.0]
    mixed = {**params, "blocks": params["head"]}
    with pytest.raises(AttachError, match=r"has the shape \(3,\), and scale_by_advice has \(\)"):
        fslr.jax.attach(
            apply_fn,
            params,
            advised_tx().init(params),
            profile="stack",
            advisor=to,
            learning_rate=1e-2,
            stacked=stacked,
        )
    with pytest.raises(AttachError, match=r"stacked says that axis 2 of .* its shape is"):
        fslr.jax.Recorder(
            apply_fn, mixed, tx.init(params), learning_rate=1e-2, stacked={"blocks": 2}
        )
