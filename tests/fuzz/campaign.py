"""One run: a service of its own, many callers at once, and a look at what it did to the service."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import grpc
from google.protobuf.message import Message

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from tests.building import content_message
from tests.fuzz import corpus
from tests.fuzz.bearers import CANARY_PROJECT, Bearers
from tests.fuzz.calling import Caller
from tests.fuzz.heavy import MOST_S, heavy_inputs
from tests.fuzz.inputs import Input, Source
from tests.fuzz.judging import Answer, complaint
from tests.fuzz.methods import all_methods

CALLERS = 16
CHANNELS = 2
# Small, so that what grows is neither the cache of profiles nor the queue of measurements.
_SETTINGS = {
    "ADVISOR_MAX_CACHED_PROFILES": "8",
    "ADVISOR_MAX_QUEUED_MEASUREMENTS": "200",
    "ADVISOR_REDIS_TIMEOUT_S": "30",
}
_MOST_KEPT = 20
_SAMPLE_S = 0.5
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
# 100,000 valid requests grow it by 2 MiB between a third and the end, fuzzed ones by 2 to 4; a leak
# of 250 bytes a call would add 16.
MAX_GROWTH_KIB = 16 * 1024


@dataclass(slots=True)
class Report:
    """What a run found.

    Attributes:
        inputs: How many were sent.
        methods: How many methods got one.
        internal: Answers that say INTERNAL or UNKNOWN.
        crashes: 1 if the service was gone, or another one; the run ends there.
        unexpected: All other complaints, those about its log and its last answers included.
        kib_growth: How much more resident memory the service had in the last tenth of the run than
            after the first third of it, KiB.
        seconds: How long it took.
        codes: Statuses, by method.
        slowest_s: The longest call of each method, and its input.
        heaviest_s: The longest call of the large inputs.
        complaints: The first complaints.
    """

    inputs: int = 0
    methods: int = 0
    internal: int = 0
    crashes: int = 0
    unexpected: int = 0
    kib_growth: int = 0
    seconds: float = 0.0
    codes: dict[str, Counter[str]] = field(default_factory=dict)
    slowest_s: dict[str, tuple[float, Input]] = field(default_factory=dict)
    heaviest_s: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything was wrong."""
        wrong = self.internal + self.crashes + self.unexpected
        return wrong > 0 or self.kib_growth > MAX_GROWTH_KIB

    def as_json(self) -> dict[str, int | float]:
        """Return the figures."""
        return {
            "inputs": self.inputs,
            "methods": self.methods,
            "internal": self.internal,
            "crashes": self.crashes,
            "unexpected": self.unexpected,
            "kib_growth": self.kib_growth,
            "per_second": round(self.inputs / self.seconds) if self.seconds else 0,
        }


@contextlib.contextmanager
def fuzzed_service(*, authenticate: bool = False) -> Iterator[tuple[LocalServer, Bearers | None]]:
    """Run a service as long as the context lasts.

    Args:
        authenticate: Whether it wants tokens, which are made then.

    Yields:
        The service and the tokens.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, _SETTINGS))
        options, bearers = ["--grace-s", "1", "--log-json"], None
        if authenticate:
            folder = stack.enter_context(TemporaryDirectory(prefix="fslr-fuzz-"))
            redis = stack.enter_context(EmbeddedRedis(Path(folder)))
            bearers = Bearers.made_at(redis.url)
            options += ["--redis-url", redis.url, "--authenticate"]
        yield stack.enter_context(LocalServer(None, *options)), bearers


class Campaign:
    """A run of the fuzzer.

    Args:
        inputs: How many inputs to send.
        seed: Makes them the same again.
        seconds: After how long to stop all the same.
        folder: Where failing inputs go.
        heavy: Whether large inputs follow, one after the other.
        authenticate: Whether the service wants tokens, and gets right and wrong ones.
    """

    def __init__(
        self,
        inputs: int,
        seed: int,
        seconds: float,
        folder: Path,
        *,
        heavy: bool = True,
        authenticate: bool = False,
    ) -> None:
        self._wanted = inputs
        self._seed = seed
        self._seconds = seconds
        self._folder = folder
        self._heavy = heavy
        self._authenticate = authenticate
        self.report = Report()

    def run(self) -> Report:
        """Start a service, send everything, and look at what is left of it."""
        with fuzzed_service(authenticate=self._authenticate) as (service, bearers):
            asyncio.run(self._all(service, bearers))
            self._look_at_log(service.log(), [] if bearers is None else bearers.secrets)
        return self.report

    async def _all(self, service: LocalServer, bearers: Bearers | None) -> None:
        methods = all_methods()
        self._source = Source(self._seed, methods)
        self._identity = _identity(service.pid)
        self._memory: list[tuple[int, int]] = []
        channels = [
            grpc.aio.insecure_channel(service.address, CHANNEL_OPTIONS) for _ in range(CHANNELS)
        ]
        callers = [Caller(channel, methods) for channel in channels]
        friend = Caller(channels[0], methods, (lambda _: ()) if bearers is None else bearers.right)
        begun = time.monotonic()
        watching = asyncio.create_task(self._watch_memory(service.pid))
        try:
            for method, message in corpus.seeding():
                await self._expect_ok(friend, method, message)
            self._deadline = begun + self._seconds
            left: Iterator[Input] = itertools.islice(iter(self._source), self._wanted)
            if bearers is not None:
                chance = random.Random(self._seed)
                left = (bearers.shown(sent, chance) for sent in left)
            await asyncio.gather(
                *(self._work(callers[i % CHANNELS], left, service.pid) for i in range(CALLERS))
            )
            self.report.seconds = time.monotonic() - begun
            watching.cancel()
            if self._heavy:
                await self._send_heavy(friend, service.pid)
            await self._canary(friend)
        finally:
            watching.cancel()
            for channel in channels:
                await channel.close()
        if _identity(service.pid) != self._identity:
            self.report.crashes = 1
        self.report.methods = len(self.report.codes)
        self.report.kib_growth = growth_kib(self._memory)

    async def _work(self, caller: Caller, left: Iterator[Input], pid: int) -> None:
        for sent in left:
            if time.monotonic() > self._deadline or self.report.crashes:
                return
            await self._send(caller, sent, pid)

    async def _send_heavy(self, caller: Caller, pid: int) -> None:
        for what, sent in heavy_inputs():
            if self.report.crashes:
                return
            seconds = await self._send(caller, sent, pid)
            self.report.heaviest_s = max(self.report.heaviest_s, seconds)
            if seconds > MOST_S:
                self._complain(sent, f"{what}: an answer after {seconds:.1f} s")

    async def _send(self, caller: Caller, sent: Input, pid: int) -> float:
        """Send an input, judge the answer, and return how long it took."""
        begun = time.monotonic()
        answer = await caller.send(sent)
        seconds = time.monotonic() - begun
        self._note(caller, sent, answer, seconds)
        if answer.code is grpc.StatusCode.UNAVAILABLE and _identity(pid) != self._identity:
            self.report.crashes = 1
            sent.save(self._folder, "the service was gone; this was under way")
        return seconds

    def _note(self, caller: Caller, sent: Input, answer: Answer, seconds: float) -> None:
        report = self.report
        report.inputs += 1
        report.codes.setdefault(sent.method, Counter())[answer.code.name] += 1
        method = caller.method(sent.method)
        timed = not (answer.cut or sent.kind == "heavy")
        if timed and seconds > report.slowest_s.get(sent.method, (0.0, sent))[0]:
            report.slowest_s[sent.method] = seconds, sent
        wrong = complaint(sent, method, answer)
        if not wrong:
            return
        if answer.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
            report.internal += 1
            report.unexpected -= 1
        self._complain(sent, wrong)

    def _complain(self, sent: Input, wrong: str) -> None:
        self.report.unexpected += 1
        if len(self.report.complaints) < _MOST_KEPT:
            self.report.complaints.append(f"{sent.save(self._folder, wrong)}: {wrong}")

    async def _expect_ok(self, caller: Caller, method: str, message: Message) -> Answer:
        answer = await caller.send(Input(method, "valid", (message.SerializeToString(),)))
        if answer.code is not grpc.StatusCode.OK:
            self.report.unexpected += 1
            self.report.complaints.append(f"{method}, valid: {answer.code.name} {answer.message}")
        return answer

    async def _canary(self, caller: Caller) -> None:
        """Ask what has one right answer: the profile's own rates, so multipliers of 1."""
        chance = random.Random(0)
        content = content_message()
        name = f"projects/{CANARY_PROJECT}/profiles/gpt"
        await self._expect_ok(caller, *corpus.registration(name, content))
        request: Any = corpus.recommend(chance)
        request.opening.CopyFrom(corpus.plain_opening(name))
        request.measurement.CopyFrom(corpus.measurement(chance, 4))
        request.measurement.step = 0
        request.measurement.interval_steps = 0
        request.measurement.unit_rates[:] = content.points[0].unit_rates
        method = "AdvisorService/RecommendLROnce"
        answer = await self._expect_ok(caller, method, request)
        for data in answer.responses:
            response: Any = caller.method(method).response.FromString(data)
            if list(response.multipliers) != [1.0] * 4:
                self.report.unexpected += 1
                self.report.complaints.append(f"the last answer is wrong: {response}")

    async def _watch_memory(self, pid: int) -> None:
        while True:
            self._memory.append((self.report.inputs, resident_kib(pid)))
            await asyncio.sleep(_SAMPLE_S)

    def _look_at_log(self, log: str, secrets: Sequence[str]) -> None:
        for line in log.splitlines():
            if not _is_well(line) or any(secret in line for secret in secrets):
                self.report.unexpected += 1
                if self.report.unexpected < _MOST_KEPT:
                    self.report.complaints.append(f"logged: {line[:2_000]}")


def _is_well(line: str) -> bool:
    """Return whether a line of the log is one that the service meant to write, and no error."""
    try:
        return json.loads(line)["level"] in {"debug", "info", "warning"}
    except (ValueError, KeyError, TypeError):
        return False


def growth_kib(samples: list[tuple[int, int]]) -> int:
    """Return how much memory grew between the first third of a run and its last tenth, KiB.

    Args:
        samples: Inputs sent so far and resident memory in KiB, in order.
    """
    last = samples[-1][0]
    after_a_third = [kib for sent, kib in samples if last / 3 <= sent <= last * 0.45]
    at_the_end = [kib for sent, kib in samples if sent >= last * 0.9]
    if not after_a_third:
        return 0
    return round(statistics.median(at_the_end) - statistics.median(after_a_third))


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line), 0)


def _identity(pid: int) -> str:
    """Return what tells a process from a later one of the same number; empty if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
