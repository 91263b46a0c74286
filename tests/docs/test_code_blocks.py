"""Code blocks of the pages: Python blocks run or compile, and commands exist."""

from __future__ import annotations

import io
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.main import get_command

import fslr.torch
from advisor.cli import app
from advisor.local.server import LocalServer
from advisor.report.words import short_name
from tests.commands import Cli
from tests.docs.blocks import ROOT, Block, blocks, commands
from tests.waiting import eventually

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial" / "first-advised-run.md"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
_ADDRESS = "127.0.0.1:50051"


def has(language: str, *, below: str = "") -> list[Any]:
    """Return the pages (in one folder) with a block of a language, as test parameters."""
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if (not below or page.parent.name == below)
        and any(block.language == language for block in blocks(page))
    ]


def run_python(block: Block, names: dict[str, Any]) -> str:
    """Run a block and return its output."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(block.text, block.where, "exec"), names)
    return printed.getvalue()


def parsed(line: str) -> str:
    """Parse a command line without running it, and return the name of the command.

    Raises a usage error if the command or an option does not exist.
    """
    command: Any = get_command(app)
    context = command.context_class(command, info_name="advisor")
    arguments = shlex.split(line)[1:]
    while getattr(command, "commands", None):
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, f"there is no command {name!r} in {line!r}"
        context = command.context_class(command, info_name=name, parent=context)
    command.make_context(command.name, arguments, parent=context.parent)
    return str(context.command_path)


@pytest.fixture(scope="module")
def service() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


def test_the_tutorial_runs_from_start_to_end(
    service: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # the tutorial saves a profile
    cli = Cli(service.address, "default")
    names: dict[str, Any] = {}
    printed = ""
    pairs: list[tuple[str, str]] = []
    for block in blocks(TUTORIAL):
        if block.language == "python":
            code = block.text.replace(_ADDRESS, service.address)
            printed = run_python(Block("python", code, True, block.where), names)
        elif block.language == "text":
            pairs.append((block.text, printed))
        else:
            _run_commands(block, cli)
    assert len(pairs) == 3
    for page, output in pairs:
        assert_alike(page, output)


def _run_commands(block: Block, cli: Cli) -> None:
    for line in block.text.splitlines():
        if line == "advisor serve":  # the service that the test started
            parsed(line)
        elif line.startswith("advisor "):
            cli.run(*shlex.split(line)[1:])
        else:  # setup of the environment, which tests/packaging runs
            assert line.startswith(("python3 -m venv", ". .venv/bin/activate", "pip install"))


def assert_alike(page: str, output: str) -> None:
    """Check that a page shows the same words as the output, and approximately the same figures.

    Processors round differently, which changes the last multipliers of biases most: by 41% between
    the two that this was run on.
    """
    figure = re.compile(r"\d+\.\d+")
    assert figure.sub("#", page) == figure.sub("#", output)
    for written, found in zip(page.splitlines(), output.splitlines(), strict=True):
        difference = 0.6 if ".bias" in written else 0.25
        assert [float(each) for each in figure.findall(found)] == pytest.approx(
            [float(each) for each in figure.findall(written)], rel=difference, abs=0.02
        )


@pytest.fixture
def job(service: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Return the names that the how-to pages use: those of a training job with a profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the database needs more packages
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = [(torch.randn(8, 4), torch.randn(8, 2)) for _ in range(8)]
    with fslr.torch.Recorder(model, optimizer, every=2) as recorder:
        for inputs, targets in loader:
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
    profile = recorder.profile(
        fslr.Provenance(
            model="MLP",
            width=16,
            depth=2,
            dataset="noise",
            batch_size=8,
            commit="0123abc",
            author="a test",
        )
    )
    with fslr.AdvisorClient(service.address) as client:
        client.register_profile("char-gpt", profile)
        client.set_alias("char-gpt", "prod")
    return {
        "build_model": lambda: nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)),
        "build_optimizer": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        "fslr": fslr,
        "loader": loader,
        "loss_function": nn.functional.mse_loss,
        "model": model,
        "optimizer": optimizer,
        "torch": torch,
    }


@pytest.mark.parametrize("page", has("python", below="how-to"))
def test_the_python_blocks_of_a_how_to_page_run_in_order(
    page: Path, job: dict[str, Any], service: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fslr.torch.attach
    given = {"advisor": service.address}
    monkeypatch.setattr(fslr.torch, "attach", lambda *a, **k: real(*a, **{**given, **k}))
    with warnings.catch_warnings():
        if page.stem == "use-lightning":  # it warns of its own use of PyTorch
            warnings.simplefilter("ignore")
        for block in blocks(page):
            if block.language == "python" and block.is_run:
                _wait_for_runs(block, service)
                code = block.text.replace(_ADDRESS, service.address)
                run_python(Block("python", code, True, block.where), job)


def _wait_for_runs(block: Block, service: LocalServer) -> None:
    """Wait until the runs that a block reads are stored, which happens in the background."""
    with fslr.AdvisorClient(service.address) as client:
        for run in re.findall(r'get_run\("([a-z-]+)"\)', block.text):
            eventually(partial(_is_stored, client, run))


def _is_stored(client: fslr.AdvisorClient, run: str) -> bool:
    return run in {short_name(each.name) for each in client.list_runs()}


@pytest.mark.parametrize("page", has("python"))
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, block.where, "exec")


@pytest.mark.parametrize("page", has("sh"))
def test_commands_and_options_on_the_pages_exist(page: Path) -> None:
    for line in commands(page):
        for found in re.findall(r"(?:^|[|;] |-- )(advisor [^|>;]*)", line):
            parsed(found)


def test_an_unknown_command_or_option_is_reported() -> None:
    with pytest.raises(Exception, match="No such command 'nonsense'"):
        parsed("advisor profile nonsense")
    with pytest.raises(Exception, match="No such option: --nonsense"):
        parsed("advisor health --nonsense")


def test_messages_on_the_troubleshooting_page_are_in_the_code() -> None:
    sources = "".join(
        path.read_text("utf-8") for path in sorted((ROOT / "clients/python/fslr").rglob("*.py"))
    )
    joined = re.sub(r"\"\s*\n\s*f?[\"']", "", sources)  # a message may span several lines
    messages = re.sub(r"\{[^{}\n]*\}", "N", joined)
    page = (DOCS / "how-to" / "troubleshoot.md").read_text("utf-8")
    cells = re.findall(r"^\| (`[^|]*`|[^|]*\"[^|]*\") \|", page, re.MULTILINE)
    assert len(cells) > 10
    for cell in cells:
        for quoted in re.findall(r'`([^`]+)`|"([^"]+)"', cell):
            for part in re.split(r"\.\.\.|\bN\b", "".join(quoted)):
                assert part.strip(" ,`") in messages, f"{part!r} of {cell}"
