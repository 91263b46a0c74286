"""What differs between a run and the profile that it uses, in words for the people who train.

None of it stops a recommendation: a profile of another batch size may serve well. But whoever
wonders later why a transfer disappointed should have read it here first.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

import numpy as np

from advisor.policy import Layout, LayoutMapping, Match, Measurement, Profile
from advisor.registry.profiles import Provenance


class Kind(enum.Enum):
    """What differs."""

    BASE_LEARNING_RATE = "base learning rate"
    OPTIMIZER = "optimizer"
    BATCH_SIZE = "batch size"
    LOSS = "loss"
    WARMUP = "warm-up"
    NEAREST_ROLE = "nearest role"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: What differs.
        message: With both values, and what to do.
    """

    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class Training:
    """What a run says about itself beyond its layout; all may be unknown.

    Attributes:
        base_learning_rate: The learning rate that its schedule is built on; 0: unknown.
        optimizer: The optimizer's name.
        batch_size: Examples a step; 0: unknown.
        loss_name: Name of the loss.
    """

    base_learning_rate: float = 0.0
    optimizer: str = ""
    batch_size: int = 0
    loss_name: str = ""


# Stems of the names in PyTorch, optax, bitsandbytes, DeepSpeed and Hugging Face's arguments, such
# as adamw_torch_fused: the longest that a name holds decides. Short ones must be words of their
# own, and what other optimizers have too comes last.
_STEMS = {
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "adamax"), "Adam"),
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    **dict.fromkeys(("signsgd", "signum"), "sign descent"),
    **dict.fromkeys(("shampoo", "sophia"), "second order"),
    "adafactor": "factored",
}
_WORDS = {
    "lamb": "Adam",
    "lion": "sign descent",
    "tiger": "sign descent",
    "muon": "orthogonalized",
    "soap": "second order",
    "kfac": "second order",
    "came": "factored",
}
_LAST = {"momentum": "SGD", "nesterov": "SGD"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SAME_RATE = 0.01  # relative
_WARMING = 0.5  # a schedule below this part of its peak, before it, is warming up
_FULL = 0.9  # one above this part is not
_EARLY = 0.1  # part of a training after which a low learning rate is a decay and no warm-up


def family(optimizer: str) -> str:
    """Return the family of an optimizer's name; a name that is not known is its own family."""
    plain = _plain(optimizer)
    words = [word.lower() for word in _WORD.findall(optimizer)]
    if "muon" in words:  # MuonWithAuxAdam too
        return _WORDS["muon"]
    for stem in sorted(_STEMS, key=len, reverse=True):
        if stem in plain:
            return _STEMS[stem]
    for known in (_WORDS, _LAST):
        for word in words:
            if word in known:
                return known[word]
    return plain


def differences(
    base_learning_rate: float, provenance: Provenance, training: Training
) -> list[Difference]:
    """Return what a run's own words show to be different; unknown values differ from nothing.

    Args:
        base_learning_rate: The profile's.
        provenance: The profile's.
        training: The run's words.
    """
    found: list[Difference] = []
    own = training.base_learning_rate
    if own and abs(own - base_learning_rate) > _SAME_RATE * base_learning_rate:
        found.append(
            Difference(
                Kind.BASE_LEARNING_RATE,
                f"the run's base learning rate is {own:g}, the profile's {base_learning_rate:g}: "
                "the profile's is the one that transfers, so outputs will move by "
                f"{own / base_learning_rate:.3g} times what they did; use {base_learning_rate:g} "
                "unless you mean it",
            )
        )
    if training.optimizer and provenance.optimizer:
        families = family(training.optimizer), family(provenance.optimizer)
        if families[0] != families[1]:
            found.append(
                Difference(
                    Kind.OPTIMIZER,
                    f"the run's optimizer is {training.optimizer}, the profile was recorded with "
                    f"{provenance.optimizer}: updates of other families have other shapes; "
                    "record a profile with this optimizer",
                )
            )
    if (
        training.batch_size
        and provenance.batch_size
        and training.batch_size != provenance.batch_size
    ):
        found.append(
            Difference(
                Kind.BATCH_SIZE,
                f"the run's batch size is {training.batch_size}, the profile's "
                f"{provenance.batch_size}: rates match, but the best learning rate may depend on "
                "the batch size",
            )
        )
    if (
        training.loss_name
        and provenance.loss_name
        and _plain(training.loss_name) != _plain(provenance.loss_name)
    ):
        found.append(
            Difference(
                Kind.LOSS,
                f"the run's loss is {training.loss_name}, the profile's {provenance.loss_name}: "
                "outputs with a different meaning need not move by the same amount; record a "
                "profile with this loss",
            )
        )
    return found


def warmup(
    profile: Profile, profile_step: float, training: Training, measurement: Measurement
) -> list[Difference]:
    """Return whether exactly one of profile and run is warming its learning rate up at a step.

    Args:
        profile: The profile.
        profile_step: The step of the profile that the run's step is compared with.
        training: The run's words.
        measurement: The run's, with its step and its scheduled learning rate.
    """
    rates, now = profile.learning_rates, measurement.learning_rate
    if rates is None or now is None or not training.base_learning_rate or not rates.any():
        return []
    own = now / training.base_learning_rate
    if _WARMING <= own <= _FULL:
        return []
    before_peak = profile_step < profile.steps[int(rates.argmax())]
    early = measurement.step < _EARLY * max(measurement.total_steps, profile.total_steps)
    if not (before_peak or early):
        return []
    recorded = float(np.interp(profile_step, profile.steps, rates) / rates.max())
    if before_peak and recorded < _WARMING and own > _FULL:
        words = "the profile was recorded with warm-up and the run has none, or a shorter one"
    elif early and recorded > _FULL and own < _WARMING:
        words = "the run warms up and the profile was recorded without warm-up, or a shorter one"
    else:
        return []
    return [
        Difference(
            Kind.WARMUP,
            f"{words}: at step {measurement.step} the profile's learning rate is {recorded:.0%} of "
            f"its peak, the run's {own:.0%} of its base; unit rates early in training depend on "
            "it; record a profile with the run's schedule",
        )
    ]


def nearest_roles_used(layout: Layout, base: Layout, mapping: LayoutMapping) -> list[Difference]:
    """Return which groups take the reference of the nearest role, if any do."""
    used = {
        layout.groups[i].role: base.roles[int(mapping.base_roles[mapping.families[i]])]
        for i, match in enumerate(mapping.matches)
        if match is Match.NEAREST_ROLE
    }
    if not used:
        return []
    listed = ", ".join(f"{role} -> {other}" for role, other in list(used.items())[:10])
    more = f" and {len(used) - 10} more" if len(used) > 10 else ""
    return [
        Difference(
            Kind.NEAREST_ROLE,
            f"the profile lacks {len(used)} roles of the run, and the nearest ones stand in: "
            f"{listed}{more}; if they are the same layers, put them into its alias table",
        )
    ]


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
