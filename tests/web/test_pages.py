"""The web page over HTTP: what is served, to whom, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.routing import Route

import advisor.web
from advisor.report.check import check_rows
from advisor.report.check_sentences import check_counts, check_finding, check_remedy
from advisor.report.checked_run import CheckedRun
from advisor.report.texts import Texts
from advisor.store.redis.embedded import running_url
from advisor.web import check_pages
from advisor.web.app import WebLimits, create_app
from advisor.web.backend import Backend, Viewer
from advisor.web.compare_pages import between_points
from fslr import AdvisorClient
from tests.building import content_message
from tests.operator_tokens import Tokens
from tests.waiting import eventually
from tests.web.service import NAMES, PROFILE, Run, WebService, register

_BASE = "/projects/default/runs/night"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    """Run a service that needs tokens, with one run in each of two projects."""
    folder = tmp_path_factory.mktemp("data")
    with WebService(folder, "--authenticate", "--http-max-requests-per-s", "1000") as running:
        url = running_url(folder)
        assert url is not None
        tokens = Tokens(url, "default")
        running.tokens = {  # type: ignore[attr-defined]
            "viewer": tokens.create("viewer")["token"],
            "operator": tokens.create("operator")["token"],
            "other": tokens.create("operator", "other")["token"],
        }
        for project, name in (("default", "operator"), ("other", "other")):
            with AdvisorClient(running.address, token=token(running, name)) as client:
                register(client, project=project)
                for run_name, count in (("night", 6), ("day", 3)):
                    run = Run(client, run_name, project=project)
                    run.measure(count)
                    run.close()
        yield running


def token(service: WebService, name: str) -> str:
    found: dict[str, str] = service.tokens  # type: ignore[attr-defined]
    return found[name]


@contextlib.contextmanager
def browser(service: WebService, name: str = "") -> Iterator[Any]:
    """Yield a client that keeps cookies; with a name, it has signed in."""
    with httpx.Client(base_url=service.url, timeout=20) as client:
        if name:
            answer = client.post("/sign-in", data={"token": token(service, name)})
            assert answer.status_code == 303
        yield client


@pytest.fixture(scope="module")
def viewer(service: WebService) -> Iterator[Any]:
    with browser(service, "viewer") as client:
        eventually(lambda: client.get(f"{_BASE}/curves.json").json().get("measurements") == 6)
        yield client


def test_a_page_without_a_token_leads_to_the_form_and_back(service: WebService) -> None:
    with browser(service) as client:
        asked = client.get(f"{_BASE}?lang=ja")
        assert asked.status_code == 303
        assert asked.headers["location"] == f"/sign-in?next={_BASE}%3Flang%3Dja"
        assert client.get(f"{_BASE}/curves.json").status_code == 401
        form = client.get(asked.headers["location"])
        assert f'name="next" value="{_BASE}?lang=ja"' in form.text
        wrong = client.post("/sign-in", data={"token": "fslr_wrong", "next": _BASE})
        assert wrong.status_code == 401
        assert "The token is not valid here" in wrong.text
        right = client.post("/sign-in", data={"token": token(service, "viewer"), "next": _BASE})
        assert right.headers["location"] == _BASE
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get(_BASE).status_code == 200
        client.post("/sign-in", data={"token": ""})
        assert client.get(_BASE).status_code == 303


def test_a_form_of_a_different_site_is_refused(service: WebService) -> None:
    with browser(service) as client:
        answer = client.post(
            "/sign-in",
            data={"token": token(service, "viewer")},
            headers={"origin": "https://evil.example"},
        )
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["other", "viewer"])
def test_every_page_keeps_projects_apart(service: WebService, name: str) -> None:
    project = "default" if name == "other" else "other"
    paths = (
        *("", "/runs/night", "/runs/night/figures", "/runs/night/groups?role=head.weight"),
        *(
            "/runs/night/curves.json",
            "/runs/night/events",
            "/runs/night/metrics",
            "/runs/night/check",
            "/compare/check?a=night&b=day",
            f"/profiles/{PROFILE}",
        ),
        *("/compare?a=night&b=night", f"/compare?kind=profile&a={PROFILE}&b={PROFILE}"),
    )
    with browser(service, name) as client:
        statuses = {path: client.get(f"/projects/{project}{path}").status_code for path in paths}
    assert set(statuses.values()) == {403}, statuses


def test_only_the_form_can_be_sent(service: WebService) -> None:
    """Nothing writes: each route answers GET and HEAD, and one form sets a cookie."""
    methods = asyncio.run(_methods(service.address))
    assert {path for path, method in methods if method not in {"GET", "HEAD"}} == {"/sign-in"}
    called = set(re.findall(r"self\._(?:runs|profiles|status)\.(\w+)", _source("backend.py")))
    assert called == {
        *("ListRuns", "GetRun", "GetRunHistory", "ListRunMetrics", "WatchRun"),
        *("ListProfiles", "GetProfile", "GetStatus"),
    }
    with browser(service, "operator") as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, _BASE).status_code == 405
            assert client.request(method, "/static/page.css").status_code == 405


async def _methods(address: str) -> set[tuple[str, str]]:
    """Return the path and the method of each route."""
    app = create_app(Backend(address), WebLimits())
    await app.state.context.stop()
    return {
        (route.path, method) for route in app.routes if isinstance(route, Route)
        for method in route.methods or ()
    }  # fmt: skip


def _source(name: str) -> str:
    return (Path(advisor.web.__file__).parent / name).read_text("utf-8")


def test_every_answer_forbids_foreign_and_inline_code(viewer: Any) -> None:
    for path in ("/", _BASE, f"{_BASE}/curves.json", "/static/run.js", "/nowhere", "/sign-in"):
        headers = viewer.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    page = viewer.get(_BASE).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style|https?://", page)


def test_browsers_keep_scripts_and_styles_until_they_change(viewer: Any) -> None:
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', viewer.get(_BASE).text)
    assert {path.rpartition("/")[2] for path in found} >= {"run.js", "chart.js", "page.css"}
    for path in found:
        answer = viewer.get(path)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip" or path.endswith(("svg", "min.css"))
        again = viewer.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/static/run.js", "/static/0123456789ab/run.js"):
        plain = viewer.get(path, headers={"accept-encoding": ""})
        assert plain.headers["cache-control"] == "no-cache"
        assert "content-encoding" not in plain.headers
        assert "javascript" in plain.headers["content-type"]
    assert viewer.get("/static/../app.py").status_code == 404
    assert viewer.get("/static/%2e%2e/app.py").status_code == 404


def test_the_page_shows_the_three_figures(viewer: Any) -> None:
    page = viewer.get(_BASE).text
    for words in (
        "Total output change",
        "Contribution of each layer",
        "Recommended learning rates",
    ):
        assert words in page
    assert "Matched: " in page
    assert "measurements: 6" in page
    japanese = viewer.get(_BASE, headers={"accept-language": "ja,en;q=0.5"}).text
    assert '<html lang="ja">' in japanese
    assert "出力全体の変化" in japanese
    shares = [int(found) for found in re.findall(r'class="value">(-?\d+)%', page)]
    assert sum(shares) == 100


def test_curves_have_the_stored_numbers_and_the_last_id(service: WebService, viewer: Any) -> None:
    curves = viewer.get(f"{_BASE}/curves.json?pixels=600").json()
    with AdvisorClient(service.address, token=token(service, "viewer")) as client:
        events = list(client.get_run_history("night"))
    assert curves["last_id"] == events[-1].id
    charts = curves["charts"]
    assert charts["loss"]["steps"] == [event.measurement.step for event in events]
    loss, _ = charts["loss"]["values"]
    assert loss == pytest.approx([event.measurement.loss for event in events], rel=1e-3)
    assert charts["multipliers"]["names"] == [
        *("embed.weight", "blocks.*.attn.weight", "blocks.*.mlp.weight", "head.weight")
    ]
    assert sum(row[-1] for row in charts["blocks"]["values"]) == pytest.approx(100, abs=0.1)
    _, reference, high, low = (np.array(series) for series in charts["total"]["values"])
    assert (low < reference).all()
    assert (reference < high).all()
    specs = re.findall(r'data-chart="total"[^>]* data-spec="([^"]*)"', viewer.get(_BASE).text)
    (spec,) = [json.loads(html.unescape(text)) for text in specs]
    assert spec["bands"] == [[2, 3]]
    assert [each.get("is_edge", False) for each in spec["series"]] == [False, False, True, True]


def test_groups_are_listed_by_role_and_by_layer(viewer: Any) -> None:
    by_role = viewer.get(f"{_BASE}/groups", params={"role": "blocks.*.mlp.weight"}).text
    assert re.findall(r'title="([^"]+)"', by_role) == [f"blocks.{i}.mlp.weight" for i in range(3)]
    by_layer = viewer.get(f"{_BASE}/groups", params={"block": "blocks.1"}).text
    assert re.findall(r'title="([^"]+)"', by_layer) == [
        "blocks.1.attn.weight", "blocks.1.mlp.weight",
    ]  # fmt: skip
    assert "There is no group of that name" in viewer.get(f"{_BASE}/groups?role=nothing").text
    assert viewer.get(f"{_BASE}/groups").status_code == 400


def _charts(page: str) -> dict[str, Any]:
    """Return the data of the charts of a page by their titles."""
    found = re.findall(r'data-title="([^"]*)" data-spec="[^"]*" data-curves="([^"]*)"', page)
    return {html.unescape(title): json.loads(html.unescape(data)) for title, data in found}


def _events(client: Any, path: str, count: int, headers: dict[str, str] | None = None) -> list[Any]:
    """Return the first measurements of a live page as (id, data)."""
    found = []
    with client.stream("GET", path, headers=headers or {}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = event_id = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                event_id = value
            elif name == "data" and kind == "measurement":
                found.append((event_id, json.loads(value)))
                if len(found) == count:
                    return found
    raise AssertionError(f"the stream ended after {len(found)} measurements")


def test_a_live_page_resumes_after_the_last_event_that_it_has(
    service: WebService, viewer: Any
) -> None:
    with AdvisorClient(service.address, token=token(service, "viewer")) as client:
        stored = [event.id for event in client.get_run_history("night")]
    all_events = _events(viewer, f"{_BASE}/events", 6)
    assert [event_id for event_id, _ in all_events] == stored
    resumed = _events(viewer, f"{_BASE}/events?after={stored[0]}", 2, {"Last-Event-ID": stored[3]})
    assert resumed == all_events[4:]
    charts = viewer.get(f"{_BASE}/curves.json").json()["charts"]
    for i, (_, added) in enumerate(all_events):
        assert added["charts"].keys() == charts.keys()
        for name, chart in charts.items():
            assert chart["steps"][i] == added["step"]
            assert [series[i] for series in chart["values"]] == added["charts"][name], name


def test_metrics_have_curves_gaps_and_sentences(service: WebService, viewer: Any) -> None:
    name = "<i>accuracy</i> " + "x" * 80
    with AdvisorClient(service.address, token=token(service, "operator")) as client:
        for i in range(5):
            client.report_run_metrics("night", 25 * i, {name: math.nan if i == 2 else 0.1 * i})
    page = viewer.get(f"{_BASE}/metrics").text.replace("<wbr>", "")  # where a name may fold
    assert _charts(page) == {
        name: {"steps": [0, 25, 50, 75, 100], "values": [[0.0, 0.1, None, 0.3, 0.4]]},
    }  # fmt: skip
    assert "<i>" not in page
    assert f"total rate and {html.escape(name)} have 4 points in common; at least 20 are" in page
    assert viewer.get("/projects/default/runs/nothing/metrics").status_code == 404


def test_the_check_is_that_of_the_command_in_each_language(
    service: WebService, viewer: Any
) -> None:
    with AdvisorClient(service.address, token=token(service, "viewer")) as client:
        runs = [
            CheckedRun.of(client.get_run(name), client.get_run_history(name))
            for name in ("night", "day")
        ]
    for path, checked in (
        (f"{_BASE}/check", runs[:1]),
        ("/projects/default/compare/check?a=night&b=day", runs),
    ):
        for language in ("en", "ja"):
            texts, rows = Texts(language), check_rows(checked)
            text = viewer.get(path, headers={"accept-language": language}).text
            sheet = html.unescape(text.replace("<wbr>", ""))
            assert check_counts(rows, texts) in sheet
            assert sheet.count('class="verdict') == len(rows)
            assert all(check_finding(row, texts) in sheet for row in rows)
            assert all(check_remedy(row, texts) in sheet for row in rows)
    assert "6 measurements up to step 125" in viewer.get(f"{_BASE}/check").text
    assert viewer.get("/projects/default/compare/check?a=night").status_code == 400


def test_a_long_history_is_checked_from_single_events(
    service: WebService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_pages, "_MAX_READ_RATES", 0)

    async def checked() -> CheckedRun:
        context = create_app(Backend(service.address), WebLimits()).state.context
        try:
            viewer = Viewer(token(service, "viewer"))
            return await check_pages._checked_run(context, viewer, "default", "night")
        finally:
            await context.stop()

    assert asyncio.run(checked()).steps.tolist() == [0, 25, 50, 75, 100, 125]


def test_two_runs_are_compared_over_the_steps_of_either(viewer: Any) -> None:
    charts = _charts(viewer.get("/projects/default/compare?a=night&b=day").text)
    assert charts.keys() == {"Total output change", "loss", "largest multiplier"}
    assert charts["loss"]["steps"] == [0, 25, 50, 75, 100, 125]
    night, day = charts["loss"]["values"]
    assert night[:3] == day[:3]
    assert day[3:] == [None] * 3
    profiles = f"/projects/default/compare?kind=profile&a={PROFILE}&b={PROFILE}@1"
    (rates,) = _charts(viewer.get(profiles).text).values()
    first, second = rates["values"]
    assert first == second
    own, values = np.array([0.0, 10, 10, 20, 30]), np.array([[0.0], [9], [1], [np.nan], [3]])
    found = between_points(own, values, np.array([0.0, 5, 10, 15, 30, 40]))[:, 0]
    assert np.array_equal(found, [0, 0.5, 1, np.nan, 3, np.nan], equal_nan=True)
    assert np.isnan(between_points(own[:0], values[:0], own)).all()


def test_the_link_to_the_other_language_keeps_the_page(viewer: Any) -> None:
    page = viewer.get("/projects/default/compare?kind=run&a=night&b=day").text
    assert 'href="?kind=run&amp;a=night&amp;b=day&amp;lang=ja" lang="ja"' in page


def test_a_name_with_html_is_text(service: WebService, viewer: Any) -> None:
    name = '<img src=x onerror="alert(1)">'
    with AdvisorClient(service.address, token=token(service, "operator")) as client:
        content = content_message([*NAMES[:-1], name], docs="<script>alert(2)</script>")
        content.provenance.model = "<b>bold</b>"
        client.register_profile("odd", content)
    page = viewer.get("/projects/default/profiles/odd").text
    assert "<script>alert(2)" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "<b>bold" not in page + viewer.get("/projects/default").text
    specs = re.findall(r'data-spec="([^"]*)"', page)
    assert json.loads(html.unescape(specs[0]))["series"][-1]["label"] == name


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/projects/default/runs/nothing", 404, "no such page, run or profile"),
        ("/projects/default/runs/%3Cscript%3E", 400, "is not an identifier"),
        (f"/projects/default/runs/{'x' * 5_000}", 400, "is not an identifier"),
        ("/projects/default/profiles/nothing", 404, "no such page, run or profile"),
        (f"/projects/default/profiles/{PROFILE}@9", 404, "existing ones: 1"),
        ("/projects/default/compare?a=night&b=nothing", 404, "no such page, run or profile"),
        ("/nowhere", 404, "no such page, run or profile"),
        (f"{_BASE}/curves.json?pixels=wide", 400, "is not a number of pixels"),
        (f"{_BASE}/events?after=yesterday", 400, "is not the id of an event"),
    ],
)
def test_what_does_not_exist_gets_a_helpful_page(
    viewer: Any, path: str, status: int, words: str
) -> None:
    answer = viewer.get(path)
    assert answer.status_code == status
    assert words in answer.text
    assert "Traceback" not in answer.text


def test_a_run_of_one_point_and_one_without_its_layout(service: WebService, viewer: Any) -> None:
    with AdvisorClient(service.address, token=token(service, "operator")) as client:
        run = Run(client, "single")
        run.measure()
        run.close()
        base = "/projects/default/runs/single"
        eventually(lambda: viewer.get(base).status_code == 200)
        assert viewer.get(f"{base}/curves.json").json()["charts"]["loss"]["steps"] == [0]
        changed = Run(client, "single", names=[*NAMES[:2], NAMES[-1]])
        changed.measure()
        changed.close()
        eventually(lambda: "1 earlier measurement has" in viewer.get(base).text or None)
