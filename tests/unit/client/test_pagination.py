"""Iteration over calls that answer in pages."""

from __future__ import annotations

from fslr.advisor.v1 import run_service_pb2
from fslr.client.pagination import pages_by_event, pages_by_token


def test_each_page_is_requested_with_the_token_of_the_previous_page() -> None:
    tokens = []

    def list_runs(request: run_service_pb2.ListRunsRequest) -> run_service_pb2.ListRunsResponse:
        tokens.append(request.page_token)
        run = run_service_pb2.Run(name=f"run {len(tokens)}")
        following = {"": "a", "a": "b", "b": ""}[request.page_token]
        return run_service_pb2.ListRunsResponse(runs=[run], next_page_token=following)

    pages = pages_by_token(list_runs, run_service_pb2.ListRunsRequest(parent="projects/p"))
    assert tokens == []  # no call is made before the first item is requested
    assert [page.runs[0].name for page in pages] == ["run 1", "run 2", "run 3"]
    assert tokens == ["", "a", "b"]


def test_each_page_of_a_history_is_requested_after_the_last_event() -> None:
    kept = ["1", "2", "3", "4", "5"]

    def get_history(
        request: run_service_pb2.GetRunHistoryRequest,
    ) -> run_service_pb2.GetRunHistoryResponse:
        left = [id_ for id_ in kept if id_ > request.after_id]
        events = [run_service_pb2.RunEvent(id=id_) for id_ in left[:2]]
        return run_service_pb2.GetRunHistoryResponse(events=events, more=len(left) > 2)

    pages = list(pages_by_event(get_history, run_service_pb2.GetRunHistoryRequest(name="r")))
    assert [[event.id for event in page.events] for page in pages] == [
        ["1", "2"],
        ["3", "4"],
        ["5"],
    ]


def test_an_empty_history_is_one_page() -> None:
    pages = pages_by_event(
        lambda _: run_service_pb2.GetRunHistoryResponse(),
        run_service_pb2.GetRunHistoryRequest(name="r"),
    )
    assert [len(page.events) for page in pages] == [0]
