"""The rules of ``advisor doctor``."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import ResponseError

from advisor.doctor import rules
from advisor.doctor.findings import Finding, Level, worst
from advisor.doctor.network import UnreachableError, endpoints
from advisor.doctor.rules import Handshake
from advisor.store.status import read_status
from fslr.advisor.v1 import status_service_pb2 as pb

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD_STORE: dict[str, Any] = {
    "available": True,
    "topology": "sentinel",
    "version": "7.2.4",
    "append_only": True,
    "flush": "always",
    "eviction": "noeviction",
    "replicas": 2,
}


def answer(*, ahead_s: float = 0.0, round_trip_s: float = 0.0, **status: Any) -> rules.Answer:
    """Return an answer of a service whose clock is ahead of the local one."""
    seen = pb.GetStatusResponse(version="0.1.0", **status)
    seen.time.FromDatetime(NOW + timedelta(seconds=round_trip_s / 2 + ahead_s))
    return rules.Answer(seen, NOW, round_trip_s, with_token=bool(status.get("caller")))


def store(**changes: Any) -> pb.StoreStatus:
    """Return a good store with changes; None removes a field."""
    fields = {k: v for k, v in (GOOD_STORE | changes).items() if v is not None}
    return pb.StoreStatus(**fields)


def levels(findings: Iterable[Finding]) -> dict[str, Level]:
    """Return the worst level of each check."""
    found = list(findings)
    return {f.check: worst(g for g in found if g.check == f.check) for f in found}


def text(findings: Iterable[Finding]) -> str:
    return "\n".join(f"{f.found} -> {f.remedy}" for f in findings)


def test_a_good_store_has_no_findings_beyond_ok() -> None:
    found = list(rules.store(store()))
    assert worst(found) is Level.OK
    assert {f.check for f in found} == {
        *("redis", "redis persistence", "redis memory", "redis replicas")
    }


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        ({"append_only": False}, "redis persistence", Level.PROBLEM, "appendonly yes"),
        ({"append_only": None}, "redis persistence", Level.UNKNOWN, "+info"),
        ({"flush": "everysec"}, "redis persistence", Level.WARNING, "appendfsync always"),
        ({"flush": "no"}, "redis persistence", Level.PROBLEM, "appendfsync always"),
        ({"flush": ""}, "redis persistence", Level.UNKNOWN, "config|get"),
        ({"eviction": "allkeys-lru"}, "redis memory", Level.PROBLEM, "allkeys-lru"),
        ({"eviction": ""}, "redis memory", Level.UNKNOWN, "does not report"),
        ({"replicas": 0}, "redis replicas", Level.WARNING, "redis_wait_replicas"),
        ({"replicas": 0, "topology": "standalone"}, "redis replicas", Level.OK, "backups"),
        ({"version": "6.0.16"}, "redis", Level.PROBLEM, "6.2 or newer"),
        ({"version": "6.2.0"}, "redis", Level.OK, "6.2.0"),
        ({"available": False, "problem": "refused"}, "redis", Level.PROBLEM, "refused -> start"),
    ],
)
def test_each_weakness_of_the_store_is_reported_with_its_remedy(
    changes: dict[str, Any], check: str, level: Level, words: str
) -> None:
    found = list(rules.store(store(**changes)))
    assert levels(found)[check] is level
    assert words in text(found)
    assert {name for name, of in levels(found).items() if of is not Level.OK} <= {check}


def test_a_store_that_reports_nothing_is_unknown() -> None:
    silent = {"version": "", "append_only": None, "flush": "", "eviction": "", "replicas": 0}
    seen = store(**silent, clock_offset_s=math.nan)
    found = list(rules.store(seen))
    assert set(levels(found).values()) == {Level.UNKNOWN}
    (_, of_redis) = rules.clocks(answer(store=seen))
    assert of_redis.level is Level.UNKNOWN
    assert "+time" in of_redis.remedy


class OldRedis:
    """The answers of Redis 6.2, whose CONFIG GET accepts only one pattern."""

    async def check(self) -> None:
        pass

    async def info(self) -> dict[str, Any]:
        return {"redis_version": "6.2.0", "aof_enabled": 1, "maxmemory_policy": "noeviction"}

    async def time(self) -> tuple[int, int]:
        return int(datetime.now(UTC).timestamp()), 0

    async def config_get(self, pattern: str, *more: str) -> dict[str, str]:
        if more:
            raise ResponseError("wrong number of arguments for 'config|get' command")
        return {pattern: "everysec"}


def test_settings_of_an_old_redis_are_requested_one_at_a_time() -> None:
    seen = asyncio.run(read_status(OldRedis()))  # type: ignore[arg-type]
    assert (seen.version, seen.append_only, seen.flush) == ("6.2.0", True, "everysec")


def test_every_finding_that_is_not_ok_has_a_remedy_or_says_what_is_unknown() -> None:
    weaknesses: list[dict[str, Any]] = [
        {"append_only": False, "eviction": "volatile-ttl", "replicas": 0, "version": "5.0"},
        {"flush": "no"},
        {"flush": "everysec"},
        {"available": False},
    ]
    for changes in weaknesses:
        for finding in rules.store(store(**changes)):
            assert finding.remedy or finding.level in {Level.OK, Level.UNKNOWN}


@pytest.mark.parametrize(
    ("ahead_s", "round_trip_s", "level"),
    [
        (0.0, 0.0, Level.OK),
        (0.9, 0.0, Level.OK),
        (-1.1, 0.0, Level.WARNING),
        (1.1, 0.4, Level.OK),  # within the error of the comparison
        (1.3, 0.4, Level.WARNING),
        (61.0, 0.0, Level.PROBLEM),
        (-61.0, 0.0, Level.PROBLEM),
    ],
)
def test_a_clock_difference_counts_beyond_half_of_the_round_trip(
    ahead_s: float, round_trip_s: float, level: Level
) -> None:
    found = list(rules.clocks(answer(ahead_s=ahead_s, round_trip_s=round_trip_s)))
    assert [f.level for f in found] == [level]
    if level is not Level.OK:
        assert ("ahead of" if ahead_s > 0 else "behind") in found[0].found
        assert "NTP" in found[0].remedy


def test_the_clock_of_redis_is_compared_with_the_services() -> None:
    (_, of_redis) = rules.clocks(answer(store=store(clock_offset_s=-5.0)))
    assert of_redis.level is Level.WARNING
    assert "Redis's clock is 5.0 s behind the service's" in of_redis.found


def caller(role: str = "TRAINER", days: float | None = None) -> pb.Caller:
    seen = pb.Caller(name="nightly", project="projects/nlp", role=pb.Role.Value(f"ROLE_{role}"))
    if days is not None:
        seen.expire_time.FromDatetime(NOW + timedelta(days=days))
    return seen


def test_the_caller_s_role_and_project_are_reported() -> None:
    found = list(rules.caller(answer(authenticates=True, caller=caller()), project="nlp", now=NOW))
    assert [f.level for f in found] == [Level.OK]
    assert found[0].found == "nightly has the role trainer in projects/nlp"


def test_a_token_for_a_different_project_is_a_problem() -> None:
    (found,) = rules.caller(answer(authenticates=True, caller=caller()), project="cv", now=NOW)
    assert found.level is Level.PROBLEM
    assert "calls for projects/cv are refused" in found.found
    assert "--project cv" in found.remedy


@pytest.mark.parametrize(("days", "level"), [(15, Level.OK), (13, Level.WARNING)])
def test_a_token_that_expires_soon_is_a_warning(days: float, level: Level) -> None:
    found = list(
        rules.caller(answer(authenticates=True, caller=caller(days=days)), project=None, now=NOW)
    )
    assert worst(found) is level
    assert f"in {days} days" in text(found)


def test_a_service_without_authentication_is_a_problem_unless_on_loopback() -> None:
    (local,) = rules.caller(answer(loopback=True), project=None, now=NOW)
    (open_to_all,) = rules.caller(answer(loopback=False), project=None, now=NOW)
    assert (local.level, open_to_all.level) == (Level.OK, Level.PROBLEM)
    assert "advisor token create" in open_to_all.remedy


@pytest.mark.parametrize(
    ("status", "through_tls", "level"),
    [
        ({"loopback": True}, False, Level.OK),
        ({"loopback": False}, False, Level.PROBLEM),
        ({"loopback": False}, True, Level.OK),
    ],
)
def test_plain_text_is_a_problem_on_a_network(
    status: dict[str, Any], through_tls: bool, level: Level
) -> None:
    (found,) = rules.encryption(answer(**status).status, through_tls=through_tls)
    assert found.level is level
    assert list(rules.encryption(answer(encrypted=True).status, through_tls=through_tls)) == []


def handshake(days_left: float, life_days: float) -> Handshake:
    ends = NOW + timedelta(days=days_left)
    return Handshake("good", "", ends - timedelta(days=life_days), ends, "TLSv1.3")


@pytest.mark.parametrize(
    ("seen", "wanted", "level", "words"),
    [
        (handshake(30, 90), True, Level.OK, "in 30 days"),
        (handshake(13, 90), True, Level.WARNING, "renew it"),
        (handshake(2, 5), True, Level.OK, "in 2 days"),  # two fifths of a short lifetime are left
        (handshake(1, 5), True, Level.WARNING, "in 24 h"),
        (handshake(0.05, 5), True, Level.WARNING, "in 72 min"),
        (handshake(30, 90), False, Level.PROBLEM, "set FSLR_TLS_CA"),
        (Handshake("untrusted", "self-signed certificate"), False, Level.PROBLEM, "FSLR_TLS_CA"),
        (Handshake("untrusted", "certificate has expired"), True, Level.PROBLEM, "renew it"),
        (
            Handshake("untrusted", "Hostname mismatch, certificate is not valid for 'h'."),
            True,
            Level.PROBLEM,
            "issue one for h",
        ),
        (Handshake("untrusted", "unable to get local issuer"), True, Level.PROBLEM, "FSLR_TLS_CA"),
        (Handshake("plain", ""), True, Level.PROBLEM, "does not use TLS"),
        (Handshake("failed", "timed out"), True, Level.PROBLEM, "timed out"),
    ],
)
def test_handshake_findings_depend_on_validity_and_settings(
    seen: Handshake, wanted: bool, level: Level, words: str
) -> None:
    found = list(rules.tls(seen, "h", wanted=wanted, now=NOW))
    assert worst(found) is level
    assert words in text(found)


def test_plain_text_is_fine_for_a_client_without_tls() -> None:
    assert list(rules.tls(Handshake("plain", ""), "h", wanted=False, now=NOW)) == []


@pytest.mark.parametrize(
    ("theirs", "ours", "level"),
    [
        ("0.1.0", "0.1.3", Level.OK),
        ("0.2.0", "0.1.0", Level.OK),  # the contract only grows: the service goes first
        ("0.1.0", "0.2.0", Level.WARNING),
        ("0.9.0", "0.10.0", Level.WARNING),
        ("2.0.0", "1.9.0", Level.PROBLEM),
        ("1.9.0", "2.0.0", Level.PROBLEM),
    ],
)
def test_a_client_may_be_older_than_the_service_within_a_major_version(
    theirs: str, ours: str, level: Level
) -> None:
    assert worst(rules.versions({theirs}, ours)) is level


def test_replicas_of_two_versions_are_reported() -> None:
    found = text(rules.versions({"0.10.0", "0.9.0"}, "0.9.0"))
    assert "the replicas have different versions: 0.9.0, 0.10.0 -> finish the rollout" in found


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("127.0.0.1:5", [("127.0.0.1", "127.0.0.1", 5)]),
        ("dns:///127.0.0.1:5", [("127.0.0.1", "127.0.0.1", 5)]),
        ("[::1]:5", [("::1", "::1", 5)]),
        (
            "ipv4:127.0.0.1:5,127.0.0.2:6",
            [("127.0.0.1", "127.0.0.1", 5), ("127.0.0.2", "127.0.0.2", 6)],
        ),
        ("127.0.0.1", [("127.0.0.1", "127.0.0.1", 443)]),
        ("unix:advisor.sock", []),
        ("unix-abstract:advisor", []),
    ],
)
def test_addresses_are_parsed_like_grpc(address: str, hosts: list[tuple[str, str, int]]) -> None:
    assert [(e.host, e.ip, e.port) for e in endpoints(address)] == hosts


def test_a_host_name_that_starts_with_unix_is_not_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[tuple[str, int]] = []

    def resolved(host: str, port: int, **_: Any) -> list[Any]:
        lookups.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert [e.host for e in endpoints("unix-gpu1:50051")] == ["unix-gpu1"]
    assert lookups == [("unix-gpu1", 50051)]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:http", "not of the form host:port"),
        ("127.0.0.1:99999", "not of the form host:port"),
        (":5", "not of the form host:port"),
        ("", "not of the form host:port"),
        ("nowhere.invalid:5", "nowhere.invalid cannot be resolved"),
        ("unix1.invalid:5", "unix1.invalid cannot be resolved"),
        ("a" * 300 + ":5", "cannot be resolved"),
    ],
)
def test_an_invalid_or_unknown_address_is_explained(address: str, words: str) -> None:
    with pytest.raises(UnreachableError, match=words):
        endpoints(address)
