"""The contents of the sdist and the wheel, and the programs of the installed wheel."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.packaging.environments import Environment, contents, environment_of
from tests.waiting import eventually

_README = ROOT / "README.md"


def tracked(*folders: str) -> set[str]:
    """Return the tracked files in some folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *folders], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.split("\n")) - {""}


def test_the_wheel_has_exactly_the_files_of_both_packages(wheel: Path) -> None:
    client = {name.removeprefix("clients/python/") for name in tracked("clients/python/fslr")}
    expected = client | tracked("advisor")
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert found == expected


def test_the_sdist_has_what_a_build_needs_and_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    kept = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"}
    expected = tracked("advisor", "clients/python/fslr", "protos") | kept
    assert found == expected | {"PKG-INFO", ".gitignore"}


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_of(wheel, tmp_path_factory.mktemp("bare"), set())


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_of(wheel, tmp_path_factory.mktemp("server"), {"server"})


@pytest.fixture(scope="module")
def torch(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_of(wheel, tmp_path_factory.mktemp("torch"), {"torch"})


def test_the_client_and_in_process_advice_can_be_imported_without_extras(
    bare: Environment,
) -> None:
    assert bare.distributions == {"grpcio", "numpy", "protobuf", "typing-extensions"}
    bare.run(
        "python",
        "-c",
        "import fslr; fslr.AdvisorClient; import advisor.local.in_process; import fslr.training; "
        "from advisor.recipes import shipped_recipe; assert shipped_recipe('mup-adam').rows",
    )


def test_the_command_without_extras_names_the_package_to_install(bare: Environment) -> None:
    assert "pip install '.[server]'" in bare.run("advisor", "--help", ok=False).stderr


@pytest.mark.parametrize("name", ["bare", "server"])
def test_importing_fslr_torch_without_torch_names_the_package_to_install(
    name: str, request: pytest.FixtureRequest
) -> None:
    environment: Environment = request.getfixturevalue(name)
    failed = environment.run("python", "-c", "import fslr.torch", ok=False)
    assert "pip install '.[torch]'" in failed.stderr.splitlines()[-1]


def test_a_service_starts_and_answers_with_the_server_extra(server: Environment) -> None:
    assert "torch" not in server.distributions
    with service(server) as address:
        server.run("advisor", "health", "--ready", "--address", address)
        server.run("advisor", "profile", "templates", "--address", address)


def test_a_recorded_profile_advises_in_process_with_the_torch_extra(torch: Environment) -> None:
    assert not {"redis", "pydantic"} & torch.distributions
    page = ROOT / "docs" / "how-to" / "train-without-a-service.md"
    steps = [block.text for block in blocks(page) if block.language == "python"]
    torch.run("python", "-", text="".join([_JOB, *steps]))


def test_the_first_steps_of_the_readme_run(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = environment_of(wheel, tmp_path_factory.mktemp("both"), {"server", "torch"})
    shell = [block.text for block in blocks(_README) if block.language == "sh"]
    assert shell == [
        "pip install '.[server,torch]'\nadvisor serve\n"
    ]  # done differently in this test
    steps = [block.text for block in blocks(_README) if block.language == "python"]
    with service(environment) as address:
        code = "".join([_JOB, *steps]).replace("127.0.0.1:50051", address)
        environment.run("python", "-", text=code)
        result = environment.run("advisor", "run", "show", "night-1", "--address", address)
    assert "char-gpt" in result.stdout


@contextmanager
def service(environment: Environment) -> Iterator[str]:
    """Run ``advisor serve`` and yield its address."""
    file = environment.folder / "address"
    with environment.started(
        *("advisor", "serve", "--port", "0", "--data-dir", str(environment.folder / "data")),
        *("--address-file", str(file), "--until-eof"),
    ):
        eventually(file.exists, within_s=30)
        yield file.read_text("utf-8")


_JOB = """\
import torch
from torch import nn

import fslr.torch

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loader = [(torch.randn(8, 4), torch.zeros(8, 2)) for _ in range(3)]
loss_function = nn.functional.mse_loss


def train():
    for inputs, targets in loader:
        loss_function(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()


"""
