"""Environments with a wheel, its declared dependencies and nothing else.

Nothing is downloaded. The distributions that the wheel's metadata requires are linked from the
environment that runs the tests, file by file from their records. So an environment proves that the
declared dependencies are enough, and shows what is missing without an extra.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_OWN = "fslr-advisor"


class UnmetRequirementError(Exception):
    """A dependency has a version here that the wheel does not accept."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment.

    Attributes:
        folder: The folder of the environment.
        distributions: Names of its distributions, not including the wheel.
    """

    folder: Path
    distributions: frozenset[str]

    def run(
        self, *command: str, text: str | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs; ``ok`` states whether it must succeed."""
        done = subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self._variables,
            timeout=120,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    @contextmanager
    def started(self, program: str, *arguments: str) -> Iterator[None]:
        """Run one of its programs during the context; it must end when standard input closes."""
        process = subprocess.Popen(
            [self.folder / "bin" / program, *arguments],
            stdin=subprocess.PIPE,
            cwd=self.folder,
            env=self._variables,
        )
        try:
            yield
        finally:
            process.communicate(timeout=30)

    @property
    def _variables(self) -> dict[str, str]:
        return {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}


def environment_of(wheel: Path, folder: Path, extras: set[str]) -> Environment:
    """Create an environment.

    Args:
        wheel: The wheel to install.
        folder: The folder to create it in.
        extras: The extras of the wheel to install.

    Raises:
        UnmetRequirementError: A dependency has a version here that the wheel does not accept.
    """
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"),
            *("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel),
        ],
        check=True,
    )
    (info,) = packages.glob("fslr_advisor-*.dist-info")
    found: dict[str, Distribution] = {}
    for requirement in _requirements(PathDistribution(info), extras):
        _collect(requirement, found)
    for each in found.values():
        _link(each, packages)
    return Environment(folder, frozenset(found))


def _requirements(owner: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in owner.requires or ():
        requirement = Requirement(line)
        names = extras or {""}
        applies = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": name}) for name in names
        )
        if not applies:
            continue
        if canonicalize_name(requirement.name) == _OWN:  # an extra that contains others
            yield from _requirements(owner, set(requirement.extras))
        else:
            yield requirement


def _collect(requirement: Requirement, found: dict[str, Distribution]) -> None:
    name = canonicalize_name(requirement.name)
    here = distribution(name)
    if not requirement.specifier.contains(here.version, prereleases=True):
        raise UnmetRequirementError(f"{requirement} is required, but {here.version} is installed")
    if name in found and not requirement.extras:
        return
    found[name] = here
    for needed in _requirements(here, set(requirement.extras)):
        _collect(needed, found)


def _link(owner: Distribution, packages: Path) -> None:
    """Link a distribution's packages; create folders that several share, such as ``google``."""
    source = Path(sysconfig.get_paths()["purelib"])
    for file in owner.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        for length in range(1, len(file.parts) + 1):
            path = Path(*file.parts[:length])
            if (packages / path).is_symlink():
                break
            if (source / path).is_file() or _is_whole(source / path):
                (packages / path).symlink_to(source / path)
                break
            (packages / path).mkdir(exist_ok=True)


def _is_whole(folder: Path) -> bool:
    """Return whether a folder belongs to one distribution, as a package or as metadata."""
    return folder.suffix == ".dist-info" or (folder / "__init__.py").is_file()


def contents(wheel: Path) -> list[str]:
    """Return the names of the files in a wheel."""
    with ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]
