"""Builds and runs the image without a Docker engine.

The Dockerfile's base image comes from a registry. This check builds a base from packages of the
distribution instead, and the image on top of it with buildah, which isolates steps only with
chroot. The check proves that the Dockerfile builds and that the image runs as its user, on a
read-only root, without a network. It does not prove that the base image of the registry behaves
like this one.
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
_START_TIMEOUT_S = 20.0
# Files that the build needs to reach a package index; they are mounted and not part of the image.
_MOUNTED_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


def _require(*names: str) -> None:
    if os.geteuid() != 0:
        raise SkippedError("building and mounting need root")
    for name in names:
        if shutil.which(name) is None:
            raise SkippedError(f"the tool {name} is missing (Debian: {name})")


def build() -> str:
    """Build the image, and its base if there is none yet; return its size.

    Raises:
        SkippedError: A tool or root is missing.
    """
    _require("buildah", "debootstrap")
    if not run("buildah", "images", "--quiet", "--filter", f"reference={_BASE}"):
        _build_base()
    mounts = [f"--volume={file}:{file}:ro" for file in _MOUNTED_FILES if Path(file).is_file()]
    begun = time.monotonic()
    run(
        *("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--no-cache"),
        *("--build-arg", f"BASE_IMAGE={_BASE}", *mounts, "--tag", _IMAGE, str(ROOT)),
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


def run_image() -> str:
    """Run the image in its own namespaces and return what was observed.

    Raises:
        SkippedError: A tool, root or the image is missing.
    """
    _require("buildah", "unshare", "chroot", "mount", "ip")
    if not run("buildah", "images", "--quiet", "--filter", f"reference={_IMAGE}"):
        raise SkippedError("there is no image to run; the build failed or was skipped")
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
    """A root file system and the image's configuration for programs in it."""

    root: Path
    config: dict[str, Any]

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a program as the image's user, without our environment."""
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

    def output_of(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run a program to its end, check its exit status and return its output."""
        process = self.start(*command, **variables)
        output, _ = process.communicate(timeout=60)
        if process.returncode != status:
            raise FailedError(f"{command} ended with status {process.returncode}: {output}")
        return output


def _run_inside(root: Path, config: dict[str, Any]) -> str:
    """Run the image in the namespaces of this process."""
    _mount(root)
    container = _Container(root, config)
    serve: Sequence[str] = [*config["Entrypoint"], *config["Cmd"]]
    health: Sequence[str] = config["Healthcheck"]["Test"][1:]
    if "--allow-insecure" not in (output := container.output_of(*serve, status=1)):
        raise FailedError(f"the service does not say that it needs certificates: {output}")
    if "Read-only file system" not in (output := container.output_of("touch", "/opt/x", status=1)):
        raise FailedError(f"the root file system is not read-only: {output}")
    begun = time.monotonic()
    service = container.start(*serve, ADVISOR_ALLOW_INSECURE="true")
    try:
        started_s = _await_serving(service, begun)
        users = {_user(pid) for pid in _descendants(service.pid)}
        if users != {int(config["User"].split(":")[0])}:
            raise FailedError(f"processes run as the users {users}, not only as {config['User']}")
        begun = time.monotonic()
        container.output_of(*health)
        health_s = time.monotonic() - begun
        container.output_of(*health, "--ready")
        if not (root / "data" / "appendonlydir").is_dir():
            raise FailedError("the embedded Redis does not keep its data in /data")
    finally:
        service.terminate()
        status = service.wait(30)
    if status != 0:
        raise FailedError(f"the service ended with status {status} at SIGTERM")
    return (
        f"refuses to start without certificates; as user {config['User']} on a read-only root it "
        f"answers after {started_s:.2f} s; the health check takes {health_s:.2f} s; it stops at "
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
    run("mount", "-t", "proc", "proc", "/proc")  # to see the processes of this namespace
    run("mount", "--rbind", "/dev", str(root / "dev"))


def _await_serving(service: subprocess.Popen[str], begun: float) -> float:
    """Wait until the service reports that it serves, and return the time since its start."""
    assert service.stdout is not None  # noqa: S101 - stdout is a pipe
    lines = []
    while line := service.stdout.readline():
        lines.append(line)
        if json.loads(line)["event"] == "serving":
            return time.monotonic() - begun
        if time.monotonic() - begun > _START_TIMEOUT_S:
            break
    raise FailedError(f"the service does not start: {''.join(lines)}")


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    return [pid, *(found for child in children for found in _descendants(int(child)))]


def _user(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


if __name__ == "__main__":
    try:
        print(_run_inside(Path(sys.argv[1]), json.loads(sys.argv[2])))
    except FailedError as failure:
        sys.exit(str(failure))
