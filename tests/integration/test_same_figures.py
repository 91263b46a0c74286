"""One run has the same figures in the terminal, on its page, in its report and in an export."""

from __future__ import annotations

import asyncio
import csv
import io
import re

import httpx

from advisor.report.words import format_number
from advisor.web.app import WebLimits, create_app
from advisor.web.backend import Backend
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from tests.building import content_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually

NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "norm.weight", "head.weight")
ROLES = ("embed.weight", "blocks.*.up.weight", "norm.weight", "head.weight")
BLOCKS = NAMES[1:3]


def of_page(html: str) -> tuple[str, dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the total rate, the percents of roles, and the ends of their multipliers."""
    total = re.search(r'<p class="big">([^<]+)</p>', html)
    assert total is not None
    percents = re.findall(
        r'<span class="name" title="([^"]*)">.*?<span class="value">([^<]+)</span>', html, re.DOTALL
    )
    rows = re.findall(
        r'data-role="([^"]+)".*?</th>\s*<td[^>]*>([^<]+)(?:<br><small>([^<]+)</small>)?',
        html,
        re.DOTALL,
    )
    ends = {role: tuple((span or value).split(" to ")) for role, value, span in rows}
    return total[1], dict(percents), ends


def of_report(html: str) -> tuple[str, dict[str, str], dict[str, tuple[str, ...]]]:
    """Return the same of a report."""
    html = html.replace("<wbr>", "")
    total = re.search(r"outputs move by ([^ ]+) \(RMS\)", html)
    assert total is not None
    percents = re.findall(r"<span>([^<]+)</span> <b>([^<]+)</b>", html)
    rows = re.findall(
        r'<tbody class="pair">\s*<tr>\s*<th scope="row">([^<]+)</th>\s*'
        r'<td class="number">\d+</td>\s*<td class="number">([^<]+)</td>',
        html,
    )
    return total[1], dict(percents), {role: tuple(ends.split(" to ")) for role, ends in rows}


def of_terminal(text: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the same of ``run show --groups``, with the multiplier of each group."""
    total = re.search(r"outputs move by ([^ ]+) \(RMS\)", text)
    assert total is not None
    roles, groups = text.split("measured", 1)
    cells = [line.split() for line in roles.splitlines()]
    percents = {row[0]: row[2] for row in cells if row and row[0] in ROLES and len(row) > 5}
    rows = [line.split() for line in groups.splitlines()]
    return total[1], percents, {row[0]: row[5] for row in rows if row and row[0] in NAMES}


async def live_parts(address: str, url: str) -> str:
    """Return the part of a run's page that changes with each measurement."""
    app = create_app(Backend(address), WebLimits())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://page") as browser,
    ):
        for _ in range(500):
            if "data-role" in (text := (await browser.get(url)).text):
                break
            await asyncio.sleep(0.02)
        return text


def test_terminal_page_report_and_export_agree(
    cli: Cli, client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", content_message(NAMES), project=project)
    session = client.open_run(
        opening_message(
            f"projects/{project}/profiles/gpt", NAMES, run=f"projects/{project}/runs/night"
        )
    )
    for step in (0, 25, 50):
        session.recommend(
            pb.Measurement(
                step=step,
                interval_steps=25 if step else 0,
                unit_rates=[1.37, 1.71, 3.33, 2.9, 7 + step / 100],
                relative_errors=[0.02] * 5,
                learning_rates=[0.01] * 5,
                total_rate=0.123456 + step / 1e5,
                shares=[1 / 3, 1 / 6, 1 / 6, -0.004, 0.3373],
                loss=2.5,
            )
        )
    session.close()
    eventually(lambda: client.get_run("night", project=project).measurements == 3)

    exact = ("--average", "0", "--values-per-octave", "0")
    exported = cli.run("export", "night", "--to", "csv", *exact).stdout
    found = {row["name"]: float(row["multiplier"]) for row in csv.DictReader(io.StringIO(exported))}
    assert len({*found.values()}) == 5

    total, percents, multipliers = of_terminal(cli.run("run", "show", "night", "--groups").stdout)
    assert total == format_number(0.123956)
    assert percents.keys() == {*ROLES}
    assert multipliers == {name: format_number(value) for name, value in found.items()}

    def ends(digits: int) -> dict[str, tuple[str, ...]]:
        """Return the smallest and the largest exported multiplier of each role."""
        blocks = sorted(found[name] for name in BLOCKS)
        of_roles = {role: [found[role]] for role in ROLES if role in found} | {ROLES[1]: blocks}
        return {
            role: tuple(format_number(value, digits) for value in values)
            for role, values in of_roles.items()
        }

    url = f"/projects/{project}/runs/night/figures?lang=en"
    shown = asyncio.run(live_parts(client.address, url))
    assert of_page(shown) == (total, percents, ends(4))
    assert of_report(cli.run("report", "night", "-o", "-").stdout) == (total, percents, ends(3))
