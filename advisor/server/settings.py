"""The settings of the service, from the command line, the environment or their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from platformdirs import user_data_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from advisor.store.redis.addresses import parse_address
from fslr.client.certificates import CertificateFiles
from fslr.client.loopback import is_loopback_host

_MAX_SECONDS = 2_000_000.0  # gRPC takes milliseconds as 32-bit integers


class Settings(BaseSettings):
    """Settings of ``advisor serve``. Each is also an environment variable ``ADVISOR_{NAME}``."""

    model_config = SettingsConfigDict(env_prefix="ADVISOR_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    allow_insecure: bool = Field(
        False,
        description="Allow listening beyond loopback without TLS or without authentication.",
    )
    authenticate: bool | None = Field(
        None,
        description="Require callers to present a token, or a certificate that has a role. "
        "Default: required beyond loopback, unless allow_insecure is set.",
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the server certificate and its chain. Default: no TLS."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's private key, unencrypted."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of certificate authorities. If set, callers must present a "
        "certificate issued by one of them.",
    )
    tls_client_roles: Path | None = Field(
        None,
        description="YAML file that maps names in client certificates to a project and a role.",
    )
    token_cache_s: float = Field(
        10.0,
        ge=0,
        description="How long a validated token is cached, in seconds. A revoked token is refused "
        "within this time.",
    )
    redis_url: str | None = Field(
        None,
        description="URL of Redis: redis://, unix://, redis+sentinel:// or redis+cluster://; "
        "rediss for TLS. Default: an embedded Redis.",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("fslr-advisor"),
        description="Data directory of the embedded Redis.",
    )
    redis_timeout_s: float = Field(
        2.0, ge=1, description="Maximum time to wait for an answer from Redis, in seconds."
    )
    redis_wait_replicas: int = Field(
        0,
        ge=0,
        description="Number of Redis replicas that must have a write before it is acknowledged.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Number of processes that serve the port. Limits apply to each of them.",
    )
    max_message_bytes: int = Field(
        64 * 2**20, ge=1024, le=2**29 - 1, description="Maximum size of a request, in bytes."
    )
    max_groups: int = Field(
        100_000,
        ge=1,
        description="Maximum number of groups and frozen names of a layout together. Groups "
        "themselves are limited to 20,000.",
    )
    max_calls: int = Field(
        1_000,
        ge=1,
        description="Maximum number of concurrent unary calls. Further calls are refused.",
    )
    max_streams: int = Field(
        10_000, ge=1, description="Maximum number of open streams. Further streams are refused."
    )
    max_token_streams: int = Field(
        1_000,
        ge=1,
        description="Maximum number of open streams of one token. Further streams are refused.",
    )
    max_token_messages_per_s: float = Field(
        1_000.0,
        gt=0,
        description="Maximum number of messages of one token per second, with bursts of 2 seconds' "
        "worth.",
    )
    max_connection_age_s: float = Field(
        3600.0,
        ge=1,
        le=_MAX_SECONDS,
        description="Maximum age of a connection, in seconds, varied by up to 10% at random. "
        "Streams then reconnect and find new replicas.",
    )
    keepalive_s: float = Field(
        60.0,
        ge=10,
        le=_MAX_SECONDS,
        description="Time without traffic after which a connection is probed, in seconds.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port of the Prometheus metrics; 0 takes a free one. Default: metrics are "
        "not served.",
    )
    http: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port of the web page; 0 takes a free one. Default: it is not served.",
    )
    http_max_requests_per_s: float = Field(
        50.0,
        gt=0,
        description="Maximum number of requests to the web page per second, for each token or, "
        "without tokens, each address. Bursts of 5 seconds' worth are answered.",
    )
    http_max_live_pages: int = Field(
        1_000,
        ge=1,
        description="Maximum number of open web pages that follow a run, half of them for one "
        "token or address. Further ones do not follow it.",
    )
    tracing: bool = Field(
        False,
        description="Export OpenTelemetry traces of calls. The environment variables OTEL_... "
        "configure the exporter.",
    )
    reflection: bool = Field(True, description="Enable gRPC server reflection.")
    max_cached_profiles: int = Field(
        256, ge=1, description="Maximum number of profile versions cached in memory."
    )
    max_queued_measurements: int = Field(
        10_000,
        ge=1,
        description="Maximum number of measurements queued for Redis. Further ones are dropped.",
    )
    grace_s: float = Field(
        5.0,
        ge=0,
        le=_MAX_SECONDS,
        description="Maximum time for open calls to end when the service stops, in seconds.",
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_address(url)
        return url

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together; set both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.tls_client_roles is not None and self.tls_client_ca is None:
            raise ValueError("tls_client_roles needs tls_client_ca, which verifies certificates")
        if self.tls_client_roles is not None and not self.authenticates:
            raise ValueError("tls_client_roles has no effect without authenticate; set it too")
        return self

    @property
    def tls(self) -> CertificateFiles | None:
        """The TLS files; None if calls are not encrypted."""
        if self.tls_cert is None:
            return None
        return CertificateFiles(ca=self.tls_client_ca, cert=self.tls_cert, key=self.tls_key)

    @property
    def max_stop_s(self) -> float:
        """Maximum time to stop: ``grace_s`` each for open calls, for telemetry and for traces."""
        return (3 if self.tracing else 2) * self.grace_s

    @property
    def authenticates(self) -> bool:
        """Whether callers must authenticate."""
        if self.authenticate is None:
            return not (self.is_loopback or self.allow_insecure)
        return self.authenticate

    @property
    def topology(self) -> str:
        """Topology of Redis: ``standalone``, ``sentinel`` or ``cluster``."""
        scheme = (self.redis_url or "").partition("://")[0]
        return scheme.partition("+")[2] or "standalone"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback_host(self.host)
