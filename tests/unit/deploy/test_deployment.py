"""The deployment matches the service: names, commands, ports, selectors and permissions."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from packaging.requirements import Requirement

from advisor.cli import app
from advisor.cli.serve import _HEALTH_DEADLINE_S
from advisor.server.settings import Settings
from advisor.store.redis.embedded import _STOP_TIMEOUT_S, find_program
from tests.deployment import (
    DEPLOY,
    KUBERNETES,
    RENDERED,
    ROOT,
    container,
    instructions,
    load,
    objects,
    pod,
)
from tests.redis_servers import free_port
from tests.waiting import eventually

NAME = "fslr-advisor"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FILES = [ROOT / "Dockerfile", *DEPLOY.rglob("*.yaml")]


def commands() -> Any:
    """Return the group of all commands as a click group."""
    return typer.main.get_command(app)


def parse(arguments: list[str]) -> Any:
    """Parse a command line as ``advisor`` does; a mistake in it raises."""
    name, *rest = arguments
    return commands().commands[name].make_context(name, rest)


def variables(command: Any) -> set[str]:
    found = {str(p.envvar) for p in command.params if p.envvar}
    for inner in getattr(command, "commands", {}).values():
        found |= variables(inner)
    return found


def parsed_settings(**given: str) -> Settings:
    return Settings.model_validate(given)


def settings(folder: str) -> dict[str, str]:
    found: dict[str, str] = objects(folder)["ConfigMap"]["data"]
    return found


def seconds_of_pre_stop(folder: str) -> int:
    word, seconds = container(folder)["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    return int(seconds)


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_environment_variable_is_known(file: Path) -> None:
    known = {f"ADVISOR_{name.upper()}" for name in Settings.model_fields} | variables(commands())
    known |= {"FSLR_TLS_CA", "FSLR_TLS_CERT", "FSLR_TLS_KEY"}
    used = set(re.findall(r"\b(?:ADVISOR|FSLR)_[A-Z_]+", file.read_text("utf-8")))
    assert used <= known
    if file.name in {"Dockerfile", "compose.yaml"}:
        assert used


@pytest.mark.parametrize("folder", RENDERED)
def test_the_settings_are_valid_and_listen_beyond_loopback(folder: str) -> None:
    given = settings(folder)
    own = {
        name: value
        for name, value in given.items()
        if name.startswith("ADVISOR_") and name != "ADVISOR_ADDRESS"
    }
    read = parsed_settings(**{k.removeprefix("ADVISOR_").lower(): v for k, v in own.items()})
    assert not read.is_loopback
    assert read.allow_insecure == (folder == "overlays/trial")
    assert (read.tls is None) == (folder == "overlays/trial")


@pytest.mark.parametrize("folder", RENDERED)
def test_probes_and_arguments_are_existing_commands(folder: str) -> None:
    found = container(folder)
    assert parse(found["args"]).info_name == "serve"
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = found[kind]
        if folder == "overlays/trial":
            assert set(probe["grpc"]) == {"port", "service"}
            assert probe["grpc"]["service"] in {"liveness", "readiness"}
            assert "exec" not in probe
        else:
            program, *arguments = probe["exec"]["command"]
            assert program in PROJECT["scripts"]
            context = parse(arguments)
            assert context.info_name == "health"
            assert context.params["ready"] == (kind == "startupProbe")
            # The time for Python to start is added to the deadline of the call.
            assert probe["timeoutSeconds"] > 2 * _HEALTH_DEADLINE_S
        if kind != "startupProbe":
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_an_unavailable_redis_takes_no_replica_out_of_service() -> None:
    """All replicas share it, so none would remain to answer from memory."""
    for folder in RENDERED:
        for kind in ("readinessProbe", "livenessProbe"):
            assert "readiness" not in json.dumps(container(folder)[kind].get("grpc", {}))
            assert "--ready" not in container(folder)[kind].get("exec", {}).get("command", [])


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_the_probes_call_the_pod_itself_by_a_name_in_the_certificate(folder: str) -> None:
    host, port = settings(folder)["ADVISOR_ADDRESS"].rsplit(":", 1)
    assert port == settings(folder)["ADVISOR_PORT"]
    # Both families; otherwise DNS is queried, and may fail or return a different pod.
    assert {a["ip"] for a in pod(folder)["hostAliases"] if host in a["hostnames"]} == {
        "127.0.0.1",
        "::1",
    }
    certificate = objects("overlays/production")["Certificate"]["spec"]
    assert host in certificate["dnsNames"]
    assert f"{NAME}.{NAME}.svc" in certificate["dnsNames"]


@pytest.mark.parametrize("folder", RENDERED)
def test_ports_match(folder: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(folder)["ports"]}
    assert ports == {
        "grpc": int(settings(folder)["ADVISOR_PORT"]),
        "metrics": int(settings(folder)["ADVISOR_METRICS_PORT"]),
    }
    (service,) = objects(folder)["Service"]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (ports["grpc"], "grpc")
    annotations = objects(folder)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["prometheus.io/port"]) == ports["metrics"]
    ingress = objects(folder)["NetworkPolicy"]["spec"]["ingress"]
    assert sorted(rule["ports"][0]["port"] for rule in ingress) == sorted(ports)
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(folder)[kind].get("grpc", {"port": ports["grpc"]})["port"] == ports["grpc"]
    (monitored,) = load("kubernetes/components/pod-monitor/pod-monitor.yaml")["spec"][
        "podMetricsEndpoints"
    ]
    assert monitored["port"] in ports
    assert dict(instructions())["EXPOSE"] == str(ports["grpc"])


@pytest.mark.parametrize("folder", RENDERED)
def test_pods_run_with_minimal_privileges(folder: str) -> None:
    spec = pod(folder)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False  # service links would set ADVISOR_PORT=tcp://...
    assert spec["serviceAccountName"] == objects(folder)["ServiceAccount"]["metadata"]["name"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(folder)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container(folder)["resources"]["limits"]


@pytest.mark.parametrize("folder", RENDERED)
def test_selectors_match_the_pods(folder: str) -> None:
    found = objects(folder)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(c["labelSelector"]["matchLabels"] for c in pod(folder)["topologySpreadConstraints"]),
        load("kubernetes/components/pod-monitor/pod-monitor.yaml")["spec"]["selector"][
            "matchLabels"
        ],
    ]
    if folder != "overlays/trial":
        selectors.append(found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
        target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        deployment = found["Deployment"]
        assert (target["apiVersion"], target["kind"], target["name"]) == (
            deployment["apiVersion"],
            "Deployment",
            deployment["metadata"]["name"],
        )
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


@pytest.mark.parametrize("folder", RENDERED)
def test_the_network_policy_restricts_both_directions(folder: str) -> None:
    policy = objects(folder)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    reached = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert all(rule["to"] for rule in policy["egress"])
    assert reached == (set() if folder == "overlays/trial" else {53, 6379})


def test_the_service_name_resolves_to_every_replica() -> None:
    assert objects("base")["Service"]["spec"]["clusterIP"] == "None"


def test_the_autoscaler_sets_at_least_two_replicas() -> None:
    for folder in ("base", "overlays/production"):
        assert "replicas" not in objects(folder)["Deployment"]["spec"]
        assert objects(folder)["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2


def test_the_trial_has_one_replica_and_never_two_on_its_volume() -> None:
    found = objects("overlays/trial")
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget"}.isdisjoint(found)
    assert found["Deployment"]["spec"]["replicas"] == 1
    assert found["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    claim = found["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod("overlays/trial")["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = {m["name"]: m["mountPath"] for m in container("overlays/trial")["volumeMounts"]}
    assert claims == {"data": claim["metadata"]["name"]}
    assert mounts["data"] == settings("overlays/trial")["ADVISOR_DATA_DIR"]
    assert not container("overlays/trial").get("env")


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_secrets_are_mounted_where_the_settings_expect_them(folder: str) -> None:
    (redis_url,) = container(folder)["env"]
    assert redis_url["name"] == "ADVISOR_REDIS_URL"
    assert redis_url["valueFrom"]["secretKeyRef"] == {"name": f"{NAME}-redis", "key": "url"}
    (secret,) = [v["secret"] for v in pod(folder)["volumes"] if "secret" in v]
    certificate = objects("overlays/production")["Certificate"]["spec"]
    assert secret["secretName"] == certificate["secretName"]
    assert secret["defaultMode"] == 0o440
    (mount,) = [m for m in container(folder)["volumeMounts"] if m["name"] == "tls"]
    files = {value for name, value in settings(folder).items() if "_TLS_" in name}
    assert files == {f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")}


@pytest.mark.parametrize("folder", RENDERED)
def test_pods_have_enough_time_to_stop(folder: str) -> None:
    stopping = parsed_settings(grace_s=settings(folder)["ADVISOR_GRACE_S"], tracing="true")
    needed_s = seconds_of_pre_stop(folder) + stopping.max_stop_s
    if folder == "overlays/trial":
        needed_s += _STOP_TIMEOUT_S
    assert pod(folder)["terminationGracePeriodSeconds"] > needed_s


def test_images_have_this_version_and_never_the_tag_latest() -> None:
    ours = f"{NAME}:{version('fslr-advisor')}"
    assert version("fslr-advisor") == PROJECT["version"]
    for folder in RENDERED:
        assert container(folder)["image"] == ours
    assert load("compose.yaml")["services"]["advisor"]["image"] == ours
    for file in FILES:
        for image in re.findall(r"^\s*(?:- )?image: (\S+)", file.read_text("utf-8"), re.MULTILINE):
            assert image == NAME or ":" in image  # kustomize adds the tag to the bare name
            assert not image.endswith(":latest")
    (base,) = [rest for word, rest in instructions() if word == "ARG"]
    assert re.fullmatch(r"BASE_IMAGE=python:3\.\d+-slim-\w+", base)


def test_the_commands_of_the_image_exist_and_are_secure() -> None:
    found = instructions()
    entry, command = (json.loads(dict(found)[word]) for word in ("ENTRYPOINT", "CMD"))
    assert entry == ["advisor"]
    context = parse(command)
    assert not parsed_settings(host=context.params["host"]).is_loopback
    assert "--allow-insecure" not in command
    assert not any("ALLOW_INSECURE" in rest for word, rest in found if word == "ENV")
    program, *check = json.loads(dict(found)["HEALTHCHECK"].split(" CMD ", 1)[1])
    assert (program, parse(check).info_name) == ("advisor", "health")
    assert dict(found)["USER"] == "10001:10001"


def test_the_build_context_has_exactly_what_the_image_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(shlex.split(rest)[:-1])
    assert copied == allowed
    assert "*" in lines


def test_the_pinned_versions_of_the_image_satisfy_the_requirements_of_the_project() -> None:
    lines = (DEPLOY / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {name.lower().replace("_", "-"): number for name, number in pinned.items()}
    required = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]]
    for requirement in map(Requirement, required):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_compose_is_hardened_and_publishes_ports_only_on_loopback() -> None:
    services = load("compose.yaml")["services"]
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "/tmp" in service["tmpfs"]
    assert "ports" not in services["store"]
    published = [port.replace("${PUBLISH_ADDRESS:-127.0.0.1}", "127.0.0.1") for port in
                 services["advisor"]["ports"]]  # fmt: skip
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert load("compose.yaml")["networks"]["store"]["internal"] is True


def test_compose_with_tls_withdraws_allow_insecure() -> None:
    secure = load("compose.tls.yaml")["services"]["advisor"]
    assert secure["environment"]["ADVISOR_ALLOW_INSECURE"] == "false"
    files = {v for v in secure["environment"].values() if v.startswith("/run/secrets/")}
    assert files == {f"/run/secrets/{name}" for name in secure["secrets"]}
    name = secure["environment"]["ADVISOR_ADDRESS"].split(":?")[0].removeprefix("${")
    assert secure["extra_hosts"] == [f"${{{name}}}=127.0.0.1", f"${{{name}}}=::1"]


def test_the_store_of_compose_is_durable_and_evicts_nothing(tmp_path: Path) -> None:
    _, *arguments = load("compose.yaml")["services"]["store"]["command"]
    port = free_port()
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with subprocess.Popen(
        [str(find_program()), *arguments, *own], stdout=subprocess.DEVNULL
    ) as store:
        try:
            with redis.Redis(port=port) as client:
                assert eventually(lambda: _answers(client))
                found: dict[str, Any] = client.config_get("*")
        finally:
            store.terminate()
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "always"
    assert found["save"] == ""
    assert found["maxmemory"] == str(512 * 2**20)
    assert found["maxmemory-policy"] == "noeviction"


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_every_component_and_overlay_has_a_kustomization() -> None:
    """So `deploy/check.py` renders each of them."""
    for group in ("overlays", "components"):
        for folder in (KUBERNETES / group).iterdir():
            assert (folder / "kustomization.yaml").is_file()


def test_the_deployment_pages_name_existing_files() -> None:
    folder = ROOT / "docs" / "how-to"
    page = "".join((folder / name).read_text("utf-8") for name in ("deploy.md", "back-up.md"))
    paths = re.findall(r"\]\(\.\./\.\./(deploy[^)]*)\)", page)
    assert len(paths) >= 5
    for path in paths:
        assert (ROOT / path).exists(), path
    assert (ROOT / "deploy/kubernetes/overlays/production").is_dir()


def test_every_row_of_the_failures_page_is_complete() -> None:
    below = (ROOT / "docs" / "explanation" / "failures.md").read_text("utf-8")
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 5, row
        assert all(cell.strip() for cell in row), row
