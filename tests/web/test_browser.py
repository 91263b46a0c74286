"""What the pages do in a real browser: measurements arrive, keys and clicks answer."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from advisor.report.words import format_number
from advisor.store.redis.embedded import running_url
from fslr import AdvisorClient
from tests.building import content_message
from tests.operator_tokens import Tokens
from tests.redis_servers import free_port
from tests.waiting import eventually
from tests.web.browsing import BASE, Page, hide, measurements_on, scroll_to, steps_in_table
from tests.web.service import PROFILE, Run, WebService, register


def test_scripts_write_numbers_as_the_server_does(desk: Page) -> None:
    numbers = [5.9e-5, -3e-10, 0.00012, 0, 0.2, 1.23456, 9999.6, 12345.6, 9999999, 1e7, 1.5e12]
    page = desk.open("/projects/default")
    script = """async (numbers) => {
        const { number } = await import('/static/format.js');
        return numbers.map((value) => number(value));
    }"""
    assert page.evaluate(script, numbers) == [format_number(number) for number in numbers]


def test_a_chart_is_drawn_when_it_is_scrolled_to(desk: Page) -> None:
    page = desk.open(BASE)
    assert page.locator('[data-chart="loss"] .uplot').count() == 0
    page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
    page.wait_for_selector('[data-chart="loss"] .uplot canvas')
    scroll_to(page, "#metrics")
    page.wait_for_selector('[data-title="auc"] .uplot canvas')
    assert page.locator('[data-title="loss"]').count() == 0  # it has no finite value
    assert page.locator("#metrics table").first.is_visible()


def test_a_measurement_appears_while_the_page_is_open(desk: Page, service: WebService) -> None:
    with AdvisorClient(service.address) as client:
        register(client)
        run = Run(client, "live")
        run.measure(3)
        page = desk.open("/projects/default/runs/live")
        eventually(lambda: measurements_on(page) == 3 or page.wait_for_timeout(50))
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(2)
        page.wait_for_selector('#page[data-measurements="5"]')
        # The last step is at the right edge: the axis has grown with the run.
        page.locator('[data-chart="total"] .plot').press("End")
        cursor, plot = (
            page.locator(f'[data-chart="total"] {part}').bounding_box()
            for part in (".u-cursor-x", ".u-over")
        )
        assert abs(cursor["x"] - plot["x"] - plot["width"]) < 3
        page.wait_for_selector(f"#figures .strip:has-text('{run.last_step} / 10000')")
        run.close()


def test_a_part_that_is_fetched_again_keeps_its_place_and_stays_if_it_has_not_changed(
    desk: Page,
) -> None:
    page = desk.open(BASE)
    found = page.evaluate("""async () => {
        const { refresh } = await import('/static/dom.js');
        const changed = async () =>
            (await refresh(`${location.pathname}/figures`)).map((part) => part.id);
        document.styleSheets[1].insertRule('.scroll { width: 200px }');
        document.querySelector('#details .scroll').scrollLeft = 40;
        const first = await changed();
        return [first, document.querySelector('#details .scroll').scrollLeft, await changed()];
    }""")
    assert found == [["figures", "details"], 40, []]


def test_a_page_misses_nothing_and_gets_nothing_twice_when_the_service_restarts(
    chromium: Any, tmp_path: Path
) -> None:
    port = free_port()
    with WebService(tmp_path, http=port) as first, AdvisorClient(first.address) as client:
        register(client)
        run = Run(client, "night")
        run.measure(4)
        run.close()
        url = first.url
        opened = Page(chromium, url)
        page = opened.open(BASE)
        page.wait_for_selector('#page[data-measurements="4"]')
        page.wait_for_selector("#live.live:not(.lost)")
    page.wait_for_selector("#live.lost")
    with WebService(tmp_path, http=port) as second, AdvisorClient(second.address) as client:
        run = Run(client, "night")
        run.measurements = 4
        run.measure(3)
        page.wait_for_selector('#page[data-measurements="7"]', timeout=20_000)
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="8"]')
        run.close()
        page.locator('[data-chart="loss"]').scroll_into_view_if_needed()
        page.click('[data-chart="loss"] summary')
        assert steps_in_table(page, "loss", rows=8) == [str(25 * i) for i in range(8)]
    with opened:
        assert opened.problems == []


def test_a_click_lists_the_groups_of_a_layer_or_role(desk: Page) -> None:
    page = desk.open(BASE)
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    eventually(lambda: heat_map.evaluate("c => c.width > 400") or page.wait_for_timeout(50))
    heat_map.click(position={"x": 300, "y": 30})  # the second of five rows
    page.wait_for_selector("#groups h2:has-text('blocks.0, step 275')")
    assert page.locator("#groups tbody tr").count() == 2
    page.click("a[data-role='blocks.*.mlp.weight']")
    page.wait_for_selector("#groups h2:has-text('blocks.*.mlp.weight')")
    assert page.locator("#groups tbody tr").count() == 3
    # The link that was clicked has the focus; that one of the keyboard keeps its place.
    refresh = "import('/static/dom.js').then((m) => m.refresh(`${location.pathname}/figures`))"
    assert page.evaluate(f"{refresh}.then((parts) => parts.length)") == 2
    page.keyboard.press("Tab")
    page.locator("#details a").first.focus()
    assert page.evaluate(f"{refresh.replace('dom.js', 'dom.js?again')}.then((p) => p.length)") == 1
    page.click("#groups button")
    eventually(lambda: page.locator("#groups tbody").count() == 0 or page.wait_for_timeout(50))


def test_shares_are_drawn_on_top_of_each_other(desk: Page) -> None:
    page = desk.open(BASE)
    scroll_to(page, '[data-chart="shares"] .plot')
    page.wait_for_selector('[data-chart="shares"] .uplot canvas')
    # Opacity along the height of the plot, at its middle: each share alone is less than half.
    opacities = page.evaluate("""() => {
      const over = document.querySelector('[data-chart="shares"] .u-over').getBoundingClientRect();
      const canvas = document.querySelector('[data-chart="shares"] canvas');
      const box = canvas.getBoundingClientRect();
      const ratio = canvas.width / box.width;
      const x = (over.left + over.width * 0.47 - box.left) * ratio;
      const [top, height] = [(over.top - box.top) * ratio, over.height * ratio];
      const { data } = canvas.getContext("2d").getImageData(x, top, 1, height);
      return [0.02, 0.3, 0.5, 0.7, 0.98].map((part) => data[4 * Math.floor(part * height) + 3]);
    }""")
    assert min(opacities) > 150


def test_names_with_html_are_text_in_tables_charts_and_what_is_read_aloud(
    desk: Page, service: WebService
) -> None:
    bad = "<img src=x onerror=alert(1)>"
    names = [f"{bad}.embed", f"blocks.0.{bad}.w", f"blocks.1.{bad}.w", "head.<script>alert(2)"]
    with AdvisorClient(service.address) as client:
        client.register_profile("odd", content_message(names))
        run = Run(client, "odd", profile="odd", names=names)
        run.measure(3)
        run.close()
    page = desk.page
    dialogs: list[str] = []

    def note(dialog: Any) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    desk.open("/projects/default/runs/odd")
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    eventually(lambda: heat_map.evaluate("c => c.width > 400") or page.wait_for_timeout(50))
    heat_map.focus()
    page.keyboard.press("ArrowLeft")  # from the first place to itself
    words = page.locator('[data-chart="blocks"] .values')
    assert words.text_content().startswith(f"step 0, {bad}: ")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#groups h2:has-text('{bad}')")
    assert page.locator("#groups tbody th").first.get_attribute("title") == names[0]
    page.click(f'a[data-role="blocks.*.{bad}.w"]')
    eventually(lambda: page.locator("#groups tbody tr").count() == 2 or page.wait_for_timeout(50))
    scroll_to(page, '[data-chart="shares"] .plot')
    page.wait_for_selector('[data-chart="shares"] .uplot')
    assert bad in page.locator('[data-chart="shares"] .u-legend').text_content().replace(
        "\u200b", ""
    )
    assert page.locator("main img, main script").count() == 0
    assert dialogs == []


def test_keys_move_the_cursor_say_the_values_and_open_the_table(desk: Page) -> None:
    page = desk.open(BASE)
    scroll_to(page, '[data-chart="total"] .plot')
    page.wait_for_selector('[data-chart="total"] .uplot')
    page.locator('[data-chart="total"] .plot').focus()
    page.keyboard.press("Home")
    said = page.locator('[data-chart="total"] .values')
    assert said.text_content().startswith("step 0: total rate 0.2, reference ")
    page.keyboard.press("ArrowRight")
    assert said.text_content().startswith("step 25: total rate 0.1765")
    assert said.get_attribute("aria-live") == "polite"
    page.keyboard.press("End")
    last = said.text_content()
    page.keyboard.press("Tab")  # from the plot to its table
    page.keyboard.press("Enter")
    rows = page.locator('[data-chart="total"] tbody tr')
    rows.last.wait_for()  # rows come with the table's event
    heads = page.locator('[data-chart="total"] .table thead th').all_text_contents()
    table = [row.locator("th, td").all_text_contents() for row in rows.all() if row.is_visible()]
    shown = [row for row in table if len(row) == len(heads)]
    assert [row[0] for row in shown] == [str(25 * i) for i in range(12)]
    assert [row[1] for row in shown[:2]] == ["0.2", "0.1765"]
    assert last.startswith(f"step 275: total rate {shown[-1][1]}, reference {shown[-1][2]}")
    heat_map = page.locator('[data-chart="blocks"] canvas')
    heat_map.scroll_into_view_if_needed()
    heat_map.focus()
    page.keyboard.press("ArrowDown")
    said = page.locator('[data-chart="blocks"] .values').text_content()
    assert re.fullmatch(r"step 0, blocks\.0: \d+(\.\d+)?%", said)
    page.keyboard.press("Enter")
    page.wait_for_selector("#groups h2:has-text('blocks.0')")


def test_a_hidden_tab_holds_no_connection_and_misses_nothing(
    desk: Page, service: WebService
) -> None:
    with AdvisorClient(service.address) as client:
        run = Run(client, "hidden")
        run.measure(3)
        page = desk.open("/projects/default/runs/hidden")
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfinished", lambda request: requests.append("ended " + request.url))
        page.wait_for_selector("#live.live:not(.lost)")
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="4"]')
        hide(page, hidden=True)
        requests.clear()
        run.measure(3)
        page.wait_for_timeout(500)
        assert measurements_on(page) == 4
        assert requests == []
        hide(page, hidden=False)
        page.wait_for_selector('#page[data-measurements="7"]')
        run.measure(1)
        page.wait_for_selector('#page[data-measurements="8"]')
        run.close()
        assert [url.partition("events?")[2][:6] for url in requests if "events?" in url] == [
            "after="
        ]
        scroll_to(page, '[data-chart="loss"]')
        page.click('[data-chart="loss"] summary')
        assert steps_in_table(page, "loss", rows=8) == [str(25 * i) for i in range(8)]


def test_an_open_overview_says_when_nothing_new_can_be_read_and_keeps_what_was(
    desk: Page,
) -> None:
    page = desk.open("/projects/default")
    address = page.url
    row = page.locator("[data-refreshed=earlier] a[title=night]")
    notice = page.locator("[role=status] .notice:visible")
    assert (row.count(), notice.count()) == (1, 0)

    def unread(route: Any) -> None:
        """Answer as the page does while Redis does not answer the service."""
        text = re.sub(r"<tbody>.*?</tbody>", "", route.fetch().text(), flags=re.DOTALL)
        text = re.sub(r'(data-refreshed="(?!health|notice)\w+")', r"\1 data-unread", text)
        text = re.sub(r'(data-refreshed="notice">)', r'\1<p class="notice">No Redis.</p>', text)
        route.fulfill(content_type="text/html", body=text)

    page.route(address, lambda route: route.abort("connectionrefused"))
    hide(page, hidden=False)  # a tab that is looked at again asks at once
    notice.wait_for()
    assert "Runs and profiles cannot be read right now" in notice.text_content()
    page.unroute(address)
    page.route(address, unread)
    hide(page, hidden=False)
    page.wait_for_selector("[data-refreshed=notice]:has-text('No Redis.')")
    assert notice.count() == 1
    assert row.count() == 1
    page.unroute(address)
    hide(page, hidden=False)
    notice.wait_for(state="detached")
    assert row.count() == 1


def test_japanese_stays_once_it_was_chosen(desk: Page) -> None:
    page = desk.open("/projects/default")
    page.click("a[hreflang=ja]")
    page.wait_for_selector("html[lang=ja]")
    desk.open(BASE)
    assert page.locator("#chart-total").text_content() == "ステップごとの出力全体の変化"
    page.wait_for_selector("#live:has-text('自動更新中')")


def test_signing_in_shows_one_project_and_no_other(chromium: Any, tmp_path: Path) -> None:
    with WebService(tmp_path, "--authenticate") as service:
        url = running_url(tmp_path)
        assert url is not None
        with ThreadPoolExecutor(1) as other:  # the browser's event loop runs in this thread
            tokens = Tokens(url, "default")
            token = other.submit(tokens.create, "viewer").result()["token"]
            theirs = other.submit(tokens.create, "operator", "other").result()["token"]
        with AdvisorClient(service.address, token=theirs) as client:
            register(client, project="other")
            run = Run(client, "secret", project="other")
            run.measure(2)
            run.close()
        with Page(chromium, service.url) as opened:
            page = opened.page
            page.goto(service.url)
            assert "/sign-in" in page.url
            page.fill("#token", token)
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Signed in as a-viewer")
            assert page.url.endswith("/projects/default")
            assert page.evaluate("document.cookie") == ""
            assert opened.problems == []
            for path in ("", "/runs/secret", f"/profiles/{PROFILE}", "/compare?a=secret&b=secret"):
                page.goto(f"{service.url}/projects/other{path}")
                text = page.locator("main").text_content()
                assert "Your token does not allow this" in text, path
                assert "0.1765" not in text
            fetched = page.evaluate(
                "path => fetch(path).then(async (a) => [a.status, await a.text()])",
                "/projects/other/runs/secret/curves.json",
            )
            assert fetched[0] == 403
            assert "total_rate" not in fetched[1]
            page.goto(service.url)
            page.click("text=Sign out")
            page.wait_for_selector("#token")
            page.goto(service.url)
            assert "/sign-in" in page.url
            assert all("403" in problem for problem in opened.problems)
