"""A service with its web page, and runs to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.client.stream import StreamSession
from tests.building import content_message, opening_message
from tests.stored_runs import block_names, measurement

PROFILE = "char-gpt"
NAMES = tuple(block_names(3))
STEP = 25  # between measurements


class WebService(LocalServer):
    """A service on free ports, with its page.

    Args:
        data_dir: Data directory of the embedded Redis. Default: a temporary one.
        arguments: Further arguments of ``advisor serve``.
        http: Port of the page; 0 takes a free one.
    """

    def __init__(self, data_dir: Path | None = None, *arguments: str, http: int = 0) -> None:
        super().__init__(data_dir, "--http", str(http), *arguments)

    @property
    def url(self) -> str:
        """The page's address, without a slash at the end."""
        return self.web_url()


class Run:
    """A training job that reports measurements, one at a time.

    Args:
        client: The client.
        name: The run's id.
        project: Its project.
        profile: The profile that it follows.
        names: The groups' names.
        total_steps: Number of steps that are planned.
        observe_only: Whether it applies no multipliers.
    """

    def __init__(
        self,
        client: AdvisorClient,
        name: str,
        *,
        project: str = "default",
        profile: str = PROFILE,
        names: Sequence[str] = NAMES,
        total_steps: int = 10_000,
        observe_only: bool = False,
    ) -> None:
        opening = opening_message(
            f"projects/{project}/profiles/{profile}",
            names,
            run=f"projects/{project}/runs/{name}",
            total_steps=total_steps,
        )
        opening.observe_only = observe_only
        self._groups = len(names)
        self._session: StreamSession = client.open_run(opening)
        self._last: pb.RecommendLRResponse | None = None
        self.measurements = 0

    def measure(self, count: int = 1) -> None:
        """Report measurements."""
        for _ in range(count):
            step = STEP * self.measurements
            measured = measurement(step, self._groups, STEP if self.measurements else 0)
            if self._last is not None:
                measured.multipliers[:] = self._last.multipliers
                measured.advised[:] = self._last.recommended
            self._last = self._session.recommend(measured)
            self.measurements += 1

    @property
    def last_step(self) -> int:
        """Step of the last measurement."""
        return STEP * (self.measurements - 1)

    def close(self) -> None:
        """End the stream."""
        self._session.close()


def register(client: AdvisorClient, *, project: str = "default") -> None:
    """Register the profile of the runs, with a spread between seeds."""
    content = content_message(NAMES, steps=range(0, 1000, 50), docs="For <b>char</b> models.")
    for point in content.points:
        point.spreads[:] = np.full(len(NAMES), 0.1).tolist()
    client.register_profile(PROFILE, content, project=project)
