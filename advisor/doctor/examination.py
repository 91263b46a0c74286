"""Connects to a deployment as a training job does, and collects the findings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from advisor.doctor import rules
from advisor.doctor.findings import Finding, Level
from advisor.doctor.network import Endpoint, UnreachableError, connect, endpoints, handshake
from advisor.server.readiness import LIVENESS, READINESS
from fslr import (
    AdvisorClient,
    AuthenticationError,
    CertificateError,
    CertificateFiles,
    ServiceError,
    TokenError,
)
from fslr.advisor.v1 import status_service_pb2, status_service_pb2_grpc
from fslr.client.http_proxies import HttpProxy, find_proxy, proxy_note
from fslr.client.tokens import TokenSource

_MAX_CALLS = 32  # the client uses the replicas in turn, so several calls reach all of them


def examine(address: str, *, project: str | None, timeout_s: float) -> list[Finding]:
    """Check a deployment and return the findings.

    The findings end early if a problem makes further checks impossible.

    Args:
        address: The service's address, as clients use it.
        project: The project that the token must be for; None: any.
        timeout_s: Maximum wait for each connection and each answer, in seconds.
    """
    # Replicas are configured alike, so the same finding from several of them is reported once.
    return list(dict.fromkeys(_examine(address, project, timeout_s)))


def _examine(address: str, project: str | None, timeout_s: float) -> Iterator[Finding]:
    try:
        files = CertificateFiles.from_environment()
        token = TokenSource.from_environment()
        client = AdvisorClient(address, deadline_s=timeout_s)
    except CertificateError as error:
        yield Finding("tls", Level.PROBLEM, str(error), "fix FSLR_TLS_CA, _CERT and _KEY")
        return
    except TokenError as error:
        yield Finding("token", Level.PROBLEM, str(error))
        return
    with client:
        reachable: list[Endpoint] = []
        for finding in _network(address, files, reachable, timeout_s):
            yield finding
            if finding.level is Level.PROBLEM:
                return
        health = list(_health(client, timeout_s))
        yield from health
        if health[0].level is not Level.PROBLEM:
            yield from _service(
                client,
                calls=min(_MAX_CALLS, 2 * len(reachable) or 1),
                project=project,
                files=files,
                with_token=token.given,
            )


def _network(
    address: str, files: CertificateFiles | None, reachable: list[Endpoint], timeout_s: float
) -> Iterator[Finding]:
    """Check the network path to the service; collect the addresses that accept connections."""
    try:
        found = endpoints(address)
    except UnreachableError as error:
        yield Finding("address", Level.PROBLEM, str(error), "fix --address, such as host:port")
        return
    proxy = find_proxy(address)
    if proxy is not None:
        yield _proxied(proxy, address, encrypted=files is not None)
    refused: list[str] = []
    for endpoint in found:
        try:
            connect(endpoint, timeout_s)
        except UnreachableError as error:
            refused.append(str(error))
        else:
            reachable.append(endpoint)
    yield from _reached(address, reachable, refused)
    now = datetime.now(UTC)
    for endpoint in reachable:
        seen = handshake(endpoint, files, timeout_s)
        yield from rules.tls(seen, endpoint.host, wanted=files is not None, now=now)


def _proxied(proxy: HttpProxy, address: str, *, encrypted: bool) -> Finding:
    if encrypted:
        return Finding("proxy", Level.OK, proxy.describe())
    return Finding(
        "proxy",
        Level.WARNING,
        f"{proxy.describe()}; it can read measurements and tokens, because TLS is off",
        f"turn TLS on; {proxy.remedy(address)}",
    )


def _reached(address: str, reachable: list[Endpoint], refused: list[str]) -> Iterator[Finding]:
    if reachable and reachable[0].proxy is not None:
        yield Finding("address", Level.OK, f"the proxy connects to {address}")
    elif not refused:
        yield Finding("address", Level.OK, f"{address} resolves to {_count(reachable)}")
    elif not reachable:
        yield Finding(
            "address",
            Level.PROBLEM,
            "; ".join(refused),
            _unreachable_remedy(address),
        )
    elif {endpoint.host for endpoint in reachable} == {"localhost"}:
        # localhost has an IPv4 and an IPv6 address, and the service listens on one of them.
        yield Finding("address", Level.OK, f"{address} resolves to {_count(reachable)}")
    else:
        yield Finding(
            "address",
            Level.WARNING,
            f"{address} resolves to {_count(reachable)} that accept connections; others do not, "
            "and clients skip them: " + "; ".join(refused),
            "remove those from the name, or start the service there",
        )


def _unreachable_remedy(address: str) -> str:
    proxy = find_proxy(address)
    if proxy is None:
        return "start the service there, and check that firewalls allow connections from here"
    return f"start the service there, and allow it at the proxy; {proxy.remedy(address)}"


def _count(reachable: list[Endpoint]) -> str:
    if not reachable:
        return "a Unix socket"
    return "one address" if len(reachable) == 1 else f"{len(reachable)} addresses"


def _health(client: AdvisorClient, timeout_s: float) -> Iterator[Finding]:
    stub = health_pb2_grpc.HealthStub(client.channel())
    serving = health_pb2.HealthCheckResponse.SERVING
    try:
        stub.Check(health_pb2.HealthCheckRequest(service=LIVENESS), timeout=timeout_s)
        ready = stub.Check(health_pb2.HealthCheckRequest(service=READINESS), timeout=timeout_s)
    except grpc.RpcError as error:
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        yield Finding(
            "service",
            Level.PROBLEM,
            f"the server at this address is not an advisor ({details})",
            "check that the port is the advisor's, and that every proxy in between speaks HTTP/2"
            f"{proxy_note(client.address)}",
        )
        return
    if ready.status == serving:
        yield Finding("service", Level.OK, "the service answers and is ready")
    else:
        yield Finding(
            "service",
            Level.WARNING,
            "the service answers but is not ready, because it cannot use Redis now",
        )


def _service(
    client: AdvisorClient,
    *,
    calls: int,
    project: str | None,
    files: CertificateFiles | None,
    with_token: bool,
) -> Iterator[Finding]:
    """Check the status that the service reports, with enough calls to reach each replica."""
    answers: list[rules.Answer] = []
    try:
        for _ in range(calls):
            sent, begun = datetime.now(UTC), time.perf_counter()
            status = client.status()
            answers.append(rules.Answer(status, sent, time.perf_counter() - begun, with_token))
    except AuthenticationError as error:
        yield Finding(
            "token",
            Level.PROBLEM,
            str(error),
            "ask an operator for a token (`advisor token create`), and set FSLR_TOKEN or "
            "FSLR_TOKEN_FILE",
        )
        return
    except ServiceError as error:
        yield Finding("service", Level.PROBLEM, str(error), "see the service's log")
        return
    now = datetime.now(UTC)
    for answer in answers:
        yield from rules.encryption(answer.status, through_tls=files is not None)
        yield from rules.caller(answer, project=project, now=now)
        yield from rules.store(answer.status.store)
        yield from rules.clocks(answer)
    if with_token and answers[0].status.authenticates:
        yield _without_token(client, has_certificate=files is not None and files.cert is not None)
    yield from rules.versions({a.status.version for a in answers}, version("fslr-advisor"))


def _without_token(client: AdvisorClient, *, has_certificate: bool) -> Finding:
    """Make a call without a token, which a service that authenticates its callers must refuse.

    Args:
        client: The client.
        has_certificate: Whether it sends a certificate, which may have a role.
    """
    stub = status_service_pb2_grpc.StatusServiceStub(client.channel())
    try:
        stub.GetStatus(status_service_pb2.GetStatusRequest(), timeout=client.deadline_s)
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return Finding("token", Level.OK, "a call without a token is refused")
        return Finding(
            "token", Level.UNKNOWN, "it is not known whether a call without a token is refused"
        )
    if has_certificate:
        return Finding("token", Level.OK, "the client certificate is accepted in place of a token")
    return Finding(
        "token",
        Level.PROBLEM,
        "a call without a token is accepted, although the service authenticates its callers",
        "check the proxies in between: one of them adds its own token or certificate to calls",
    )
