"""Results of finished trainings, in a folder: an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from google.protobuf.message import Message

from benchmarks.code_version import advised_code, client_code, recipe_code
from benchmarks.transfer.training import Trained, Training

_FORMAT = 2  # raised where the code of trainings changes their numbers


class FinishedTrainings:
    """Results by training, without the losses of each step.

    A plain training is known by its definition. What is recorded or advised also depends on the
    code of the client, or of client and service, and on the recipe that it follows; a change of
    that code makes its results unknown.

    Args:
        folder: The folder, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, training: Training, profiles: Mapping[str, str]) -> Trained | None:
        """Return the result of a training, or None if it is not known.

        Args:
            training: The training.
            profiles: Digest of the content of each registered profile, by name.

        Raises:
            ValueError: The training's file has the result of a different training.
        """
        definition = _definition_of(training, profiles)
        file = self._file_of(definition)
        if definition is None or file is None or not file.is_file():
            return None
        stored = json.loads(file.read_text("utf-8"))
        if stored["training"] != definition:
            raise ValueError(f"{file} has the result of a different training; remove it")
        result = stored["result"]
        return Trained(
            loss=math.inf if result["loss"] is None else result["loss"],
            seconds=result["seconds"],
            losses=[],
            unevenness=math.nan if result["unevenness"] is None else result["unevenness"],
            content=base64.b64decode(result["content"]),
            totals=tuple((step, total) for step, total in result["totals"]),
            unanswered=result["unanswered"],
            multipliers=result["multipliers"],
        )

    def put(self, training: Training, trained: Trained, profiles: Mapping[str, str]) -> None:
        """Keep the result of a training; one with a function of its own is not kept.

        Args:
            training: The training.
            trained: Its result.
            profiles: Digest of the content of each registered profile, by name.
        """
        definition = _definition_of(training, profiles)
        file = self._file_of(definition)
        if file is None:
            return
        result = {
            "loss": trained.loss if math.isfinite(trained.loss) else None,
            "seconds": trained.seconds,
            "unevenness": None if math.isnan(trained.unevenness) else trained.unevenness,
            "content": base64.b64encode(trained.content).decode(),
            "totals": trained.totals,
            "unanswered": trained.unanswered,
            "multipliers": trained.multipliers,
        }
        text = json.dumps({"training": definition, "result": result}, allow_nan=False)
        temporary = file.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(text + "\n", "utf-8")
        temporary.replace(file)

    def _file_of(self, definition: dict[str, Any] | None) -> Path | None:
        if definition is None:
            return None
        text = json.dumps(definition, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _definition_of(training: Training, profiles: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what the result of a training depends on; None if that cannot be written."""
    definition = asdict(training) | {
        "address": "",
        "profile": profiles.get(training.profile, training.profile),
        "parametrisation": [  # as in the results that are stored
            type(training.parametrization).__name__,
            repr(training.parametrization),
        ],
        "format": _FORMAT,
        "torch": torch.__version__,
    }
    del definition["parametrization"]
    if training.advice is not None:
        if training.advice.adjust is not None:
            return None
        definition["code"] = advised_code()
        policy = training.advice.policy
        recipe = training.advice.recipe or (policy.recipe if policy is not None else "")
        if recipe:
            definition["recipe_code"] = recipe_code(recipe)
    elif training.recording is not None:
        definition["code"] = client_code()
    found: dict[str, Any] = json.loads(json.dumps(definition, default=_as_text))
    return found


def _as_text(value: object) -> str:
    if isinstance(value, Message):
        return value.SerializeToString(deterministic=True).hex()
    return str(value)
