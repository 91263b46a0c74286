from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from advisor.policy import InvalidValueError
from advisor.registry.merging import merge
from advisor.registry.profiles import ProfileContent
from advisor.store.codec import decode, encode
from advisor.wire import content_from_proto, content_to_proto
from tests.building import content_message


def recording(rates: list[list[float]], *, errors: float = 0.0) -> ProfileContent:
    content = content_from_proto(content_message(["a", "b"], steps=range(len(rates))))
    array = np.array(rates, np.float32)
    return dataclasses.replace(
        content, unit_rates=array, relative_errors=np.full_like(array, errors)
    )


def test_rates_are_merged_as_geometric_means_with_their_spread() -> None:
    merged = merge([recording([[1.0, 2.0]]), recording([[4.0, 2.0]])])
    assert merged.unit_rates.tolist() == [[2.0, 2.0]]
    assert merged.spreads is not None
    assert merged.spreads[0] == pytest.approx([np.log(4) / 2**0.5, 0.0], rel=1e-6)
    assert merged.header.provenance.recordings == 2


def test_initial_weights_are_merged_as_root_mean_square() -> None:
    one, two = recording([[1.0, 2.0]]), recording([[4.0, 2.0]])
    given = [
        dataclasses.replace(
            content,
            header=dataclasses.replace(
                content.header, layout=content.header.layout.with_initial_rms(rms)
            ),
        )
        for content, rms in ((one, [1.0, 2.0]), (two, [7.0, None]))
    ]
    assert merge(given).header.layout.initial_rms == (5.0, None)
    assert merge([given[0], two]).header.layout.initial_rms == ()


def test_the_error_of_a_merged_rate_falls_with_the_number_of_recordings() -> None:
    """It is the spread over the square root of the number of recordings."""
    rng = np.random.default_rng(1)
    rates = np.exp(0.3 * rng.standard_normal((64, 20, 2)))
    merged = merge([recording(r.tolist(), errors=0.1) for r in rates])
    assert merged.spreads is not None
    assert float(np.median(merged.spreads)) == pytest.approx(0.3, rel=0.1)
    missed = float(np.sqrt(np.mean(np.square(np.log(merged.unit_rates)))))
    assert missed == pytest.approx(0.3 / 8, rel=0.35)
    assert merged.relative_errors[0, 0] == pytest.approx(0.1 / 8)


def test_rms_are_merged_as_geometric_means_if_all_recordings_have_them() -> None:
    one, two = recording([[1.0, 2.0]]), recording([[4.0, 2.0]])
    assert merge([one, two]).weight_rms is None
    with_rms = [
        dataclasses.replace(
            content,
            weight_rms=np.array([[rms, 0.0]], np.float32),
            update_rms=np.array([[3.0, rms]], np.float32),
        )
        for content, rms in ((one, 2.0), (two, 8.0))
    ]
    merged = merge(with_rms)
    assert merged.weight_rms is not None
    assert merged.weight_rms[0] == pytest.approx([4.0, 0.0])
    assert merged.update_rms is not None
    assert merged.update_rms[0] == pytest.approx([3.0, 4.0])
    assert merge([with_rms[0], two]).update_rms is None


def test_recordings_with_and_without_weight_decay_are_not_merged() -> None:
    one, two = recording([[1.0, 2.0]]), recording([[4.0, 2.0]])
    header = dataclasses.replace(two.header, excludes_weight_decay=True)
    with pytest.raises(InvalidValueError, match="excludes weight decay differs from the first"):
        merge([one, dataclasses.replace(two, header=header)])


def test_recordings_with_different_masks_are_not_merged() -> None:
    one, two = recording([[1.0, 2.0]]), recording([[4.0, 2.0]])
    header = dataclasses.replace(two.header, mask="attention_mask")
    with pytest.raises(InvalidValueError, match="mask differs from the first"):
        merge([one, dataclasses.replace(two, header=header)])


def test_a_rate_is_zero_if_it_is_zero_in_at_least_half_of_the_recordings() -> None:
    three = [recording([[0.0, 0.0]]), recording([[0.0, 3.0]]), recording([[2.0, 3.0]])]
    assert merge(three).unit_rates.tolist() == [[0.0, 3.0]]
    assert merge(three[:2]).unit_rates.tolist() == [[0.0, 0.0]]


def test_a_merged_profile_is_unchanged_by_the_store_and_the_wire() -> None:
    merged = merge([recording([[1.0, 2.0]]), recording([[4.0, 2.0]])])
    encoded = encode(merged)
    assert encode(decode(encoded)).digest == encoded.digest
    assert encode(content_from_proto(content_to_proto(merged))).digest == encoded.digest


def test_recordings_of_different_trainings_are_refused() -> None:
    one = recording([[1.0, 2.0]])
    with pytest.raises(InvalidValueError, match="recordings: 1, but at least 2 are needed"):
        merge([one])
    with pytest.raises(InvalidValueError, match=r"recordings\[1\]: the list of .* differs"):
        merge([one, recording([[1.0, 2.0], [1.0, 2.0]])])
    header = dataclasses.replace(one.header, base_learning_rate=0.5)
    two = recording([[1.0, 3.0]])
    other = dataclasses.replace(two, header=header)
    with pytest.raises(InvalidValueError, match=r"\[2\]: base learning rate differs .* 0\.5, not"):
        merge([one, two, other])
    provenance = dataclasses.replace(one.header.provenance, model="another")
    other = dataclasses.replace(two, header=dataclasses.replace(one.header, provenance=provenance))
    with pytest.raises(InvalidValueError, match=r"model differs .* 'another', not 'toy'"):
        merge([one, other])
    scheduled = dataclasses.replace(two, learning_rates=np.array([0.1]))
    for pair in ([one, scheduled], [scheduled, one]):
        with pytest.raises(InvalidValueError, match="the schedule of learning rates differs"):
            merge(pair)
    with pytest.raises(InvalidValueError, match=r"recordings\[1\]: has the same rates"):
        merge([one, one])
    with pytest.raises(InvalidValueError, match=r"\[2\]: has the same rates as recordings\[1\]"):
        merge([one, two, two])


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=9), st.data())
def test_merging_one_by_one_equals_merging_at_once(rates: list[float], data: st.DataObject) -> None:
    rates = [rate * 1.01**i for i, rate in enumerate(rates)]
    assume(len({np.float32(rate) for rate in rates}) == len(rates))
    each = [recording([[rate, 1.0 + i]], errors=0.1) for i, rate in enumerate(rates)]
    cut = data.draw(st.integers(2, len(each) - 1))
    at_once = merge(each)
    first = merge(each[:cut])
    assume(not np.array_equal(first.unit_rates, each[cut].unit_rates))
    for one in each[cut:]:
        first = merge([first, one])
    assert first.header.provenance.recordings == at_once.header.provenance.recordings == len(each)
    for name in ("unit_rates", "spreads", "relative_errors"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(at_once, name), rtol=1e-4, atol=1e-6
        )


def test_a_merged_error_is_unknown_if_one_error_is_and_ignores_zero_rates() -> None:
    one, two = recording([[1.0, 1.0]], errors=0.2), recording([[2.0, 1.0]], errors=0.2)
    zero = recording([[0.0, 3.0]], errors=0.0)
    assert merge([one, two, zero]).relative_errors[0] == pytest.approx([0.2 / 2**0.5, 0.0])
