"""The small parts of the web page: numbers, targets, limits, statuses."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.web.errors import STATUSES, status_of
from advisor.web.event_ids import is_after, places_over
from advisor.web.limits import LimitExceededError, Limits
from advisor.web.numbers import rounded, to_json
from advisor.web.rendering import _name
from advisor.web.sessions import is_token, safe_target
from fslr import errors
from fslr.advisor.v1 import run_service_pb2


@given(st.lists(st.floats(-1e30, 1e30), max_size=5))
def test_numbers_keep_four_digits(values: list[float]) -> None:
    found = rounded(np.array(values, np.float64))
    for value, number in zip(values, found, strict=True):
        assert number == pytest.approx(value, rel=6e-4, abs=1e-293)
        digits = f"{number!r}".replace(".", "").strip("-0")
        assert len(digits) <= 4 or not 1e-4 < abs(number) < 1e15


def test_numbers_without_a_value_become_null() -> None:
    data = {"values": rounded(np.array([[0.1 + 0.2, math.nan], [math.inf, 12345678.0]]))}
    assert json.loads(to_json(data)) == {"values": [[0.3, None], [None, 12350000.0]]}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/projects/nlp/runs/a?lang=ja", "/projects/nlp/runs/a?lang=ja"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_only_to_pages_of_this_service(text: str, target: str) -> None:
    assert safe_target(text) == target


@pytest.mark.parametrize("text", ["", "two words", "a;b", "\u00e9", "line\nbreak", "x" * 600])
def test_a_text_that_no_cookie_can_carry_is_not_a_token(text: str) -> None:
    assert not is_token(text)


def test_requests_of_one_viewer_are_limited_and_those_of_others_are_not() -> None:
    limits = Limits(max_requests_per_s=1, max_live_pages=10)
    for _ in range(5):
        limits.request("a")
    with pytest.raises(LimitExceededError, match="more than 1 request per second"):
        limits.request("a")
    limits.request("b")


def test_a_request_that_costs_more_than_a_burst_is_answered_from_a_full_bucket() -> None:
    limits = Limits(max_requests_per_s=1, max_live_pages=10)
    limits.request("a", cost=10)
    with pytest.raises(LimitExceededError, match="more than 1 request per second") as refused:
        limits.request("a", cost=10)
    assert 0 < refused.value.retry_s <= 5


def test_one_viewer_gets_half_of_the_live_pages() -> None:
    limits = Limits(max_requests_per_s=1, max_live_pages=3)
    with limits.live_page("a"), limits.live_page("a"):
        with pytest.raises(LimitExceededError, match="2 live pages are open; 3 is the maximum"):
            limits.check_live_pages("a")
        limits.check_live_pages("b")
    limits.check_live_pages("a")


def test_every_error_of_the_client_has_a_status() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ServiceError)
    ]
    assert len(kinds) > 10
    assert {int(status_of(kind("said so"))) for kind in kinds} <= {
        400,
        401,
        403,
        404,
        429,
        502,
        503,
    }
    assert int(status_of(RuntimeError())) == 500
    assert all(status_of(kind.__new__(kind)) == status for kind, status in STATUSES.items())


def test_ids_of_events_are_ordered_as_numbers() -> None:
    assert is_after("10-0", "9-0")
    assert is_after("9-10", "9-9")
    assert is_after("1-0", "")
    assert not is_after("9-9", "9-9")


def test_single_events_are_taken_from_the_start_to_the_end_of_a_run() -> None:
    run = run_service_pb2.Run()
    run.create_time.FromMilliseconds(50_000)
    run.update_time.FromMilliseconds(91_000)
    # The oldest event has the id 50000-0, which is not after itself.
    assert [*places_over(run, 5)] == ["", "60000-0", "70000-0", "80000-0", "90000-0"]
    run.update_time.FromMilliseconds(50_400)
    assert [*places_over(run, 3)] == ["", "50000-0", "50000-0"]


def test_a_name_may_break_after_its_parts_and_nothing_in_it_is_markup() -> None:
    assert _name("blocks.0.attn_norm/w") == "blocks.<wbr>0.<wbr>attn_norm/<wbr>w"
    assert _name("gpt 1.5/2.w") == "gpt 1.5/<wbr>2.<wbr>w"  # and not inside of a number
    assert _name("query_key_value_projection") == "query_<wbr>key_<wbr>value_<wbr>projection"
    assert "<img" not in _name("<img src=x>.weight")
    assert len(_name("x" * 1_000_000)) < 100
