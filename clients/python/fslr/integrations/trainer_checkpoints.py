"""Keeps the state of an attachment or a recorder in a Hugging Face ``Trainer``'s checkpoints."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fslr.training.checkpoints import Stateful

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

_log = logging.getLogger("fslr")

_STATE_FILE = "trainer_state.json"  # of the trainer's own state, in each checkpoint


class TrainerCheckpoints:
    """Writes a file into each checkpoint folder, and finds it again when a training resumes.

    Each process has a file of its own, since each draws its own probes.

    Args:
        name: Name of the file, without its suffix.
        resume_from: Folder of the checkpoint that the training resumes from. None: the one that the
            arguments name, or the one of the step in the output folder.
    """

    def __init__(self, name: str, resume_from: str | os.PathLike[str] | None = None) -> None:
        self._name = name
        self._resume_from = resume_from

    def save(self, part: Stateful, args: TrainingArguments, state: TrainerState) -> None:
        """Save a state into the checkpoint that the trainer has just written.

        A file that cannot be written is a warning: the training goes on.

        Args:
            part: The attachment or recorder.
            args: The trainer's arguments.
            state: The trainer's state.
        """
        file = _of_step(args, state) / self._file_name(args.process_index)
        partial = file.with_suffix(".partial")
        try:
            torch.save(part.state_dict(), partial)
            partial.replace(file)
        except (OSError, RuntimeError) as error:
            _log.warning(
                "%s was not saved, so a training that resumes from this checkpoint starts to "
                "measure anew: %s",
                file,
                error,
            )

    def load(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
        """Return the state in the checkpoint that the training resumes from; None if it has none.

        Args:
            args: The trainer's arguments.
            state: The trainer's state, as the trainer has read it from the checkpoint.
        """
        for folder in self._folders(args, state):
            # Those of a checkpoint that was saved by fewer processes are in the first one's file.
            for rank in (args.process_index, 0):
                file = folder / self._file_name(rank)
                if file.is_file() and _is_resumed(folder, state):
                    found: dict[str, Any] = torch.load(file, weights_only=True)
                    return found
        return None

    def _file_name(self, rank: int) -> str:
        return f"{self._name}_{rank}.pt" if rank else f"{self._name}.pt"

    def _folders(self, args: TrainingArguments, state: TrainerState) -> Iterator[Path]:
        """Iterate over where the checkpoint may be; a trainer does not tell its callbacks."""
        for given in (self._resume_from, args.resume_from_checkpoint):
            if isinstance(given, (str, os.PathLike)):
                yield Path(given)
        yield _of_step(args, state)


def _of_step(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _is_resumed(folder: Path, state: TrainerState) -> bool:
    """Return whether a folder has the trainer's state: a different training has the same steps."""
    try:
        saved = json.loads((folder / _STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    found = saved.get("global_step"), saved.get("log_history")
    return json.dumps(found) == json.dumps((state.global_step, state.log_history))
