"""Clients at work: they register, move aliases, set policies, stream measurements and read."""

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


class Crowd:
    """Clients that work until they are told to stop, each on a thread of its own.

    Args:
        address: The service's replicas.
        project: Where they work.
        recorder: Where they take down what they do.
        deadline_s: Longest wait of each call, in seconds.
        seed: Where their choices come from.
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
        self._next_number = 1  # 0 is there before the faults begin
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Let them work."""
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
        """Let them end, and return the names of those that do not."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10 * self._deadline_s)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run(self, name: str, work: Callable[[_Worker], None]) -> None:
        chance = random.Random(f"{self._seed} {self._project} {name}")
        client = AdvisorClient(self._address, deadline_s=self._deadline_s, actor=name)
        worker = _Worker(client, self._project, self._recorder, chance, self.take_number)
        while not self._stop.is_set():
            try:
                work(worker)
            except Exception as error:
                self._recorder.note("broken", client=name, error=f"{type(error).__name__}: {error}")
                raise
            self._stop.wait(chance.uniform(0, 2 * self._pause_s))
        client.close()

    def take_number(self, chance: random.Random) -> int:
        """Return a content's number: mostly a new one, sometimes one that was used before."""
        with self._lock:
            if chance.random() < 0.3:
                return chance.randint(max(0, self._next_number - 20), self._next_number)
            self._next_number += 1
            return self._next_number


class _Worker:
    """What one client has at hand."""

    def __init__(
        self,
        client: AdvisorClient,
        project: str,
        recorder: Recorder,
        chance: random.Random,
        take_number: Callable[[random.Random], int],
    ) -> None:
        self.client, self.project, self.recorder, self.chance = client, project, recorder, chance
        self._take_number = take_number
        self.known: dict[str, Values] = {}  # the last read of each profile
        self._requests = 0

    def number(self) -> int:
        """Return the number of a content to register."""
        return self._take_number(self.chance)

    def write(self, kind: str, asked: Values, call: Callable[[str], Values]) -> Values | None:
        """Make a write; half of the time one of unknown outcome is asked for again."""
        self._requests += 1
        request_id = f"{self.client.actor}-{self._requests}"
        return carry_out(
            self.recorder,
            kind,
            {**asked, "request_id": request_id},
            lambda: call(request_id),
            tries=self.chance.choice((1, 4)),
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

        told = carry_out(self.recorder, "read", {"profile": profile, "suffix": suffix}, call)
        if told is not None:
            self.known[profile] = told
        return told

    def any_suffix(self, profile: str) -> str:
        """Return an alias, nothing (the latest), or a version that was there."""
        versions = self.known.get(profile, {}).get("versions") or [1]
        number = str(self.chance.choice(versions))
        return self.chance.choice([*values.ALIASES, *values.ALIASES, "", number])


def _register(worker: _Worker) -> None:
    profile, number = worker.chance.choice(values.PROFILES), worker.number()
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
    """Read where an alias is, and move it if it is still there: by etag, by version, or anyway."""
    profile, alias = worker.chance.choice(values.PROFILES), worker.chance.choice(values.ALIASES)
    seen = worker.read(profile)
    if seen is None:
        return
    version, moves = seen["aliases"].get(alias, (0, None))
    to = worker.chance.choice(seen["versions"][-8:])
    expected_version, etag = worker.chance.choice([
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

    asked = {"profile": profile, "alias": alias, "etag": etag}
    if worker.chance.random() < 0.15:
        worker.write("delete_alias", asked, delete_alias)
    else:
        asked |= {"version": to, "expected_version": expected_version}
        worker.write("set_alias", asked, set_alias)


def _remove(worker: _Worker) -> None:
    """Remove an old version, if there are many."""
    profile = worker.chance.choice(values.PROFILES)
    seen = worker.read(profile)
    if seen is None or len(seen["versions"]) < 12:
        return
    version = worker.chance.choice(seen["versions"][:-8])

    def call(request_id: str) -> Values:
        worker.client.delete_profile(
            f"{profile}@{version}", project=worker.project, request_id=request_id
        )
        return {}

    worker.write("delete_profile", {"profile": profile, "version": version}, call)


def _set_policy(worker: _Worker) -> None:
    number = worker.chance.randint(0, 999)
    expected: int | None = None
    if worker.chance.random() < 0.5:
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

    asked: dict[str, Any] = {"policy": values.POLICY, "number": number}
    worker.write("set_policy", {**asked, "expected_version": expected}, call)


def _read(worker: _Worker) -> None:
    profile = worker.chance.choice(values.PROFILES)
    worker.read(profile, worker.any_suffix(profile))


_STREAMED = ("alone", "shared")


def _stream(worker: _Worker) -> None:
    """Ask for several recommendations on one run's session."""
    profile = worker.chance.choice(_STREAMED)
    suffix = worker.any_suffix(profile)
    advisor = RecordedAdvisor(worker.client, worker.recorder, profile, suffix, fixed_rates=True)
    opening = values.opening(worker.project, profile, suffix, worker.client.actor)
    session = advisor.open_run(opening)
    for step in range(worker.chance.randint(2, 30)):
        try:
            session.recommend(values.measurement(step))
        except ServiceError as error:
            if isinstance(error, REFUSALS):
                break
        time.sleep(worker.chance.uniform(0, 0.02))
    session.close()
    worker.read(profile)


def _ask_once(worker: _Worker) -> None:
    profile = worker.chance.choice(_STREAMED)
    suffix = worker.any_suffix(profile)
    opening = values.opening(worker.project, profile, suffix)

    def call() -> Values:
        answer = worker.client.recommend_once(opening, values.measurement(0))
        return {**answered(answer), "stream": f"once-{time.monotonic_ns()}"}

    asked = {"profile": profile, "suffix": suffix, "fixed_rates": True}
    carry_out(worker.recorder, "recommend", asked, call)
