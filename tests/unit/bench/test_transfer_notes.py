"""Notes on cases of the transfer benchmark: their figures come from the case's record."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.transfer.cases import CASES
from benchmarks.transfer.notes import NOTES, note_on

_OCTAVES = (1, 0, -1, -2)  # from the base's best learning rate


def noted_case(
    axis: str,
    model: str,
    optimizer: str,
    *,
    base: tuple[float, ...],
    plain: tuple[float, ...] = (9.0, 9.0, 9.0, 9.0),
    advised: tuple[float, ...] = (9.0, 9.0, 9.0, 9.0),
) -> dict[str, Any]:
    """Return a case with losses by octave; the second and third seed lose 0.3 more and less."""

    def sweep(losses: tuple[float, ...]) -> dict[str, list[float | None]]:
        seeds: list[list[float | None]] = [[loss, loss + 0.3, loss - 0.3] for loss in losses]
        found = {
            str(2.0 ** (octave - 5)): by_seed
            for octave, by_seed in zip(_OCTAVES, seeds, strict=True)
        }
        return {"1.0": [None, 8.0, 8.0], **found}  # a seed diverged at the highest learning rate

    return {
        "axis": axis,
        "model": model,
        "optimizer": optimizer,
        "seeds": [0, 1, 2],
        "base_learning_rate": 2.0**-5,
        "shift_advised": 2,
        "spread": {"shift_advised": [-1, 0, -1], "regret": 0.1234},
        "sweeps": {"base": sweep(base), "plain": sweep(plain), "advised": sweep(advised)},
    }


@pytest.mark.parametrize(
    ("case", "texts"),
    [
        (
            noted_case(
                "width",
                "char_gpt_post_mod",
                "Adam",
                base=(4.0, 2.0, 2.0101, 2.0199),
                plain=(5.0, 4.0, 3.0, 3.5),
                advised=(3.0, 2.9, 2.8, 2.75),
            ),
            [
                "within 0.020 nats",
                "2 of 3 seeds show a shift of -1",
                "the advised loss is 2.750; the best of the plain sweep is 3.000.",
            ],
        ),
        (
            noted_case(
                "width",
                "conv_net",
                "SGD",
                base=(4.0, 2.0, 2.05, 1.9951),
                advised=(3.0, 2.9, 2.8, 2.75),
            ),
            [
                "within 0.005 nats",
                "standard deviation of 0.123 over seeds",
                "lowest loss is 2 octaves below the base's best learning rate.",
            ],
        ),
        (
            noted_case(
                "width",
                "char_gpt_pre",
                "AdamW",
                base=(4.0, 2.0, 2.1, 2.2),
                plain=(5.0, 4.0, 3.0, 3.5),
                advised=(3.0, 2.9, 2.95, 3.1),
            ),
            ["the advised loss is 2.900 and the plain one 4.000, with 3.000 at the plain model's"],
        ),
        (
            noted_case("batch_size", "char_gpt_pre", "Adam", base=(2.0011, 2.0, 2.5, 3.0)),
            [
                "at its best learning rate and 1 octave above it are within 0.002 nats",
                "counted from the latter, the shift is +1 in whole octaves.",
            ],
        ),
    ],
    ids=["narrow optimum", "noisy optimum", "wide, long", "larger batch"],
)
def test_a_note_shows_the_figures_of_its_case(case: dict[str, Any], texts: list[str]) -> None:
    note = note_on(case)
    assert note is not None
    assert [text for text in texts if text not in note] == []


def test_other_cases_and_quick_runs_have_no_note() -> None:
    case = noted_case("width", "conv_net", "SGD", base=(4.0, 2.0, 2.05, 1.99))
    assert note_on(case) is not None
    assert note_on({**case, "seeds": [0]}) is None
    assert note_on({**case, "optimizer": "Muon"}) is None


def test_every_note_is_on_a_case_of_the_benchmark() -> None:
    assert set(NOTES) <= {(case.axis, case.model, case.optimizer) for case in CASES}
