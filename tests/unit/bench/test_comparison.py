"""Comparison of figures: what got worse is reported, noise is not, and both directions agree."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.comparing.judging import Comparison, Verdict, compare
from benchmarks.comparing.kinds import KINDS, Better, kind_of
from benchmarks.comparing.reading import figures_of
from benchmarks.report.paths import FIGURES
from benchmarks.report.stored import load_figures
from tests.results import (
    PROVENANCE,
    ablations,
    case,
    ideas,
    practice,
    transfer,
    web,
    write,
)

_STORED = Path(__file__).parents[3] / FIGURES
_MADE_UP = {
    "transfer": transfer(),
    "ablations": ablations(),
    "ideas": ideas(),
    "practice": practice(),
    "web": web(),
}
_FILES = {**load_figures(_STORED), **_MADE_UP}
_ALL = {**_FILES, **{f"stored {name}": found for name, found in load_figures(_STORED).items()}}
_Change = Callable[[dict[str, Any]], None]


def _changed(name: str, change: _Change) -> tuple[dict[str, Any], dict[str, Any]]:
    new = copy.deepcopy(_FILES[name])
    change(new)
    return _FILES[name], new


def _named(found: Comparison, verdict: Verdict) -> list[str]:
    return [change.path for change in found.changes if change.verdict is verdict]


def _verdicts(found: Comparison) -> set[Verdict]:
    return {change.verdict for change in found.changes}


def _run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", sorted(_ALL))
def test_a_file_equals_itself(name: str) -> None:
    found = compare(_ALL[name], _ALL[name])
    assert _verdicts(found) == {Verdict.WITHIN_NOISE}
    assert found.notes == []


@pytest.mark.parametrize("name", sorted(_ALL))
def test_every_figure_of_a_file_has_a_kind(name: str) -> None:
    figures = figures_of(_ALL[name])
    numbers = [path for path, figure in figures.items() if figure.text is None]
    assert [path for path in numbers if kind_of(path) is None] == []
    guarded = {Better.LOWER, Better.HIGHER, Better.NEARER_ZERO}
    kinds = [kind_of(path) for path in numbers]
    assert any(kind is not None and kind.better in guarded for kind in kinds)


def _set(*keys: str | int, times: float = 1.0, plus: float = 0.0) -> _Change:
    def change(content: Any) -> None:
        *way, last = keys
        for key in way:
            content = content[key]
        content[last] = content[last] * times + plus

    return change


@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        (
            "estimator",
            _set("models", "char_gpt", "per_example", "rmse", times=1.2),
            "models/char_gpt/per_example/rmse",
        ),
        (
            "estimator",
            lambda content: content["models"]["conv_net"]["per_example"].update(worst_bias=-0.9),
            "models/conv_net/per_example/worst_bias",
        ),
        ("overhead", _set("ours", "overhead", plus=0.02), "ours/overhead"),
        (
            "scaling",
            _set("measuring", 0, "step_ratio", times=1.3),
            "measuring/8, 128, 36/step_ratio",
        ),
        (
            "scaling",
            _set("stepping", 0, "split_ms", times=1.5),
            "stepping/for-loop, 50/split_ms",
        ),
        ("registry", _set("list_ratio", times=1.2), "list_ratio"),
        ("registry", _set("large_profile", "bytes", times=1.2), "large_profile/bytes"),
        ("rpc", _set("stream", "lost", plus=1), "stream/lost"),
        ("rpc", _set("stream", "per_second", times=0.6), "stream/per_second"),
        ("rpc", _set("groups", "1000", times=0.5), "groups/1000"),
        ("demo", _set("advised_loss", plus=0.1), "advised_loss"),
        ("practice", _set("harmed", plus=1), "harmed"),
        ("practice", _set("rows", 0, "regret", plus=0.05), "rows/gpt2-tied/regret"),
        ("demo", _set("seconds", times=1.5), "seconds"),
        ("transfer", _set("within_one_octave", plus=-0.1), "within_one_octave"),
        (
            "transfer",
            _set("cases", 1, "shift", plus=-2),
            "cases/width, char GPT, Adam, hybrid_standard/shift",
        ),
        (
            "transfer",
            _set("cases", 3, "octaves", "loss", plus=0.1),
            "cases/width, ResMLP, Adam, hybrid_standard/octaves/loss",
        ),
        (
            "ablations",
            _set("ablations", 0, "rows", 1, "extra_cost_percent", plus=3),
            "ablations/How often?/rows/100, default/extra_cost_percent",
        ),
        ("ideas", _set("ideas", 0, "regret_with", plus=0.05), "ideas/total rate/regret_with"),
    ],
)
def test_only_the_figure_that_got_worse_is_reported(name: str, change: _Change, path: str) -> None:
    old, new = _changed(name, change)
    found = compare(old, new)
    assert _named(found, Verdict.WORSE) == [path]
    assert _verdicts(found) == {Verdict.WORSE, Verdict.WITHIN_NOISE}
    assert _named(compare(new, old), Verdict.BETTER) == [path]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("estimator", _set("models", "char_gpt", "per_example", "rmse", times=1.08)),
        ("scaling", _set("measuring", 0, "measurement_ms", times=1.2)),
        ("registry", _set("get_ratio", times=0.93)),
        ("rpc", _set("stream", "per_second", times=0.85)),
        ("transfer", _set("cases", 1, "shift", plus=0.9)),
        ("transfer", _set("cases", 3, "octaves", "loss", plus=0.004)),
        ("demo", _set("gain", plus=-0.03)),
    ],
)
def test_a_change_within_noise_is_not_reported(name: str, change: _Change) -> None:
    assert _verdicts(compare(*_changed(name, change))) == {Verdict.WITHIN_NOISE}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("transfer", _set("cases", 0, "regret", plus=0.5)),  # of the standard method
        ("ablations", _set("ablations", 0, "rows", 2, "regret", plus=0.5)),  # not a default
    ],
)
def test_changes_of_alternatives_and_of_other_settings_are_not_judged(
    name: str, change: _Change
) -> None:
    assert _verdicts(compare(*_changed(name, change))) == {Verdict.MOVED, Verdict.WITHIN_NOISE}


def test_the_spread_of_a_figure_is_its_noise() -> None:
    """With three seeds and a deviation of 0.01, 0.03 nats are not significant at 1%."""
    noisy = _set("cases", 1, "octaves", "spread", "loss", times=0.0, plus=0.01)
    _, old = _changed("transfer", noisy)
    new = copy.deepcopy(old)
    _set("cases", 1, "octaves", "loss", plus=0.03)(new)
    assert _verdicts(compare(old, new)) == {Verdict.WITHIN_NOISE}
    figure = figures_of(old)["cases", "width, char GPT, Adam, hybrid_standard", "octaves", "loss"]
    assert (figure.deviation, figure.seeds) == (0.01, 3)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(_set("base_loss", plus=0.3), Verdict.MOVED), (_set("plain_seconds", times=3), Verdict.MOVED)],
)
def test_a_changed_baseline_is_shown_but_not_judged(change: _Change, verdict: Verdict) -> None:
    found = compare(*_changed("demo", change))
    assert _verdicts(found) == {verdict, Verdict.WITHIN_NOISE}


def _throughput(ratio: float, low: float, high: float) -> dict[str, Any]:
    return {"stream": {"throughput_ratio": ratio, "throughput_spread": [low, high]}, **PROVENANCE}


def test_ranges_over_rounds_decide_if_they_are_known() -> None:
    old = _throughput(0.41, 0.37, 0.64)
    path = ["stream/throughput_ratio"]
    assert _named(compare(old, _throughput(0.30, 0.28, 0.33)), Verdict.WORSE) == path
    assert _named(compare(old, _throughput(0.30, 0.28, 0.45)), Verdict.WORSE) == []
    assert _named(compare(old, _throughput(0.38, 0.38, 0.39)), Verdict.WORSE) == []
    assert _named(compare(old, _throughput(0.70, 0.66, 0.72)), Verdict.BETTER) == path
    exact = _throughput(0.41, 0.41, 0.41)
    assert (
        _named(compare(exact, _throughput(0.405, 0.405, 0.405)), Verdict.WORSE) == []
    )  # too small


def _with_loss(loss: float, deviation: float, seeds: int | list[int]) -> dict[str, Any]:
    _, one = case("width")["methods"]
    one["octaves"] |= {"loss": loss, "seeds": seeds, "spread": {"loss": deviation}}
    return {**transfer(), "cases": [one]}


def _loss(old: dict[str, Any], new: dict[str, Any]) -> Verdict:
    path = "cases/width, char GPT, Adam, hybrid_standard/octaves/loss"
    return next(c.verdict for c in compare(old, new).changes if c.path == path)


def test_the_spread_over_seeds_decides_if_it_is_known() -> None:
    old = _with_loss(2.0, 0.05, 3)
    assert _loss(old, _with_loss(2.1, 0.05, 3)) is Verdict.WITHIN_NOISE
    assert _loss(old, _with_loss(2.4, 0.05, 3)) is Verdict.WORSE
    assert _loss(old, _with_loss(1.6, 0.05, [0, 1, 2])) is Verdict.BETTER
    exact = _with_loss(2.0, 0.001, 3)
    assert _loss(exact, _with_loss(2.01, 0.001, 3)) is Verdict.WORSE
    very_exact = _with_loss(2.0, 1e-5, 3)
    assert (
        _loss(very_exact, _with_loss(2.004, 1e-5, 3)) is Verdict.WITHIN_NOISE
    )  # significant, but too small


def test_the_tolerance_decides_with_a_single_seed() -> None:
    assert _loss(_with_loss(2.0, 0.001, 1), _with_loss(2.015, 0.001, 1)) is Verdict.WITHIN_NOISE
    assert _loss(_with_loss(2.0, 0.001, 1), _with_loss(2.025, 0.001, 1)) is Verdict.WORSE


def test_p_values_are_those_of_welch_s_test() -> None:
    found = compare(_with_loss(2.0, 0.05, 3), _with_loss(2.1, 0.02, 5))
    (why,) = [c.why for c in found.changes if c.path.endswith("/octaves/loss")]
    expected = stats.ttest_ind_from_stats(2.0, 0.05, 3, 2.1, 0.02, 5, equal_var=False).pvalue
    assert why == f"p = {expected:.2g} over seeds"


def test_a_training_that_newly_diverges_is_worse() -> None:
    old, new = _changed("transfer", lambda content: content["cases"][1].update(regret=None))
    path = ["cases/width, char GPT, Adam, hybrid_standard/regret"]
    assert _named(compare(old, new), Verdict.WORSE) == path
    assert _named(compare(new, old), Verdict.BETTER) == path
    new["cases"][1]["regret"] = math.inf
    assert _named(compare(old, new), Verdict.WORSE) == path


@pytest.mark.parametrize(
    "changed",
    [
        {"machine": {**PROVENANCE["machine"], "cpu": "Different"}},
        {"machine": {**PROVENANCE["machine"], "accelerator": "A GPU"}},
        {"versions": {**PROVENANCE["versions"], "torch": "3.0.0"}},
        {"threads": 4},
        {"machine": None},
    ],
)
def test_ratios_are_compared_between_machines_and_times_are_not(changed: dict[str, Any]) -> None:
    old = {"get_ratio": 1.0, "large_profile": {"register_s": 1.0, "bytes": 10}, **PROVENANCE}
    new = {**old, "get_ratio": 1.5, "large_profile": {"register_s": 9.0, "bytes": 10}, **changed}
    found = compare(old, new)
    assert _named(found, Verdict.WORSE) == ["get_ratio"]
    assert _named(found, Verdict.NOT_COMPARED) == ["large_profile/register_s"]
    assert len(found.notes) == 1
    assert "times are not compared" in found.notes[0]


def test_times_of_different_versions_of_ours_are_compared() -> None:
    old = {"large_profile": {"register_s": 1.0}, **PROVENANCE}
    new = {**old, "large_profile": {"register_s": 2.0}, "commit": "1" * 40}
    new["versions"] = {**PROVENANCE["versions"], "fslr-advisor": "0.2.0"}
    assert _named(compare(old, new), Verdict.WORSE) == ["large_profile/register_s"]


def test_figures_with_different_settings_are_not_compared() -> None:
    found = compare(*_changed("overhead", _set("steps", times=0.5)))
    assert _verdicts(found) == {Verdict.NOT_COMPARED}
    assert found.notes == ["different setting, so its figures are not compared: steps: 600 -> 300"]
    old, new = _changed("transfer", lambda content: content["cases"][1].update(big="width 64"))
    new["cases"][1]["regret"] = 5.0
    new["cases"][3]["regret"] = 5.0
    path = ["cases/width, ResMLP, Adam, hybrid_standard/regret"]
    assert _named(compare(old, new), Verdict.WORSE) == path


def test_a_different_command_is_noted() -> None:
    one, two = "python -m benchmarks registry", "python -m benchmarks registry --rounds 10"
    old = {"get_ratio": 1.0, **PROVENANCE, "command": one}
    found = compare(old, {**old, "command": two})
    assert found.notes == [f"different commands: {one} -> {two}"]


def test_a_figure_in_only_one_file_is_new_or_gone() -> None:
    old, new = _changed("transfer", lambda content: content["cases"].pop(1))
    gone = _named(compare(old, new), Verdict.GONE)
    assert "cases/width, char GPT, Adam, hybrid_standard/regret" in gone
    assert gone == _named(compare(new, old), Verdict.NEW)
    assert _named(compare(old, new), Verdict.WORSE) == []


_LEAVES = sorted({pattern.rpartition("/")[2].replace("*", "x") for pattern, _ in KINDS})
_NUMBERS = st.one_of(
    st.none(), st.integers(-5, 5), st.floats(-1e6, 1e6), st.sampled_from([math.inf, math.nan])
)
_OBJECTS = st.dictionaries(st.sampled_from(_LEAVES), _NUMBERS, max_size=6)
_CASES = st.builds(
    lambda content, spread, seeds, name: {
        **content,
        "spread": spread,
        "seeds": seeds,
        "name": name,
    },
    _OBJECTS,
    st.dictionaries(st.sampled_from(_LEAVES), st.floats(0, 1e3), max_size=4),
    st.integers(1, 4),
    st.sampled_from("ab"),
)
_CONTENTS = st.builds(
    lambda top, cases, elsewhere: {**top, "cases": cases, **PROVENANCE, "threads": elsewhere},
    _OBJECTS,
    st.lists(_CASES, max_size=3),
    st.sampled_from([None, 1, 2]),
)


@given(_CONTENTS)
def test_any_content_equals_itself(content: dict[str, Any]) -> None:
    assert _verdicts(compare(content, content)) <= {Verdict.WITHIN_NOISE}


_EXCHANGED = {
    Verdict.WORSE: Verdict.BETTER,
    Verdict.BETTER: Verdict.WORSE,
    Verdict.NEW: Verdict.GONE,
    Verdict.GONE: Verdict.NEW,
}


@given(_CONTENTS, _CONTENTS)
def test_exchanging_the_files_exchanges_better_and_worse(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    forward = {change.path: change.verdict for change in compare(one, two).changes}
    backward = {change.path: change.verdict for change in compare(two, one).changes}
    assert backward == {path: _EXCHANGED.get(verdict, verdict) for path, verdict in forward.items()}


@given(st.floats(0.01, 100), st.floats(0.85, 1.15))
def test_exchanging_works_at_the_edge_of_the_tolerance(ratio: float, factor: float) -> None:
    one = {"get_ratio": ratio, **PROVENANCE}
    two = {"get_ratio": ratio * factor, **PROVENANCE}
    (forward,), (backward,) = compare(one, two).changes, compare(two, one).changes
    assert backward.verdict is _EXCHANGED.get(forward.verdict, forward.verdict)


def test_the_sign_of_a_figure_that_is_best_at_zero_does_not_matter() -> None:
    one = {"a": {"shift": 2, "worst_bias": -0.2}, **PROVENANCE}
    two = {"a": {"shift": -2, "worst_bias": 0.2}, **PROVENANCE}
    assert _verdicts(compare(one, two)) == {Verdict.WITHIN_NOISE}


def test_the_exit_status_is_1_only_if_a_figure_got_worse(
    tmp_path: Path,
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("overhead", "registry", "practice"):
        shutil.copy(_STORED / f"{name}.json", old)
    shutil.copytree(old, tmp_path / "new")
    status, output = _run(old, tmp_path / "new")
    assert (status, output.count("0 worse, 0 better")) == (0, 1)
    content = json.loads((tmp_path / "new" / "overhead.json").read_text("utf-8"))
    content["ours"]["overhead"] += 0.05
    write(tmp_path / "new", overhead=content, ideas=ideas())
    (tmp_path / "new" / "registry.json").unlink()
    status, output = _run(old, tmp_path / "new")
    assert status == 1
    assert "overhead: ours/overhead" in output
    status, output = _run(old, tmp_path / "new", "--json")
    assert status == 1
    found = json.loads(output)
    assert [each["figure"] for each in found["worse"]] == ["ours/overhead"]
    assert {each["file"] for each in found["new"]} == {"ideas"}
    assert {each["file"] for each in found["gone"]} == {"registry"}


def test_files_with_different_names_are_compared(tmp_path: Path) -> None:
    write(tmp_path, yesterday=ideas(), today=ideas())
    status, output = _run(tmp_path / "yesterday.json", tmp_path / "today.json")
    assert (status, "0 worse" in output) == (0, True)


def test_invalid_arguments_are_rejected_with_a_remedy(tmp_path: Path) -> None:
    write(tmp_path / "some", ideas=ideas())
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("no figures")
    (tmp_path / "list.json").write_text("[]")
    for arguments, message in (
        ((tmp_path / "some", tmp_path / "text.json"), "give two files or two folders"),
        ((tmp_path / "empty", tmp_path / "empty"), "has a .json file"),
        ((tmp_path / "text.json", tmp_path / "text.json"), "is not valid JSON"),
        ((tmp_path / "list.json", tmp_path / "list.json"), "is not a JSON object"),
    ):
        status, output = _run(*arguments)
        assert status == 2
        assert message in " ".join(output.replace("│", " ").split())
