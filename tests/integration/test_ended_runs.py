"""A job that closes its run ends it; one that resumes, or did not end, is training."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

import fslr.torch
from fslr import AdvisorClient, RunInfo
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import advisor_service_pb2_grpc, run_service_pb2
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually


def opened(client: AdvisorClient, project: str) -> pb.RunOpening:
    """Register a profile and return the opening of a run on it."""
    client.register_profile("gpt", content_message(), project=project)
    return opening_message(f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/night")


def measurement(step: int) -> pb.Measurement:
    return pb.Measurement(step=step, unit_rates=[1, 2, 3, 4])


def run_that(
    client: AdvisorClient, project: str, matches: Callable[[run_service_pb2.Run], bool]
) -> run_service_pb2.Run:
    """Return the project's run once it matches."""
    found = eventually(lambda: [run for run in client.list_runs(project=project) if matches(run)])
    return found[0]


def run_at(client: AdvisorClient, project: str, step: int) -> run_service_pb2.Run:
    """Return the run once its measurement of a step is stored."""
    return run_that(client, project, lambda run: run.last_step == step)


def ended(client: AdvisorClient, project: str) -> run_service_pb2.Run:
    """Return the run once it has ended."""
    return run_that(client, project, lambda run: run.HasField("end_time"))


def test_a_run_has_ended_from_its_close_until_a_job_resumes_it(
    client: AdvisorClient, cli: Cli, project: str
) -> None:
    opening = opened(client, project)
    first = client.open_run(opening)
    for step in (1, 2):
        first.recommend(measurement(step))
    assert not run_at(client, project, 2).HasField("end_time")
    first.close()
    run = ended(client, project)
    assert run.end_time.ToNanoseconds() >= run.update_time.ToNanoseconds()
    assert (run.measurements, run.lost_measurements) == (2, 0)
    assert " ended " in cli.run("run", "list").stdout
    assert "runs/night  ended, step 2" in cli.run("run", "show", "night").stdout
    assert "end_time" in cli.json("run", "show", "night")["run"]

    resumed = client.open_run(opening)
    resumed.recommend(measurement(3))
    assert not run_at(client, project, 3).HasField("end_time")
    # The end of the first job arrives late, from a replica that could not store it before.
    opening_of_first = pb.RunOpening()
    opening_of_first.CopyFrom(opening)
    opening_of_first.session = run.opening.session
    late = pb.RecommendLRRequest(opening=opening_of_first, end=True)
    stub = advisor_service_pb2_grpc.AdvisorServiceStub(client.channel())
    assert stub.RecommendLROnce(late) == pb.RecommendLRResponse()
    resumed.recommend(measurement(4))
    assert not run_at(client, project, 4).HasField("end_time")
    resumed._drop()  # the connection breaks: the end goes over a new stream
    resumed.close()
    assert ended(client, project).last_step == 4


def test_a_job_that_did_not_measure_or_was_dropped_does_not_end_its_run(
    client: AdvisorClient, project: str
) -> None:
    opening = opened(client, project)
    client.open_run(opening).close()
    assert list(client.list_runs(project=project)) == []
    dropped = client.open_run(opening)
    dropped.recommend(measurement(1))
    del dropped
    unnamed = opening_message(opening.profile)
    session = client.open_run(unnamed)
    session.recommend(measurement(1))
    session.close()
    client.recommend_once(opening, measurement(2))
    assert not run_at(client, project, 2).HasField("end_time")


def test_a_watch_ends_after_the_last_event_of_a_run_that_ends(
    client: AdvisorClient, cli: Cli, project: str
) -> None:
    session = client.open_run(opened(client, project))
    session.recommend(measurement(1))
    run_at(client, project, 1)
    watched: list[str] = []
    thread = threading.Thread(
        target=lambda: watched.append(cli.run("run", "watch", "night").stdout), daemon=True
    )
    thread.start()
    session.recommend(measurement(2))
    session.close()
    thread.join(20)
    assert [line.split()[0] for line in watched[0].splitlines()] == ["step", "1", "2"]
    events = client.watch_run("night", until_end=True, project=project)
    assert [event.measurement.step for event in events] == [1, 2]


def test_a_closed_attachment_ends_its_run(client: AdvisorClient, project: str) -> None:
    client.register_profile("base", content_message(["weight", "bias"]), project=project)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = RunInfo("night", project=project)
    with fslr.torch.attach(model, optimizer, profile="base", advisor=client, run=run):
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    assert ended(client, project).measurements == 1
