r"""Multipliers of layers, and why a recipe does not need them.

Many parametrizations multiply the output of a layer by a number a that depends on the size: the
readout by 1 / width, a residual branch by 1 / depth. The same training is possible without that
number. Let the layer be :math:`y = a W x`, with weights (and bias) W, and let :math:`W' = a W`, so
that :math:`y = W' x`. With :math:`g = \partial L / \partial W` and :math:`g' = \partial L /
\partial W'` we have :math:`g = a g'`. An optimizer moves W; the question is which settings move W'
in the same way, :math:`\Delta W' = a \Delta W`.

**Initial values.** :math:`W'` starts at a times the initial values of W: the factor is a.

**SGD**, with or without momentum and Nesterov's, is linear in gradients, and PyTorch adds decay to
the gradient:

.. math::
    \Delta W' = -a \eta (g + \lambda W) = -a \eta (a g' + \lambda W' / a)
              = -a^2 \eta \, (g' + a^{-2} \lambda W')

so the learning rate has the factor :math:`a^2` and the coefficient of decay :math:`a^{-2}`. With a
decay outside of the gradient the factors are the same.

**Adam** and its kin (RMSprop, Adagrad) divide by the root of a mean square. All means are linear in
g or in its square, so :math:`m = a m'` and :math:`\sqrt v = a \sqrt{v'}`:

.. math::
    \Delta W' = -a \eta \left( \frac{a m'}{a \sqrt{v'} + \epsilon} + \lambda W'/a \right)
              = -a \eta \left( \frac{m'}{\sqrt{v'} + \epsilon / a} + a^{-1} \lambda W' \right)

so the learning rate has the factor a, epsilon 1 / a, and the coefficient of AdamW's decay 1 / a. If
decay is added to the gradient instead (``torch.optim.Adam``), its factor is :math:`a^{-2}`.

**Sign descent** and **Muon** have steps that do not depend on the size of the gradient: the factors
are those of Adam. Muon's epsilon guards the norm of a gradient, so it has the factor 1 / a as well.

The product of learning rate and decay, by which weights shrink in a step, is unchanged in each
case.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.recipes.recipe import Field

_NORMALIZED = {
    Field.LEARNING_RATE: 1.0,
    Field.WEIGHT_DECAY: -1.0,
    Field.EPSILON: -1.0,
    Field.INITIAL_SCALE: 1.0,
}
POWERS_OF_MULTIPLIER: Mapping[str, Mapping[Field, float]] = {
    **dict.fromkeys(("Adam", "RMSprop", "Adagrad", "sign descent", "orthogonalized"), _NORMALIZED),
    "SGD": {Field.LEARNING_RATE: 2.0, Field.WEIGHT_DECAY: -2.0, Field.INITIAL_SCALE: 1.0},
}
"""By family of optimizers: the power of the multiplier in each field, once it is in the weights."""
