"""The pages that list and compare: overview, profile, comparison, and a run that observes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from fslr import AdvisorClient
from tests.building import content_message
from tests.waiting import eventually
from tests.web.service import NAMES, Run, WebService

_PROJECT = "/projects/default"


@pytest.fixture(scope="module")
def pages(service: WebService) -> Iterator[Any]:
    """Return a client of the pages, while one run trains and another has ended.

    Both use the profile ``seeds``, whose first version, of two seeds, has the alias ``stable``.
    """
    with AdvisorClient(service.address) as client:
        for rate in (1.0, 3.0):
            content = content_message(NAMES, rate=rate, docs="Widths <i>up to</i> 4096.")
            content.provenance.recordings = 2
            for point in content.points:
                point.spreads[:] = [0.1] * len(NAMES)
                point.learning_rate = 0.01
            client.register_profile("seeds", content)
        client.set_alias("seeds@1", "stable")
        ended = Run(client, "ended", profile="seeds", observe_only=True)
        ended.measure(4)
        ended.close()
        now = Run(client, "now", profile="seeds")
        now.measure(2)
        for name, auc, count in (("ended", 0.75, 4), ("now", 0.5, 2)):
            eventually(partial(_has_measurements, client, name, count))
            client.report_run_metrics(name, 25, {"auc": auc})
        with httpx.Client(base_url=service.url, timeout=20) as browser:
            yield browser
        now.close()


def _has_measurements(client: AdvisorClient, run: str, count: int) -> bool:
    return client.get_run(run).measurements == count


def section(page: str, name: str) -> str:
    """Return a part of a page that has a title."""
    found = re.search(rf'<section[^>]* aria-labelledby="{name}".*?</section>', page, re.DOTALL)
    assert found is not None, name
    return html.unescape(found[0].replace("<wbr>", ""))


def row(text: str, head: str) -> list[str]:
    """Return the words of the cells of a table's row."""
    for found in re.findall(r"<tr[^>]*>.*?</tr>", text, re.DOTALL):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", found, re.DOTALL)
        words = [re.sub(r"<[^>]*>", "", cell).strip() for cell in cells]
        if words[0] == head:
            return words
    raise AssertionError(f"there is no row {head}")


def test_the_overview_has_runs_by_state_the_health_and_the_users_of_profiles(pages: Any) -> None:
    page = pages.get(_PROJECT).text
    current, earlier = section(page, "now"), section(page, "earlier")
    assert row(current, "now")[1:3] == ["training", "25"]
    assert row(earlier, "ended")[1:3] == ["ended", "75"]
    assert 'title="ended"' not in current
    assert 'title="now"' not in earlier
    assert re.search(r"answers, version \d+\.\d+\.\d+, standalone", section(page, "health"))
    assert row(section(page, "profiles"), "seeds@2")[1] == "1"
    assert row(section(page, "profiles"), "char-gpt@1")[1] == ""


def test_a_profile_has_bands_versions_aliases_users_and_its_origin(pages: Any) -> None:
    page = pages.get(f"{_PROJECT}/profiles/seeds@1").text
    spec = json.loads(html.unescape(re.findall(r'data-spec="([^"]*)"', page)[0]))
    data = json.loads(html.unescape(re.findall(r'data-curves="([^"]*)"', page)[0]))
    roles = len(spec["series"]) // 3
    assert spec["bands"] == [[2 * roles + i, roles + i] for i in range(roles)]
    assert [each.get("is_edge", False) for each in spec["series"]] == [False] * 4 + [True] * 8
    line, low, high = (data["values"][i][0] for i in (0, roles, 2 * roles))
    assert low < line < high
    versions = section(page, "versions")
    assert re.search(r'aria-current="page">@1</a>\s*<span class="alias">stable</span>', versions)
    assert versions.count('class="alias"') == 1
    assert "compare?kind=profile&a=seeds@2&b=seeds%401" in versions
    facts = section(page, "facts")
    for words in ("0123abc", "a test", "numbers", "stable -> @1", "1, 2"):
        assert words in facts
    assert "Widths <i>up to</i> 4096." in section(page, "guideline")
    assert "<i>" not in page
    used = section(page, "used")
    current, _, earlier = used.partition("Runs that used it (1)")
    assert row(current, "now")
    assert row(earlier, "ended")


def test_two_versions_are_compared_by_their_rates(pages: Any) -> None:
    page = pages.get(f"{_PROJECT}/compare?kind=profile&a=seeds@1&b=seeds@2").text
    data = json.loads(html.unescape(re.findall(r'data-curves="([^"]*)"', page)[0]))
    first, second = data["values"]
    assert second == pytest.approx([3 * value for value in first], rel=1e-3)
    assert row(section(page, "numbers"), "unit rate of embed.weight")[1:] == ["1", "3", "2", "3"]


def test_two_runs_are_compared_by_their_last_metrics_and_say_which_one_observes(
    pages: Any,
) -> None:
    numbers = section(pages.get(f"{_PROJECT}/compare?a=now&b=ended").text, "numbers")
    assert row(numbers, "auc (metric, last value)")[1:] == ["0.5", "0.75", "0.25", "1.5"]
    heads = row(numbers, "Quantity")
    assert re.fullmatch(r"now.*advised, .*", heads[1], re.DOTALL)
    assert re.fullmatch(r"ended.*only observed, .*", heads[2], re.DOTALL)
    assert "Figures are those at step 25, the last that both runs have." in numbers


def test_a_run_that_only_observes_says_would_have_been_wherever_it_shows_multipliers(
    pages: Any,
) -> None:
    base = f"{_PROJECT}/runs/ended"
    page = pages.get(base).text
    assert "This run only observes" in page
    assert "Multipliers would have been " in section(page, "f3")
    for name in ("f3", "f4", "chart-multipliers", "chart-effective"):
        title = re.search(r"<h2[^>]*>(.*?)</h2>", section(page, name))
        assert title is not None
        assert "would have been" in title[1], name
    groups = pages.get(f"{base}/groups?role=blocks.*.mlp.weight").text
    for table in (section(page, "f4"), section(groups, "groups-of")):
        heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", table)
        assert "multiplier (would have been)" in heads
        assert "effective learning rate (would have been)" in heads
    advised = pages.get(f"{_PROJECT}/runs/now").text
    assert "would have been" not in advised
