"""A limit on what measuring costs changes what is measured."""

from __future__ import annotations

import pytest

from fslr import AttachError
from fslr.torch import attach
from tests.training_jobs import in_process, wide


def test_a_budget_changes_examples_and_probes_of_real_measurements() -> None:
    model, optimizer, backward = wide()
    with attach(
        model, optimizer, profile="x", advisor=in_process(), max_overhead=1e-6
    ) as attachment:
        found = []
        for _ in range(120):
            backward()
            optimizer.step()
            assert attachment.estimate is not None
            found.append((attachment.estimate.examples, attachment.estimate.probes))
    # No measurement is as cheap as that, so the smallest ones are made as rarely as is allowed.
    assert found[99] == found[0]
    assert found[100] == (min(8, found[0][0]), 1)


@pytest.mark.parametrize("limit", [0.0, float("nan")])
def test_a_budget_out_of_its_range_is_refused(limit: float) -> None:
    model, optimizer, _ = wide()
    with pytest.raises(AttachError, match=f"max_overhead is {limit}; it is a part of the"):
        attach(model, optimizer, profile="x", advisor=in_process(), max_overhead=limit)
