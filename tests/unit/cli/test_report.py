from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from typer.testing import CliRunner

from advisor.cli import app
from advisor.cli.report import Language, write_report
from advisor.cli.run_reading import ReadRun
from advisor.report.run_figures import RunFigures
from fslr.advisor.v1 import profile_service_pb2_grpc, run_service_pb2, run_service_pb2_grpc
from tests.stored_runs import stored_run

RUN, EVENTS = stored_run()


class OlderRuns(run_service_pb2_grpc.RunServiceServicer):
    """A service of a version that has no metrics, and whose profile is deleted."""

    def GetRun(self, *_: Any) -> run_service_pb2.GetRunResponse:  # noqa: N802
        return run_service_pb2.GetRunResponse(run=RUN)

    def GetRunHistory(self, *_: Any) -> run_service_pb2.GetRunHistoryResponse:  # noqa: N802
        return run_service_pb2.GetRunHistoryResponse(events=EVENTS)


@pytest.fixture(scope="module")
def older() -> Iterator[str]:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        older = OlderRuns()  # type: ignore[abstract]
        run_service_pb2_grpc.add_RunServiceServicer_to_server(older, server)
        profiles = profile_service_pb2_grpc.ProfileServiceServicer()  # type: ignore[abstract]
        profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(profiles, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_a_report_needs_neither_metrics_nor_the_profile_of_the_service(
    older: str, tmp_path: Path
) -> None:
    output = tmp_path / "x.html"
    result = CliRunner().invoke(app, ["report", "night", "-o", str(output), "-a", older])
    assert result.exit_code == 0, result.output
    page = output.read_text("utf-8")
    assert "Profile gpt@3 cannot be read any more" in page
    assert "Metrics of the run" not in page


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (
            'printf "%s" %PDF- > "${option#*=}"',
            0,
            ["wrote {folder}/x.html", "wrote {folder}/x.pdf"],
        ),
        (
            "echo no display >&2; exit 7",
            1,
            ["wrote {folder}/x.html", "did not print {folder}/x.html (status 7): no display"],
        ),
        (":", 1, ["did not print {folder}/x.html (status 0): it printed no reason"]),
    ],
    ids=["prints", "fails", "prints nothing"],
)
def test_a_report_is_printed_by_the_chromium_on_the_path(
    older: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: int,
    words: list[str],
) -> None:
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text(
        f'#!/bin/sh\nfor option; do\ncase "$option" in --print-to-pdf=*) {script} ;; esac\ndone\n',
        "utf-8",
    )
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{browser.parent}:/bin:/usr/bin")
    (tmp_path / "x.pdf").write_text("of an earlier run", "utf-8")
    output = tmp_path / "x.html"
    result = CliRunner().invoke(app, ["report", "night", "--pdf", "-o", str(output), "-a", older])
    assert result.exit_code == status
    for expected in words:
        assert expected.format(folder=tmp_path) in result.output
    pdf = tmp_path / "x.pdf"
    assert pdf.is_file() == (status == 0)
    assert f"wrote {pdf}" in result.output or status
    assert status or pdf.read_bytes() == b"%PDF-"
    assert output.is_file()


def test_a_report_without_jinja2_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("advisor.document")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(typer.Exit, match="1"):
        write_report(ReadRun(RunFigures.of(RUN, EVENTS), None), None, Language.EN)
    assert "a report needs Jinja2" in capsys.readouterr().err
