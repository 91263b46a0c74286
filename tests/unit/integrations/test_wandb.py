"""A run of Weights & Biases, offline: its own file has what a training logged."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fslr import AttachError
from fslr.integrations.wandb import WandbListener
from tests.unit.integrations.listened_training import MEASURED, STEPS, train
from tests.waiting import eventually

wandb = pytest.importorskip("wandb", reason="the listener logs to Weights & Biases")

_FILE_HEADER_BYTES, _BLOCK_BYTES = 7, 32_768
_RECORD_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _LAST = 1, 4  # kinds of records; others go on in the next block


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    settings = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False)
    started = wandb.init(mode="offline", project="test", dir=tmp_path, settings=settings)
    yield started
    started.finish()


def records(data: bytes) -> Iterator[bytes]:
    """Iterate over the records of a file of W&B, which has the format of LevelDB's logs."""
    place, parts = _FILE_HEADER_BYTES, b""
    while place + _RECORD_HEADER.size <= len(data):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _RECORD_HEADER.size:  # padding
            place += left
            continue
        _, length, kind = _RECORD_HEADER.unpack_from(data, place)
        place += _RECORD_HEADER.size
        parts += data[place : place + length]
        place += length
        if kind in {_FULL, _LAST}:
            yield parts
            parts = b""


def rows(run: Any) -> list[dict[str, Any]]:
    """Finish a run, and return the rows of its history."""
    wandb_internal_pb2: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    (file,) = Path(run.dir).parent.glob("*.wandb")
    run.finish()
    found: list[dict[str, Any]] = []

    def is_whole() -> bool:  # another process writes the file
        found.clear()
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                found.append({
                    item.key or "/".join(item.nested_key): item.value_json for item in items
                })
            if record.WhichOneof("record_type") == "exit":
                return True
        return False

    eventually(is_whole)
    return [{name: json.loads(value) for name, value in row.items()} for row in found]


@pytest.mark.compatibility("PyTorch loop", "trackers")
def test_numbers_join_the_rows_of_the_loop(run: Any) -> None:
    train(WandbListener(), on_step=lambda step: run.log({"loss": 1.0}, step=step))
    assert run.summary["fslr/last_warning"] == "the batch size differs from the profile's"
    assert run.summary["fslr/multiplier/2.bias"] == 4.0
    found = rows(run)
    assert [(row["_step"], row["loss"]) for row in found] == [(step, 1.0) for step in range(STEPS)]
    assert [row["fslr/step"] for row in found if "fslr/total_rate" in row] == MEASURED


def test_every_event_has_a_row_if_it_is_committed(run: Any) -> None:
    train(WandbListener(run, commit=True, groups=()))
    found = rows(run)
    assert [row["fslr/step"] for row in found if "fslr/measuring_s" in row] == MEASURED
    assert not any("fslr/rate/" in name for row in found for name in row)


def test_without_a_run_the_error_says_to_start_one() -> None:
    with pytest.raises(AttachError, match=r"no W&B run; call wandb\.init\(\) before, or pass its"):
        WandbListener()
