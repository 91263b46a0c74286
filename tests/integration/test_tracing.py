"""Spans of calls reach a collector, as children of the callers' spans and without call data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider

from advisor.local.server import LocalServer
from fslr import AdvisorClient, ServiceError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc, run_service_pb2_grpc
from fslr.advisor.v1.run_service_pb2 import WatchRunRequest
from tests.building import content_message, opening_message
from tests.collector import Collector, attributes
from tests.waiting import eventually

PROFILE = "projects/default/profiles/traced"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
ONCE = "fslr.advisor.v1.AdvisorService/RecommendLROnce"
STREAM = "fslr.advisor.v1.AdvisorService/RecommendLR"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


@pytest.fixture
def traced(collector: Collector) -> Iterator[AdvisorClient]:
    assert collector.endpoint  # set in the environment
    with (
        LocalServer(None, "--tracing") as server,
        AdvisorClient(server.address, actor="some-actor") as client,
    ):
        client.register_profile("traced", content_message())
        yield client


def request(run: str = "") -> pb.RecommendLRRequest:
    return pb.RecommendLRRequest(
        opening=opening_message(PROFILE, run=run),
        measurement=pb.Measurement(unit_rates=[1.5, 2.5, 3.5, 4.5]),
    )


def span_of(collector: Collector, name: str) -> Span:
    return eventually(lambda: collector.spans(name))[-1]


def test_a_call_joins_its_callers_trace_and_contains_its_redis_commands(
    traced: AdvisorClient, collector: Collector
) -> None:
    stub = advisor_service_pb2_grpc.AdvisorServiceStub(traced.channel())
    stub.RecommendLROnce(request(), metadata=(TRACEPARENT,))
    call = span_of(collector, ONCE)
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert call.kind == Span.SPAN_KIND_SERVER
    assert attributes(call)["rpc.grpc.status_code"] == 0
    inside = [span for span in collector.spans() if span.parent_span_id == call.span_id]
    assert {attributes(span)["db.operation.name"] for span in inside} >= {"EVALSHA"}
    for span in inside:
        assert span.name.startswith("redis ")
        assert call.start_time_unix_nano <= span.end_time_unix_nano <= call.end_time_unix_nano


def test_a_redis_pipeline_is_one_span(traced: AdvisorClient, collector: Collector) -> None:
    assert [*traced.list_profiles()]
    call = span_of(collector, "fslr.advisor.v1.ProfileService/ListProfiles")
    inside = [span for span in collector.spans() if span.parent_span_id == call.span_id]
    pipelines = [span for span in inside if span.name == "redis pipeline"]
    assert len(pipelines) == 2  # the latest versions, and their summaries


def test_the_span_of_a_failed_call_has_its_status_and_reason(
    traced: AdvisorClient, collector: Collector
) -> None:
    with pytest.raises(ServiceError, match="no profile"):
        traced.get_profile("unknown-profile")
    call = span_of(collector, "fslr.advisor.v1.ProfileService/GetProfile")
    assert attributes(call)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert attributes(call)["error.type"] == "PROFILE_NOT_FOUND"
    assert call.status.code == Status.STATUS_CODE_UNSET  # the caller's error, not the service's
    assert not call.events


def test_a_stream_is_one_span_with_a_child_span_for_each_measurement(
    traced: AdvisorClient, collector: Collector
) -> None:
    session = traced.open_run(opening_message(PROFILE))
    for step in range(3):
        session.recommend(pb.Measurement(step=step, unit_rates=[1.0] * 4))
    # The spans are exported while the stream is open.
    eventually(lambda: len(collector.spans("measurement")) == 3)
    assert not collector.spans(STREAM)
    session.close()
    stream = span_of(collector, STREAM)
    measurements = collector.spans("measurement")
    assert [span.parent_span_id for span in measurements] == [stream.span_id] * 3
    first = {span.span_id for span in measurements[:1]}
    lookups = [span for span in collector.spans() if span.name == "redis EVALSHA"]
    assert any(span.parent_span_id in first for span in lookups)


def test_the_span_of_a_refused_stream_has_its_reason(
    traced: AdvisorClient, collector: Collector
) -> None:
    stub = advisor_service_pb2_grpc.AdvisorServiceStub(traced.channel())
    refused = stub.RecommendLR(iter([request(), request()]), metadata=(TRACEPARENT,))
    next(refused)
    with pytest.raises(grpc.RpcError, match="opening"):
        next(refused)
    span = span_of(collector, STREAM)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert attributes(span)["error.type"] == "OPENING_REPEATED"


def test_the_span_of_a_watch_cancelled_by_its_caller_is_cancelled(
    traced: AdvisorClient, collector: Collector
) -> None:
    stub = run_service_pb2_grpc.RunServiceStub(traced.channel())
    watch = stub.WatchRun(WatchRunRequest(name="projects/default/runs/never-started"))
    assert eventually(lambda: collector.spans("redis XREAD"), within_s=10)  # it has read once
    watch.cancel()
    span = span_of(collector, "fslr.advisor.v1.RunService/WatchRun")
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert [inside.parent_span_id for inside in collector.spans("redis XREAD")][:1] == [
        span.span_id
    ]


def test_spans_contain_no_values_names_or_metadata_of_calls(
    traced: AdvisorClient, collector: Collector
) -> None:
    stub = advisor_service_pb2_grpc.AdvisorServiceStub(traced.channel())
    secret = ("authorization", "Bearer not-for-others")
    stub.RecommendLROnce(
        request("projects/default/runs/secret-run"), metadata=(TRACEPARENT, secret)
    )
    bad = request()
    bad.measurement.unit_rates[0] = -987.5
    with pytest.raises(grpc.RpcError, match=r"-987\.5"):
        stub.RecommendLROnce(bad, metadata=(secret,))
    eventually(lambda: len(collector.spans(ONCE)) == 2)
    for word in ("not-for-others", "987.5", "secret-run", "traced", "some-actor", "3.5"):
        assert word not in collector.text(), word


def test_redis_commands_outside_of_calls_get_no_span(
    traced: AdvisorClient, collector: Collector
) -> None:
    time.sleep(1.5)  # readiness checks Redis every second
    traced.status()
    eventually(lambda: collector.spans("fslr.advisor.v1.StatusService/GetStatus"))
    assert not [
        span for span in collector.spans() if not span.parent_span_id and "redis" in span.name
    ]


def test_the_client_propagates_the_trace_of_the_training_job(
    traced: AdvisorClient, collector: Collector
) -> None:
    job = TracerProvider(shutdown_on_exit=False).get_tracer("job")
    with job.start_as_current_span("training") as training, trace.use_span(training):
        traced.status()
    call = span_of(collector, "fslr.advisor.v1.StatusService/GetStatus")
    assert int.from_bytes(call.trace_id) == training.get_span_context().trace_id


def test_a_stop_exports_the_remaining_spans(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with LocalServer(None, "--tracing") as server, AdvisorClient(server.address) as client:
        client.status()
        assert not collector.spans()
    assert collector.spans("fslr.advisor.v1.StatusService/GetStatus")


def test_an_unreachable_collector_does_not_delay_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with LocalServer(None, "--tracing", "--grace-s", "1") as server:
        with AdvisorClient(server.address) as client:
            client.status()
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 8  # the exporter itself would retry for ten seconds


def test_the_error_for_missing_tracing_packages_names_the_extra(tmp_path: Path) -> None:
    missing = tmp_path / "opentelemetry"
    missing.mkdir()
    (missing / "__init__.py").write_text("raise ImportError('not installed')\n", "utf-8")
    paths = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    command = [sys.executable, "-m", "advisor", "serve", "--port", "0", "--tracing"]
    ended = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert "pip install 'fslr-advisor[tracing]'" in ended.stderr


def test_tracing_is_not_loaded_unless_it_is_enabled() -> None:
    """redis-py loads parts of OpenTelemetry itself; the exporter must not be loaded."""
    code = (
        "import sys, advisor.server.bootstrap, advisor.observability.tracing\n"
        "assert advisor.observability.tracing.Tracing.started(enabled=False).tracer is None\n"
        "assert 'advisor.rpc.tracing' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.exporter')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
