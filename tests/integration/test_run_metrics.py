"""A run's own metrics: stored by jobs and by callers outside, listed, watched and deleted."""

from __future__ import annotations

import math
import threading
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fslr import AdvisorClient, InvalidRequestError, RunNotFoundError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2, run_service_pb2_grpc
from tests.all_operations import is_stored
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually

MANY = {f"metric {i}": float(i) for i in range(100)}


def measure(client: AdvisorClient, project: str, run: str = "night") -> None:
    """Store one measurement of a run."""
    client.register_profile("gpt", content_message(), project=project)
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/{run}"
    )
    client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
    eventually(lambda: any(r.name.endswith(run) for r in client.list_runs(project=project)))


def test_metrics_are_stored_listed_in_pages_and_deleted_with_the_run(
    client: AdvisorClient, project: str
) -> None:
    with pytest.raises(RunNotFoundError, match="it has not measured yet"):
        client.report_run_metrics("night", 0, {"auc": 0.5}, project=project)
    measure(client, project)
    sent = [
        {"auc": 0.5},
        {"auc": math.nan, "精度/<b>": -1e300},
        {"loss": math.inf},
        {"auc": 0.1 + 0.2},
    ]
    for step, values in zip((0, 100, 50, 100), sent, strict=True):  # any order, twice the same step
        client.report_run_metrics("night", step, values, project=project)
    stub = run_service_pb2_grpc.RunServiceStub(client.channel())
    request = run_service_pb2.ListRunMetricsRequest(
        name=f"projects/{project}/runs/night", page_size=3
    )
    page = stub.ListRunMetrics(request)
    assert (len(page.reports), page.more) == (3, True)
    request.after_id = page.reports[-1].id
    rest = stub.ListRunMetrics(request)
    listed = [*page.reports, *rest.reports]
    assert not rest.more
    assert [report.step for report in listed] == [0, 100, 50, 100]
    for report, values in zip(listed, sent, strict=True):
        assert dict(report.values) == pytest.approx(values, rel=0, nan_ok=True)
    assert listed == list(client.list_run_metrics("night", project=project))
    assert all(report.time.seconds > 1_700_000_000 for report in listed)
    client.delete_run("night", project=project)
    with pytest.raises(RunNotFoundError, match="there is no run"):
        list(client.list_run_metrics("night", project=project))
    measure(client, project)
    assert list(client.list_run_metrics("night", project=project)) == []


def test_what_is_out_of_range_is_refused_as_a_whole(client: AdvisorClient, project: str) -> None:
    measure(client, project)
    stub = run_service_pb2_grpc.RunServiceStub(client.channel())

    def report(step: int, values: dict[str, float]) -> None:
        client.report_run_metrics("night", step, values, project=project)

    for step, values, message in (
        (0, {"x" * 1_000_000: 1.0}, r"reports\[0\].values: .*xxx'\.\.\. has 1000000 characters"),
        (0, {"": 1.0}, "the name of a metric is empty"),
        (0, {"a\x1b[31m": 1.0}, r"holds the control character '\\x1b'; take it out"),
        (0, {}, r"reports\[0\].values: is empty; send at least one value"),
        (-1, {"auc": 1.0}, r"reports\[0\].step: -1 is not in \[0, "),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            report(step, values)
    name = f"projects/{project}/runs/night"
    for reports, message in (
        ([], "reports: is empty; send at least one report"),
        ([{"auc": 1.0}] * 1_001, "1001 reports; send at most 1000 in one request"),
        ([MANY] * 101, "10100 values; send at most 10000 in one request"),
    ):
        big = run_service_pb2.ReportRunMetricsRequest(
            name=name, reports=[run_service_pb2.MetricReport(values=v) for v in reports]
        )
        with pytest.raises(InvalidRequestError, match=message):
            client._call(stub.ReportRunMetrics, big)
    report(0, MANY)
    with pytest.raises(InvalidRequestError, match="would have 101 metrics, but at most 100") as e:
        report(1, {"metric 0": 1.0, "one more": 1.0})
    assert e.value.reason == "TOO_MANY_METRICS"
    report(2, {"metric 0": 2.0})
    assert [r.step for r in client.list_run_metrics("night", project=project)] == [0, 2]
    with pytest.raises(InvalidRequestError, match="after_metrics_id: 'x' is not the id"):
        next(client.watch_run_updates("night", after_metrics_id="x", project=project))


def test_a_watch_sends_metrics_only_if_asked(client: AdvisorClient, project: str) -> None:
    measure(client, project)
    client.report_run_metrics("night", 0, {"auc": 0.5}, project=project)
    seen: list[run_service_pb2.WatchRunResponse] = []
    done = threading.Event()

    def watch() -> None:
        with AdvisorClient(client.address) as other:
            for response in other.watch_run_updates("night", project=project):
                seen.append(response)
                if len(seen) == 3:
                    done.set()
                    return

    threading.Thread(target=watch, daemon=True).start()
    eventually(lambda: len(seen) == 2)
    client.report_run_metrics("night", 10, {"auc": 0.75}, project=project)
    assert done.wait(10)
    assert [response.HasField("event") for response in seen[:2]] == [True, False]
    assert [dict(response.metrics.values) for response in seen[1:]] == [{"auc": 0.5}, {"auc": 0.75}]
    with AdvisorClient(client.address) as other:
        resumed = other.watch_run_updates(
            "night",
            after_id=seen[0].event.id,
            after_metrics_id=seen[1].metrics.id,
            project=project,
        )
        assert next(resumed) == seen[2]
    assert next(client.watch_run("night", project=project)).HasField("measurement")


def test_commands_report_and_show_metrics(cli: Cli, client: AdvisorClient, project: str) -> None:
    measure(client, project)
    assert "run night has no metrics" in cli.run("run", "metrics", "night").stdout
    for step in (0, 10):
        report = ("run", "report-metrics", "night", str(step))
        assert "stored 2 metrics" in cli.run(*report, f"auc={step / 20}", "a=b<i>=nan").stdout
    for values, message in (
        (("auc",), "'auc' is not NAME=VALUE with a number"),
        (("auc=high",), "'auc=high' is not NAME=VALUE"),
        (("auc=1", "auc=2"), "a metric is given twice"),
        (("=1",), "the name of a metric is empty"),
    ):
        refused = cli.run("run", "report-metrics", "night", "20", *values, ok=False)
        assert message in refused.stderr
    rows = cli.json("run", "metrics", "night")
    assert [(row["metric"], row["points"], row["gaps"]) for row in rows] == [
        ("a=b<i>", 0, 2),
        ("auc", 2, 0),
    ]
    for command in ("metrics", "show"):
        printed = cli.run("run", command, "night").stdout
        assert "a=b<i>" in printed
        rows = [line.split() for line in printed.splitlines()]
        assert [row for row in rows if row[:1] == ["auc"]] == [
            ["auc", "0.5", "10", "0", "0.5", "2", "0"]
        ]
    assert [len(r["values"]) for r in cli.json("run", "show", "night")["metrics"]] == [2, 2]
    related = cli.run("run", "metrics", "night", "--relation", "auc").stdout
    assert "total rate and auc have 0 points in common; at least 20 are needed" in related
    unknown = cli.run("run", "metrics", "night", "--relation", "loss", ok=False)
    assert "the run has no metric 'loss'; its metrics: 'a=b<i>', 'auc'" in unknown.stderr


def test_a_check_ends_with_a_status_and_writes_junit(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    client.register_profile("gpt", content_message(), project=project)
    for run, dead in (("good", 1.0), ("bad", 0.0)):
        session = client.open_run(
            opening_message(
                f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/{run}"
            )
        )
        for step in range(3):
            session.recommend(pb.Measurement(step=step, unit_rates=[1, 2, 3, 4 * dead]))
        session.close()
        eventually(partial(is_stored, client, project, run, 3))
    file = tmp_path / "check.xml"
    good = cli.run("check", "good", "--junit", str(file))
    assert "no-group-is-dead  good" in good.stdout
    assert "2 passed, 0 failed, 5 without enough data" in good.stdout
    suite = ET.parse(file).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("7", "0", "5")
    bad = cli.run("check", "good", "bad", "--junit", str(file), ok=None)
    assert bad.exit_code == 1
    assert "1 did not in most measurements: head.weight" in bad.stdout
    assert " 1 failed, " in bad.stdout
    suite = ET.parse(file).find("testsuite")
    assert suite is not None
    (failed,) = suite.findall("testcase[failure]")
    assert (failed.get("classname"), failed.get("name")) == (
        "advisor.check.bad",
        "no-group-is-dead",
    )
    skipped = suite.findall("testcase[skipped]")
    assert (suite.get("failures"), suite.get("skipped")) == ("1", str(len(skipped)))
    strict = cli.run("check", "good", "--strict", "--junit", str(file), ok=None)
    assert strict.exit_code == 1
    suite = ET.parse(file).find("testsuite")
    assert suite is not None
    assert (suite.get("failures"), suite.get("skipped")) == ("5", "0")
    for arguments, message in (
        (("good", "gone"), "there is no run"),
        (("good", "good"), "a run is given twice"),
        (("good", "--junit", str(tmp_path)), "cannot be written"),
    ):
        refused = cli.run("check", *arguments, ok=None)
        assert refused.exit_code == 2
        assert message in refused.stderr
    assert {row["status"] for row in cli.json("check", "good")} == {"pass", "not enough data"}
