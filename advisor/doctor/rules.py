"""What is right and what is not, and what to do about it; no input or output.

Each rule takes what was seen and returns its findings. Thresholds stand here and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from advisor.doctor.findings import Finding, Level
from fslr.advisor.v1 import status_service_pb2 as pb

_SOON = timedelta(days=14)
_SOON_FRACTION = 3  # of a certificate's or token's life: short-lived ones are renewed late
_CLOCK_WARNING_S = 1.0
_CLOCK_PROBLEM_S = 60.0
_OLDEST_REDIS = (6, 2)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What came of speaking TLS.

    Attributes:
        outcome: ``good``, ``plain`` (it does not speak TLS), ``untrusted`` (it does, and its
            certificate is refused) or ``failed``.
        problem: Why it is not good; empty if it is.
        begin_time: When its certificate began to hold; None unless good.
        expire_time: When it ends; None unless good.
        protocol: Such as ``TLSv1.3``; empty unless good.
    """

    outcome: Literal["good", "plain", "untrusted", "failed"]
    problem: str = ""
    begin_time: datetime | None = None
    expire_time: datetime | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the service to ``GetStatus``.

    Attributes:
        status: The answer.
        sent_time: When it was asked, by our clock.
        round_trip_s: How long the answer took, in seconds.
        with_token: Whether a token was shown.
    """

    status: pb.GetStatusResponse
    sent_time: datetime
    round_trip_s: float
    with_token: bool


def tls(seen: Handshake, host: str, *, wanted: bool, now: datetime) -> Iterator[Finding]:
    """Judge how an address answers in TLS.

    Args:
        seen: What came of the handshake.
        host: The name that the certificate must be for.
        wanted: Whether clients here are set up for TLS.
        now: Our clock.
    """
    if not wanted:
        if seen.outcome in {"good", "untrusted"}:
            yield Finding(
                "tls",
                Level.PROBLEM,
                f"{host} speaks TLS, and no client here is set up for it",
                "set FSLR_TLS_CA to the file of the authority that issued its certificate",
            )
        return
    if seen.outcome == "plain":
        yield Finding(
            "tls",
            Level.PROBLEM,
            f"{host} does not speak TLS, and FSLR_TLS_CA, FSLR_TLS_CERT or FSLR_TLS_KEY is set",
            "start the service with tls_cert and tls_key, or take those variables away",
        )
    elif seen.outcome == "untrusted":
        yield Finding(
            "certificate",
            Level.PROBLEM,
            f"the certificate of {host} is refused: {seen.problem}",
            _remedy_of(seen.problem, host),
        )
    elif seen.outcome == "failed" or seen.expire_time is None:
        yield Finding(
            "tls",
            Level.PROBLEM,
            f"the handshake with {host} fails: {seen.problem}",
            "look at the service's log; with tls_client_ca it asks for FSLR_TLS_CERT and "
            "FSLR_TLS_KEY",
        )
    else:
        yield Finding("tls", Level.OK, f"{host} speaks {seen.protocol}")
        yield _ending(
            "certificate",
            f"the certificate of {host}",
            (seen.begin_time, seen.expire_time),
            now,
            "renew it: the service and its clients take a new one without a restart",
        )


def _remedy_of(problem: str, host: str) -> str:
    if "expired" in problem:
        return "renew it: the service takes a new one without a restart"
    if "mismatch" in problem.lower():
        return f"issue one for {host}, or call the service by a name that it is for"
    return "set FSLR_TLS_CA to the file of the authority that issued it"


def _ending(
    check: str, what: str, life: tuple[datetime | None, datetime], now: datetime, remedy: str
) -> Finding:
    begins, ends = life
    soon = _SOON if begins is None else min(_SOON, (ends - begins) / _SOON_FRACTION)
    words = f"{what} ends {ends:%Y-%m-%d %H:%M} UTC, in {_duration(ends - now)}"
    if ends - now > soon:
        return Finding(check, Level.OK, words)
    return Finding(check, Level.WARNING, words, remedy)


def _duration(span: timedelta) -> str:
    if span < timedelta(hours=2):
        return f"{span.total_seconds() / 60:.0f} min"
    return f"{span / timedelta(hours=1):.0f} h" if span.days < 2 else f"{span.days} days"


def encryption(status: pb.GetStatusResponse, *, through_tls: bool) -> Iterator[Finding]:
    """Judge whether calls can be read on their way."""
    if status.encrypted:
        return  # what the handshake showed says more
    if through_tls:
        yield Finding(
            "tls",
            Level.OK,
            "TLS ends before the service, which itself takes calls in plain text; keep that last "
            "way private",
        )
    elif status.loopback:
        yield Finding(
            "tls", Level.OK, "calls are in plain text, and the service listens on loopback alone"
        )
    else:
        yield Finding(
            "tls",
            Level.PROBLEM,
            "calls cross a network in plain text: measurements and tokens can be read",
            "start the service with tls_cert and tls_key",
        )


def caller(answer: Answer, *, project: str | None, now: datetime) -> Iterator[Finding]:
    """Judge as whom the service sees us, and whether it asks at all.

    Args:
        answer: What it said.
        project: Where the caller wants to work; None: wherever its token leads.
        now: Our clock.
    """
    status, seen = answer.status, answer.status.caller
    if not status.authenticates:
        if status.loopback:
            yield Finding(
                "token",
                Level.OK,
                "callers are not asked who they are, and come from loopback alone",
            )
        else:
            yield Finding(
                "token",
                Level.PROBLEM,
                "callers are not asked who they are: whoever reaches the service may write "
                "profiles and policies",
                "take allow_insecure away or set authenticate, and make tokens with "
                "`advisor token create`",
            )
        if answer.with_token:
            yield Finding(
                "token", Level.WARNING, "a token is shown, and the service does not look at it"
            )
        return
    known = pb.Role.DESCRIPTOR.values_by_number.get(seen.role)
    role = known.name.removeprefix("ROLE_").lower() if known else f"role {seen.role}"
    words = f"{seen.name} is seen as {role} of {seen.project}"
    if project is not None and seen.project != f"projects/{project}":
        yield Finding(
            "token",
            Level.PROBLEM,
            f"{words}, and calls for projects/{project} are refused",
            f"create one for it: `advisor token create NAME --role trainer --project {project}`",
        )
    else:
        yield Finding("token", Level.OK, words)
    if seen.HasField("expire_time"):
        yield _ending(
            "token",
            f"the token {seen.name}",
            (None, seen.expire_time.ToDatetime(UTC)),
            now,
            "create another with `advisor token create` and give it to the jobs before then",
        )


def store(seen: pb.StoreStatus) -> Iterator[Finding]:
    """Judge what Redis is and how it keeps what it is given."""
    if not seen.available:
        yield Finding(
            "redis",
            Level.PROBLEM,
            f"the service cannot use Redis ({seen.topology}): {seen.problem}",
            "start Redis, and see that redis_url leads to it and that its user has the rights of "
            "docs/how-to/redis.md",
        )
        return
    yield _redis_version(seen)
    yield _append_only(seen)
    if seen.append_only or not seen.HasField("append_only"):
        yield _flush(seen.flush)
    yield _eviction(seen.eviction)
    yield _replicas(seen)


def _redis_version(seen: pb.StoreStatus) -> Finding:
    words = f"{seen.topology}, speaks as version {seen.version or 'unknown'}"
    if not seen.version:
        return Finding("redis", Level.UNKNOWN, words, "let the service's user ask: +info")
    if _numbers(seen.version) < _OLDEST_REDIS:
        return Finding("redis", Level.PROBLEM, words, "upgrade it to 6.2 or newer")
    return Finding("redis", Level.OK, words)


def _append_only(seen: pb.StoreStatus) -> Finding:
    if not seen.HasField("append_only"):
        return Finding(
            "redis persistence",
            Level.UNKNOWN,
            "Redis does not say whether it keeps an append-only file",
            "let the service's user ask: +info",
        )
    if seen.append_only:
        return Finding("redis persistence", Level.OK, "it keeps an append-only file")
    return Finding(
        "redis persistence",
        Level.PROBLEM,
        "it keeps no append-only file: a restart forgets every profile since the last snapshot",
        "set `appendonly yes` (`CONFIG SET appendonly yes` does it without a restart)",
    )


def _flush(flush: str) -> Finding:
    if flush == "always":
        return Finding("redis persistence", Level.OK, "each write is flushed before it is answered")
    remedy = "set `appendfsync always`; few writes a minute do not feel it"
    if flush == "everysec":
        return Finding(
            "redis persistence",
            Level.WARNING,
            "writes are flushed once a second: a crash of its machine forgets up to two seconds "
            "of them",
            remedy,
        )
    if flush == "no":
        return Finding(
            "redis persistence",
            Level.PROBLEM,
            "writes are flushed when the system likes: a crash of its machine forgets some 30 s",
            remedy,
        )
    return Finding(
        "redis persistence",
        Level.UNKNOWN,
        "Redis does not say when it flushes writes",
        "let the service's user ask: +config|get",
    )


def _eviction(eviction: str) -> Finding:
    if eviction == "noeviction":
        return Finding("redis memory", Level.OK, "when its memory is full, it refuses writes")
    if not eviction:
        return Finding(
            "redis memory",
            Level.UNKNOWN,
            "Redis does not say what it does when memory is full",
            "let the service's user ask: +info",
        )
    return Finding(
        "redis memory",
        Level.PROBLEM,
        f"when its memory is full, it drops profiles and tokens (maxmemory-policy {eviction})",
        "set `maxmemory-policy noeviction`, and give other users a Redis of their own",
    )


def _replicas(seen: pb.StoreStatus) -> Finding:
    if not seen.version:  # both are of one answer
        return Finding(
            "redis replicas",
            Level.UNKNOWN,
            "Redis does not say how many replicas follow it",
            "let the service's user ask: +info",
        )
    if seen.replicas:
        return Finding("redis replicas", Level.OK, f"{seen.replicas} follow it")
    if seen.topology == "standalone":
        return Finding(
            "redis replicas", Level.OK, "none: its disk is the only copy beside your backups"
        )
    return Finding(
        "redis replicas",
        Level.WARNING,
        f"none, of a {seen.topology}'s weakest node at least: nothing can take its place",
        "add a replica to each primary, and set redis_wait_replicas to 1",
    )


def clocks(answer: Answer) -> Iterator[Finding]:
    """Judge how far the clocks of ours, the service and Redis lie apart.

    The service's is compared with the middle of our call, so half of the round trip is the bound
    of the error; a difference within it is none.
    """
    middle = answer.sent_time + timedelta(seconds=answer.round_trip_s / 2)
    offset_s = (answer.status.time.ToDatetime(UTC) - middle).total_seconds()
    yield _clock("the service's clock", "ours", offset_s, answer.round_trip_s / 2)
    if answer.status.store.available:
        yield _clock("Redis's clock", "the service's", answer.status.store.clock_offset_s, 0.0)


def _clock(whose: str, other: str, offset_s: float, error_s: float) -> Finding:
    if math.isnan(offset_s):
        return Finding(
            "clock",
            Level.UNKNOWN,
            f"{whose} is not told",
            "let the service's user ask: +time",
        )
    apart_s = max(0.0, abs(offset_s) - error_s)
    if apart_s < _CLOCK_WARNING_S:
        return Finding("clock", Level.OK, f"{whose} is within {_CLOCK_WARNING_S:g} s of {other}")
    direction = "ahead of" if offset_s > 0 else "behind"
    return Finding(
        "clock",
        Level.WARNING if apart_s < _CLOCK_PROBLEM_S else Level.PROBLEM,
        f"{whose} is {apart_s:.1f} s {direction} {other}: the times of runs and of the audit, and "
        "the end of tokens, are off by that",
        "set all of them by one time service (NTP)",
    )


def versions(answered: set[str], ours: str) -> Iterator[Finding]:
    """Judge the versions of the service's replicas against ours.

    Args:
        answered: The versions that the replicas name.
        ours: The version of the package here.
    """
    if len(answered) > 1:
        yield Finding(
            "version",
            Level.WARNING,
            f"replicas of versions {', '.join(sorted(answered, key=_numbers))} answer",
            "finish the rollout, or look at why it stands still",
        )
    for theirs in sorted(answered, key=_numbers):
        yield _version(theirs, ours)


def _version(theirs: str, ours: str) -> Finding:
    words = f"the service is {theirs}, the package here {ours}"
    if _numbers(theirs)[:1] != _numbers(ours)[:1]:
        return Finding(
            "version", Level.PROBLEM, words, "bring both to one major version, the service first"
        )
    if _numbers(theirs)[:2] < _numbers(ours)[:2]:
        return Finding(
            "version",
            Level.WARNING,
            f"{words}: what is new here, it does not know and ignores",
            "upgrade the service",
        )
    return Finding("version", Level.OK, words)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
