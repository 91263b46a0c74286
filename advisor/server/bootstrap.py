"""The composition root: the only place that builds the service's object graph."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from redis.asyncio import Redis

from advisor.advising.profile_cache import CachedProfiles
from advisor.advising.recipe_cache import CachedRecipes
from advisor.advising.telemetry import Telemetry
from advisor.auth.authenticator import Authenticator
from advisor.auth.certificate_roles import CertificateRoles
from advisor.auth.quotas import Quotas
from advisor.observability.metrics import Metrics
from advisor.observability.observers import CommandObserver
from advisor.observability.tracing import Tracing
from advisor.rpc.advisor_service import AdvisorServicer, add_to_server
from advisor.rpc.audit_service import AuditServicer
from advisor.rpc.authorization import Authorizer
from advisor.rpc.concurrency_limits import ConcurrencyLimiter
from advisor.rpc.interceptor import BoundaryInterceptor
from advisor.rpc.method_metrics import create_method_metrics
from advisor.rpc.policy_service import PolicyServicer
from advisor.rpc.profile_service import ProfileServicer
from advisor.rpc.recipe_service import RecipeServicer
from advisor.rpc.run_service import RunServicer
from advisor.rpc.status_service import Deployment, StatusServicer
from advisor.server.listening import (
    address_of,
    check_exposure,
    listen,
    listen_privately,
    metrics_served,
)
from advisor.server.readiness import LIVENESS, Readiness
from advisor.server.settings import Settings
from advisor.store.audit import AuditStore
from advisor.store.deletion import Deletions
from advisor.store.metrics import MetricStore
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore
from advisor.store.recipes import RecipeStore
from advisor.store.redis.connection import connect
from advisor.store.redis.embedded import EmbeddedRedis, running_url
from advisor.store.runs import RunStore
from advisor.store.start_check import check_store
from advisor.store.tokens import TokenStore
from fslr.advisor.v1 import (
    advisor_service_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
    profile_service_pb2,
    profile_service_pb2_grpc,
    recipe_service_pb2,
    recipe_service_pb2_grpc,
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
    recipe_service_pb2.DESCRIPTOR.services_by_name["RecipeService"],
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
    status_service_pb2.DESCRIPTOR.services_by_name["StatusService"],
)
"""The services of the contract."""
_SERVICE_NAMES = tuple(service.full_name for service in SERVICES)
# The service refuses messages above its limit with a reason. gRPC refuses those above this multiple
# of it without one, before they fill the memory.
_HARD_LIMIT = 4
_KEEPALIVE_TIMEOUT_MS = 20_000
# Clients of other languages and meshes ping every 10 s or more, some every second, with and without
# open calls. gRPC's default of 5 minutes closes their connections; this limit stops floods only.
_MIN_PING_INTERVAL_MS = 500

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """A running service.

    Attributes:
        address: Its address, ``host:port`` or ``unix:PATH``.
        port: Its port; 0: it has none.
        metrics_port: Port of the metrics; None if they are not served.
    """

    address: str
    port: int
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class _RedisClients:
    """The connections to Redis.

    Attributes:
        retrying: Repeats a command once if its connection broke.
        single_try: Never repeats a command: telemetry must not be written twice.
    """

    retrying: Redis
    single_try: Redis


@contextlib.asynccontextmanager
async def running_service(
    settings: Settings,
    redis_url: str,
    *,
    shares_port: bool = False,
    private_socket: Path | None = None,
) -> AsyncIterator[Service]:
    """Run the service while the context lasts, then let open calls end.

    Args:
        settings: The settings, except ``workers``, which does not matter here.
        redis_url: The Redis to use: the embedded one's or the settings'.
        shares_port: Whether other processes of the same service listen on the port.
        private_socket: Path of a Unix socket to listen on instead of the port.

    Yields:
        The service, once it answers.

    Raises:
        CertificateError: The TLS files cannot be used.
        CertificateRolesError: The file of certificate roles cannot be used.
        ListenError: The port is taken, or the service would be insecure beyond loopback.
        StoreUnavailableError: Redis does not answer at the start, or is set up so that the service
            cannot work.
        TracingError: Tracing is enabled, and its packages are not installed.
    """
    check_exposure(settings)
    metrics = Metrics()
    create_method_metrics(SERVICES, metrics)
    tracing = Tracing.started(enabled=settings.tracing)
    observe = tracing.observing(metrics.time_redis)
    async with _redis_clients(settings, redis_url, observe) as clients:
        problem = await check_store(clients.retrying)
        if problem is not None:
            _log.warning("Redis cannot be used fully", cause=problem.explanation)
        limiter = ConcurrencyLimiter(max_calls=settings.max_calls, max_streams=settings.max_streams)
        run_store = RunStore(clients.single_try)
        telemetry = Telemetry(run_store, capacity=settings.max_queued_measurements, metrics=metrics)
        server = _grpc_server(
            settings,
            [
                *_tracing_interceptors(tracing),
                BoundaryInterceptor(
                    settings.max_message_bytes,
                    limiter,
                    _authorizer(settings, clients.retrying),
                    metrics,
                ),
            ],
            shares_port=shares_port,
        )
        _add_services(
            server,
            settings,
            clients.retrying,
            run_store=run_store,
            telemetry=telemetry,
            metrics=metrics,
        )
        health_servicer = _add_health_and_reflection(server, settings)
        if private_socket is None:
            port = listen(server, settings)
            address = address_of(settings.host, port)
        else:
            port, address = 0, listen_privately(server, private_socket)
        with metrics_served(metrics.registry, settings) as metrics_port:
            readiness = Readiness((clients.retrying, clients.single_try), health_servicer, metrics)
            telemetry.start()
            await server.start()
            for name in ("", LIVENESS, *_SERVICE_NAMES):
                await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
            await readiness.start()
            try:
                yield Service(address, port, metrics_port)
            finally:
                _log.info("stopping", grace_s=settings.grace_s)
                await readiness.stop()
                await asyncio.shield(_stop(server, health_servicer, limiter, telemetry, settings))
                await tracing.stop(deadline_s=settings.grace_s)


@contextlib.asynccontextmanager
async def opened_tokens(settings: Settings) -> AsyncIterator[TokenStore]:
    """Open the token store for a command while the context lasts.

    The command reaches Redis directly and not through the service: anyone with access to Redis can
    create tokens. An embedded Redis is the running service's, or started for the command.

    Args:
        settings: The service's settings.

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


@contextlib.asynccontextmanager
async def _redis_clients(
    settings: Settings, url: str, observe: CommandObserver
) -> AsyncIterator[_RedisClients]:
    timeout_s = settings.redis_timeout_s
    async with (
        connect(
            url,
            timeout_s=timeout_s,
            retries=1,
            wait_replicas=settings.redis_wait_replicas,
            observe=observe,
        ) as retrying,
        connect(url, timeout_s=timeout_s, retries=0, observe=observe) as single_try,
    ):
        yield _RedisClients(retrying, single_try)


def _tracing_interceptors(tracing: Tracing) -> list[grpc.aio.ServerInterceptor]:
    """Return the interceptor that makes spans; it must be outermost, to see the final status."""
    if tracing.tracer is None:
        return []
    from advisor.rpc.tracing import TracingInterceptor  # noqa: PLC0415 - an extra

    return [TracingInterceptor(tracing.tracer)]


def _authorizer(settings: Settings, redis: Redis) -> Authorizer:
    quotas = Quotas(
        max_streams=settings.max_token_streams,
        max_messages_per_s=settings.max_token_messages_per_s,
    )
    authenticator = None
    if settings.authenticates:
        path = settings.tls_client_roles
        roles = None if path is None else CertificateRoles(path)
        authenticator = Authenticator(
            TokenStore(redis), roles, _now, cache_s=settings.token_cache_s
        )
    return Authorizer(authenticator, quotas, max_groups=settings.max_groups)


def _grpc_server(
    settings: Settings, interceptors: list[grpc.aio.ServerInterceptor], *, shares_port: bool
) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=interceptors,
        options=[
            # Connections end now and then (gRPC varies the age by up to 10 %), so that streams find
            # new replicas; open calls get the grace period to end.
            ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _ms(settings.grace_s)),
            ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.max_receive_message_length", _HARD_LIMIT * settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Two separate services on one port are a mistake.
            ("grpc.so_reuseport", int(shares_port)),
        ],
    )


def _add_services(
    server: grpc.aio.Server,
    settings: Settings,
    redis: Redis,
    *,
    run_store: RunStore,
    telemetry: Telemetry,
    metrics: Metrics,
) -> None:
    """Add the services of the contract to the server."""
    profile_store, policy_store = ProfileStore(redis), PolicyStore(redis)
    deletions = Deletions(redis)
    profiles = CachedProfiles(
        profile_store, policy_store, size=settings.max_cached_profiles, metrics=metrics
    )
    recipe_store = RecipeStore(redis)
    recipes = CachedRecipes(recipe_store, size=settings.max_cached_profiles)
    add_to_server(AdvisorServicer(profiles, recipes, telemetry, metrics, _now), server)
    profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(
        ProfileServicer(
            profile_store, policy_store, deletions, profiles, recipes=recipes, now=_now
        ),
        server,
    )
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(
        PolicyServicer(policy_store, deletions, recipes, _now), server
    )
    recipe_service_pb2_grpc.add_RecipeServiceServicer_to_server(
        RecipeServicer(recipe_store, deletions, recipes=recipes, profiles=profiles, now=_now),
        server,
    )
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
        AuditServicer(AuditStore(redis)), server
    )
    run_service_pb2_grpc.add_RunServiceServicer_to_server(
        RunServicer(run_store, MetricStore(redis), deletions, _now), server
    )
    deployment = Deployment(
        encrypted=settings.tls is not None,
        authenticates=settings.authenticates,
        loopback=settings.is_loopback,
        topology=settings.topology,
    )
    status_service_pb2_grpc.add_StatusServiceServicer_to_server(
        StatusServicer(deployment, redis, _now), server
    )


def _add_health_and_reflection(
    server: grpc.aio.Server, settings: Settings
) -> health.aio.HealthServicer:
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if settings.reflection:
        reflection.enable_server_reflection(
            (*_SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
    return health_servicer


async def _stop(
    server: grpc.aio.Server,
    health_servicer: health.aio.HealthServicer,
    limiter: ConcurrencyLimiter,
    telemetry: Telemetry,
    settings: Settings,
) -> None:
    """Stop taking calls, let the open ones end, then store the telemetry that waits."""
    await health_servicer.enter_graceful_shutdown()
    limiter.stop()
    await server.stop(settings.grace_s)
    await telemetry.stop(deadline_s=settings.grace_s)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _now() -> datetime:
    return datetime.now(UTC)
