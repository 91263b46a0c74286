"""Clients that register, move aliases, set policies, stream measurements and read."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from fslr import AdvisorClient, ServiceError
from tests.chaos import values
from tests.chaos.history import Recorder, Values
from tests.chaos.recording import REFUSALS, RecordedAdvisor, answered, carry_out


class ClientPool:
    """Clients that work until they are stopped, each in its own thread.

    Args:
        address: The address of the service's replicas.
        project: The project in which they work.
        recorder: Records their operations.
        deadline_s: Deadline of each call, in seconds.
        seed: Seed of their random choices.
        pause_s: Mean pause of a client between two operations, in seconds.
    """

    def __init__(
        self,
        address: str,
        project: str,
        recorder: Recorder,
        *,
        deadline_s: float,
        seed: int,
        pause_s: float,
    ) -> None:
        self._address, self._project, self._recorder = address, project, recorder
        self._deadline_s, self._pause_s, self._seed = deadline_s, pause_s, seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next_number = 1  # content 0 is registered before the faults start
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all clients."""
        works: list[Callable[[_Worker], None]] = [
            *(_register, _register, _move, _move, _remove, _set_policy, _read),
            *(_stream, _stream, _stream, _ask_once),
        ]
        for i, work in enumerate(works):
            name = f"{work.__name__.strip('_')}-{i}"
            thread = threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> list[str]:
        """Stop all clients, and return the names of those that do not stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10 * self._deadline_s)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run(self, name: str, work: Callable[[_Worker], None]) -> None:
        rng = random.Random(f"{self._seed} {self._project} {name}")
        client = AdvisorClient(self._address, deadline_s=self._deadline_s, actor=name)
        worker = _Worker(client, self._project, self._recorder, rng, self.take_number)
        while not self._stop.is_set():
            try:
                work(worker)
            except Exception as error:
                self._recorder.note("broken", client=name, error=f"{type(error).__name__}: {error}")
                raise
            self._stop.wait(rng.uniform(0, 2 * self._pause_s))
        client.close()

    def take_number(self, rng: random.Random) -> int:
        """Return the number of a content: mostly a new one, sometimes one that was used before."""
        with self._lock:
            if rng.random() < 0.3:
                return rng.randint(max(0, self._next_number - 20), self._next_number)
            self._next_number += 1
            return self._next_number


class _Worker:
    """The state of one client."""

    def __init__(
        self,
        client: AdvisorClient,
        project: str,
        recorder: Recorder,
        rng: random.Random,
        take_number: Callable[[random.Random], int],
    ) -> None:
        self.client, self.project, self.recorder, self.rng = client, project, recorder, rng
        self._take_number = take_number
        self.known: dict[str, Values] = {}  # the last response to a read of each profile
        self._requests = 0

    def number(self) -> int:
        """Return the number of a content to register."""
        return self._take_number(self.rng)

    def write(self, kind: str, request: Values, call: Callable[[str], Values]) -> Values | None:
        """Make a write; half of all writes are retried while their outcome is unknown."""
        self._requests += 1
        request_id = f"{self.client.actor}-{self._requests}"
        return carry_out(
            self.recorder,
            kind,
            {**request, "request_id": request_id},
            lambda: call(request_id),
            tries=self.rng.choice((1, 4)),
        )

    def read(self, profile: str, suffix: str = "") -> Values | None:
        """Read a profile."""

        def call() -> Values:
            name = f"{profile}@{suffix}" if suffix else profile
            found = self.client.get_profile(name, project=self.project)
            rates = found.profile.content.points[0].unit_rates
            return {
                "version": found.profile.version,
                "digest": found.profile.digest,
                "number": round(values.number_of(rates[0])),
                "versions": list(found.versions),
                "aliases": {a.name: (a.version, int(a.etag)) for a in found.aliases},
            }

        response = carry_out(self.recorder, "read", {"profile": profile, "suffix": suffix}, call)
        if response is not None:
            self.known[profile] = response
        return response

    def any_suffix(self, profile: str) -> str:
        """Return an alias, a version that was read before, or an empty suffix (the latest one)."""
        versions = self.known.get(profile, {}).get("versions") or [1]
        number = str(self.rng.choice(versions))
        return self.rng.choice([*values.ALIASES, *values.ALIASES, "", number])


def _register(worker: _Worker) -> None:
    profile, number = worker.rng.choice(values.PROFILES), worker.number()
    content = values.content(profile, number, worker.project)

    def call(request_id: str) -> Values:
        made = worker.client.register_profile(
            profile, content, project=worker.project, request_id=request_id
        )
        return {
            "version": made.profile.version,
            "digest": made.profile.digest,
            "created": made.created,
        }

    worker.write("register", {"profile": profile, "number": number}, call)


def _move(worker: _Worker) -> None:
    """Read an alias and move it: with the etag or the version that was read, or unconditionally."""
    profile, alias = worker.rng.choice(values.PROFILES), worker.rng.choice(values.ALIASES)
    seen = worker.read(profile)
    if seen is None:
        return
    version, moves = seen["aliases"].get(alias, (0, None))
    to = worker.rng.choice(seen["versions"][-8:])
    expected_version, etag = worker.rng.choice([
        (version, ""),
        (None, "" if moves is None else str(moves)),
        (None, ""),
    ])

    def set_alias(request_id: str) -> Values:
        moved = worker.client.set_alias(
            f"{profile}@{to}",
            alias,
            expected_version=expected_version,
            etag=etag,
            project=worker.project,
            request_id=request_id,
        )
        return {
            "version": moved.alias.version,
            "previous": moved.previous_version,
            "moves": int(moved.alias.etag),
        }

    def delete_alias(request_id: str) -> Values:
        worker.client.delete_alias(
            profile, alias, etag=etag, project=worker.project, request_id=request_id
        )
        return {}

    request = {"profile": profile, "alias": alias, "etag": etag}
    if worker.rng.random() < 0.15:
        worker.write("delete_alias", request, delete_alias)
    else:
        request |= {"version": to, "expected_version": expected_version}
        worker.write("set_alias", request, set_alias)


def _remove(worker: _Worker) -> None:
    """Delete an old version if there are many."""
    profile = worker.rng.choice(values.PROFILES)
    seen = worker.read(profile)
    if seen is None or len(seen["versions"]) < 12:
        return
    version = worker.rng.choice(seen["versions"][:-8])

    def call(request_id: str) -> Values:
        worker.client.delete_profile(
            f"{profile}@{version}", project=worker.project, request_id=request_id
        )
        return {}

    worker.write("delete_profile", {"profile": profile, "version": version}, call)


def _set_policy(worker: _Worker) -> None:
    number = worker.rng.randint(0, 999)
    expected: int | None = None
    if worker.rng.random() < 0.5:
        try:
            expected = worker.client.get_policy(values.POLICY, project=worker.project).version
        except ServiceError:
            return

    def call(request_id: str) -> Values:
        made = worker.client.set_policy(
            values.POLICY,
            values.rules(number),
            expected_version=expected,
            project=worker.project,
            request_id=request_id,
        )
        return {"version": made.policy.version, "created": made.created}

    request: dict[str, Any] = {"policy": values.POLICY, "number": number}
    worker.write("set_policy", {**request, "expected_version": expected}, call)


def _read(worker: _Worker) -> None:
    profile = worker.rng.choice(values.PROFILES)
    worker.read(profile, worker.any_suffix(profile))


_STREAMED = ("plain", "shared")


def _stream(worker: _Worker) -> None:
    """Request several recommendations in one run's session."""
    profile = worker.rng.choice(_STREAMED)
    suffix = worker.any_suffix(profile)
    advisor = RecordedAdvisor(worker.client, worker.recorder, profile, suffix, fixed_rates=True)
    opening = values.opening(worker.project, profile, suffix, worker.client.actor)
    session = advisor.open_run(opening)
    for step in range(worker.rng.randint(2, 30)):
        try:
            session.recommend(values.measurement(step))
        except ServiceError as error:
            if isinstance(error, REFUSALS):
                break
        time.sleep(worker.rng.uniform(0, 0.02))
    session.close()
    worker.read(profile)


def _ask_once(worker: _Worker) -> None:
    profile = worker.rng.choice(_STREAMED)
    suffix = worker.any_suffix(profile)
    opening = values.opening(worker.project, profile, suffix)

    def call() -> Values:
        answer = worker.client.recommend_once(opening, values.measurement(0))
        return {**answered(answer), "stream": f"once-{time.monotonic_ns()}"}

    request = {"profile": profile, "suffix": suffix, "fixed_rates": True}
    carry_out(worker.recorder, "recommend", request, call)
