"""The client for Node.js against a real service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, profile_service_pb2, recipe_pb2
from tests.building import content_message, opening_message
from tests.certificates import Authority
from tests.http_proxy import HttpProxy
from tests.operator_tokens import Tokens
from tests.waiting import eventually

_ROOT = Path(__file__).parents[2]
_SOURCE = _ROOT / "clients" / "node"
_FOLDER = _ROOT / "out" / "node-client"  # with the packages, which stay between test runs
_PROFILE = "projects/default/profiles/char-gpt"


@pytest.fixture(scope="module")
def client_folder() -> Path:
    """Copy the client, and install its packages unless they are there."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed, so the client for Node.js is not tested")
    lock = (_SOURCE / "package-lock.json").read_bytes()
    installed = _FOLDER / "installed-lock.json"
    is_current = installed.is_file() and installed.read_bytes() == lock
    shutil.copytree(
        _SOURCE, _FOLDER, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules")
    )
    if not is_current:
        try:
            done = subprocess.run(
                ["npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=_FOLDER,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(
                "npm did not install the packages of clients/node within 120 s, so the client for "
                "Node.js is not tested"
            )
        if done.returncode != 0:
            pytest.skip(
                "npm cannot install the packages of clients/node, so the client for Node.js is not "
                f"tested: {done.stderr[-300:]}"
            )
        installed.write_bytes(lock)
    return _FOLDER


@pytest.fixture(scope="module")
def service() -> Iterator[LocalServer]:
    with LocalServer() as running, AdvisorClient(running.address) as client:
        client.register_profile("char-gpt", content_message())
        yield running


def command(folder: Path, scenario: str, address: str, **options: Any) -> list[str]:
    opening = MessageToDict(opening_message(_PROFILE))
    given = {
        "opening": opening,
        "unitRates": [1.0, 0.5, 2.0, 4.0],
        "protos": str(_ROOT / "protos"),
        **options,
    }
    return ["node", str(folder / "test" / "scenario.js"), scenario, address, json.dumps(given)]


def run(folder: Path, scenario: str, address: str, **options: Any) -> Any:
    """Run a scenario, and return its result."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("FSLR_")}
    done = subprocess.run(
        command(folder, scenario, address, **options),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=variables,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.compatibility("Node.js", "advised")
def test_measurements_are_answered_as_for_the_client_in_python(
    client_folder: Path, service: LocalServer
) -> None:
    opening = MessageToDict(opening_message(_PROFILE, run="projects/default/runs/node"))
    found = run(client_folder, "exchange", service.address, opening=opening)
    with AdvisorClient(service.address) as client:
        eventually(lambda: any(run.HasField("end_time") for run in client.list_runs()))
        asked = opening_message(_PROFILE)
        expected = client.recommend_once(asked, pb.Measurement(unit_rates=[1.0, 0.5, 2.0, 4.0]))
    assert found["once"]["multipliers"] == list(expected.multipliers)
    assert found["answers"][0]["multipliers"] == list(expected.multipliers)
    assert found["once"]["digest"] == expected.digest
    assert [answer["step"] for answer in found["answers"]] == [0, 25, 50]
    assert found["mapping"]["unmatched"] == []
    assert found["mapping"]["refusal"] == ""
    assert found["closed"]["message"] == "the session is closed; open the run again"


def test_errors_have_their_reasons_and_the_session_goes_on(
    client_folder: Path, service: LocalServer
) -> None:
    found = run(client_folder, "refusals", service.address)
    unknown, invalid = found["unknown"], found["invalid"]
    assert (unknown["codeName"], unknown["reason"]) == ("NOT_FOUND", "PROFILE_NOT_FOUND")
    assert unknown["metadata"] == {"nearest": _PROFILE}
    assert (invalid["codeName"], invalid["reason"]) == ("INVALID_ARGUMENT", "INVALID_VALUE")
    assert "measurement.step: -1" in invalid["message"]
    assert found["after"] == 0


def test_any_method_without_a_stream_can_be_called(
    client_folder: Path, service: LocalServer
) -> None:
    found = run(client_folder, "generic", service.address)
    with AdvisorClient(service.address) as client:
        expected = [version.name for version in client.list_recipes() if not version.version]
    assert [recipe["name"] for recipe in found["recipes"]] == expected != []
    assert found["service"]["message"].startswith("there is no service NoService; use AdvisorServ")
    assert "RunService has no method WatchRun without a stream; use " in found["method"]["message"]
    assert found["unset"]["codeName"] == "INVALID_ARGUMENT"


def test_the_types_have_each_field_of_the_protos() -> None:
    text = (_SOURCE / "index.d.ts").read_text("utf-8")
    messages: dict[str, type[Message]] = {
        "Group": layout_pb2.Group,
        "Layout": layout_pb2.Layout,
        "TrainingRatios": recipe_pb2.TrainingRatios,
        "RecipeFactors": recipe_pb2.RecipeFactors,
        "RunOpening": pb.RunOpening,
        "Measurement": pb.Measurement,
        "Recommendation": pb.RecommendLRResponse,
        "LayoutMapping": profile_service_pb2.ValidateLayoutResponse,
    }
    for name, message in messages.items():
        body = text.partition(f"export interface {name} {{\n")[2].partition("\n}")[0]
        typed = re.findall(r"^  (\w+)\??:", body, re.MULTILINE)
        assert sorted(typed) == sorted(field.camelcase_name for field in message.DESCRIPTOR.fields)


def test_a_session_goes_on_with_a_service_that_was_restarted(
    client_folder: Path, tmp_path: Path
) -> None:
    with LocalServer(tmp_path) as first:
        port = first.address.rpartition(":")[2]
        with AdvisorClient(first.address) as client:
            client.register_profile("char-gpt", content_message())
        process = subprocess.Popen(
            command(client_folder, "reconnect", first.address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
    with LocalServer(tmp_path, "--port", port):
        output, _ = process.communicate("go\n", timeout=60)
    assert json.loads(output) == {"steps": [0, 25]}


def test_tls_and_tokens(client_folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    secured = ("--tls-cert", str(cert), "--tls-key", str(key), "--authenticate")
    with (
        EmbeddedRedis(tmp_path / "redis") as store,
        LocalServer(None, "--redis-url", store.url, *secured) as service,
    ):
        ca = str(authority.ca())
        refused = run(client_folder, "status", service.address, ca=ca)
        assert (refused["codeName"], refused["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        plain = run(client_folder, "status", service.address, deadlineMs=2_000)
        assert (plain["codeName"], plain["reason"]) == ("UNAVAILABLE", "")
        token = Tokens(store.url, "default").create("trainer")["token"]
        found = run(client_folder, "status", service.address, ca=ca, token=token)
        assert found["encrypted"]
        assert found["caller"]["role"] == "ROLE_TRAINER"
    with pytest.raises(AssertionError, match=r"the token would be sent to advisor\.invalid:1"):
        run(client_folder, "status", "advisor.invalid:1", token="fslr_a_b_c")


def test_no_token_for_this_machine_reaches_a_proxy(
    client_folder: Path, service: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    token = "fslr_default_0123456789ab_" + "S" * 43
    with HttpProxy(int(service.address.rpartition(":")[2]), status="403 Forbidden") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert run(client_folder, "status", service.address, token=token)["loopback"]
        assert not proxy.requests
        refused = run(client_folder, "status", "advisor.invalid:50051", deadlineMs=2_000)
        assert proxy.requests
    assert (refused["codeName"], refused["reason"]) == ("UNAVAILABLE", "")
    assert re.search(
        r"; calls go through the proxy 127.0.0.1:\d+, which http_proxy names; to connect directly, "
        "add advisor.invalid to no_proxy$",
        refused["message"],
    )
