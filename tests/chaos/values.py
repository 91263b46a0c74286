"""Contents and policies that can be identified by their numbers.

The rates of content number ``n`` are those of number 0 times ``1 + n / 1024``, and the maximum
multiplier of policy number ``n`` is ``16 + n / 1024``. Both are exact in 32 bits, so a multiplier
shows which content and policy it comes from.
"""

from __future__ import annotations

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2, profile_pb2
from tests.building import NAMES, content_message, opening_message

PARTS = 1024
PROFILES = ("plain", "shared", "trained")
FOLLOWS_POLICY = frozenset({"shared"})
POLICY = "careful"
ALIASES = ("prod", "canary")
MODEL_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")  # of the training job's model
_MIN_MULTIPLIER = 1 / 16
_BASE_MAX_MULTIPLIER = 16.0
_DEFAULT_BOUNDS = 2.0**-4, 2.0**2  # of groups without a prior
_TINY_RATE = 4e-4  # of the last group; its multiplier is clamped to the maximum


def scale(number: int) -> float:
    """Return the factor of all rates of a content."""
    return 1 + number / PARTS


def number_of(scaled: float, unscaled: float = 1.0) -> float:
    """Return the number of the content of a rate or multiplier; not whole if it has none."""
    return (scaled / unscaled - 1) * PARTS


def content(profile: str, number: int, project: str) -> profile_pb2.ProfileContent:
    """Return content number ``number`` of a project's profile."""
    names = MODEL_NAMES if profile == "trained" else NAMES
    made = content_message(names, rate=scale(number), labels={"number": str(number)})
    if profile in FOLLOWS_POLICY:
        made.policy_name = f"projects/{project}/policies/{POLICY}"
    return made


def rules(number: int) -> policy_pb2.Policy:
    """Return policy number ``number``."""
    highest = _BASE_MAX_MULTIPLIER + number / PARTS
    return policy_pb2.Policy(
        min_multiplier=_MIN_MULTIPLIER,
        max_multiplier=highest,
        min_multiplier_without_prior=_MIN_MULTIPLIER,
        max_multiplier_without_prior=highest,
    )


def policy_number(policy: policy_pb2.Policy) -> float:
    """Return the number of a policy; not whole if it has none."""
    return (policy.max_multiplier - _BASE_MAX_MULTIPLIER) * PARTS


def bounds(policy_number: int | None) -> tuple[float, float]:
    """Return the bounds of multipliers under a policy; None stands for the default rules."""
    if policy_number is None:
        return _DEFAULT_BOUNDS
    return _MIN_MULTIPLIER, _BASE_MAX_MULTIPLIER + policy_number / PARTS


def opening(project: str, profile: str, suffix: str, run: str = "") -> pb.RunOpening:
    """Return the opening of a run on a project's profile, with or without a suffix."""
    name = f"projects/{project}/profiles/{profile}" + (f"@{suffix}" if suffix else "")
    return opening_message(name, run=f"projects/{project}/runs/{run}" if run else "")


def measurement(step: int) -> pb.Measurement:
    """Return a measurement with the rates of content 0, except a tiny one of the last group."""
    return pb.Measurement(step=step, unit_rates=[1.0, 2.0, 3.0, _TINY_RATE])


def expected_multipliers(number: int, policy_number: int | None) -> list[float]:
    """Return the multipliers that the answer to :func:`measurement` must have."""
    return [scale(number)] * 3 + [bounds(policy_number)[1]]
