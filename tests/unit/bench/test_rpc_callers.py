"""Concurrent callers of the rpc benchmark: their workload and their rate of calls."""

from __future__ import annotations

import time

import pytest

from benchmarks.rpc.callers import Workload, calls_per_second


def test_the_calls_of_all_callers_are_counted() -> None:
    numbers: list[int] = []

    def call(number: int, until: float) -> int:
        numbers.append(number)
        while time.monotonic() < until:
            time.sleep(0.01)
        return 10 * (number + 1)

    started = time.monotonic()
    per_second = calls_per_second(call, Workload(callers=3, parameters=1, seconds=0.1))
    elapsed = time.monotonic() - started
    assert sorted(numbers) == [0, 1, 2]
    assert 60 / elapsed <= per_second <= 60 / 0.1


def test_a_workload_is_read_from_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(callers=3, parameters=100, seconds=0.5)
    monkeypatch.setattr("sys.argv", ["script", *workload.options])
    assert Workload.from_command_line() == workload
