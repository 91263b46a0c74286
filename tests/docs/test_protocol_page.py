"""The commands on the protocol page print what the page says."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from typing import Any

import pytest

from advisor.local.server import LocalServer
from fslr import AdvisorClient
from tests.building import content_message
from tests.docs.blocks import ROOT, Block, blocks

_BLOCKS = blocks(ROOT / "docs" / "reference" / "protocol.md")
_PATH = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
_COMMANDS = [each for each in itertools.pairwise(_BLOCKS) if each[0].language == "sh"]


@pytest.fixture(scope="module")
def service() -> Iterator[LocalServer]:
    with LocalServer() as running, AdvisorClient(running.address) as client:
        client.register_profile("char-gpt", content_message())
        yield running


def documents(text: str) -> list[Any]:
    """Return the JSON documents of a text, one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.parametrize(
    ("command", "expected"), _COMMANDS, ids=lambda block: block.where.rpartition(":")[2]
)
def test_a_command_prints_what_the_page_says(
    command: Block, expected: Block, service: LocalServer, tmp_path: Any
) -> None:
    program = command.text.split()[0]
    if shutil.which(program, path=_PATH) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        ["bash", "-c", command.text.replace("127.0.0.1:50051", service.address)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PATH": _PATH, "HOME": str(tmp_path)},
    )
    if expected.language == "text":
        assert done.returncode != 0
        assert done.stderr.startswith(expected.text)
        return
    assert done.returncode == 0, done.stderr
    printed, shown = documents(done.stdout), documents(expected.text)
    assert len(printed) == len(shown)
    for whole, part in zip(printed, shown, strict=True):
        assert {name: whole[name] for name in part} == part


def test_the_page_has_commands_of_both_programs() -> None:
    assert {command.text.split()[0] for command, _ in _COMMANDS} == {"grpcurl", "buf"}
