"""Calls in a forked process raise an error where gRPC may hang."""

from __future__ import annotations

import os

import pytest

from fslr.client import forks
from fslr.client.channel import Connection
from fslr.errors import ServiceError


@pytest.mark.parametrize("value", ["0", "False", "no"])
def test_a_forked_process_is_refused_where_its_calls_may_hang(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
    monkeypatch.setattr(forks, "_opened_in", {os.getppid()})
    with (
        Connection("127.0.0.1:1") as connection,
        pytest.raises(ServiceError, match=f"GRPC_ENABLE_FORK_SUPPORT={value} its own calls may"),
    ):
        connection.channel()


@pytest.mark.parametrize(("value", "opened_in"), [("0", set()), ("", {os.getppid()}), ("1", {1})])
def test_channels_open_in_all_other_processes(
    value: str, opened_in: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", value)
    monkeypatch.setattr(forks, "_opened_in", opened_in)
    with Connection("127.0.0.1:1") as connection:
        assert connection.channel() is connection.channel()
    assert os.getpid() in opened_in
