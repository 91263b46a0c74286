"""Exceptions become statuses, and statuses client exceptions; both tables are complete."""

from __future__ import annotations

import inspect
from typing import Any

import grpc
import pytest

from advisor import errors as advisor_errors
from advisor import policy
from advisor.rpc.status import status_of
from advisor.wire.errors import TABLE, error_mapping_of
from fslr import errors as fslr_errors
from fslr.advisor.v1 import error_pb2
from fslr.client.status_errors import service_error


def leaves(module: object, base: type[Exception]) -> set[type[Exception]]:
    """Return the exception classes of a module that no other class derives from."""
    classes = {c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, base)}
    return {c for c in classes if not any(d is not c and issubclass(d, c) for d in classes)}


def test_every_exception_of_the_service_has_a_status() -> None:
    expected = leaves(advisor_errors, advisor_errors.AdvisorError) | leaves(
        policy, policy.PolicyError
    )
    assert set(TABLE) == expected


def test_every_reason_of_the_contract_has_an_exception_in_the_client() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in dict(error_pb2.ErrorReason.items())}
    assert set(fslr_errors.BY_REASON) == reasons - {"UNSPECIFIED"}


def test_every_reason_is_used_once() -> None:
    used = [mapping.reason for mapping in TABLE.values()] + [error_mapping_of(KeyError("x")).reason]
    assert sorted(used) == sorted(fslr_errors.BY_REASON)


def test_the_status_of_a_defect_reveals_no_internals() -> None:
    status = status_of(KeyError("secret"))
    assert status.message == "internal error; please report it, with the service's log"
    assert "secret" not in str(status)


def test_the_public_exceptions_of_the_client_form_one_tree() -> None:
    import fslr

    public = [getattr(fslr, name) for name in fslr.__all__ if name.endswith("Error")]
    assert all(issubclass(kind, fslr.FslrError) for kind in public)
    assert leaves(fslr_errors, fslr_errors.FslrError) <= set(public)


class _Call(grpc.RpcError, grpc.Call):
    """A failed call as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, trailing: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__()
        self._code, self._trailing = code, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "what gRPC says"

    def trailing_metadata(self) -> Any:
        return self._trailing

    def _not_asked(self, *_: object) -> bool:
        return False

    initial_metadata = is_active = time_remaining = cancel = add_callback = _not_asked  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, fslr_errors.UnavailableError, "no advisor answers at host:1"),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            fslr_errors.DeadlineExceededError,
            "not answer in time",
        ),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            fslr_errors.UnsupportedMethodError,
            "the service at host:1 does not have this method (what gRPC says): it is older",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, fslr_errors.MessageTooLargeError, "what gRPC says"),
        (grpc.StatusCode.PERMISSION_DENIED, fslr_errors.PermissionDeniedError, "what gRPC says"),
        (grpc.StatusCode.UNAUTHENTICATED, fslr_errors.AuthenticationError, "what gRPC says"),
        (grpc.StatusCode.DATA_LOSS, fslr_errors.ServiceError, "DATA_LOSS: what gRPC says"),
    ],
)
def test_errors_of_grpc_itself_become_client_exceptions(
    code: grpc.StatusCode, kind: type[fslr_errors.ServiceError], message: str
) -> None:
    error = service_error(_Call(code), "host:1")
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.parametrize("trailing", [b"\xff\xff", b""])
def test_unreadable_details_do_not_hide_the_error(trailing: bytes) -> None:
    call = _Call(grpc.StatusCode.NOT_FOUND, (("grpc-status-details-bin", trailing),))
    assert type(service_error(call, "host:1")) is fslr_errors.NotFoundError
