"""Reads the file of a run of Weights & Biases."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.waiting import eventually

_FILE_HEADER_BYTES, _BLOCK_BYTES = 7, 32_768
_RECORD_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _LAST = 1, 4  # kinds of records; others go on in the next block


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's history, once the file is complete.

    Args:
        file: The file, which another process writes.
    """
    wandb_internal_pb2: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    found: list[dict[str, Any]] = []

    def is_whole() -> bool:
        found.clear()
        for data in _records(file.read_bytes()):
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


def _records(data: bytes) -> Iterator[bytes]:
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
