"""All settings of the service in one place: command line, else environment, else default."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from platformdirs import user_data_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from advisor.store.redis.addresses import parse_address
from fslr.client.certificates import CertificateFiles
from fslr.client.loopback import is_loopback_host

_LONGEST_S = 2_000_000.0  # gRPC takes milliseconds as 32-bit integers


class Settings(BaseSettings):
    """Settings of ``advisor serve``; each is also an environment variable ``ADVISOR_{NAME}``."""

    model_config = SettingsConfigDict(env_prefix="ADVISOR_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    allow_insecure: bool = Field(
        False,
        description="Listen beyond loopback although calls are not encrypted, or callers not "
        "authenticated.",
    )
    authenticate: bool | None = Field(
        None,
        description="Callers must show a token, or a certificate that has a role. Default: beyond "
        "loopback, unless allow_insecure.",
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the certificate and its chain; default: no TLS."
    )
    tls_key: Path | None = Field(None, description="PEM file of its private key, not encrypted.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of authorities; callers must then have a certificate of theirs.",
    )
    tls_client_roles: Path | None = Field(
        None,
        description="YAML file that gives the names in callers' certificates a project and a role.",
    )
    token_recheck_s: float = Field(
        10.0,
        ge=0,
        description="How long a token is believed before it is looked up again, in seconds: a "
        "revoked one ends within it.",
    )
    redis_url: str | None = Field(
        None,
        description="Redis to use: redis://, unix://, redis+sentinel:// or redis+cluster://; "
        "rediss for TLS. Default: an embedded one.",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("fslr-advisor"),
        description="Where the embedded Redis keeps its data.",
    )
    redis_timeout_s: float = Field(
        2.0, ge=1, description="Longest wait for an answer of Redis, in seconds."
    )
    redis_wait_replicas: int = Field(
        0, ge=0, description="Replicas of Redis that must have a write before it is acknowledged."
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that answer on the port; limits hold for each of them.",
    )
    max_message_bytes: int = Field(
        64 * 2**20, ge=1024, le=2**29 - 1, description="Largest request that is accepted, in bytes."
    )
    max_groups: int = Field(
        100_000,
        ge=1,
        description="Most groups and frozen names of a layout, together; of groups alone 20,000.",
    )
    max_calls: int = Field(
        1_000, ge=1, description="Most calls of one message under way; more are refused."
    )
    max_streams: int = Field(10_000, ge=1, description="Most open streams; more are refused.")
    max_token_streams: int = Field(
        1_000, ge=1, description="Most open streams of one token; more are refused."
    )
    max_token_messages_per_s: float = Field(
        1_000.0,
        gt=0,
        description="Most messages a second of one token, with a burst of 2 seconds' worth.",
    )
    max_connection_age_s: float = Field(
        3600.0,
        ge=1,
        le=_LONGEST_S,
        description="Longest life of a connection, in seconds, up to 10 % more or less by chance: "
        "streams then find new replicas.",
    )
    keepalive_s: float = Field(
        60.0,
        ge=10,
        le=_LONGEST_S,
        description="How long a silent connection waits to be checked, in seconds.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port of the metrics, for Prometheus; 0 takes a free one. Default: none.",
    )
    tracing: bool = Field(
        False, description="Send traces of calls (OpenTelemetry) to where OTEL_... says."
    )
    reflection: bool = Field(True, description="Tell callers the contract (gRPC reflection).")
    cached_profiles: int = Field(256, ge=1, description="Most profile versions kept in memory.")
    telemetry_capacity: int = Field(
        10_000, ge=1, description="Most measurements that wait for the store."
    )
    grace_s: float = Field(
        5.0,
        ge=0,
        le=_LONGEST_S,
        description="Longest wait for open calls when stopping, in seconds.",
    )

    @field_validator("redis_url")
    @classmethod
    def _has_a_known_form(cls, url: str | None) -> str | None:
        if url is not None:
            parse_address(url)
        return url

    @model_validator(mode="after")
    def _has_the_whole_of_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together; name both files or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.tls_client_roles is not None and self.tls_client_ca is None:
            raise ValueError("tls_client_roles needs tls_client_ca, whose certificates have roles")
        if self.tls_client_roles is not None and not self.authenticates:
            raise ValueError("tls_client_roles has no effect without authenticate; say that too")
        return self

    @property
    def tls(self) -> CertificateFiles | None:
        """The files for TLS; None: nothing is encrypted."""
        if self.tls_cert is None:
            return None
        return CertificateFiles(ca=self.tls_client_ca, cert=self.tls_cert, key=self.tls_key)

    @property
    def max_stop_s(self) -> float:
        """Maximum time to stop: ``grace_s`` each for open calls, for telemetry and for traces."""
        return (3 if self.tracing else 2) * self.grace_s

    @property
    def authenticates(self) -> bool:
        """Whether callers must prove who they are."""
        if self.authenticate is None:
            return not (self.is_loopback or self.allow_insecure)
        return self.authenticate

    @property
    def topology(self) -> str:
        """``standalone``, ``sentinel`` or ``cluster``."""
        scheme = (self.redis_url or "").partition("://")[0]
        return scheme.partition("+")[2] or "standalone"

    @property
    def is_loopback(self) -> bool:
        """Whether the service can be reached from this machine alone."""
        return is_loopback_host(self.host)
