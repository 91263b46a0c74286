"""What a process without an optional package prints: the package, and the command to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_without(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import a package."""
    blocked = f"import sys; sys.modules[{package!r}] = None\n{code}"
    return subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", ["fslr.torch", "fslr.torch.estimators"])
def test_fslr_torch_without_pytorch_says_how_to_install_it(module: str) -> None:
    ended = run_without("torch", f"import {module}")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: fslr.torch needs PyTorch: pip install 'fslr-advisor[torch]', or "
        "pip install '.[torch]' in a checkout of the repository"
    )


@pytest.mark.parametrize("package", ["jax", "optax"])
def test_fslr_jax_without_jax_or_optax_says_how_to_install_them(package: str) -> None:
    ended = run_without(package, "import fslr.jax")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: fslr.jax needs JAX and optax: pip install 'fslr-advisor[jax]', or "
        "pip install '.[jax]' in a checkout of the repository"
    )


def test_an_import_error_inside_pytorch_is_not_reported_as_a_missing_package() -> None:
    ended = run_without("torch._C", "import fslr.torch")
    assert ended.returncode == 1
    assert "needs PyTorch" not in ended.stderr
    assert "torch._C" in ended.stderr


def test_yaml_files_without_pyyaml_say_how_to_install_it(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("docs: text\n")
    for call in (f"load_profile({str(path)!r})", f"save_profile(ProfileContent(), {str(path)!r})"):
        ended = run_without(
            "yaml",
            "from fslr import load_profile, save_profile\n"
            f"from fslr.advisor.v1.profile_pb2 import ProfileContent\n{call}",
        )
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1] == (
            "fslr.errors.ProfileFileError: YAML files need PyYAML: "
            "pip install 'fslr-advisor[server]', or pip install '.[server]' in a checkout of the "
            "repository; or use a JSON file"
        )


def test_json_files_need_no_pyyaml(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{"docs": "text"}')
    code = f"import fslr; fslr.save_profile(fslr.load_profile({str(path)!r}), {str(path)!r})"
    ended = run_without("yaml", code)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("package", ["typer", "pydantic", "redis", "structlog", "yaml"])
def test_the_command_advisor_without_the_service_says_how_to_install_it(package: str) -> None:
    ended = run_without(package, "from advisor.__main__ import main; main()")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"advisor: the package '{package}' is not installed; install the service: "
        "pip install 'fslr-advisor[server]', or pip install '.[server]' in a checkout of the "
        "repository\n"
    )


def test_an_import_error_of_the_service_is_not_reported_as_a_missing_package() -> None:
    ended = run_without("advisor.policy.mapping", "from advisor.__main__ import main; main()")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
