from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from advisor.document.charts import Axes, stacked_chart
from advisor.document.metrics_section import ReportedMetrics
from advisor.document.pdf import PdfError, print_to_pdf
from advisor.document.pictures import role_colors, shown_roles
from advisor.document.run_report import LIMITS, WORDS, run_report
from advisor.document.svg import shortened
from advisor.report.run_figures import RunFigures
from advisor.report.texts import Texts, UnknownLanguageError
from tests.building import content_message
from tests.stored_runs import block_names, recipe_run, stored_run

NOW = datetime(2026, 1, 2, 3, 20, tzinfo=UTC)
_VOID = {"meta", "br", "link", "img", "wbr"}


class Page(HTMLParser):
    """Reads a page: its texts, its tags and their attributes. Every tag must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._continues = False  # the text goes on after a place where it may be broken
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._continues = tag == "wbr"
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._continues:
            self.texts[-1] += data
        elif data.strip():
            self.texts.append(data.strip())
        self._continues = False

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def page(figures: RunFigures, *, language: str = "en", content: object = None) -> Page:
    return Page(run_report(figures, content, language=language, now=NOW))  # type: ignore[arg-type]


def test_a_report_has_three_pictures_reasons_limits_words_and_a_next_step() -> None:
    content = content_message(block_names(4))
    figures = RunFigures.of(*stored_run(content=content), content)
    found = page(figures, content=content)
    pictures = [attrs["aria-label"] for tag, attrs in found.tags if attrs.get("role") == "img"]
    assert pictures[:1] == ["Total rate and its reference by step"]
    assert {"Shares of the roles by step", "Multipliers of the roles"} <= set(pictures)
    for expected in (
        *("1. Total output change", "2. Contribution of each layer", "toy", "gpt@3"),
        *("3. Recommended learning rates", "blocks.*.attn.weight", "total rate (output units)"),
        *("of the reference", "from blocks.*.mlp.weight, reference 43%", "(reference 37%)"),
        *("times the scheduled learning rate (0.01)", "scheduled: 0.01."),
        *("loss (as reported)", "learning rate (scheduled)", "share of the squared total rate (%)"),
        *("multiplier (factor)", "Matched: at an equal learning rate", "0.8%"),
        *("What the numbers do not say", "Five words", "Next step, to copy", "night followed"),
    ):
        assert expected in found.text


@pytest.mark.parametrize("roles", [1, 7, 8, 9, 12])
def test_each_role_or_the_rest_has_its_own_color(roles: int) -> None:
    letters = [f"{chr(ord('a') + i)}.weight" for i in range(roles)]
    figures = RunFigures.of(*stored_run(letters, measurements=3))
    rows = shown_roles(figures)
    assert len(rows) == min(roles, 8)
    assert len(set(role_colors(rows))) == len(rows)
    assert ("all others" in page(figures).text) == (roles > 8)


def test_the_axis_of_shares_ends_where_they_do() -> None:
    """Rounded shares sum to a little more than 100 %; a further tick would leave a gap above."""
    axes = Axes("step", "share (%)", "shares")
    exact = stacked_chart([0, 1], [[0.5, 0.5], [0.5004, 0.5]], ["#111", "#222"], axes)
    assert ">100<" in exact
    assert ">120<" not in exact
    above = stacked_chart([0, 1], [[1.4, 0.6, -1.0]] * 2, ["#111", "#222", "#333"], axes)
    assert all(f">{label}<" in above for label in (-100, 0, 100, 200))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_metrics_are_listed_and_the_chosen_one_is_compared(language: str) -> None:
    figures = RunFigures.of(*stored_run(measurements=40))
    auc = {25 * i: 0.5 + 0.01 * (i % 7) for i in range(40)} | {60: float("nan")}
    metrics = ReportedMetrics({"<b>auc</b>": auc, "loss": {0: 2.5}}, "<b>auc</b>")
    html = run_report(figures, None, language=language, now=NOW, metrics=metrics)
    found = Page(html)
    assert found.text.count("<b>auc</b>") >= 4
    assert Texts(language)("metrics.axis", metric="<b>auc</b>") in found.texts
    assert "0.56" in found.texts
    expected = {"en": "Metrics of the run", "ja": "ランの指標"}[language]
    assert expected in found.texts
    one = ReportedMetrics({"auc": {0: 0.5}}, "auc")
    few = Page(run_report(figures, None, language="en", now=NOW, metrics=one))
    assert "total rate and auc have 1 point in common; at least 20 are needed" in few.text


_INTERVAL = r"([+-]\d\.\d\d) \[([+-]\d\.\d\d), ([+-]\d\.\d\d)\]"
_RELATIONS = {
    "relation": {
        "en": r"auc</b> move together, in opposite directions, the metric 25 steps later .*"
        rf"{_INTERVAL}, 59 points",
        "ja": rf"auc</b>は逆の方向に動きます.指標は25ステップ後.*{_INTERVAL}、59点",
    },
    "only time": {
        "en": r"auc</b> look related \(-\d\.\d\d\), but both only follow time: .*"
        rf"{_INTERVAL}, 60 points",
        "ja": r"auc</b>は関係があるように見えますが.-\d\.\d\d.、両方とも時間に従って.*"
        rf"{_INTERVAL}、60点",
    },
}


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("how", [*_RELATIONS])
def test_a_relation_has_its_interval_and_its_points(how: str, language: str) -> None:
    random = np.random.default_rng(6)
    noise, other = random.standard_normal((2, 60))
    if how == "relation":
        rates = 5 + np.cumsum(noise) / 10
        auc = np.append(0, -rates[:-1]) + other / 100
    else:
        rates = 5 - np.linspace(0, 4, 60) + noise / 5
        auc = np.linspace(0, 4, 60) + other / 5
    run, events = stored_run(block_names(1), measurements=60)
    for event, rate in zip(events, rates, strict=True):
        event.measurement.total_rate = rate
    values = {25 * i: float(value) for i, value in enumerate(auc) if i or how != "relation"}
    html = run_report(
        RunFigures.of(run, events),
        None,
        language=language,
        now=NOW,
        metrics=ReportedMetrics({"<b>auc</b>": values}, "<b>auc</b>"),
    )
    sentence = re.search(_RELATIONS[how][language], Page(html).text)
    assert sentence is not None
    value, low, high = map(float, sentence.groups())
    assert low < value < high


def test_a_report_loads_nothing_and_runs_nothing() -> None:
    html = run_report(RunFigures.of(*stored_run()), None, language="en", now=NOW)
    found = Page(html)
    assert {tag for tag, _ in found.tags} & {"script", "link", "img", "iframe", "object"} == set()
    assert not [a for _, attrs in found.tags for a in attrs if a in {"src", "href", "style"}]
    assert not re.search(r"url\(|@import|https?:", html)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_names_are_escaped_everywhere(language: str) -> None:
    bad = '<script>alert("x")</script>&\'.weight'
    content = content_message([bad, "head.weight"])
    content.provenance.model = content.provenance.author = bad
    run, events = stored_run(
        [bad, "head.weight"], content=content, optimizer=bad, loss_name=bad, observe_only=True
    )
    events[0].recommendation.warnings.add(message=bad)
    found = page(RunFigures.of(run, events, content), language=language, content=content)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.text.count(bad) >= 6


def test_an_observed_run_is_reported_as_what_would_have_been() -> None:
    found = page(RunFigures.of(*stored_run(observe_only=True)))
    assert "3. Learning rates that would have been recommended" in found.text
    assert "This run only observed: nothing was applied." in found.text
    assert "With advice, the learning rates of its 10 groups would have been" in found.text
    headings = {"multiplier (would have been)", "effective learning rate (would have been)"}
    assert headings | {"multiplier that would have been recommended (factor)"} <= set(found.texts)
    assert found.texts.count("multiplier") == 1  # among the words that are explained
    assert not {"effective learning rate", "multiplier (factor)"} & set(found.texts)
    advised = page(RunFigures.of(*stored_run()))
    assert {"effective learning rate", "multiplier (factor)"} <= set(advised.texts)
    assert advised.texts.count("multiplier") == 2
    assert "would have been" not in advised.text


def test_a_report_in_japanese_has_japanese_titles() -> None:
    found = page(RunFigures.of(*stored_run()), language="ja")
    assert ("html", {"lang": "ja"}) in found.tags
    for expected in ("出力全体の変化", "各層の寄与", "推奨学習率", "数値が示さないこと", "一致"):
        assert expected in found.text
    with pytest.raises(UnknownLanguageError, match="in the language 'fr'"):
        page(RunFigures.of(*stored_run()), language="fr")


def test_empty_short_and_bare_runs_have_a_report() -> None:
    run, events = stored_run(measurements=1)
    empty = page(RunFigures.of(run))
    assert "No measurement of this run is stored yet." in empty.text
    assert "1. Total output change" not in empty.text
    one = page(RunFigures.of(run, events))
    assert "There is one measurement so far" in one.text
    assert "night has too few measurements to decide on" in one.text
    for field in ("loss", "total_rate", "shares", "learning_rates", "measuring_seconds"):
        events[0].measurement.ClearField(field)
    bare = page(RunFigures.of(run, events))
    assert "The job did not report how far the outputs change." in bare.text
    _, earlier = stored_run(block_names(2), measurements=2)
    assert (
        "2 measurements of an earlier layout are left out"
        in page(RunFigures.of(run, [*earlier, *events])).text
    )


def test_a_report_of_a_large_and_long_run_stays_small() -> None:
    names = [f"layers.{i}.part{part}.weight" for i in range(4) for part in range(60)]
    run, events = stored_run(names, measurements=4)
    figures = RunFigures.of(run)
    for step in range(1_000):
        events[step % 4].measurement.step = 10 * step
        figures.add(events[step % 4])
    html = run_report(figures, None, language="en", now=NOW)
    assert len(html) < 300_000
    assert "20 further roles are not shown" in Page(html).text


def test_five_words_and_six_limits_are_explained() -> None:
    found = page(RunFigures.of(*stored_run()))
    assert len(WORDS) == [tag for tag, _ in found.tags].count("dt") == 5
    texts = Texts("en")
    for key in (*(f"word.{word}" for word in WORDS), *(f"document.limits.{i}" for i in LIMITS)):
        assert texts(key) in found.texts
    for word in WORDS:
        assert texts(f"word.{word}.meaning") in found.texts
    assert len(LIMITS) == 6


def test_values_are_labeled_and_long_names_are_cut_only_in_pictures() -> None:
    name = "a" * 300 + ".weight"
    run, events = stored_run([name, "b.weight"])
    found = page(RunFigures.of(run, events))
    assert name in found.texts
    assert [text for text in found.texts if "…" in text and len(text) < 120]
    assert len(shortened(name, 300)) <= 47
    assert shortened("short", 300) == "short"


def test_without_chromium_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PdfError, match="no Chromium was found, which prints the PDF; install it"):
        print_to_pdf(tmp_path / "x.html", tmp_path / "x.pdf")


def test_what_chromium_says_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho no display >&2\nexit 7\n", "utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(PdfError, match=r"did not print .*x\.html \(status 7\): no display"):
        print_to_pdf(tmp_path / "x.html", tmp_path / "x.pdf")


def test_a_share_that_changes_its_sign_is_two_areas() -> None:
    chart = stacked_chart([0, 10], [[0.9, 0.1], [1.2, -0.2]], ["#111", "#222"], Axes("x", "y", "d"))
    areas = re.findall(r'<path d="M([^"]*)Z" fill="(#...)"', chart)
    assert [color for _, color in areas] == ["#111", "#222", "#222"]
    heights = [[float(point.split()[1]) for point in path.split("L")] for path, _ in areas]
    zero = heights[0][2]  # the lower edge of the first part
    assert max(heights[1]) <= zero <= min(heights[2])
    assert min(heights[2]) < max(heights[2])


def condensed(text: str) -> str:
    """Return a text without spaces and line breaks, which pages have in other places."""
    return re.sub(r"\s", "", text)


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("pdftotext")),
    reason="prints with Debian's chromium, and reads with poppler-utils",
)
def test_a_report_prints_to_a4_and_no_picture_or_row_is_split(tmp_path: Path) -> None:
    names = [
        f"layers.{i}.part{role}.attention.query_key_value.weight"
        for role in range(40)
        for i in (0, 1)
    ]
    run, events = stored_run(names, measurements=6)
    html = run_report(RunFigures.of(run, events), None, language="en", now=NOW)
    (tmp_path / "x.html").write_text(html, "utf-8")
    print_to_pdf(tmp_path / "x.html", tmp_path / "x.pdf")
    pdf = (tmp_path / "x.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", pdf)
    assert 2 <= len(boxes) <= 12
    for width, height in boxes:  # in points of 1/72 inch
        assert (float(width), float(height)) == pytest.approx((595.3, 841.9), abs=1)
    command = ["pdftotext", "-raw", str(tmp_path / "x.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pages = [condensed(page) for page in text.split("\f")]
    figures = re.findall("<figure>.*?</figure>", html, re.DOTALL)
    assert len(figures) >= 6
    for figure in figures:
        texts = [condensed(text) for text in Page(figure).texts]
        assert any(all(text in page for text in texts) for page in pages), texts
    rows = re.findall(r'<tbody class="pair">.*?</tbody>|<tr>(?:(?!</tr>).)*</tr>', html, re.DOTALL)
    assert len(rows) > 40
    for row in rows:
        assert any(condensed("".join(Page(row).texts)) in page for page in pages), row


@pytest.mark.parametrize(
    ("language", "word", "verdict"), [("en", "Recipe", "disagrees"), ("ja", "レシピ", "不一致")]
)
def test_a_report_shows_the_recipe_and_where_it_disagrees(
    language: str, word: str, verdict: str
) -> None:
    figures = RunFigures.of(*recipe_run(rate=4.0))
    texts = Page(run_report(figures, None, language=language, now=NOW)).texts
    assert word in texts
    assert texts.count(verdict) == 4
    assert texts.count("mup-adam") == 1  # among the facts
    plain = Page(run_report(RunFigures.of(*stored_run()), None, language=language, now=NOW))
    assert word.lower() not in plain.text.lower()
