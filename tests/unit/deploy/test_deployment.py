"""What is deployed fits the service: names, commands, ports, selectors, and what it may do."""

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
    """Return the group of all commands; which click it is made of is typer's affair."""
    return typer.main.get_command(app)


def parse(arguments: list[str]) -> Any:
    """Parse a command line as ``advisor`` would; a mistake in it raises."""
    name, *rest = arguments
    return commands().commands[name].make_context(name, rest)


def variables(command: Any) -> set[str]:
    found = {str(p.envvar) for p in command.params if p.envvar}
    for inner in getattr(command, "commands", {}).values():
        found |= variables(inner)
    return found


def accepted(**given: str) -> Settings:
    return Settings.model_validate(given)


def settings(folder: str) -> dict[str, str]:
    found: dict[str, str] = objects(folder)["ConfigMap"]["data"]
    return found


def seconds_of_pre_stop(folder: str) -> int:
    word, seconds = container(folder)["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    return int(seconds)


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_is_one_of_ours(file: Path) -> None:
    known = {f"ADVISOR_{name.upper()}" for name in Settings.model_fields} | variables(commands())
    known |= {"FSLR_TLS_CA", "FSLR_TLS_CERT", "FSLR_TLS_KEY"}
    used = set(re.findall(r"\b(?:ADVISOR|FSLR)_[A-Z_]+", file.read_text("utf-8")))
    assert used <= known
    if file.name in {"Dockerfile", "compose.yaml"}:
        assert used


@pytest.mark.parametrize("folder", RENDERED)
def test_the_settings_are_accepted_and_loopback_is_left(folder: str) -> None:
    given = settings(folder)
    own = {
        name: value
        for name, value in given.items()
        if name.startswith("ADVISOR_") and name != "ADVISOR_ADDRESS"
    }
    read = accepted(**{k.removeprefix("ADVISOR_").lower(): v for k, v in own.items()})
    assert not read.is_loopback
    assert read.allow_insecure == (folder == "overlays/trial")
    assert (read.tls is None) == (folder == "overlays/trial")


@pytest.mark.parametrize("folder", RENDERED)
def test_probes_and_arguments_are_commands_that_exist(folder: str) -> None:
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
            # Python's own start comes on top of the longest wait for an answer.
            assert probe["timeoutSeconds"] > 2 * _HEALTH_DEADLINE_S
        if kind != "startupProbe":
            assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_a_redis_that_is_away_takes_no_replica_out_of_service() -> None:
    """All share it: none would be left to answer from memory."""
    for folder in RENDERED:
        for kind in ("readinessProbe", "livenessProbe"):
            assert "readiness" not in json.dumps(container(folder)[kind].get("grpc", {}))
            assert "--ready" not in container(folder)[kind].get("exec", {}).get("command", [])


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_the_probes_call_the_pod_itself_by_a_name_of_the_certificate(folder: str) -> None:
    host, port = settings(folder)["ADVISOR_ADDRESS"].rsplit(":", 1)
    assert port == settings(folder)["ADVISOR_PORT"]
    # Both families: else the DNS is asked for the other, and names other pods, or does not answer.
    assert {a["ip"] for a in pod(folder)["hostAliases"] if host in a["hostnames"]} == {
        "127.0.0.1",
        "::1",
    }
    certificate = objects("overlays/production")["Certificate"]["spec"]
    assert host in certificate["dnsNames"]
    assert f"{NAME}.{NAME}.svc" in certificate["dnsNames"]


@pytest.mark.parametrize("folder", RENDERED)
def test_ports_agree(folder: str) -> None:
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
def test_pods_may_do_next_to_nothing(folder: str) -> None:
    spec = pod(folder)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False  # ADVISOR_PORT=tcp://... would be no port
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
def test_selectors_choose_the_pods(folder: str) -> None:
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
def test_others_are_kept_away_in_both_directions(folder: str) -> None:
    policy = objects(folder)["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    reached = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert all(rule["to"] for rule in policy["egress"])
    assert reached == (set() if folder == "overlays/trial" else {53, 6379})


def test_the_service_tells_every_replica_s_address() -> None:
    assert objects("base")["Service"]["spec"]["clusterIP"] == "None"


def test_replicas_are_the_autoscaler_s_business_and_two_at_least() -> None:
    for folder in ("base", "overlays/production"):
        assert "replicas" not in objects(folder)["Deployment"]["spec"]
        assert objects(folder)["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2


def test_the_trial_is_one_replica_that_never_meets_another_on_its_volume() -> None:
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
def test_secrets_are_named_and_mounted_where_the_settings_look(folder: str) -> None:
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
def test_there_is_time_to_end(folder: str) -> None:
    stopping = accepted(grace_s=settings(folder)["ADVISOR_GRACE_S"], tracing="true")
    needed_s = seconds_of_pre_stop(folder) + stopping.max_stop_s
    if folder == "overlays/trial":
        needed_s += _STOP_TIMEOUT_S
    assert pod(folder)["terminationGracePeriodSeconds"] > needed_s


def test_images_have_this_version_and_never_latest() -> None:
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


def test_the_image_s_commands_exist_and_it_is_not_insecure() -> None:
    found = instructions()
    entry, command = (json.loads(dict(found)[word]) for word in ("ENTRYPOINT", "CMD"))
    assert entry == ["advisor"]
    context = parse(command)
    assert not accepted(host=context.params["host"]).is_loopback
    assert "--allow-insecure" not in command
    assert not any("ALLOW_INSECURE" in rest for word, rest in found if word == "ENV")
    program, *check = json.loads(dict(found)["HEALTHCHECK"].split(" CMD ", 1)[1])
    assert (program, parse(check).info_name) == ("advisor", "health")
    assert dict(found)["USER"] == "10001:10001"


def test_what_the_image_is_built_from_is_let_through_and_nothing_secret() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(shlex.split(rest)[:-1])
    assert copied == allowed
    assert "*" in lines


def test_the_image_s_versions_are_exact_and_fit_what_the_project_asks_for() -> None:
    lines = (DEPLOY / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {name.lower().replace("_", "-"): number for name, number in pinned.items()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_compose_is_hardened_and_listens_on_this_machine_alone() -> None:
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


def test_the_secure_variant_of_compose_takes_the_consent_back() -> None:
    secure = load("compose.tls.yaml")["services"]["advisor"]
    assert secure["environment"]["ADVISOR_ALLOW_INSECURE"] == "false"
    files = {v for v in secure["environment"].values() if v.startswith("/run/secrets/")}
    assert files == {f"/run/secrets/{name}" for name in secure["secrets"]}
    name = secure["environment"]["ADVISOR_ADDRESS"].split(":?")[0].removeprefix("${")
    assert secure["extra_hosts"] == [f"${{{name}}}=127.0.0.1", f"${{{name}}}=::1"]


def test_the_store_of_compose_keeps_what_it_acknowledges_and_evicts_nothing(tmp_path: Path) -> None:
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


def test_every_component_and_overlay_can_be_found() -> None:
    """Each folder has its kustomization, so that `deploy/check.py` renders it."""
    for group in ("overlays", "components"):
        for folder in (KUBERNETES / group).iterdir():
            assert (folder / "kustomization.yaml").is_file()


def test_the_pages_on_deploying_name_files_that_exist_and_commands_that_parse() -> None:
    folder = ROOT / "docs" / "how-to"
    page = "".join((folder / name).read_text("utf-8") for name in ("deploy.md", "back-up.md"))
    paths = re.findall(r"\]\(\.\./\.\./(deploy[^)]*)\)", page)
    assert len(paths) >= 5
    for path in paths:
        assert (ROOT / path).exists(), path
    assert (ROOT / "deploy/kubernetes/overlays/production").is_dir()
    shown = re.findall(r"^ {4}advisor (backup .*|serve .*)$", page, re.MULTILINE)
    assert len(shown) >= 2
    for line in shown:
        parse(shlex.split(line))


def test_every_failure_says_what_it_costs_whom() -> None:
    below = (ROOT / "docs" / "explanation" / "failures.md").read_text("utf-8")
    rows = [line.strip("|").split("|") for line in below.splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 5, row
        assert all(cell.strip() for cell in row), row
