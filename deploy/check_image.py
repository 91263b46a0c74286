"""Builds the image without a Docker engine, and runs it as it would run there.

The base of the Dockerfile comes from a registry; this check makes one of the distribution's own
packages instead, and builds on that with buildah, isolated by chroot alone. What it proves is that
the Dockerfile builds and what comes out runs: as its user, on a read-only root, without a network.
What it cannot prove is that the registry's base is like this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting import FailedError, SkippedError, run

ROOT = Path(__file__).resolve().parent.parent
_BASE = "localhost/fslr-advisor-base:check"
_IMAGE = "localhost/fslr-advisor:check"
_PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
_SUITE = "bookworm"
_START_S = 20.0
# What the machine needs to reach a package index, lent to the build and never part of the image.
_LENT = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


def _need(*names: str) -> None:
    if os.geteuid() != 0:
        raise SkippedError("root is needed to build and to mount")
    for name in names:
        if shutil.which(name) is None:
            raise SkippedError(f"tool {name} is missing (Debian: {name})")


def build() -> str:
    """Build the image, its base first if there is none yet, and return its size.

    Raises:
        SkippedError: A tool is missing.
    """
    _need("buildah", "debootstrap")
    if not run("buildah", "images", "--quiet", "--filter", f"reference={_BASE}"):
        _build_base()
    lent = [f"--volume={file}:{file}:ro" for file in _LENT if Path(file).is_file()]
    begun = time.monotonic()
    run(
        *("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--no-cache"),
        *("--build-arg", f"BASE_IMAGE={_BASE}", *lent, "--tag", _IMAGE, str(ROOT)),
    )
    seconds = time.monotonic() - begun
    base, whole = _mb(_BASE), _mb(_IMAGE)
    return f"in {seconds:.0f} s, {whole - base:.0f} MB on a base of {base:.0f} MB, uncompressed"


def _build_base() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, scratch)
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "copy", "--quiet", container, scratch, "/")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        run("buildah", "config", "--env", path, container)
        run("buildah", "commit", "--quiet", "--rm", container, _BASE)


def _mb(image: str) -> float:
    (found,) = json.loads(run("buildah", "images", "--json", image))
    number, unit = found["size"].split()
    return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]


def try_out() -> str:
    """Run the image in namespaces of its own, and return what was seen.

    Raises:
        SkippedError: A tool, or the image, is missing.
    """
    _need("buildah", "unshare", "chroot", "mount", "ip")
    if not run("buildah", "images", "--quiet", "--filter", f"reference={_IMAGE}"):
        raise SkippedError("there is no image to run")
    config = json.loads(run("buildah", "inspect", "--type", "image", _IMAGE))["Docker"]["config"]
    container = run("buildah", "from", _IMAGE).strip()
    try:
        mounted = run("buildah", "mount", container).strip()
        return run(
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
            *(sys.executable, __file__, mounted, json.dumps(config)),
        ).strip()
    finally:
        run("buildah", "rm", container)


@dataclass(frozen=True, slots=True)
class _Container:
    """A root file system, and how the image wants programs to run in it."""

    root: Path
    config: dict[str, Any]

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a program as the image's user, with nothing of our environment."""
        given = [f"{name}={value}" for name, value in variables.items()]
        return subprocess.Popen(
            [
                *("chroot", f"--userspec={self.config['User']}", str(self.root)),
                *("/usr/bin/env", "--ignore-environment", *self.config["Env"], *given),
                *command,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run a program to its end and return what it printed; its status must be as told."""
        process = self.start(*command, **variables)
        said, _ = process.communicate(timeout=60)
        if process.returncode != status:
            raise FailedError(f"{command} ended with status {process.returncode}: {said}")
        return said


def _inside(root: Path, config: dict[str, Any]) -> str:
    """Run the image in namespaces that are already ours."""
    _mount(root)
    container = _Container(root, config)
    serve: Sequence[str] = [*config["Entrypoint"], *config["Cmd"]]
    health: Sequence[str] = config["Healthcheck"]["Test"][1:]
    if "--allow-insecure" not in (said := container.says(*serve, status=1)):
        raise FailedError(f"without certificates it must say why it does not start: {said}")
    if "Read-only file system" not in (said := container.says("touch", "/opt/x", status=1)):
        raise FailedError(f"the root file system is not read-only: {said}")
    begun = time.monotonic()
    service = container.start(*serve, ADVISOR_ALLOW_INSECURE="true")
    try:
        started_s = _await_serving(service, begun)
        users = {_user(pid) for pid in _descendants(service.pid)}
        if users != {int(config["User"].split(":")[0])}:
            raise FailedError(f"processes run as the users {users}, not as {config['User']} alone")
        begun = time.monotonic()
        container.says(*health)
        health_s = time.monotonic() - begun
        container.says(*health, "--ready")
        if not (root / "data" / "appendonlydir").is_dir():
            raise FailedError("the embedded Redis does not keep its data in /data")
    finally:
        service.terminate()
        status = service.wait(30)
    if status != 0:
        raise FailedError(f"at SIGTERM it ended with status {status}")
    return (
        f"refuses to start without certificates; as user {config['User']} on a read-only root it "
        f"answers after {started_s:.2f} s, the health check takes {health_s:.2f} s, it ends at "
        "SIGTERM"
    )


def _mount(root: Path) -> None:
    run("ip", "link", "set", "lo", "up")
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", str(root), str(root))
    run("mount", "--options", "remount,bind,ro", str(root))
    for folder, options in (("tmp", "mode=1777"), ("data", "mode=0700,uid=10001,gid=10001")):
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root / folder))
    run("mount", "-t", "proc", "proc", str(root / "proc"))
    run("mount", "-t", "proc", "proc", "/proc")  # ours must show this namespace's processes too
    run("mount", "--rbind", "/dev", str(root / "dev"))


def _await_serving(service: subprocess.Popen[str], begun: float) -> float:
    """Return how long it took until the service said that it serves, in seconds."""
    assert service.stdout is not None  # noqa: S101 - it is a pipe
    said = []
    while line := service.stdout.readline():
        said.append(line)
        if json.loads(line)["event"] == "serving":
            return time.monotonic() - begun
        if time.monotonic() - begun > _START_S:
            break
    raise FailedError(f"it does not start: {''.join(said)}")


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    return [pid, *(found for child in children for found in _descendants(int(child)))]


def _user(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


if __name__ == "__main__":
    try:
        print(_inside(Path(sys.argv[1]), json.loads(sys.argv[2])))
    except FailedError as failure:
        sys.exit(str(failure))
