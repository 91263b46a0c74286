"""The rules of `advisor doctor`: what is right, what is wrong, and what to do about it.

Each rule takes observations and yields findings, without any I/O. All thresholds are here.
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
_SOON_FRACTION = 3  # or the last third of the lifetime, as short-lived certificates renew late
_CLOCK_WARNING_S = 1.0
_CLOCK_PROBLEM_S = 60.0
_MIN_REDIS_VERSION = (6, 2)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The result of a TLS handshake.

    Attributes:
        outcome: ``good``, ``plain`` (the server does not use TLS), ``untrusted`` (the server's
            certificate is refused) or ``failed``.
        problem: What is wrong; empty if the outcome is good.
        begin_time: Start of the certificate's validity; None unless good.
        expire_time: End of the certificate's validity; None unless good.
        protocol: The protocol, such as ``TLSv1.3``; empty unless good.
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
        sent_time: When the request was sent, by the local clock.
        round_trip_s: Duration of the call, in seconds.
        with_token: Whether the request had a token.
    """

    status: pb.GetStatusResponse
    sent_time: datetime
    round_trip_s: float
    with_token: bool


def tls(seen: Handshake, host: str, *, wanted: bool, now: datetime) -> Iterator[Finding]:
    """Judge a TLS handshake.

    Args:
        seen: The result of the handshake.
        host: The host name for which the certificate must be issued.
        wanted: Whether the client is configured for TLS.
        now: The local time.
    """
    if not wanted:
        if seen.outcome in {"good", "untrusted"}:
            yield Finding(
                "tls",
                Level.PROBLEM,
                f"{host} uses TLS, but this client is not configured for it",
                "set FSLR_TLS_CA to the certificate of the authority that issued the server's one",
            )
        return
    if seen.outcome == "plain":
        yield Finding(
            "tls",
            Level.PROBLEM,
            f"{host} does not use TLS, but FSLR_TLS_CA, FSLR_TLS_CERT or FSLR_TLS_KEY is set",
            "start the service with tls_cert and tls_key, or unset these variables",
        )
    elif seen.outcome == "untrusted":
        yield Finding(
            "certificate",
            Level.PROBLEM,
            f"the certificate of {host} is not trusted: {seen.problem}",
            _certificate_remedy(seen.problem, host),
        )
    elif seen.outcome == "failed" or seen.expire_time is None:
        yield Finding(
            "tls",
            Level.PROBLEM,
            f"the TLS handshake with {host} fails: {seen.problem}",
            "see the service's log; with tls_client_ca it requires FSLR_TLS_CERT and FSLR_TLS_KEY",
        )
    else:
        yield Finding("tls", Level.OK, f"{host} uses {seen.protocol}")
        yield _expiry(
            "certificate",
            f"the certificate of {host}",
            (seen.begin_time, seen.expire_time),
            now,
            "renew it; the service and its clients load a new one without a restart",
        )


def _certificate_remedy(problem: str, host: str) -> str:
    if "expired" in problem:
        return "renew it; the service loads a new one without a restart"
    if "mismatch" in problem.lower():
        return f"issue one for {host}, or use an address that the certificate is issued for"
    return "set FSLR_TLS_CA to the certificate of the authority that issued it"


def _expiry(
    check: str, what: str, life: tuple[datetime | None, datetime], now: datetime, remedy: str
) -> Finding:
    begins, ends = life
    soon = _SOON if begins is None else min(_SOON, (ends - begins) / _SOON_FRACTION)
    words = f"{what} expires {ends:%Y-%m-%d %H:%M} UTC, in {_duration(ends - now)}"
    if ends - now > soon:
        return Finding(check, Level.OK, words)
    return Finding(check, Level.WARNING, words, remedy)


def _duration(span: timedelta) -> str:
    if span < timedelta(hours=2):
        return f"{span.total_seconds() / 60:.0f} min"
    return f"{span / timedelta(hours=1):.0f} h" if span.days < 2 else f"{span.days} days"


def encryption(status: pb.GetStatusResponse, *, through_tls: bool) -> Iterator[Finding]:
    """Judge whether calls are encrypted on the network."""
    if status.encrypted:
        return  # the rule for the handshake covers this
    if through_tls:
        yield Finding(
            "tls",
            Level.OK,
            "TLS is terminated in front of the service, which receives calls in plain text; keep "
            "that network private",
        )
    elif status.loopback:
        yield Finding(
            "tls", Level.OK, "calls are in plain text, but the service listens on loopback only"
        )
    else:
        yield Finding(
            "tls",
            Level.PROBLEM,
            "calls cross a network in plain text, where measurements and tokens can be read",
            "start the service with tls_cert and tls_key",
        )


def caller(answer: Answer, *, project: str | None, now: datetime) -> Iterator[Finding]:
    """Judge whether the service authenticates callers, and the role that it gives this one.

    Args:
        answer: The service's answer.
        project: The project that the token must be for; None: any.
        now: The local time.
    """
    status, seen = answer.status, answer.status.caller
    if not status.authenticates:
        if status.loopback:
            yield Finding(
                "token",
                Level.OK,
                "callers are not authenticated, but the service listens on loopback only",
            )
        else:
            yield Finding(
                "token",
                Level.PROBLEM,
                "callers are not authenticated: anyone who reaches the service can change profiles "
                "and policies",
                "unset allow_insecure or set authenticate, and create tokens with "
                "`advisor token create`",
            )
        if answer.with_token:
            yield Finding("token", Level.WARNING, "a token is set, but the service ignores it")
        return
    known = pb.Role.DESCRIPTOR.values_by_number.get(seen.role)
    role = known.name.removeprefix("ROLE_").lower() if known else f"role {seen.role}"
    words = f"{seen.name} has the role {role} in {seen.project}"
    if project is not None and seen.project != f"projects/{project}":
        yield Finding(
            "token",
            Level.PROBLEM,
            f"{words}; calls for projects/{project} are refused",
            f"create a token with `advisor token create NAME --role trainer --project {project}`",
        )
    else:
        yield Finding("token", Level.OK, words)
    if seen.HasField("expire_time"):
        yield _expiry(
            "token",
            f"the token {seen.name}",
            (None, seen.expire_time.ToDatetime(UTC)),
            now,
            "create a new one with `advisor token create` and give it to the jobs before then",
        )


def store(seen: pb.StoreStatus) -> Iterator[Finding]:
    """Judge whether Redis is available and configured to lose nothing."""
    if not seen.available:
        yield Finding(
            "redis",
            Level.PROBLEM,
            f"the service cannot use Redis ({seen.topology}): {seen.problem}",
            "start Redis, check redis_url, and check that its user has the rights listed in "
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
    words = f"{seen.topology}, version {seen.version or 'unknown'}"
    if not seen.version:
        return Finding(
            "redis", Level.UNKNOWN, words, "allow the service's Redis user the command: +info"
        )
    if _numbers(seen.version) < _MIN_REDIS_VERSION:
        return Finding("redis", Level.PROBLEM, words, "upgrade Redis to 6.2 or newer")
    return Finding("redis", Level.OK, words)


def _append_only(seen: pb.StoreStatus) -> Finding:
    if not seen.HasField("append_only"):
        return Finding(
            "redis persistence",
            Level.UNKNOWN,
            "Redis does not report whether it keeps an append-only file",
            "allow the service's Redis user the command: +info",
        )
    if seen.append_only:
        return Finding("redis persistence", Level.OK, "Redis keeps an append-only file")
    return Finding(
        "redis persistence",
        Level.PROBLEM,
        "Redis keeps no append-only file: a restart loses all profiles since the last snapshot",
        "set `appendonly yes` (`CONFIG SET appendonly yes` needs no restart)",
    )


def _flush(flush: str) -> Finding:
    if flush == "always":
        return Finding(
            "redis persistence", Level.OK, "each write is flushed to disk before its reply"
        )
    remedy = "set `appendfsync always`; the service writes too little for it to cost anything"
    if flush == "everysec":
        return Finding(
            "redis persistence",
            Level.WARNING,
            "writes are flushed once per second: a crash of the machine loses up to two seconds of "
            "them",
            remedy,
        )
    if flush == "no":
        return Finding(
            "redis persistence",
            Level.PROBLEM,
            "the operating system decides when writes are flushed: a crash of the machine loses "
            "about 30 s of them",
            remedy,
        )
    return Finding(
        "redis persistence",
        Level.UNKNOWN,
        "Redis does not report when it flushes writes",
        "allow the service's Redis user the command: +config|get",
    )


def _eviction(eviction: str) -> Finding:
    if eviction == "noeviction":
        return Finding("redis memory", Level.OK, "Redis refuses writes when its memory is full")
    if not eviction:
        return Finding(
            "redis memory",
            Level.UNKNOWN,
            "Redis does not report what it does when its memory is full",
            "allow the service's Redis user the command: +info",
        )
    return Finding(
        "redis memory",
        Level.PROBLEM,
        f"Redis evicts profiles and tokens when its memory is full (maxmemory-policy {eviction})",
        "set `maxmemory-policy noeviction`, and use separate Redis servers for other applications",
    )


def _replicas(seen: pb.StoreStatus) -> Finding:
    if not seen.version:  # version and replicas come from the same command
        return Finding(
            "redis replicas",
            Level.UNKNOWN,
            "Redis does not report how many replicas it has",
            "allow the service's Redis user the command: +info",
        )
    if seen.replicas:
        return Finding("redis replicas", Level.OK, f"{seen.replicas} follow the primary")
    if seen.topology == "standalone":
        return Finding("redis replicas", Level.OK, "none: the only other copies are your backups")
    return Finding(
        "redis replicas",
        Level.WARNING,
        f"a primary of the {seen.topology} has no replica that can replace it",
        "add a replica to each primary, and set redis_wait_replicas to 1",
    )


def clocks(answer: Answer) -> Iterator[Finding]:
    """Judge how far the clocks of this machine, the service and Redis differ.

    The service's clock is compared with the middle of the call, so half of the round trip is the
    maximum error; a difference within it counts as zero.
    """
    middle = answer.sent_time + timedelta(seconds=answer.round_trip_s / 2)
    offset_s = (answer.status.time.ToDatetime(UTC) - middle).total_seconds()
    yield _clock("the service's clock", "this machine's", offset_s, answer.round_trip_s / 2)
    if answer.status.store.available:
        yield _clock("Redis's clock", "the service's", answer.status.store.clock_offset_s, 0.0)


def _clock(whose: str, other: str, offset_s: float, error_s: float) -> Finding:
    if math.isnan(offset_s):
        return Finding(
            "clock",
            Level.UNKNOWN,
            f"{whose} is not known",
            "allow the service's Redis user the command: +time",
        )
    apart_s = max(0.0, abs(offset_s) - error_s)
    if apart_s < _CLOCK_WARNING_S:
        return Finding("clock", Level.OK, f"{whose} is within {_CLOCK_WARNING_S:g} s of {other}")
    direction = "ahead of" if offset_s > 0 else "behind"
    return Finding(
        "clock",
        Level.WARNING if apart_s < _CLOCK_PROBLEM_S else Level.PROBLEM,
        f"{whose} is {apart_s:.1f} s {direction} {other}; times of runs, the audit log and the "
        "expiry of tokens are wrong by as much",
        "synchronize the clocks (NTP)",
    )


def versions(answered: set[str], ours: str) -> Iterator[Finding]:
    """Compare the versions of the service's replicas with the installed package.

    Args:
        answered: The versions that the replicas report.
        ours: The version of the installed package.
    """
    if len(answered) > 1:
        yield Finding(
            "version",
            Level.WARNING,
            f"the replicas have different versions: {', '.join(sorted(answered, key=_numbers))}",
            "finish the rollout, or find out why it is stuck",
        )
    for theirs in sorted(answered, key=_numbers):
        yield _version(theirs, ours)


def _version(theirs: str, ours: str) -> Finding:
    words = f"the service has version {theirs}, the installed package {ours}"
    if _numbers(theirs)[:1] != _numbers(ours)[:1]:
        return Finding(
            "version", Level.PROBLEM, words, "upgrade to the same major version, the service first"
        )
    if _numbers(theirs)[:2] < _numbers(ours)[:2]:
        return Finding(
            "version",
            Level.WARNING,
            f"{words}; the service ignores what is new in the package",
            "upgrade the service",
        )
    return Finding("version", Level.OK, words)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
