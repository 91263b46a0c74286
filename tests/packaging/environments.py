"""Environments that hold one wheel, what it declares to need, and nothing else.

Nothing is downloaded: the distributions that the wheel's metadata asks for are linked from the
environment that runs the tests, file by file as their records list them. So an environment proves
that the declared dependencies are enough, and shows what is missing without an extra.
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
    """The environment that runs the tests has another version than the wheel asks for."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment.

    Attributes:
        folder: Where it is.
        distributions: Names of what is in it beside the wheel.
    """

    folder: Path
    distributions: frozenset[str]

    def run(
        self, *command: str, text: str | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs; ``ok`` says whether it must succeed."""
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
        """Run one of its programs meanwhile; it ends when its standard input does."""
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
    """Make an environment.

    Args:
        wheel: The wheel to install.
        folder: Where to make it.
        extras: Which extras of the wheel to install.

    Raises:
        UnmetRequirementError: A dependency that the wheel asks for has the wrong version here.
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
        raise UnmetRequirementError(f"{requirement} is asked for, and {here.version} is installed")
    if name in found and not requirement.extras:
        return
    found[name] = here
    for needed in _requirements(here, set(requirement.extras)):
        _collect(needed, found)


def _link(owner: Distribution, packages: Path) -> None:
    """Link a distribution's packages; folders that several share ("google") are made anew."""
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
    """Return whether a folder belongs to one distribution: a package, or its metadata."""
    return folder.suffix == ".dist-info" or (folder / "__init__.py").is_file()


def contents(wheel: Path) -> list[str]:
    """Return the names of the files in a wheel."""
    with ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]
