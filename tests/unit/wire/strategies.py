"""Hypothesis strategies for measurements as any client may send them."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from fslr.advisor.v1 import advisor_service_pb2 as pb

_HOSTILE = st.sampled_from([
    *(math.nan, -math.nan, math.inf, -math.inf, -0.0, -1.0, 1e-45, 5e-324, 3.4e38, 1e300)
])
_NUMBERS = st.floats(2.0**-20, 2.0**20, width=32)
_STEPS = st.sampled_from([0, 1, 7, 25, 1_000]) | st.integers(-(2**63), 2**63 - 1)
_COUNTS = st.sampled_from([0, 1, 25]) | st.integers(-(2**31), 2**31 - 1)

_OPTIONAL_ARRAYS = (
    *("relative_errors", "multipliers", "learning_rates", "shares"),
    *("weight_rms", "update_rms", "weight_decays"),
)


@st.composite
def any_measurements(draw: st.DrawFn, groups: int) -> pb.Measurement:
    """Return measurements whose fields are valid, absent, hostile or of the wrong length."""
    message = pb.Measurement(unit_rates=draw(st.lists(_NUMBERS, min_size=groups, max_size=groups)))
    for field in _OPTIONAL_ARRAYS:
        if draw(st.booleans()):
            getattr(message, field).extend(
                draw(st.lists(_NUMBERS, min_size=groups, max_size=groups))
            )
    if draw(st.booleans()):
        message.advised.extend(draw(st.lists(st.booleans(), min_size=groups, max_size=groups)))
    for field in ("loss", "total_rate", "linearity_error"):
        if draw(st.booleans()):
            setattr(message, field, draw(_NUMBERS | st.just(0.0)))
    message.excludes_weight_decay = draw(st.booleans())
    message.mask = draw(st.sampled_from(["", "attention_mask", "a\x00b"]))
    message.step = draw(st.integers(0, 1_000))
    message.interval_steps = draw(st.sampled_from([0, 1, 25]))
    for _ in range(draw(st.integers(0, 2))):
        _spoil(draw, message, groups)
    return message


def _spoil(draw: st.DrawFn, message: pb.Measurement, groups: int) -> None:
    """Set one field to a hostile value or length."""
    arrays = ("unit_rates", *_OPTIONAL_ARRAYS)
    match draw(st.sampled_from(["entry", "length", "flags", "number", "step", "count"])):
        case "entry":
            values = getattr(message, draw(st.sampled_from(arrays)))
            if values:
                values[draw(st.integers(0, len(values) - 1))] = draw(_HOSTILE | st.just(0.0))
        case "length":
            field = draw(st.sampled_from(arrays))
            length = draw(st.integers(0, groups + 2))
            message.ClearField(field)  # type: ignore[arg-type]
            getattr(message, field).extend([0.5] * length)
        case "flags":
            message.advised[:] = [True] * draw(st.integers(0, groups + 2))
        case "number":
            field = draw(st.sampled_from(["loss", "total_rate", "linearity_error"]))
            setattr(message, field, draw(_HOSTILE))
        case "step":
            message.step = draw(_STEPS)
        case _:
            field = draw(st.sampled_from(["interval_steps", "probes", "examples"]))
            setattr(message, field, draw(_COUNTS))
