from __future__ import annotations

import dataclasses
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import ProfileDamagedError
from advisor.policy import Alignment, DepthRule, Policy, UnmatchedRule
from advisor.registry.profiles import ProfileContent
from advisor.store.codec import decode, decode_policy, decode_summary, encode, encode_policy
from advisor.wire import content_from_proto, content_to_proto, policy_from_proto, policy_to_proto
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2
from tests.building import content_message, describe_tensors


def whole() -> profile_pb2.ProfileContent:
    message = content_message(labels={"team": "nlp", "size": "small"})
    message.docs = "Use it with *warm-up*. ÄÖ"
    message.provenance.model = "char GPT"
    message.provenance.batch_size = 20
    message.policy.depth_rule = policy_pb2.DEPTH_RULE_SQRT
    for point in message.points:
        point.relative_errors.extend([0.1, 0.2, 0.3, 0.4])
        point.weight_rms.extend([0.5, 0.0, 0.5, 1.0])
        point.update_rms.extend([1.0, 0.0, 2.0, 3.0])
    message.excludes_weight_decay = True
    message.mask = "attention_mask"
    return content_to_proto(content_from_proto(message))  # defaults and roles filled in


def test_a_decoded_profile_equals_the_encoded_one() -> None:
    content = content_from_proto(whole())
    assert content_to_proto(decode(encode(content))) == whole()
    summary = decode_summary("", encode(content).summary)
    assert summary.group_count == len(content.header.layout)
    assert dataclasses.replace(summary.header, layout=content.header.layout) == content.header


def test_the_order_of_labels_does_not_change_the_digest() -> None:
    one, other = content_message(labels={"a": "1", "b": "2"}), content_message(labels={"b": "2"})
    other.labels["a"] = "1"
    assert encode(content_from_proto(one)).digest == encode(content_from_proto(other)).digest


def test_derived_and_explicit_roles_have_the_same_digest() -> None:
    content = content_from_proto(content_message())
    assert encode(content).digest == encode(content_from_proto(content_to_proto(content))).digest


@given(st.integers(0, 2), st.integers(0, 3), st.floats(0.5, 2.0, width=32))
def test_a_different_rate_has_a_different_digest(point: int, group: int, rate: float) -> None:
    content = content_from_proto(content_message())
    rates = content.unit_rates.copy()
    rates[point, group] = np.nextafter(rates[point, group], np.float32(np.inf)) * np.float32(rate)
    changed = dataclasses.replace(content, unit_rates=rates)
    assert (encode(changed).digest == encode(content).digest) == bool(
        (rates == content.unit_rates).all()
    )


@pytest.mark.parametrize("field", ["header", "arrays"])
def test_damaged_bytes_are_detected(field: str) -> None:
    encoded = encode(content_from_proto(content_message()))
    damaged = getattr(encoded, field).replace(b"e", b"E", 1) or b"x"
    if damaged == getattr(encoded, field):
        damaged = damaged[:-1] + bytes([damaged[-1] ^ 1])
    with pytest.raises(ProfileDamagedError, match=rf"{encoded.digest} is damaged; restore"):
        decode(
            dataclasses.replace(encoded, **{field: damaged})  # type: ignore[arg-type]
        )


@given(
    st.sampled_from(DepthRule),
    st.sampled_from(Alignment),
    st.sampled_from(UnmatchedRule),
    st.floats(1e-6, 1),
    st.integers(1, 50),
)
def test_a_policy_is_unchanged_after_conversion_to_proto_and_back(
    depth: DepthRule, alignment: Alignment, unmatched: UnmatchedRule, low: float, interval: int
) -> None:
    policy = Policy(depth, alignment, unmatched, min_multiplier=low, min_interval_steps=interval)
    assert policy_from_proto(policy_to_proto(policy)) == policy


def test_an_empty_policy_message_is_the_default_policy() -> None:
    assert policy_from_proto(policy_pb2.Policy()) == Policy()


def test_setting_one_interval_limit_moves_the_other_if_they_conflict() -> None:
    assert policy_from_proto(policy_pb2.Policy(max_interval_steps=5)).min_interval_steps == 5
    assert policy_from_proto(policy_pb2.Policy(min_interval_steps=500)).max_interval_steps == 500


def test_the_digest_of_a_fixed_profile_does_not_change() -> None:
    """If it changed, content that is already registered would get a second version."""
    message = content_message()
    message.ClearField("provenance")
    # Rules that were added later, at the values of the earlier behavior.
    message.policy.averaging_window = 0.0
    message.policy.prior = policy_pb2.PRIOR_RULE_NONE
    message.policy.min_multiplier_without_prior = 2.0**-10
    message.policy.max_multiplier_without_prior = 2.0**10
    message.policy.multiplier_values_per_octave = 0
    message.policy.weight_decay = policy_pb2.WEIGHT_DECAY_RULE_COUPLED
    content: ProfileContent = content_from_proto(message)
    assert encode(content).digest == (
        "f403db6192e3fc3bbf9a447b2f248562bb17a87df08340ccd64051bd97d20d2f"
    )
    describe_tensors(message.layout, width=8)
    assert encode(content_from_proto(message)).digest == (
        "a3f2e558a2076cdb14b8a88bc523dcfa83e0ebf43515b821dc1a1a032c5af7e8"
    )


def test_what_is_known_of_tensors_is_stored() -> None:
    message = whole()
    describe_tensors(message.layout, width=8)
    message.layout.groups[0].kind = layout_pb2.GROUP_KIND_EMBEDDING
    message.layout.groups[1].optimizer = "Muon"
    message.layout.groups[2].ClearField("initial_rms")
    message.layout.groups[3].ClearField("shape")
    message.layout.groups[3].initial_rms = 0.0
    message.layout.groups[1].residual_output = True
    message.layout.groups[2].residual_output = False
    content = content_from_proto(message)
    assert content_to_proto(decode(encode(content))) == message
    assert b"tensors" not in encode(content).summary
    message.layout.groups[3].initial_rms = -0.0
    assert encode(content_from_proto(message)).digest == encode(content).digest
    message.layout.groups[3].initial_rms = 0.1
    assert encode(content_from_proto(message)).digest != encode(content).digest


@pytest.mark.parametrize(
    "field", ["shape", "fan_in", "fan_out", "kind", "initial_rms", "optimizer"]
)
def test_each_property_of_a_tensor_is_stored_without_the_others(field: str) -> None:
    message, full = whole(), layout_pb2.Layout(groups=[layout_pb2.Group(optimizer="SGD")])
    describe_tensors(full, width=8)
    value = getattr(full.groups[0], field)
    if field == "shape":
        message.layout.groups[1].shape.extend(value)
    else:
        setattr(message.layout.groups[1], field, value)
    decoded = content_to_proto(decode(encode(content_from_proto(message))))
    assert decoded == message
    assert encode(content_from_proto(message)).digest != encode(content_from_proto(whole())).digest


def test_a_policy_stored_without_a_later_rule_keeps_its_behavior() -> None:
    policy = Policy(max_multiplier=3.0)
    stored = json.loads(encode_policy(policy))
    assert stored.pop("averaging_window") == policy.averaging_window > 0
    former = decode_policy(json.dumps(stored).encode())
    assert former == dataclasses.replace(policy, averaging_window=0.0)
    assert json.loads(encode_policy(former)) == stored
    assert decode_policy(encode_policy(policy)) == policy


def test_long_headers_and_arrays_are_compressed_and_decoded() -> None:
    names = [f"blocks.{i}.attention.projection.weight" for i in range(200)]
    content = content_from_proto(content_message(names, steps=range(50)))
    encoded = encode(content)
    assert len(encoded.header) < 4_000
    assert len(encoded.arrays) < 50 * 200 * 2  # bytes; 8 of each rate with its error before
    decoded = decode(encoded)
    assert decoded.header == content.header
    assert decoded.unit_rates.tolist() == content.unit_rates.tolist()


def test_arrays_stored_by_earlier_versions_are_decoded() -> None:
    content = content_from_proto(content_message())
    encoded = encode(content)
    plain = b"".join(
        part.tobytes() for part in (content.steps, content.unit_rates, content.relative_errors)
    )
    for stored in (zlib.compress(plain), b"=" + plain):
        old = dataclasses.replace(encoded, arrays=stored)
        assert encode(decode(old)).digest == encoded.digest
