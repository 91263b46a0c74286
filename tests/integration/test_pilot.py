"""A pilot from nothing to its report, with the lines that each step prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advisor.report.pilot import Framework, observing_lines, recording_lines
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually


def train(width: int, before: str, after: str, steps: int = 60) -> dict[str, torch.Tensor]:
    """Train with the lines of a step pasted in, and return the weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    names: dict[str, Any] = {"model": model, "optimizer": optimizer}
    exec(before, names)
    for _ in range(steps):
        inputs = torch.randn(16, 4)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), inputs[:, :2]).backward()
        optimizer.step()
    exec(after, names)
    return dict(model.state_dict())


def test_a_pilot_leads_from_nothing_to_a_report_of_what_advice_would_have_been(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = cli.run("pilot", "mlp").stdout
    assert "1 record    now" in first
    assert "Paste these lines before the training loop:" in first
    assert "and this line after it:" in first
    assert "recorder = fslr.torch.Recorder(model, optimizer, every=10" in first
    lines = cli.json("pilot", "mlp")["lines"]
    # The lines name a commit, because this folder is not in a git repository.
    before = lines["before"].replace("batch_size=32", 'batch_size=16, author="a"')
    train(8, before, lines["after"])
    assert (tmp_path / "mlp.json").is_file()

    assert "add --yes" in cli.run("pilot", "mlp", ok=False).stderr
    second = cli.run("pilot", "mlp", "--yes").stdout
    assert f"registered projects/{project}/profiles/mlp@1" in second
    assert "2 register  done  mlp@1" in second
    assert "observe_only=True" in second
    found = cli.json("pilot", "mlp")
    assert (found["step"], found["version"], found["measurements"]) == ("observe", "mlp@1", 0)
    # Steps of this size are so fast that 1 % of their time is enough for two measurements.
    before = found["lines"]["before"].replace("observe_only", "max_overhead=None, observe_only")
    observed = train(64, before, found["lines"]["after"])
    for name, weights in train(64, "", "").items():
        assert torch.equal(weights, observed[name])
    eventually(lambda: client.get_run("mlp-pilot", project=project).measurements >= 3)

    last = cli.run("pilot", "mlp", "-o", "pilot.html").stdout
    for expected in (
        *("4 compare done", "Multipliers would have been", "wrote pilot.html"),
        *("observes only", "this is what advice would have cost", "To apply the advice, remove"),
    ):
        assert expected in " ".join(last.split())
    page = (tmp_path / "pilot.html").read_text("utf-8").replace("<wbr>", "")
    assert "This run only observed: nothing was applied." in page
    assert "Measuring took" in page
    assert "this is what advice would have cost" in page
    assert f"projects/{project}/runs/mlp-pilot" in page
    assert cli.json("pilot", "mlp")["step"] == "compare"
    for arguments in (["mlp-pilot"], ["mlp-pilot", "--wait", "--count", "1"]):
        heading, *rows = cli.run("run", "watch", *arguments).stdout.splitlines()
        assert "would have been: min, median, max" in heading
        assert "multipliers" not in heading
        assert rows
    explained = cli.run("explain", "--run", "mlp-pilot").stdout
    assert "would be" in explained.splitlines()[3]
    assert "; multipliers would have been " in explained


def test_a_run_that_applied_advice_or_measured_too_little_is_no_pilot(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client.register_profile("gpt", content_message(), project=project)
    for run, observe_only in (("advised", False), ("short", True)):
        opening = opening_message(
            f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/{run}"
        )
        opening.observe_only = observe_only
        client.recommend_once(opening, pb.Measurement(unit_rates=[1] * 4))
    eventually(lambda: len(list(client.list_runs(project=project))) == 2)
    refused = cli.run("pilot", "gpt", "--run", "advised", ok=False).stderr
    assert "run advised applied advice, so it does not show a training without it" in refused
    client.register_profile("other", content_message(), project=project)
    other = cli.run("pilot", "other", "--run", "short", ok=False)
    assert "run short was measured against gpt@1, not against other; give another name" in (
        " ".join(other.stderr.split())
    )
    assert not list(tmp_path.glob("*.html"))
    short = cli.run("pilot", "gpt", "--run", "short").stdout
    assert "The run has 1 measurement, and 3 are needed." in short
    assert "Let it train on, then run\nthe same command again." in short  # with its options


@pytest.mark.parametrize("framework", list(Framework))
def test_lines_compile_and_import_what_exists(framework: Framework) -> None:
    observing = observing_lines(framework, "gpt", "gpt-pilot", project="nlp", address="[::1]:1")
    assert 'fslr.RunInfo("gpt-pilot", project="nlp")' in observing.before
    recording = (recording_lines(framework, 'a "b".json', has_commit=has) for has in (True, False))
    for lines in (*recording, observing):
        code = compile(f"{lines.before}\n{lines.after}\n", "lines", "exec")
        assert max(map(len, lines.before.splitlines())) <= 90
        if framework is not Framework.LIGHTNING:  # its import takes seconds
            exec("\n".join(x for x in lines.before.splitlines() if "import" in x), {})
        assert code.co_names
