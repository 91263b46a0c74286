"""The recipes of muP have the numbers that the package mup computes.

The literals were computed by mup 1.0.0 with torch 2.13.0: the base's shapes were set by
``mup.set_base_shapes(run, base, delta=delta)`` with the widths 256, 64 and 96. Learning rate and
weight decay are those of the groups that ``MuAdamW(lr=1, weight_decay=1)`` and ``MuSGD(lr=1,
weight_decay=1)`` make, and the initial scale is the standard deviation of ``mup.init.normal_``
relative to the base. ``MuReadout`` divides the readout's output by its ``width_mult()``, 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import pytest

from advisor.policy import Group, GroupKind, Layout
from advisor.policy.optimizer_families import optimizer_family
from advisor.recipes import Field, shipped_recipe
from advisor.recipes.multipliers import POWERS_OF_MULTIPLIER
from tests.unit.recipes.layouts import applied, factors_of


@dataclass(frozen=True)
class Computed:
    """What mup computes for a tensor; each learning rate is followed by its weight decay."""

    kind: GroupKind
    shape: tuple[int, ...]
    base: tuple[int, ...]
    adam: tuple[float, float] = (1.0, 1.0)
    sgd: tuple[float, float] = (4.0, 0.25)
    init: float = 1.0
    multiplier: float = 1.0


VECTOR, HIDDEN = GroupKind.VECTOR, GroupKind.HIDDEN
COMPUTED = {
    "tokens.weight": Computed(GroupKind.EMBEDDING, (128, 256), (128, 64)),
    "patch.weight": Computed(GroupKind.INPUT, (256, 3, 4, 4), (64, 3, 4, 4)),
    "patch.bias": Computed(VECTOR, (256,), (64,)),
    "norm.weight": Computed(VECTOR, (256,), (64,)),
    "qkv.weight": Computed(HIDDEN, (768, 256), (192, 64), (0.25, 4.0), (1.0, 1.0), 0.5),
    "qkv.bias": Computed(VECTOR, (768,), (192,)),
    "fc1.weight": Computed(
        HIDDEN, (2304, 256), (256, 64), (0.25, 4.0), (2.25, 0.4444444444444444), 0.5
    ),
    "fc1.bias": Computed(VECTOR, (2304,), (256,), sgd=(9.0, 0.1111111111111111)),
    "fc2.weight": Computed(HIDDEN, (256, 1024), (64, 256), (0.25, 4.0), (1.0, 1.0), 0.5),
    "conv.weight": Computed(
        GroupKind.CONVOLUTION, (512, 256, 3, 3), (128, 64, 3, 3), (0.25, 4.0), (1.0, 1.0), 0.5
    ),
    "head.weight": Computed(GroupKind.READOUT, (128, 256), (128, 64), multiplier=1 / 4.0),
}


def layout_of(shapes: dict[str, tuple[int, ...]]) -> Layout:
    def group(name: str, shape: tuple[int, ...]) -> Group:
        kind = COMPUTED[name].kind
        fan_out, fan_in, *kernel = shape if len(shape) > 1 else (*shape, 1)
        if kind is GroupKind.EMBEDDING:  # its shape is (rows, width)
            fan_in, fan_out = fan_out, fan_in
        size = prod(kernel)
        return Group(name, shape=shape, fan_in=fan_in * size, fan_out=fan_out * size, kind=kind)

    return Layout.of(group(name, shape) for name, shape in shapes.items())


@pytest.mark.parametrize(("recipe", "optimizer"), [("mup-adam", "AdamW"), ("mup-sgd", "SGD")])
def test_factors_are_those_that_mup_computes(recipe: str, optimizer: str) -> None:
    run = layout_of({name: of.shape for name, of in COMPUTED.items()})
    base = layout_of({name: of.base for name, of in COMPUTED.items()})
    found = applied(shipped_recipe(recipe), run, base, optimizer=optimizer)
    powers = POWERS_OF_MULTIPLIER[optimizer_family(optimizer)]
    for name, of in COMPUTED.items():
        rate, decay = of.sgd if optimizer == "SGD" else of.adam
        computed = {
            Field.LEARNING_RATE: rate,
            Field.WEIGHT_DECAY: decay,
            Field.INITIAL_SCALE: of.init,
            Field.EPSILON: 1.0,
        }
        expected = {f: v * of.multiplier ** powers.get(f, 0.0) for f, v in computed.items()}
        factors = factors_of(found, run, name)
        assert {f: factors.get(f, 1.0) for f in expected} == pytest.approx(expected), name
