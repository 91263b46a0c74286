"""Logs an attached or recorded training to MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from fslr.errors import AttachError
from fslr.integrations.requirements import required
from fslr.integrations.scalars import Scalars
from fslr.training.events import Event, Warned

_REFUSED = re.compile(r"[^\w\-. :]")  # by MLflow in names; a slash would make folders
_MAX_TAG = 5_000  # characters
_MAX_METRICS = 1_000  # of a request


def _accepted(name: str) -> str:
    return _REFUSED.sub("_", name)


class MlflowListener:
    """Logs metrics to a run of MLflow; pass it as ``listeners=[MlflowListener()]``.

    Metrics are sent in the background, so that a slow tracking server does not delay the training.

    Args:
        run_id: The run; None: the active one.
        groups: Patterns of the groups whose own numbers are logged; see :class:`.Scalars`.
        prefix: What all names begin with.

    Raises:
        ImportError: The package is not installed, or too old.
        AttachError: No run is active, and none is given.
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        groups: Sequence[str] = ("*",),
        prefix: str = "fslr/",
    ) -> None:
        with required("mlflow-skinny", "2.14", extra="mlflow"):
            import mlflow  # noqa: PLC0415 - loaded only if used
        if run_id is None:
            active = mlflow.active_run()
            if active is None:
                raise AttachError(
                    "no MLflow run is active; call mlflow.start_run() before, or pass run_id"
                )
            run_id = active.info.run_id
        self._run_id = run_id
        self._mlflow: Any = mlflow
        self._client: Any = mlflow.MlflowClient()
        self._metric: Any = mlflow.entities.Metric
        self._tag: Any = mlflow.entities.RunTag
        self._prefix = prefix
        self._scalars = Scalars(groups, prefix, _accepted)

    def __call__(self, event: Event, /) -> None:
        """Log the numbers of an event, and keep the text of a warning as a tag of the run."""
        # mlflow.log_metrics would ask the server for the whole run first, each time.
        milliseconds = time.time_ns() // 1_000_000
        metrics = [
            self._metric(name, value, milliseconds, event.step)
            for name, value in self._scalars.of(event).items()
        ]
        for start in range(0, len(metrics), _MAX_METRICS):
            some = metrics[start : start + _MAX_METRICS]
            self._client.log_batch(self._run_id, metrics=some, synchronous=False)
        if isinstance(event, Warned) and not event.is_hint:
            tag = self._tag(f"{self._prefix}last_warning", event.message[:_MAX_TAG])
            self._client.log_batch(self._run_id, tags=[tag], synchronous=False)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._mlflow.flush_async_logging()
