"""Measurements of several ranks are combined into one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fslr import MeasurementError
from fslr.torch.distributed import Ranks, uneven_steps
from fslr.training.projections import ProjectionSums, sums_of_rows
from tests.small_net import attached, backward, net

_GROUPS = 3


class Exchange:
    """Lets ranks that are threads of one process exchange tensors."""

    def __init__(self, count: int) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.barrier = threading.Barrier(count, timeout=10)


class Thread(Ranks):
    """One rank; counts the elements that it exchanges."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        super().__init__()
        self.rank, self.count, self.exchanged = rank, exchange.barrier.parties, 0
        self._exchange = exchange

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        self.exchanged += values.numel()
        self._exchange.tensors[self.rank] = values
        self._exchange.barrier.wait()
        stacked = torch.stack([self._exchange.tensors[rank] for rank in range(self.count)])
        self._exchange.barrier.wait()
        return stacked.sum(0) if how == dist.ReduceOp.SUM else stacked.amin(0)


def run_ranks(functions: list[Callable[[Thread], Any]]) -> tuple[list[Thread], list[Any]]:
    """Run one function per rank; return the ranks and each result or MeasurementError."""
    exchange = Exchange(len(functions))
    ranks = [Thread(rank, exchange) for rank in range(len(functions))]

    def one(rank: Thread) -> Any:
        try:
            return functions[rank.rank](rank)
        except MeasurementError as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return ranks, list(pool.map(one, ranks))


def summing(sums: ProjectionSums | None, groups: int = _GROUPS) -> Callable[[Thread], Any]:
    return lambda rank: rank.sum(sums, groups)


def some_sums(probes: int, groups: int = _GROUPS) -> ProjectionSums:
    return sums_of_rows(
        torch.randn(probes, 6, groups, dtype=torch.float64).numpy(),
        np.ones(groups, dtype=bool),
        elements=6,
        probes=probes,
    )


def test_ranks_with_different_numbers_of_probes_are_weighted_by_their_elements() -> None:
    torch.manual_seed(0)
    one, eight = some_sums(1, groups=1), some_sums(8, groups=1)
    _, (mine, other) = run_ranks([summing(one, 1), summing(eight, 1)])
    (rate,) = mine.estimate(["w"]).unit_rates
    expected = (float(one.squares[0]) / 1 + float(eight.squares[0]) / 8) / 12
    assert rate**2 == pytest.approx(expected)
    assert other.estimate(["w"]).unit_rates == [rate]


def test_ranks_on_which_more_counts_weigh_more() -> None:
    torch.manual_seed(0)
    much, little, nothing = (some_sums(1, groups=1) for _ in range(3))
    much = replace(much, elements=6.5, changes=2.0, residuals=1.0)
    little = replace(little, elements=0.5)
    nothing = replace(nothing, elements=0.0, squares=np.zeros(1))
    _, found = run_ranks([summing(nothing, 1), summing(much, 1), summing(little, 1)])
    for total in found:
        expected = (float(much.squares[0]) + float(little.squares[0])) / 7
        assert total.estimate(["w"]).unit_rates[0] ** 2 == pytest.approx(expected)
        assert (total.changes, total.residuals) == (2.0, 1.0), "also where a rank knows none"
    _, found = run_ranks([summing(nothing, 1)] * 2)
    with pytest.raises(MeasurementError, match=r"12 measured example\(s\) the weight 0"):
        found[0].estimate(["w"])


def test_the_gram_matrices_of_ranks_add_up() -> None:
    torch.manual_seed(0)
    one, other = some_sums(2), some_sums(2)
    _, found = run_ranks([summing(one), summing(other)])
    expected = one + other
    for total in found:
        assert total.gram is not None
        assert expected.gram is not None
        np.testing.assert_allclose(total.gram, expected.gram)
        np.testing.assert_allclose(total.squares, expected.squares)
        np.testing.assert_allclose(total.fourths, expected.fourths)
        assert (total.elements, total.examples, total.probes) == (12, 12, 2)


@pytest.mark.parametrize("without", [1, 2])
def test_gram_matrices_are_sent_only_if_every_rank_has_one(without: int) -> None:
    torch.manual_seed(0)
    groups = 50
    sums = [some_sums(1, groups) for _ in range(2)]
    sums[-without:] = [replace(part, gram=None) for part in sums[-without:]]
    ranks, found = run_ranks([summing(part, groups) for part in sums])
    assert [total.gram for total in found] == [None, None]
    assert all(rank.exchanged < 3 * groups for rank in ranks)
    np.testing.assert_allclose(found[0].squares, sums[0].squares + sums[1].squares)


def test_all_ranks_fail_if_one_could_not_measure() -> None:
    ranks, found = run_ranks([summing(some_sums(1)), summing(None), summing(some_sums(1))])
    assert [str(error) for error in found] == [
        "1 of 3 ranks could not measure; see the logs of the others"
    ] * 3
    assert all(rank.exchanged < 10 for rank in ranks)  # no sums are sent


def test_ranks_agree_on_the_least_number_and_on_any_flag() -> None:
    _, least = run_ranks([lambda rank: rank.least(5 - rank.rank)] * 3)
    assert least == [3, 3, 3]
    _, flags = run_ranks([lambda rank: rank.any([rank.rank == 1, False, True])] * 2)
    assert flags == [[True, False, True]] * 2
    assert (Ranks().least(4), Ranks().any([True, False])) == (4, [True, False])


def test_ranks_that_may_make_different_numbers_of_steps_do_nothing_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        model = nn.parallel.DistributedDataParallel(net())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        attachment, advisor = attached(model, optimizer, strict=False, interval=1, answers="wait")
        # Only trainings on several ranks look for join(), and this one has a single rank.
        attachment._hooks._cycle._uneven_steps = partial(uneven_steps, model)  # type: ignore[attr-defined]

        def train() -> None:
            for step in range(3):
                backward(model, step)
                optimizer.step()

        with caplog.at_level(logging.WARNING, "fslr"):
            with model.join(throw_on_early_termination=True):
                train()
            assert (attachment.failures, len(advisor.measurements)) == (0, 3)
            with model.join():
                train()
            train()  # the counts of steps differ from now on
        assert (attachment.failures, len(advisor.measurements)) == (1, 3)
        assert attachment.step == 9
        (record,) = caplog.records
        assert "runs inside of join(), where ranks may make different" in record.getMessage()
    finally:
        dist.destroy_process_group()
