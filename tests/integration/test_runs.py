"""Runs: measurements and answers are stored in the background, and can be read and watched."""

from __future__ import annotations

import threading

import pytest

from fslr import AdvisorClient, InvalidRequestError, RunNotFoundError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import run_service_pb2
from fslr.client.stream import StreamSession
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually


def measure(client: AdvisorClient, project: str, run: str, steps: list[int]) -> None:
    """Register a profile, and send measurements of a run at the given steps."""
    client.register_profile("gpt", content_message(), project=project)
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/{run}"
    )
    session = client.open_run(opening)
    for step in steps:
        session.recommend(pb.Measurement(step=step, unit_rates=[1, 2, 3, 4], loss=3.0 - step / 100))
    session.close()


def history(
    client: AdvisorClient, project: str, run: str, length: int
) -> list[run_service_pb2.RunEvent]:
    def stored() -> list[run_service_pb2.RunEvent] | None:
        try:
            events = list(client.get_run_history(run, project=project))
        except RunNotFoundError:
            return None
        return events if len(events) >= length else None

    return eventually(stored) or []


def test_measurements_and_answers_are_stored(client: AdvisorClient, project: str) -> None:
    measure(client, project, "first", [0, 25, 50])
    events = history(client, project, "first", 3)
    assert [event.measurement.step for event in events] == [0, 25, 50]
    assert events[1].measurement.loss == 2.75
    assert list(events[0].recommendation.multipliers) == [1, 1, 1, 1]
    assert sorted(event.id for event in events) == [event.id for event in events]
    run = client.get_run("first", project=project)
    assert (run.last_step, run.measurements, run.lost_measurements) == (50, 3, 0)
    assert run.opening.profile == f"projects/{project}/profiles/gpt"
    assert len(run.opening.layout.groups) == 4
    assert run.create_time.ToNanoseconds() <= run.update_time.ToNanoseconds()


def test_runs_without_a_name_are_not_stored(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    opening = opening_message(f"projects/{project}/profiles/gpt")
    client.recommend_once(opening, pb.Measurement(unit_rates=[1, 1, 1, 1]))
    assert list(client.list_runs(project=project)) == []


def test_runs_are_listed_most_recently_started_first(client: AdvisorClient, project: str) -> None:
    for i in range(5):
        measure(client, project, f"run-{i}", [0])
        history(client, project, f"run-{i}", 1)
    measure(client, project, "run-1", [25])  # the run continues and keeps its place in the list
    listed = list(client.list_runs(project=project))
    assert [run.name.split("/")[-1] for run in listed] == [f"run-{i}" for i in (4, 3, 2, 1, 0)]
    assert not listed[0].opening.layout.groups


def test_pages_of_runs_add_up_to_the_whole_list(client: AdvisorClient, project: str) -> None:
    from fslr.advisor.v1 import run_service_pb2_grpc

    for i in range(5):
        measure(client, project, f"run-{i}", [0])
    for i in range(5):
        history(client, project, f"run-{i}", 1)
    stub = run_service_pb2_grpc.RunServiceStub(client.channel())
    whole = [run.name for run in client.list_runs(project=project)]
    assert len(whole) == 5
    for size in (1, 2, 5):
        request = run_service_pb2.ListRunsRequest(parent=f"projects/{project}", page_size=size)
        seen: list[str] = []
        while True:
            page = stub.ListRuns(request)
            seen += [run.name for run in page.runs]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert seen == whole


def test_two_jobs_under_one_run_name_are_warned(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", content_message(), project=project)
    opening = opening_message(
        f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/night"
    )

    def warned(session: StreamSession, step: int) -> bool:
        answer = session.recommend(pb.Measurement(step=step, unit_rates=[1] * 4))
        eventually(lambda: client.get_run("night", project=project).last_step == step)
        return any(w.kind == pb.WARNING_KIND_CONCURRENT_RUN for w in answer.warnings)

    first = client.open_run(opening)
    assert not warned(first, 1)
    first._drop()  # the connection breaks, and the same job opens its stream again
    assert not warned(first, 2)
    first.close()
    resumed, other = client.open_run(opening), client.open_run(opening)
    assert not warned(resumed, 3)  # from a checkpoint
    assert not client.get_run("night", project=project).HasField("concurrent_time")
    assert not warned(other, 4)
    warned(resumed, 5)
    assert eventually(lambda: warned(other, 6))
    assert warned(resumed, 7)
    resumed.close()
    other.close()
    assert client.get_run("night", project=project).HasField("concurrent_time")
    cli = Cli(client.address, project)
    shown = cli.run("run", "show", "night")
    assert "two jobs reported measurements to this run, last at" in shown.stderr
    assert "give each job its own run name" in shown.stderr
    assert "two jobs" in cli.run("run", "list").stdout
    session = "x" * 65
    opening.session = session
    with pytest.raises(InvalidRequestError, match="at most 64 are allowed"):
        client.recommend_once(opening, pb.Measurement(step=8, unit_rates=[1] * 4))


def test_a_watch_sends_stored_events_and_then_new_ones(client: AdvisorClient, project: str) -> None:
    measure(client, project, "watched", [0, 25])
    history(client, project, "watched", 2)
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with AdvisorClient(client.address) as other:
            for event in other.watch_run("watched", project=project):
                seen.append(event.measurement.step)
                if len(seen) == 4:
                    break
        done.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    eventually(lambda: len(seen) == 2)
    measure(client, project, "watched", [50, 75])
    assert done.wait(10)
    thread.join(10)
    assert seen == [0, 25, 50, 75]


def test_a_watch_continues_after_a_given_event(client: AdvisorClient, project: str) -> None:
    measure(client, project, "watched", [0, 25, 50])
    events = history(client, project, "watched", 3)
    later = client.watch_run("watched", after_id=events[1].id, project=project)
    assert next(later).measurement.step == 50
    later.close()  # type: ignore[attr-defined]


def test_a_long_history_is_read_in_pages(client: AdvisorClient, project: str) -> None:
    steps = list(range(0, 2500, 10))
    measure(client, project, "long", steps)
    assert [e.measurement.step for e in history(client, project, "long", len(steps))] == steps


def test_an_unknown_run_is_not_found(client: AdvisorClient, project: str) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run .*/nothing; it has not measured yet, or"):
        client.get_run("nothing", project=project)
    with pytest.raises(RunNotFoundError, match=r"no run"):
        list(client.get_run_history("nothing", project=project))


def test_invalid_names_and_ids_are_refused(client: AdvisorClient, project: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"name: run 'UPPER' is not an identifier"):
        client.get_run("UPPER", project=project)
    with pytest.raises(InvalidRequestError, match=r"after_id: 'x' is not the id of an event"):
        next(client.watch_run("r", after_id="x", project=project))
