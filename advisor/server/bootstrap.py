"""Builds the service: the only place where its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from advisor.advising.profile_cache import CachedProfiles
from advisor.advising.telemetry import Telemetry
from advisor.auth.authenticator import Authenticator
from advisor.auth.certificate_roles import CertificateRoles
from advisor.auth.quotas import Quotas
from advisor.observability.metrics import Metrics, serve
from advisor.observability.tracing import Tracing
from advisor.rpc.advisor_service import AdvisorServicer, add_to_server
from advisor.rpc.audit_service import AuditServicer
from advisor.rpc.authorization import Authorizer
from advisor.rpc.concurrency_limits import ConcurrencyLimiter
from advisor.rpc.interceptor import BoundaryInterceptor
from advisor.rpc.method_metrics import expect_calls
from advisor.rpc.policy_service import PolicyServicer
from advisor.rpc.profile_service import ProfileServicer
from advisor.rpc.run_service import RunServicer
from advisor.rpc.status_service import Deployment, StatusServicer
from advisor.rpc.tls import server_credentials
from advisor.server.readiness import LIVENESS, Readiness
from advisor.server.settings import Settings
from advisor.store.audit import AuditStore
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore
from advisor.store.redis.connection import check, connect
from advisor.store.redis.embedded import EmbeddedRedis, running_url
from advisor.store.runs import RunStore
from advisor.store.tokens import TokenStore
from fslr.advisor.v1 import (
    advisor_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
    profile_service_pb2,
    profile_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)

SERVICES = (
    advisor_service_pb2.DESCRIPTOR.services_by_name["AdvisorService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"],
    profile_service_pb2.DESCRIPTOR.services_by_name["ProfileService"],
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
    status_service_pb2.DESCRIPTOR.services_by_name["StatusService"],
)
"""The services of the contract."""
_NAMES = tuple(service.full_name for service in SERVICES)
# Messages beyond our limit are refused by us, with a reason; beyond this multiple of it by gRPC,
# without one, before they fill the memory.
_HARD_LIMIT = 4
_KEEPALIVE_ANSWER_MS = 20_000

_log = structlog.get_logger()


class ListenError(Exception):
    """The service cannot listen where it should."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that answers.

    Attributes:
        address: ``host:port`` to call.
        port: The port alone.
        metrics_port: Where metrics are served; None: nowhere.
    """

    address: str
    port: int
    metrics_port: int | None = None


@contextlib.asynccontextmanager
async def running_service(
    settings: Settings, redis_url: str, *, shares_port: bool = False
) -> AsyncIterator[Service]:
    """Run the service as long as the context lasts, then let open calls end.

    Args:
        settings: The settings; ``workers`` is not for us.
        redis_url: The Redis to use, the embedded one's or the settings'.
        shares_port: Whether other processes of the same service listen on the port.

    Yields:
        The service, answering.

    Raises:
        CertificateError: The files for TLS cannot be used.
        CertificateRolesError: The file of certificates' roles cannot be used.
        ListenError: The port is taken, or the address is open to others without consent.
        StoreUnavailableError: Redis does not answer at the start.
        TracingError: Traces are asked for, and the packages for them are missing.
    """
    is_secure = settings.tls is not None and settings.authenticates
    if not (settings.is_loopback or is_secure or settings.allow_insecure):
        missing = "callers are not authenticated" if settings.tls else "calls are not encrypted"
        raise ListenError(
            f"{settings.host} can be reached from other machines, and {missing}; give --tls-cert "
            "and --tls-key and leave out --no-authenticate, listen on 127.0.0.1, or say "
            "--allow-insecure where the network itself is trusted"
        )
    metrics = Metrics()
    expect_calls(SERVICES, metrics)
    tracing = Tracing.started(enabled=settings.tracing)
    observe = tracing.observing(metrics.time_redis)
    timeout_s = settings.redis_timeout_s
    redis = connect(
        redis_url,
        timeout_s=timeout_s,
        retries=1,
        wait_replicas=settings.redis_wait_replicas,
        observe=observe,
    )
    # For what must not happen twice: telemetry.
    unrepeated = connect(redis_url, timeout_s=timeout_s, retries=0, observe=observe)
    async with redis, unrepeated:
        await check(redis)
        profile_store, run_store = ProfileStore(redis), RunStore(unrepeated)
        policy_store = PolicyStore(redis)
        profiles = CachedProfiles(
            profile_store, policy_store, size=settings.cached_profiles, metrics=metrics
        )
        telemetry = Telemetry(run_store, capacity=settings.telemetry_capacity, metrics=metrics)
        traffic = ConcurrencyLimiter(max_calls=settings.max_calls, max_streams=settings.max_streams)
        gate = _gate(settings, TokenStore(redis))
        server = grpc.aio.server(
            interceptors=[
                *_tracing_interceptors(tracing),
                BoundaryInterceptor(settings.max_message_bytes, traffic, gate, metrics),
            ],
            options=[
                # Connections end now and then (gRPC adds up to 10 % of chance), so that streams
                # find new replicas; open calls have the grace to end.
                ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
                ("grpc.max_connection_age_grace_ms", _ms(settings.grace_s)),
                ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MS),
                ("grpc.max_receive_message_length", _HARD_LIMIT * settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two services on one port are a mistake, and not a cluster.
                ("grpc.so_reuseport", int(shares_port)),
            ],
        )
        add_to_server(AdvisorServicer(profiles, telemetry, metrics, _now), server)
        profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(
            ProfileServicer(profile_store, policy_store, profiles, _now), server
        )
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(
            PolicyServicer(policy_store, _now), server
        )
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
            AuditServicer(AuditStore(redis)), server
        )
        run_service_pb2_grpc.add_RunServiceServicer_to_server(RunServicer(run_store), server)
        status_service_pb2_grpc.add_StatusServiceServicer_to_server(
            StatusServicer(
                Deployment(
                    encrypted=settings.tls is not None,
                    authenticates=settings.authenticates,
                    loopback=settings.is_loopback,
                    topology=settings.topology,
                ),
                redis,
                _now,
            ),
            server,
        )
        states = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(states, server)
        if settings.reflection:
            reflection.enable_server_reflection(
                (*_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
        port = _listen(server, settings)
        with metrics_served(metrics.registry, settings) as metrics_port:
            readiness = Readiness((redis, unrepeated), states, metrics)
            telemetry.start()
            await server.start()
            for name in ("", LIVENESS, *_NAMES):
                await states.set(name, health_pb2.HealthCheckResponse.SERVING)
            await readiness.start()
            try:
                yield Service(address_of(settings.host, port), port, metrics_port)
            finally:
                _log.info("stopping", grace_s=settings.grace_s)
                await readiness.stop()
                await asyncio.shield(_stop(server, states, traffic, telemetry, settings))
                await tracing.stop(deadline_s=settings.grace_s)


@contextlib.asynccontextmanager
async def opened_tokens(settings: Settings) -> AsyncIterator[TokenStore]:
    """Give the store of tokens to a command, as long as the context lasts.

    It is reached directly and not through the service: who may make tokens is who may open the
    store. An embedded Redis is that of the running service, or started for the moment.

    Args:
        settings: The settings, as of the service.

    Yields:
        The store.

    Raises:
        EmbeddedRedisError: There is no embedded Redis, and none can be started.
        StoreUnavailableError: Redis does not answer.
    """
    with contextlib.ExitStack() as stack:
        url = settings.redis_url or running_url(settings.data_dir)
        if url is None:
            url = stack.enter_context(EmbeddedRedis(settings.data_dir)).url
        async with connect(
            url,
            timeout_s=settings.redis_timeout_s,
            retries=1,
            wait_replicas=settings.redis_wait_replicas,
        ) as redis:
            yield TokenStore(redis)


def _tracing_interceptors(tracing: Tracing) -> Sequence[grpc.aio.ServerInterceptor]:
    """Return the interceptor that makes spans; it must be outermost, to see the final status."""
    if tracing.tracer is None:
        return ()
    from advisor.rpc.tracing import TracingInterceptor  # noqa: PLC0415 - an extra

    return (TracingInterceptor(tracing.tracer),)


def _gate(settings: Settings, tokens: TokenStore) -> Authorizer:
    quotas = Quotas(
        max_streams=settings.max_token_streams,
        max_messages_per_s=settings.max_token_messages_per_s,
    )
    authenticator = None
    if settings.authenticates:
        named = settings.tls_client_roles
        roles = None if named is None else CertificateRoles(named)
        authenticator = Authenticator(tokens, roles, _now, recheck_s=settings.token_recheck_s)
    return Authorizer(authenticator, quotas, max_groups=settings.max_groups)


def _listen(server: grpc.aio.Server, settings: Settings) -> int:
    address = address_of(settings.host, settings.port)
    try:
        if settings.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(settings.tls))
    except RuntimeError:
        port = 0
    if port == 0:
        raise ListenError(
            f"cannot listen on {address}: the port is taken or the address is not this machine's; "
            "choose another --port (0 takes a free one) or stop the program that holds it"
        )
    return port


@contextlib.contextmanager
def metrics_served(registry: CollectorRegistry, settings: Settings) -> Iterator[int | None]:
    """Serve metrics as long as the context lasts, if settings say where.

    Args:
        registry: The metrics.
        settings: The settings.

    Yields:
        The port; None: they are not served.

    Raises:
        ListenError: The port is taken.
    """
    if settings.metrics_port is None:
        yield None
        return
    try:
        port, stop = serve(registry, settings.host, settings.metrics_port)
    except OSError as error:
        raise ListenError(
            f"cannot serve metrics on {address_of(settings.host, settings.metrics_port)}: "
            f"{error.strerror}; choose another --metrics-port"
        ) from error
    try:
        yield port
    finally:
        stop()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, as gRPC takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _stop(
    server: grpc.aio.Server,
    states: health.aio.HealthServicer,
    traffic: ConcurrencyLimiter,
    telemetry: Telemetry,
    settings: Settings,
) -> None:
    await states.enter_graceful_shutdown()
    traffic.stop()
    await server.stop(settings.grace_s)
    await telemetry.stop(deadline_s=settings.grace_s)


def _now() -> datetime:
    return datetime.now(UTC)
