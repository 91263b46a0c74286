"""Unusual requests to every method, with and without tokens; `make fuzz` sends more."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import valid
from tests.fuzz.heavy import MAX_SECONDS, heavy_inputs
from tests.fuzz.inputs import Input
from tests.fuzz.judging import complaint
from tests.fuzz.methods import Method, all_methods
from tests.fuzz.service import FuzzedService, fuzzed_service
from tests.fuzz.strategies import calls

_MAX_AT_ONCE = 4
_few_checks = settings(
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ]
)
every_method = pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.short)


@pytest.fixture(scope="module")
def service() -> Iterator[FuzzedService]:
    """A service whose log and last answer are checked after all tests."""
    with fuzzed_service() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[FuzzedService]:
    """A service that requires tokens."""
    with fuzzed_service(authenticate=True) as running:
        yield running


@every_method
def test_no_request_exposes_a_defect(service: FuzzedService, method: Method) -> None:
    for request in valid.requests(method.short):
        service.expect_ok(method.short, request)

    @_few_checks
    @given(st.lists(calls(method), min_size=1, max_size=_MAX_AT_ONCE))
    def holds(sent: list[Input]) -> None:
        for each, answer in zip(sent, service.send(*sent), strict=True):
            assert complaint(each, answer) == ""

    holds()


@every_method
def test_tokens_authorize_only_their_own_project_and_are_never_logged(
    guarded: FuzzedService, method: Method
) -> None:
    request = valid.requests(method.short)[0]
    plain = Input(method, (request.SerializeToString(),))
    (refused,) = guarded.send(plain)
    if method.service == "StatusService":  # names no project, so any valid token is accepted
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    else:
        guarded.expect_ok(method.short, request)
        assert refused.code in {
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
        }
    bearers = guarded.bearers
    assert bearers is not None

    @_few_checks
    @given(calls(method), st.randoms(use_true_random=False))
    def holds(sent: Input, chance: random.Random) -> None:
        authorized = bearers.shown(sent, chance)
        (answer,) = guarded.send(authorized)
        assert complaint(authorized, answer) == ""

    holds()


@pytest.mark.long
def test_large_requests_are_answered_in_time(service: FuzzedService) -> None:
    for what, sent in heavy_inputs():
        before = service.processor_seconds()
        (answer,) = service.send(sent)
        assert complaint(sent, answer) == "", what
        assert service.processor_seconds() - before < MAX_SECONDS, what


@pytest.mark.long
def test_valid_requests_do_not_leak_memory(service: FuzzedService) -> None:
    """A leak of 500 bytes per call would add 1 MiB."""
    inputs = [
        Input(method, (request.SerializeToString(),))
        for method in all_methods()
        if not method.gives_stream or method.takes_stream
        for request in valid.requests(method.short)
    ]
    endless = itertools.cycle(inputs)

    def send(count: int) -> int:
        for _ in range(count // _MAX_AT_ONCE):
            service.send(*itertools.islice(endless, _MAX_AT_ONCE))
        return service.resident_kib()

    warm = send(600)  # fills the caches
    assert send(2_000) - warm < 1024
