"""Results of finished trainings, in a folder: an interrupted benchmark goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.code_version import advised_code, client_code, recipe_code
from benchmarks.practice.training import Trained, Training
from fslr.advisor.v1 import policy_pb2

_FORMAT = 1  # raised where the code of trainings changes their numbers


class Store:
    """Results by training.

    A plain training is known by its definition. What is recorded or advised also depends on the
    code of the client, or of client and service, and on the recipe that it follows; a change of
    that code makes its results unknown.

    Args:
        folder: The folder, which is made if it does not exist; None: results are kept in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Trained] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, training: Training) -> Trained | None:
        """Return the result of a training, or None if it is not known.

        Args:
            training: The training.

        Raises:
            ValueError: The training's file has the result of a different training.
        """
        key, definition = _key_of(training)
        if key not in self._known and self._folder is not None:
            file = self._folder / f"{key}.json"
            if not file.is_file():
                return None
            stored = json.loads(file.read_text("utf-8"))
            if stored["training"] != definition:
                raise ValueError(f"{file} has the result of a different training; remove it")
            self._known[key] = Trained.from_json(stored["result"])
        return self._known.get(key)

    def put(self, training: Training, trained: Trained) -> None:
        """Keep the result of a training.

        Args:
            training: The training.
            trained: Its result.
        """
        key, definition = _key_of(training)
        text = json.dumps({"training": definition, "result": trained.to_json()}, allow_nan=False)
        # Read back, so that a result is the same here and after an interruption.
        self._known[key] = Trained.from_json(json.loads(text)["result"])
        if self._folder is not None:
            file = self._folder / f"{key}.json"
            temporary = file.with_suffix(f".{os.getpid()}.new")
            temporary.write_text(text + "\n", "utf-8")
            temporary.replace(file)


def _key_of(training: Training) -> tuple[str, dict[str, Any]]:
    """Return a training's key and the definition that it is made of."""
    definition = asdict(training)
    advice = training.advice
    if advice is not None:
        definition["advice"] = {
            "profile": hashlib.sha256(advice.profile).hexdigest(),
            "policy": hashlib.sha256(advice.policy).hexdigest(),
            "code": advised_code(),
        }
        recipe = policy_pb2.Policy.FromString(advice.policy).recipe
        if recipe:
            definition["advice"]["recipe_code"] = recipe_code(recipe)
    elif training.is_recorded:
        definition["code"] = client_code()
    definition |= {"format": _FORMAT, "torch": torch.__version__}
    text = json.dumps(definition, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24], json.loads(text)
