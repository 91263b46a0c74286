"""A token is written to the store that its service reads, or the command says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.commands import Cli


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, Path]]:
    data_dir = tmp_path_factory.mktemp("data")
    with LocalServer(data_dir, "--authenticate") as running:
        yield running, data_dir


def create(data_dir: Path, *more: str) -> tuple[str, ...]:
    return ("token", "create", "job", "--role", "viewer", "--data-dir", str(data_dir), *more)


def test_a_token_in_a_store_that_the_service_does_not_use_is_revoked(
    service: tuple[LocalServer, Path], tmp_path: Path
) -> None:
    running, _ = service
    cli = Cli(running.address, "default")
    refused = cli.run(*create(tmp_path), ok=False)
    assert refused.stdout == ""
    assert (
        f"the service at {running.address} does not know a token that was written to the embedded "
        f"Redis of {tmp_path}: it uses a different store. Give its --redis-url or --data-dir"
    ) in " ".join(refused.stderr.split())
    listed = cli.run("token", "list", "--data-dir", str(tmp_path)).stdout
    assert f"project default has no tokens in the embedded Redis of {tmp_path};" in listed
    missing = cli.run("token", "revoke", "3f2a9c01b2d4", "--data-dir", str(tmp_path), ok=False)
    assert f"has no token '3f2a9c01b2d4' in the embedded Redis of {tmp_path}" in missing.stderr


def test_a_token_of_the_services_store_is_checked_with_it(
    service: tuple[LocalServer, Path],
) -> None:
    running, data_dir = service
    created = Cli(running.address, "default").run(*create(data_dir))
    assert f"in the embedded Redis of {data_dir}; it will not be shown again" in created.stderr
    with AdvisorClient(running.address, token=created.stdout.splitlines()[0]) as client:
        assert client.status().caller.name == "job"


def test_the_check_can_be_skipped_and_needs_no_service(
    service: tuple[LocalServer, Path], tmp_path: Path
) -> None:
    running, _ = service
    skipped = Cli(running.address, "default").run(*create(tmp_path, "--no-check"))
    assert skipped.stdout.startswith("fslr_default_")
    alone = Cli("127.0.0.1:1", "default").json(*create(tmp_path))
    assert alone["store"] == f"the embedded Redis of {tmp_path}"
