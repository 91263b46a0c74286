"""Measuring within a training: compilation, donation, devices, masks, low precision."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from fslr import MeasurementError
from fslr.jax.estimators import ExactEstimator, Measurement, PerExampleEstimator, leaf_groups
from tests.unit.jax.estimators.cases import Case, Params, assert_converges, mlp, normal

_PARAMS = {"a": normal(0, 4, 6), "o": normal(1, 6, 3)}


def small(**params: Any) -> Case:
    def apply(p: Params, x: Array) -> Any:
        return jnp.tanh(x @ p["a"]) @ p["o"]

    return Case(apply, params or _PARAMS, normal(2, 8, 4))


def test_later_measurements_compile_nothing() -> None:
    case = small()
    estimator = case.estimator()
    device = jax.device_put

    def measure(seed: int, scale: float) -> Measurement:
        params, updates = (
            jax.tree.map(lambda leaf: device(scale * leaf), tree)
            for tree in (case.params, case.updates)
        )
        batch = device(normal(seed, 8, 4))
        return estimator.measure(params, updates, batch, jax.random.key(seed))

    first = measure(0, 1.0)
    compiled = estimator.compilations
    measured = [measure(seed, 1.0 + seed / 10).estimate() for seed in (1, 2, 3)]
    assert compiled == estimator.compilations == 1
    assert len({*first.estimate().unit_rates, *(m.unit_rates[0] for m in measured)}) == 5
    estimator.measure(case.params, case.updates, normal(4, 6, 4), jax.random.key(4))
    assert estimator.compilations == 2, "a different number of examples"


def test_a_step_with_donated_parameters_measures_inside_of_itself() -> None:
    case = small()
    estimator = case.estimator()

    def step(params: Params, updates: Params, batch: Array, key: Array) -> Any:
        measured = estimator.measure(params, updates, batch, key)
        return jax.tree.map(lambda p, u: p + 1e-3 * u, params, updates), measured

    outside = estimator.measure(case.params, case.updates, case.batch, jax.random.key(0))
    donated = jax.tree.map(jnp.asarray, case.params)
    after, inside = jax.jit(step, donate_argnums=0)(
        donated, case.updates, case.batch, jax.random.key(0)
    )
    assert donated["a"].is_deleted()
    assert isinstance(inside, Measurement)
    np.testing.assert_allclose(
        inside.estimate().unit_rates, outside.estimate().unit_rates, rtol=1e-5
    )
    np.testing.assert_allclose(after["a"], case.params["a"] + 1e-3 * case.updates["a"], rtol=1e-6)


def test_masked_output_elements_do_not_count() -> None:
    case = small()
    counted = np.array([1, 1, 0, 0, 1, 0.5, 0, 0], np.float32)
    options: dict[str, Any] = {"mask": lambda batch, outputs: counted}  # noqa: ARG005
    change = _change_by(case, "a")
    weighed = (np.square(change).sum(1) * counted).sum() / (counted.sum() * 3)
    assert case.exact(**options)[0] == pytest.approx(float(np.sqrt(weighed)), rel=1e-3)
    assert_converges(case, **options)


def _change_by(case: Case, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    def at(kernel: Array) -> Any:
        return case.apply({**case.params, name: kernel}, case.batch)

    change = jax.jit(lambda k, u: jax.jvp(at, (k,), (u,))[1])(case.params[name], case.updates[name])
    return np.asarray(change, np.float64)


def test_a_mask_may_be_a_key_of_the_batch() -> None:
    counted = np.array([1, 1, 0, 0, 1, 1, 0, 0], np.float32)
    case = small()
    plain = ExactEstimator(case.apply, case.groups, mask=lambda batch, outputs: counted)  # noqa: ARG005
    by_key = ExactEstimator(lambda p, batch: case.apply(p, batch["x"]), case.groups, mask="counted")
    batch = {"x": case.batch, "counted": counted}
    found = [
        plain.measure(case.params, case.updates, case.batch, jax.random.key(0)),
        by_key.measure(case.params, case.updates, batch, jax.random.key(0)),
    ]
    assert found[0].estimate().unit_rates == found[1].estimate().unit_rates
    with pytest.raises(MeasurementError, match="its keys are 'x'"):
        by_key.measure(case.params, case.updates, {"x": case.batch}, jax.random.key(0))
    zero = {**batch, "counted": 0 * counted}
    with pytest.raises(MeasurementError, match=r"8 measured example\(s\) the weight 0"):
        by_key.measure(case.params, case.updates, zero, jax.random.key(0)).estimate()
    negative = {**batch, "counted": counted - 1}
    with pytest.raises(MeasurementError, match="weights that are negative or not finite"):
        by_key.measure(case.params, case.updates, negative, jax.random.key(0)).estimate()


@pytest.mark.compatibility("JAX", "mixed precision")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_gives_the_rates_of_float32(dtype: Any) -> None:
    case = small()
    expected = case.exact()

    def apply(p: Params, x: Array) -> Any:
        p = jax.tree.map(lambda leaf: leaf.astype(dtype), p)
        return case.apply(p, x.astype(dtype))

    low = Case(apply, case.params, case.batch)
    # Updates this small are zero in float16 unless they are scaled.
    factor = 1e-9 if dtype == jnp.float16 else 1.0
    low.updates = jax.tree.map(lambda u: factor * u, case.updates)
    estimator = low.estimator(probes=100)
    measured = estimator.measure(low.params, low.updates, low.batch, jax.random.key(0))
    estimate = measured.estimate()
    for rate, error, exact in zip(
        estimate.unit_rates, estimate.relative_errors, expected, strict=True
    ):
        assert rate / factor == pytest.approx(exact, rel=6 * error + 0.01)


def test_rounding_of_the_outputs_is_not_reported_as_a_linearity_error() -> None:
    case = small()

    def apply(p: Params, x: Array) -> Any:
        return case.apply(p, x).astype(jnp.bfloat16)

    estimator = PerExampleEstimator(apply, case.groups)
    found = []
    for size in (1e-4, 0.3):
        after = jax.tree.map(lambda p, u, size=size: p + size * u, case.params, case.updates)
        measured = estimator.measure(
            case.params, case.updates, case.batch, jax.random.key(0), params_after=after
        )
        found.append(measured.estimate([size, size]).linearity_error)
    assert found[0] is None
    assert found[1] is not None
    assert 0.05 < found[1] < 2


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from fslr.jax.estimators import ExactEstimator, PerExampleEstimator, leaf_groups

assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
rng = np.random.default_rng(0)
make = lambda *shape: rng.standard_normal(shape).astype(np.float32) / 2
apply = lambda p, x: jnp.tanh(x @ p["a"]) @ p["o"]
params, updates = ({"a": make(4, 6), "o": make(6, 3)} for _ in range(2))
batch, groups, key = make(8, 4), leaf_groups(params), jax.random.key(0)
sharded = [{"a": put(t["a"], None, "model"), "o": put(t["o"], "model")} for t in (params, updates)]
for kind in (ExactEstimator, PerExampleEstimator):
    estimator = kind(apply, groups)
    whole = estimator.measure(params, updates, batch, key).estimate()
    before = estimator.compilations
    for _ in range(2):
        parts = estimator.measure(*sharded, put(batch, "data"), key).estimate()
        np.testing.assert_allclose(parts.unit_rates, whole.unit_rates, rtol=1e-5)
    assert estimator.compilations == before + 1
    assert sharded[0]["a"].sharding.spec == P(None, "model")
print("measured")
"""


def test_sharded_parameters_and_batches_are_measured_where_they_are() -> None:
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _SHARDED],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "measured\n", done.stderr[-2000:]


def test_measuring_changes_no_argument() -> None:
    case = mlp()
    before = jax.tree.map(np.array, (case.params, case.updates, case.batch))
    params = jax.tree.map(jnp.asarray, case.params)
    case.estimator().measure(params, case.updates, case.batch, jax.random.key(0))
    after = (params, case.updates, case.batch)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))


class TestBadInput:
    @pytest.mark.parametrize(
        ("leaf", "message"),
        [
            (np.arange(6), r"parameter \['n'\] has type int64; only floating-point arrays"),
            (np.ones(2, np.complex64), r"the complex type complex64, which is not supported"),
            ("adam", r"parameter \['n'\] is a str; it must be an array"),
        ],
    )
    def test_a_leaf_that_has_no_rate_is_refused(self, leaf: Any, message: str) -> None:
        case = small()
        params = {**case.params, "n": leaf}
        estimator = PerExampleEstimator(case.apply, leaf_groups(params))
        with pytest.raises(MeasurementError, match=message):
            estimator.measure(params, params, case.batch, jax.random.key(0))

    def test_such_a_leaf_in_no_group_is_held(self) -> None:
        case = small()
        params = {**case.params, "steps": np.arange(3)}
        groups = [g for g in leaf_groups(params) if g.name != "steps"]
        estimator = PerExampleEstimator(case.apply, groups)
        updates = {**case.updates, "steps": np.zeros(3)}
        measured = estimator.measure(params, updates, case.batch, jax.random.key(0))
        assert len(measured.estimate().unit_rates) == 2

    def test_updates_of_a_different_structure_or_shape_are_refused(self) -> None:
        case = small()
        estimator, key = case.estimator(), jax.random.key(0)
        with pytest.raises(MeasurementError, match="pass the updates that the optimizer made"):
            estimator.measure(case.params, {"a": case.updates["a"]}, case.batch, key)
        wrong = {**case.updates, "a": np.zeros((4, 5), np.float32)}
        with pytest.raises(
            MeasurementError, match=r"of \['a'\] has shape \(4, 5\), and .*\(4, 6\)"
        ):
            estimator.measure(case.params, wrong, case.batch, key)

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (lambda y: {"logits": y}, "returned a dict; it must return one array"),
            (lambda y: y.sum(), r"output_axis is 0, and the outputs have shape \(\)"),
            (lambda y: y.argmax(-1), "outputs have type int32; they must be real"),
            (lambda y: y[:0], "there is nothing to measure"),
        ],
    )
    def test_outputs_that_cannot_be_measured_are_refused(self, output: Any, message: str) -> None:
        case = small()
        estimator = PerExampleEstimator(lambda p, x: output(case.apply(p, x)), case.groups)
        with pytest.raises(MeasurementError, match=message):
            estimator.measure(case.params, case.updates, case.batch, jax.random.key(0))

    def test_wrong_groups_are_refused(self) -> None:
        case = small()
        with pytest.raises(MeasurementError, match="no groups to measure"):
            PerExampleEstimator(case.apply, [])
        with pytest.raises(MeasurementError, match="stacked names 'blocks', which is not in the"):
            leaf_groups(case.params, stacked={"blocks": 0})
        with pytest.raises(MeasurementError, match=r"axis 2 of 'a' counts layers, but its shape"):
            leaf_groups(case.params, stacked={"a": 2})
        twice = [*case.groups, case.groups[0]]
        with pytest.raises(MeasurementError, match="is in the groups 'a' and 'a'"):
            PerExampleEstimator(case.apply, twice).measure(
                case.params, case.updates, case.batch, jax.random.key(0)
            )
        with pytest.raises(MeasurementError, match="probes is 0; a measurement needs at least 1"):
            case.estimator(probes=0)

    def test_a_mask_that_does_not_fit_is_refused(self) -> None:
        case = small()
        estimator = case.estimator(mask=lambda batch, outputs: np.ones((8, 2)))  # noqa: ARG005
        with pytest.raises(
            MeasurementError, match=r"has shape \(8, 2\) .*\(B, T\) for \(B, T, V\)"
        ):
            estimator.measure(case.params, case.updates, case.batch, jax.random.key(0))
