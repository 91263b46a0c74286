"""The measurement batch."""

from __future__ import annotations

import torch

from fslr.torch import Batch


def test_chunks_have_nearly_equal_sizes_and_cut_nested_tensors() -> None:
    inputs, mask = torch.arange(10).view(10, 1), torch.ones(7, 7)
    batch = Batch.from_call((inputs,), {"more": {"again": [inputs]}, "mask": mask})
    chunks = batch.chunks(4)
    assert [chunk.examples for chunk in chunks] == [2, 3, 3, 2]
    assert torch.equal(torch.cat([c.kwargs["more"]["again"][0] for c in chunks]), inputs)
    assert all(chunk.kwargs["mask"] is mask for chunk in chunks)
    assert len(batch.chunks(50)) == 10


def test_sequences_of_different_lengths_share_a_pattern_unless_sizes_coincide() -> None:
    def pattern(*shape: int) -> tuple[object, ...]:
        return Batch.from_call((torch.zeros(shape),), {}).pattern()

    assert pattern(8, 12) == pattern(8, 20) == pattern(4, 5)
    assert pattern(8, 12) != pattern(8, 8)
    assert pattern(8, 12) != pattern(1, 12)
    assert pattern(8, 12) != pattern(8)
