r"""A training in a few formulas, whose function-space rates change with what the multipliers do.

A GPT of pre-norm blocks has a residual stream of RMS :math:`S`, the root of the sum of squares of
the embedding, of each block's two branches and of their biases. Matrices multiply the RMS of their
inputs by a gain

.. math:: g^2 = f w^2 + (a f s)^2

with fan-in f, random entries of RMS w, and entries of RMS s along the gradient that all steps
share; a is the alignment of the latter with the layer's inputs. A step at learning rate
:math:`\eta` and multiplier m has an update of RMS :math:`\eta m`, of which a fraction c has the
direction of all steps, and the rest none: :math:`s \to s + c \eta m` and
:math:`w^2 \to w^2 + (1 - c^2) (\eta m)^2`. The fraction falls as the training goes on.

The final norm divides by S, so the unit rate of everything that writes to the stream is
proportional to 1 / S: larger multipliers make the stream grow, rates fall, and a policy that
matches rates raises multipliers once more. The opposite holds for multipliers that are too small.
Queries and keys are normed: their unit rate is inversely proportional to their own gain.

With this growth, learning rates that are inversely proportional to the fan-in (muP) let a wider
model's stream grow as the base's does, which makes them the ideal multipliers here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from advisor.policy import (
    Group,
    GroupKind,
    Layout,
    Measurement,
    Recommendation,
)

Floats = NDArray[np.float64]

_ALIGNMENT = 0.3
_BRANCH = 0.5  # RMS of what enters a projection, over that of the layer before it
_MAX_RATE = 1e29
_VOCABULARY = 128
_BLOCK = (
    "norm.weight",
    "attn.qk.weight",
    "attn.v.weight",
    "attn.proj.weight",
    "attn.proj.bias",
    "mlp.up.weight",
    "mlp.proj.weight",
    "mlp.proj.bias",
)
_VECTORS = ("norm.weight", "bias")


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model and its initial weights.

    Attributes:
        width: Length of the residual stream.
        depth: Number of blocks.
        embedding_std: RMS of the embedding at the start.
        hidden_std: RMS of the matrices that read from the stream.
        projection_std: RMS of the matrices that write to it.
        readout_std: RMS of the readout.
        common_direction: Fraction of the first update that later updates share, in [0, 1).
        common_steps: Steps in which this fraction falls to one half.
        weight_decay: Decay of matrices, per learning rate. Multipliers do not scale it.
    """

    width: int
    depth: int = 3
    embedding_std: float = 0.02
    hidden_std: float = 0.02
    projection_std: float = 0.008
    readout_std: float = 0.02
    common_direction: float = 0.5
    common_steps: float = 20.0
    weight_decay: float = 0.0

    @property
    def names(self) -> list[str]:
        """The names of the groups."""
        blocks = [f"blocks.{i}.{name}" for i in range(self.depth) for name in _BLOCK]
        return ["tokens.weight", *blocks, "norm.weight", "head.weight"]

    @property
    def layout(self) -> Layout:
        """The model's groups."""
        return _layout(self)

    def group(self, name: str) -> Group:
        """Return the group of a name."""
        return Group(
            name,
            fan_in=self._fan_in(name),
            fan_out=self._fan_out(name),
            kind=self._kind(name),
        )

    @property
    def fan_ins(self) -> Floats:
        """Number of inputs that each output sums over, 1 for embeddings and vectors."""
        return np.array([self._fan_in(name) for name in self.names], dtype=np.float64)

    @property
    def initial_rms(self) -> Floats:
        """RMS of each group's weights at the start."""
        return np.array([self._initial_rms(name) for name in self.names])

    def ideal_multipliers(self, base: SimulatedModel) -> Floats:
        """Return the multipliers that let the stream grow as in a base of another width."""
        ratio = base.width / self.width
        return np.where(self.fan_ins > 1, ratio, 1.0)

    def _fan_in(self, name: str) -> int:
        if name == "tokens.weight" or name.endswith(_VECTORS):
            return 1
        return 4 * self.width if name.endswith("mlp.proj.weight") else self.width

    def _fan_out(self, name: str) -> int:
        if name == "head.weight":
            return _VOCABULARY
        return 4 * self.width if name.endswith("mlp.up.weight") else self.width

    @staticmethod
    def _kind(name: str) -> GroupKind:
        if name.endswith(_VECTORS):
            return GroupKind.VECTOR
        if name == "tokens.weight":
            return GroupKind.EMBEDDING
        return GroupKind.READOUT if name == "head.weight" else GroupKind.HIDDEN

    def _initial_rms(self, name: str) -> float:
        if name == "tokens.weight":
            return self.embedding_std
        if name == "head.weight":
            return self.readout_std
        if name.endswith(_VECTORS):
            return 1.0 if name.endswith("norm.weight") else 0.0
        return self.projection_std if name.endswith("proj.weight") else self.hidden_std


@functools.cache
def _layout(model: SimulatedModel) -> Layout:
    return Layout.of(model.group(name) for name in model.names)


class SimulatedTraining:
    """The weights of a model under training; see the module for the formulas.

    Args:
        model: The model.

    Attributes:
        step: Number of steps taken.
        stream_rms: RMS of the residual stream at the final norm, as of the last unit rates.
    """

    def __init__(self, model: SimulatedModel) -> None:
        self.step = 0
        self.stream_rms = 0.0
        self._model = model
        self._fan_ins = model.fan_ins
        self._aligned = self._fan_ins * np.where(self._fan_ins > 1, _ALIGNMENT, 1.0)
        self._squares = np.square(model.initial_rms)
        self._common = np.zeros(len(self._squares))
        decays = np.where(self._fan_ins > 1, model.weight_decay, 0.0)
        self._decays = decays if model.weight_decay else None
        self._places = tuple(1 + i + len(_BLOCK) * np.arange(model.depth) for i in range(8))

    @property
    def weight_rms(self) -> Floats:
        """RMS of each group's weights."""
        rms: Floats = np.sqrt(self._squares + np.square(self._common))
        return rms

    def unit_rates(self) -> Floats:
        """Return the unit rate of each group."""
        gains = np.sqrt(self._fan_ins * self._squares + np.square(self._aligned * self._common))
        norm, qk, v, proj, bias, up, mlp_proj, mlp_bias = self._places
        attention = _BRANCH * gains[norm] * gains[v] * gains[proj]
        mlp = _BRANCH * gains[norm] * gains[up] * gains[mlp_proj]
        branches = attention**2 + mlp**2 + gains[bias] ** 2 + gains[mlp_bias] ** 2
        self.stream_rms = math.sqrt(gains[0] ** 2 + branches.sum())
        readout = gains[-1] * gains[-2]
        written = readout / self.stream_rms  # of what is added to the stream
        rates = np.empty(len(gains))
        rates[[0, -2, -1]] = written, gains[-1], self._aligned[-1] * gains[-2]
        rates[bias] = rates[mlp_bias] = written
        rates[norm] = written * np.hypot(attention, mlp) / gains[norm]
        rates[qk] = written * attention * self._aligned[qk] / gains[qk]
        for first, second in ((v, proj), (up, mlp_proj)):
            entering = written * _BRANCH * gains[norm]
            rates[first] = entering * self._aligned[first] * gains[second]
            rates[second] = entering * self._aligned[second] * gains[first]
        return rates

    def take_step(self, learning_rate: float, multipliers: Floats) -> None:
        """Update the weights once."""
        if learning_rate == 0:
            return
        model, updates = self._model, learning_rate * multipliers
        common = model.common_direction / (1 + self.step / model.common_steps)
        if self._decays is not None:
            kept = 1 - learning_rate * self._decays
            self._squares *= kept**2
            self._common *= kept
        self._squares += (1 - common**2) * np.square(updates)
        self._common += common * updates
        self.step += 1


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is measured instead of the true rates.

    Attributes:
        noise: Standard deviation of the logarithm of each measured rate.
        seed: Of the noise.
        spikes: First step, step after the last one, and the factor on all rates between them.
        drift: Power of the step that multiplies all rates.
        vanishing: First step, step after the last one, and the end of the names of the groups whose
            rates are 0 between them.
        relative_error: Relative error that measurements of a run report.
    """

    noise: float = 0.0
    seed: int = 0
    spikes: tuple[tuple[int, int, float], ...] = ()
    drift: float = 0.0
    vanishing: tuple[tuple[int, int, str], ...] = ()
    relative_error: float = 0.0

    def measured(self, step: int, names: list[str], rates: Floats) -> Floats:
        """Return the rates that are measured at a step."""
        found: Floats = rates * float(step + 1) ** self.drift
        if self.noise:
            draws = np.random.default_rng((self.seed, step)).standard_normal(len(rates))
            found *= np.exp(self.noise * draws)
        for start, stop, factor in self.spikes:
            if start <= step < stop:
                found *= factor
        for start, stop, suffix in self.vanishing:
            if start <= step < stop:
                found[[name.endswith(suffix) for name in names]] = 0.0
        np.minimum(found, _MAX_RATE, out=found)
        return found


NO_DISTURBANCE = Disturbance()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rates with linear warm-up, then constant or a cosine down to a tenth.

    Attributes:
        peak: The largest learning rate.
        warmup_steps: Steps until it is reached.
        cosine_steps: Step at which the cosine ends; 0: the learning rate stays constant.
        rest_step: Step from which the learning rate is 0, so that rates stay constant; None: never.
    """

    peak: float = 8e-3
    warmup_steps: int = 30
    cosine_steps: int = 0
    rest_step: int | None = None

    def at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if self.rest_step is not None and step >= self.rest_step:
            return 0.0
        if step < self.warmup_steps or not self.cosine_steps:
            return self.peak * min(1.0, (step + 1) / self.warmup_steps)
        part = min((step - self.warmup_steps) / (self.cosine_steps - self.warmup_steps), 1.0)
        return self.peak * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What happened in a training, at the measured steps.

    Attributes:
        steps: The measured steps, shape [measurements].
        unit_rates: The true unit rates, shape [measurements, groups].
        multipliers: In force after each answer, or after its loss, shape [measurements, groups].
        weight_rms: Before each measured step, shape [measurements, groups].
        stream_rms: Shape [measurements].
        measurements: What was sent.
        answers: What was answered.
    """

    steps: NDArray[np.int64]
    unit_rates: Floats
    multipliers: Floats
    weight_rms: Floats
    stream_rms: Floats
    measurements: list[Measurement] = field(default_factory=list)
    answers: list[Recommendation] = field(default_factory=list)


@functools.cache
def plain_training(model: SimulatedModel, schedule: Schedule, total_steps: int) -> Trajectory:
    """Return a training without advice, with every step measured; cached."""
    training = SimulatedTraining(model)
    ones = np.ones(len(model.names))
    rates, weights, streams = [], [], []
    for step in range(total_steps):
        if step == 0 or schedule.at(step - 1) > 0:
            now, weight_rms = training.unit_rates(), training.weight_rms
        rates.append(now)
        weights.append(weight_rms)
        streams.append(training.stream_rms)
        training.take_step(schedule.at(step), ones)
    return Trajectory(
        np.arange(total_steps),
        np.array(rates),
        np.ones((total_steps, len(ones))),
        np.array(weights),
        np.array(streams),
    )
