"""The practice benchmark: setups, models, trainings, what is kept of them, and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from advisor.recipes import shipped_recipe
from benchmarks import code_version
from benchmarks.__main__ import app
from benchmarks.practice import battery, training
from benchmarks.practice.battery import Battery, Plan, RowTrainings, plan_row
from benchmarks.practice.figures import NOISE_FLOOR, is_above, noise, record, summary
from benchmarks.practice.model import PracticeGPT
from benchmarks.practice.procedures import build_optimizer, schedule_factor
from benchmarks.practice.setups import SETUPS, Architecture, Procedure, Setup, Size
from benchmarks.practice.store import Store
from benchmarks.practice.training import Advice, Trained, Training, run_training
from fslr.advisor.v1 import policy_pb2

TINY = Procedure(steps=4, accumulation=2, micro_batch=8, context=16)
SETUP = Setup("tiny", procedure=TINY, base=Size(16, 1), big=Size(64, 1))
TRAINING = Training(SETUP.architecture, TINY, SETUP.base, 1.0, -6, 0)


@pytest.fixture(autouse=True)
def _short_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_VALIDATION_SEQUENCES", 64)


def test_setups_are_distinct() -> None:
    assert len({setup.name for setup in SETUPS}) == len(SETUPS) >= 14
    assert len({replace(setup, name="") for setup in SETUPS}) == len(SETUPS)


def test_setups_cover_what_people_use() -> None:
    def values(part: str, name: str) -> set[object]:
        return {getattr(getattr(setup, part), name) for setup in SETUPS}

    assert values("architecture", "initial") == {"pytorch", "gpt2", "zero_projections", "mup"}
    for name in ("tied", "norm", "feed_forward", "positions", "placement"):
        assert len(values("architecture", name)) == 2, name
    assert values("procedure", "schedule") == {"cosine", "wsd", "constant"}
    assert values("procedure", "optimizer") == {"AdamW", "Muon"}
    assert values("procedure", "weight_decay") == {0.0, 0.1, 0.3}
    assert values("procedure", "clip") == {None, 1.0}
    assert values("procedure", "bf16") == {False, True}
    assert values("procedure", "steps") == {300, 1000, 2000}
    assert {setup.octaves_above for setup in SETUPS} == {0, 1}
    assert {(r.big.width // r.base.width, r.big.blocks // r.base.blocks) for r in SETUPS} == {
        (4, 1),
        (4, 4),
    }


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_each_setup_trains(setup: Setup) -> None:
    short = replace(setup.procedure, steps=2, micro_batch=2, context=8)
    run = Training(setup.architecture, short, setup.base, setup.base_hidden_scale, -7, 0)
    trained = run_training(run)
    assert math.isfinite(trained.loss)
    assert len(trained.losses) == 2


def test_initial_weights_are_those_of_the_setup() -> None:
    def stds(architecture: Architecture, scale: float = 1.0) -> dict[str, float]:
        torch.manual_seed(0)
        model = PracticeGPT(architecture, Size(128, 8), 98, 32, scale)
        return {n: p.std().item() for n, p in model.named_parameters() if p.ndim == 2}

    gpt2 = stds(Architecture(tied=False))
    assert gpt2["characters.weight"] == pytest.approx(0.02, rel=0.05)
    assert gpt2["blocks.3.attention.qkv.weight"] == pytest.approx(0.02, rel=0.05)
    assert gpt2["blocks.3.attention.projection.weight"] == pytest.approx(0.005, rel=0.05)
    doubled = stds(Architecture(tied=False), scale=2.0)
    assert doubled["blocks.3.feed_forward.up.weight"] == pytest.approx(0.04, rel=0.05)
    assert doubled["head.weight"] == pytest.approx(0.02, rel=0.05)
    zero = stds(Architecture(initial="zero_projections"))
    assert zero["blocks.7.feed_forward.projection.weight"] == 0
    mup = stds(Architecture(initial="mup", tied=False))
    assert mup["blocks.0.feed_forward.projection.weight"] == pytest.approx(512**-0.5, rel=0.05)
    assert mup["head.weight"] == 0


def test_a_tied_model_has_one_weight_for_characters_and_head() -> None:
    tied, untied = (
        PracticeGPT(Architecture(tied=tied), Size(16, 1), 98, 8) for tied in (True, False)
    )
    assert tied.head.weight is tied.characters.weight
    assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1


def test_rotary_positions_distinguish_the_order_of_characters() -> None:
    torch.manual_seed(0)
    model = PracticeGPT(Architecture("pytorch", positions="rotary"), Size(16, 1), 98, 8)
    one, other = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[2, 1, 3]]))
    assert not torch.allclose(one[0, -1], other[0, -1], atol=1e-4)


def test_only_matrices_decay() -> None:
    model = PracticeGPT(Architecture(), Size(16, 1), 98, 8)
    for optimizer in ("AdamW", "Muon"):
        built = build_optimizer(Procedure(optimizer=optimizer), model, 0.01)
        decayed = {
            id(parameter)
            for group in built.param_groups
            if group["weight_decay"] == 0.1
            for parameter in group["params"]
        }
        assert decayed == {id(p) for p in model.parameters() if p.ndim == 2}


def test_muon_decays_its_matrices() -> None:
    def weight_after(weight_decay: float) -> torch.Tensor:
        torch.manual_seed(0)
        model = PracticeGPT(Architecture(), Size(16, 1), 98, 8)
        procedure = Procedure(optimizer="Muon", weight_decay=weight_decay)
        built = build_optimizer(procedure, model, 0.5)
        model(torch.tensor([[1, 2, 3]])).square().sum().backward()
        built.step()
        return model.get_parameter("blocks.0.feed_forward.up.weight").detach()

    torch.manual_seed(0)
    before = PracticeGPT(Architecture(), Size(16, 1), 98, 8)
    weight = before.get_parameter("blocks.0.feed_forward.up.weight").detach()
    torch.testing.assert_close(weight_after(0.0) - weight_after(0.1), 0.05 * weight)


def test_schedules_warm_up_and_decay() -> None:
    cosine, wsd, constant = (
        [schedule_factor(Procedure(schedule=name, steps=100), step) for step in range(100)]
        for name in ("cosine", "wsd", "constant")
    )
    assert constant == [1.0] * 100
    for factors in (cosine, wsd):
        assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert cosine[99] == pytest.approx(0.1, abs=0.01)
    assert wsd[79] == 1.0
    assert (wsd[90], wsd[99]) == pytest.approx((0.5, 0.05))


def test_a_training_is_the_same_in_any_process_order_recorded_or_plain() -> None:
    first = run_training(TRAINING)
    run_training(replace(TRAINING, seed=5))
    assert run_training(TRAINING).losses == first.losses
    recorded = run_training(replace(TRAINING, is_recorded=True))
    assert (recorded.losses, recorded.loss) == (first.losses, first.loss)
    assert run_training(replace(TRAINING, seed=5)).losses != first.losses


def test_a_training_that_diverges_has_an_infinite_loss_and_no_profile() -> None:
    trained = run_training(replace(TRAINING, octave=120, is_recorded=True))
    assert trained.loss == math.inf
    assert trained.profile == b""
    assert Trained.from_json(json.loads(json.dumps(trained.to_json(), allow_nan=False))) == trained


def test_an_advised_training_is_reproducible_and_keeps_its_multipliers() -> None:
    procedure = replace(TINY, steps=30)
    base = run_training(replace(TRAINING, procedure=procedure, is_recorded=True))
    advised = replace(TRAINING, procedure=procedure, size=SETUP.big, advice=Advice(base.profile))
    one, two = run_training(advised), run_training(advised)
    assert (one.losses, one.multipliers) == (two.losses, two.multipliers)
    assert [step for step, _multipliers in one.multipliers] == [0, 26]
    assert len(one.groups) == len(one.multipliers[0][1])
    assert one.failures == 0
    assert min(min(each) for _step, each in one.multipliers) < 1
    assert one.losses != run_training(replace(advised, advice=None)).losses


def _never(training: Training) -> Trained:
    raise AssertionError(f"trained again: {training}")


def _trained_here(store: Store, plan: Plan) -> tuple[RowTrainings, list[Training]]:
    """Run a plan in this process; also return what was trained."""
    trained: list[Training] = []
    with ThreadPoolExecutor(1) as pool:
        (row,) = Battery(store, pool, 1, trained.append).run([plan])
    return row, trained


def test_a_row_runs_end_to_end_and_is_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, trained = _trained_here(Store(tmp_path), plan_row(SETUP, [0, 1]))
    assert {len(losses) for losses in row.base.values()} == {2}
    assert set(row.plain) >= {row.octave, row.octave - 1, row.octave - 2}
    assert len(row.advised) == 2
    assert all(math.isfinite(each.loss) for each in row.advised)
    assert len(trained) == len(set(trained)) == len(list(tmp_path.iterdir()))
    found = record(row)
    assert found["advised"] != found["plain_same_lr"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found

    monkeypatch.setattr(battery, "run_training", _never)
    again, trained = _trained_here(Store(tmp_path), plan_row(SETUP, [0, 1]))
    assert record(again) == found
    assert trained == []


def test_another_policy_trains_only_the_advised_model_again() -> None:
    store = Store()
    _trained_here(store, plan_row(SETUP, [0]))
    policy = policy_pb2.Policy(slew_limit=1.5).SerializeToString()
    _row, trained = _trained_here(store, plan_row(SETUP, [0], policy))
    assert [each.advice is not None for each in trained] == [True]


def test_different_trainings_are_not_mixed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(TRAINING, Trained(1.5))
    for other in (
        replace(TRAINING, seed=1),
        replace(TRAINING, octave=-7),
        replace(TRAINING, is_recorded=True),
        replace(TRAINING, hidden_scale=2.0),
        replace(TRAINING, procedure=replace(TINY, weight_decay=0.3)),
        replace(TRAINING, advice=Advice(b"profile")),
    ):
        assert Store(tmp_path).get(other) is None
    assert Store(tmp_path).get(TRAINING) == Trained(1.5)


def test_a_changed_recipe_makes_only_the_trainings_that_follow_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = (policy_pb2.Policy(), policy_pb2.Policy(recipe="mup-adam"))
    trainings = [
        replace(TRAINING, advice=Advice(b"profile", policy.SerializeToString()))
        for policy in policies
    ]
    for each in trainings:
        Store(tmp_path).put(each, Trained(1.5))
    assert [Store(tmp_path).get(each) for each in trainings] == [Trained(1.5)] * 2
    other = shipped_recipe("mup-sgd")
    monkeypatch.setattr(code_version, "shipped_recipe", lambda _: other)
    assert [Store(tmp_path).get(each) for each in trainings] == [Trained(1.5), None]


def test_a_file_of_a_different_training_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).put(TRAINING, Trained(1.5))
    (file,) = tmp_path.iterdir()
    stored = json.loads(file.read_text("utf-8"))
    stored["training"]["seed"] = 7
    file.write_text(json.dumps(stored), "utf-8")
    with pytest.raises(ValueError, match="has the result of a different training; remove it"):
        Store(tmp_path).get(TRAINING)


def _row(
    advised: Sequence[float], *, base: Sequence[float] = (2.0, 2.0), plain: float = 1.9
) -> RowTrainings:
    return RowTrainings(
        SETUP,
        (0, 1),
        -5,
        {-4: [3.0, math.inf], -5: list(base), -6: [2.1, 2.1]},
        {-5: [plain, plain], -6: [1.7, 1.8], -7: [1.8, 1.8]},
        [Trained(loss, multipliers=[(0, [0.5, 3.0])]) for loss in advised],
        10.0,
    )


def test_a_record_has_the_means_the_regret_and_the_worst_seed() -> None:
    found = record(_row([1.6, 1.84]))
    assert (found["recipe"], found["seeds"]) == ("tiny", [0, 1])
    assert (found["base"], found["plain_same_lr"]) == (2.0, 1.9)
    assert found["best_plain"] == pytest.approx(1.75)
    assert found["advised"] == pytest.approx(1.72)
    assert found["regret"] == pytest.approx(-0.03)
    assert found["worst_seed"] == pytest.approx(0.04)
    assert (found["min_multiplier"], found["max_multiplier"]) == (0.5, 3.0)
    assert (found["learning_rate"], found["best_plain_learning_rate"]) == (2**-5, 2**-6)
    assert found["losses"]["base"]["0.0625"] == [3.0, None]
    assert found["at_edge"] == []
    assert found["harmed"] is False
    assert found["definition"] == {k: v for k, v in asdict(SETUP).items() if k != "name"}


@pytest.mark.parametrize(
    ("advised", "harmed"),
    [
        ([1.905, 1.905], False),  # within the floor of the noise
        ([1.92, 1.92], True),
        ([1.8, 2.04], False),  # the seeds differ more than that
        ([math.inf, 1.7], True),
    ],
)
def test_a_run_above_the_plain_one_by_more_than_noise_is_harmed(
    advised: list[float], harmed: bool
) -> None:
    assert record(_row(advised))["harmed"] is harmed


def test_a_run_above_the_base_is_harmed() -> None:
    assert record(_row([2.1, 2.1], plain=2.5))["harmed"] is True
    assert record(_row([1.9, 1.9], plain=2.5))["harmed"] is False


def test_noise_is_two_standard_errors_of_paired_differences() -> None:
    assert noise([0.1, 0.3, 0.5]) == pytest.approx(2 * 0.2 / math.sqrt(3))
    assert noise([0.1, 0.1, 0.1]) == NOISE_FLOOR
    assert noise([0.3]) == NOISE_FLOOR
    assert not is_above([math.inf], [math.inf])
    assert not is_above([1.0], [math.inf])


def test_the_summary_has_the_median_the_worst_and_the_number_of_harmed() -> None:
    rows: list[dict[str, Any]] = [
        {"regret": regret, "harmed": regret > 0.05} for regret in (-0.1, 0.01, 0.2)
    ]
    assert summary(rows) == {"median_regret": 0.01, "worst_regret": 0.2, "harmed": 1}
    diverged = [*rows, {"regret": None, "harmed": True}]
    assert summary(diverged) == {
        "median_regret": pytest.approx(0.105),
        "worst_regret": None,
        "harmed": 2,
    }


@pytest.fixture
def _tiny_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.practice.command.SETUPS", (SETUP,))
    monkeypatch.setattr("benchmarks.practice.command.NAMES", ["tiny"])
    monkeypatch.setattr("benchmarks.practice.command.process_pool", ThreadPoolExecutor)


@pytest.mark.usefixtures("_tiny_setup")
def test_the_command_prints_rows_and_summary_as_json(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"slew_limit": 1.5}', "utf-8")
    arguments = ["practice", "--seeds", "1", "--processes", "1", "--json", "--policy", str(policy)]
    result = CliRunner().invoke(app, [*arguments, "--resume", str(tmp_path / "kept")])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert {"rows", "median_regret", "worst_regret", "harmed", "commit", "machine"} <= set(printed)
    (row,) = printed["rows"]
    assert {
        *("recipe", "seeds", "base", "plain_same_lr", "best_plain", "advised", "regret"),
        *("worst_seed", "max_multiplier"),
    } <= set(row)
    assert printed["median_regret"] == printed["worst_regret"] == row["regret"]
    assert row["max_multiplier"] <= 1.5


def test_a_file_without_rules_and_an_unknown_setup_are_rejected(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"slow_limit": 1.5}', "utf-8")
    refused = CliRunner().invoke(app, ["practice", "--policy", str(policy)])
    assert refused.exit_code == 2
    assert "is not a policy" in " ".join(refused.output.replace("│", " ").split())
    assert CliRunner().invoke(app, ["practice", "--rows", "unknown"]).exit_code == 2
