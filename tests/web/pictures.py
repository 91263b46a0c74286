"""Takes the pictures of the page for the documentation: ``python -m tests.web.pictures``.

The runs are made up, but the service, its advice and its pages are real.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from advisor.policy.arrays import Floats
from fslr import AdvisorClient
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2
from tests.building import content_message, opening_message
from tests.web.browsing import browser_program
from tests.web.service import WebService

_IMAGES = Path(__file__).parents[2] / "docs" / "images"
_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.up", "mlp.down")
_NAMES = (
    "tok_embed.weight",
    *(f"blocks.{i}.{part}.weight" for i in range(6) for part in _PARTS),
    *("norm.weight", "head.weight"),
)
_RATES = np.array([6.0, *([0.8, 14.0, 14.0, 0.6, 17.0, 14.0] * 6), 1.5, 44.0])
_EVERY, _TOTAL = 25, 4_000
_PEAK = 0.003
_RUNS = {  # name, profile, factor of its unit rates on those of the profile, measurements
    "gpt-256-short": ("char-gpt", 1.0, 12),
    "gpt-256-plain": ("char-gpt", 1.0, 160),
    "gpt-256-advised": ("char-gpt", 1.4, 160),
    "gpt-512-advised": ("char-gpt", 2.6, 118),
    "gpt-512-adapters": ("char-gpt-adapters", 1.8, 61),
}
_OPEN = ("gpt-512-advised", "gpt-512-adapters")  # they are training


def _learning_rate(step: int) -> float:
    """Return the scheduled learning rate: a warm-up, then a cosine."""
    return _PEAK * float(min((step + 1) / 100, 0.5 * (1 + np.cos(np.pi * step / _TOTAL))))


def _unit_rates(step: int, random: np.random.Generator) -> Floats:
    """Return the rates of the profile's training around a step, with the noise of one seed."""
    found: Floats = _RATES * (0.4 + np.exp(-step / 150)) * np.exp(random.normal(0, 0.05, 39))
    return found


def _profile(rate: float, random: np.random.Generator) -> profile_pb2.ProfileContent:
    content = content_message(_NAMES, steps=range(0, _TOTAL, _EVERY))
    content.base_learning_rate, content.total_steps = _PEAK, _TOTAL
    content.provenance.model, content.provenance.optimizer = "char-gpt", "AdamW"
    content.provenance.recordings = 3
    for point in content.points:
        point.unit_rates[:] = (rate * _unit_rates(point.step, random)).tolist()
        point.spreads[:] = [0.15] * len(_NAMES)
        point.learning_rate = _learning_rate(point.step)
    return content


def _measurement(
    step: int, factor: float, answer: pb.RecommendLRResponse | None, random: np.random.Generator
) -> pb.Measurement:
    """Return what a run measures that follows an answer."""
    learning_rate = _learning_rate(step)
    rates = factor * _unit_rates(step, random)
    multipliers = np.ones(len(_NAMES)) if answer is None else np.array(answer.multipliers)
    squares = (rates * learning_rate * multipliers) ** 2
    found = pb.Measurement(
        step=step,
        interval_steps=_EVERY if step else 0,
        unit_rates=rates.tolist(),
        relative_errors=[0.08] * len(_NAMES),
        learning_rates=[learning_rate] * len(_NAMES),
        multipliers=multipliers.tolist(),
        shares=(squares / squares.sum()).tolist(),
        total_rate=1.1 * float(np.sqrt(squares.sum())),
        linearity_error=0.04,
        loss=2.9 + 5.0 * float(np.exp(-step / 200)) + float(random.normal(0, 0.02)),
        examples=64,
        probes=4,
        measuring_seconds=0.31,
        measuring_overhead=0.0082,
    )
    if answer is not None:
        found.advised[:] = answer.recommended
    return found


def _fill(client: AdvisorClient) -> list[Any]:
    """Register the profiles and train the runs; return those that go on."""
    random = np.random.default_rng(0)
    for name in ("char-gpt", "char-gpt", "char-gpt-adapters"):
        client.register_profile(name, _profile(1.0, random))
    client.set_alias("char-gpt@2", "prod")
    going_on = []
    for name, (profile, factor, count) in _RUNS.items():
        run = f"projects/default/runs/{name}"
        opening = opening_message(
            f"projects/default/profiles/{profile}", _NAMES, run=run, total_steps=_TOTAL
        )
        session = client.open_run(opening)
        answer = None
        for i in range(count):
            answer = session.recommend(_measurement(_EVERY * i, factor, answer, random))
        if name in _OPEN:
            going_on.append(session)
        else:
            session.close()
    return going_on


def take(folder: Path) -> None:
    """Write the pictures into a folder."""
    with WebService() as service, AdvisorClient(service.address) as client:
        sessions = _fill(client)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_program(), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1200, "height": 900}, locale="en-GB")
            page.goto(f"{service.url}/projects/default")
            page.screenshot(path=folder / "web-overview.png")
            page.goto(f"{service.url}/projects/default/runs/{_OPEN[0]}")
            page.wait_for_selector("#live.live:not(.lost)")
            page.wait_for_selector('[data-chart="shares"] .uplot')
            page.screenshot(path=folder / "web-run.png")
            browser.close()
        for session in sessions:
            session.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Takes the pictures of the page.")
    parser.add_argument("--folder", type=Path, default=_IMAGES, help="where to write them")
    take(parser.parse_args().folder)
