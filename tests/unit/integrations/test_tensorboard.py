"""TensorBoard's own reader finds what a training wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from fslr.integrations.tensorboard import TensorBoardListener
from tests.unit.integrations.listened_training import MEASURED, NAMES, train

pytest.importorskip("tensorboard", reason="the listener writes TensorBoard's files")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard import SummaryWriter


@pytest.mark.compatibility("PyTorch loop", "trackers")
def test_a_folder_gets_a_file_that_tensorboard_reads(tmp_path: Path) -> None:
    listener = TensorBoardListener(tmp_path, groups=("2.*",))
    done = train(listener)
    listener.close()
    listener.close()  # does nothing
    read = EventAccumulator(str(tmp_path)).Reload()
    written = read.Tensors("fslr/rate/2.weight")
    assert [each.step for each in written] == MEASURED
    expected = [
        0.1 * multiplier * sent.unit_rates[NAMES.index("2.weight")]
        for multiplier, sent in zip((1.0, 2.0, 2.0), done.advisor.measurements, strict=True)
    ]
    values = [float(make_ndarray(each.tensor_proto)) for each in written]
    assert values == pytest.approx(expected, rel=1e-5)
    tags = read.Tags()["tensors"]
    assert "fslr/multiplier/2.bias" in tags
    assert "fslr/rate/0.weight" not in tags


def test_the_loops_own_writer_is_used_and_stays_open(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        listener = TensorBoardListener(writer, prefix="big/")
        train(listener)
        listener.close()
        writer.add_scalar("loss", 1.0, 7)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [each.step for each in read.Scalars("big/total_rate")] == MEASURED
    assert [each.step for each in read.Scalars("big/failures")] == MEASURED[-1:]
    assert [each.value for each in read.Scalars("loss")] == [1.0]
