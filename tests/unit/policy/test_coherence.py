"""Coherences: recorded correlations of pairs become one number per role."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from advisor.policy import DepthRule, InvalidValueError, Layout, map_layout, role_coherences
from advisor.policy.parameter_names import parse_name
from advisor.wire import content_from_proto
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2
from fslr.training.correlations import alike_pairs, correlations
from tests.training_jobs import corpus, plan, recorded, wide

WORDS = st.sampled_from(["blocks", "layers", "mlp", "attn", "0", "1", "3", "10", "weight", "h2"])
NAMES = st.lists(WORDS, min_size=1, max_size=5).map(".".join)


@given(st.lists(NAMES, min_size=2, max_size=12, unique=True))
def test_every_pair_of_groups_with_one_role_is_kept(names: list[str]) -> None:
    kept = set(alike_pairs(names))
    roles = [parse_name(name).role for name in names]
    for j in range(len(names)):
        for i in range(j):
            assert (roles[i] != roles[j]) or (i, j) in kept


def test_no_pairs_are_kept_if_too_many_groups_share_a_role() -> None:
    assert len(alike_pairs([f"experts.{i}.weight" for i in range(64)])) == 64 * 63 / 2
    assert alike_pairs([f"experts.{i}.weight" for i in range(65)]) == []


def test_correlations_are_bounded_and_zero_for_groups_without_movement() -> None:
    gram = np.array([[4.0, 3.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert correlations(gram, [(0, 1), (0, 2)]) == [1.0, 0.0]
    assert correlations(gram, []) == []


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_a_coherence_gives_the_size_of_the_total_change(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    changes = rng.normal(size=(blocks + 1, 7)) * rng.uniform(0.1, 10, (blocks + 1, 1))
    gram = changes @ changes.T
    layout = Layout.of_names([f"blocks.{i}.weight" for i in range(blocks)] + ["head.weight"])
    pairs = [(i, j) for j in range(blocks + 1) for i in range(j)]
    norms = np.sqrt(np.diag(gram))
    pairwise = np.array([[gram[i, j] / norms[i] / norms[j] for i, j in pairs]], np.float32)
    found = role_coherences(layout, pairs, pairwise, norms[None].astype(np.float32))
    assert found.shape == (1, 2)
    rho, r = float(found[0, 0]), norms[:blocks]
    whole = (1 - rho) * np.square(r).sum() + rho * r.sum() ** 2
    # Relative to the largest possible size: if changes cancel out, only rounding errors remain.
    expected = np.square(changes[:blocks].sum(axis=0)).sum()
    assert whole == pytest.approx(expected, rel=1e-4, abs=1e-5 * r.sum() ** 2)
    assert found[0, 1] == 0  # one block


def test_blocks_without_pairs_count_as_coherent_and_zero_rates_have_a_mean() -> None:
    layout = Layout.of_names(["a.0.m.w", "a.1.m.w", "b.0.m.w", "b.1.m.w", "b.2.m.w"])
    pairs = [(2, 3), (3, 4), (0, 2)]
    pairwise = np.array([[0.2, 0.6, 0.9]], np.float32)
    found = role_coherences(layout, pairs, pairwise, np.zeros((1, 5), np.float32))
    assert found.tolist() == [pytest.approx([1.0, 0.4])]


@pytest.mark.parametrize(
    ("pair", "correlation", "message"),
    [
        ((0, 0), 0.5, r"correlated_groups\[0\]: 0 and 0 are not two groups of a layout of 2"),
        ((0, 2), 0.5, r"correlated_groups\[0\]: 0 and 2 are not two groups"),
        ((-1, 0), 0.5, r"correlated_groups\[0\]: -1 and 0 are not two groups"),
        ((0, 1), 1.5, r"points\[0\]\.correlations\[0\]: 1\.5 is not a number in \[-1, 1\]"),
        ((0, 1), float("nan"), r"points\[0\]\.correlations\[0\]: nan is not a number"),
    ],
)
def test_invalid_pairs_are_refused(pair: tuple[int, int], correlation: float, message: str) -> None:
    layout = Layout.of_names(["a.0.w", "a.1.w"])
    with pytest.raises(InvalidValueError, match=message):
        role_coherences(
            layout, [pair], np.array([[correlation]], np.float32), np.ones((1, 2), np.float32)
        )


def _content(**point: object) -> profile_pb2.ProfileContent:
    return profile_pb2.ProfileContent(
        layout=layout_pb2.Layout(groups=[layout_pb2.Group(name=n) for n in ("a.0.m.w", "a.1.m.w")]),
        points=[profile_pb2.ProfilePoint(unit_rates=[1.0, 1.0], **point)],  # type: ignore[arg-type]
        correlated_groups=[profile_pb2.GroupPair(first=0, second=1)],
        base_learning_rate=0.1,
    )


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({}, r"points\[0\]\.correlations: 0 entries, but there are 1 correlated_groups"),
        ({"correlations": [0.5], "coherences": [0.5]}, r"coherences: given together with"),
    ],
)
def test_a_profile_with_duplicate_or_incomplete_coherences_is_refused(
    point: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        content_from_proto(_content(**point))


def test_the_measured_rule_accepts_a_recorded_profile() -> None:
    base = recorded(blocks=3)
    assert base.correlated_groups
    content = content_from_proto(base)
    assert content.coherences is not None
    roles = content.header.layout.roles
    of_blocks = [i for i, role in enumerate(roles) if role.startswith("blocks.*")]
    # The changes of the blocks of one role are neither equal nor opposite.
    assert 0.05 < float(np.abs(content.coherences[:, of_blocks]).mean()) < 0.95

    deeper = [name.replace("blocks.1", f"blocks.{i}") for i in range(6) for name in _names(base)]
    layout = layout_pb2.Layout(
        groups=[layout_pb2.Group(name=name) for name in dict.fromkeys(deeper)]
    )
    opening = pb.RunOpening(
        layout=layout,
        profile="projects/default/profiles/x",
        policy=policy_pb2.Policy(depth_rule=policy_pb2.DEPTH_RULE_MEASURED),
    )
    measurement = pb.Measurement(unit_rates=[1.0] * len(layout.groups))
    answer = InProcessAdvisor(base).open_run(opening).recommend(measurement)
    mapping = map_layout(
        Layout.of_names([g.name for g in layout.groups]), content.header.layout, DepthRule.MEASURED
    )
    rates, rhos = content.unit_rates[0].astype(float), content.coherences[0].astype(float)
    assert list(answer.reference_unit_rates) == pytest.approx(
        mapping.references(rates, rhos), rel=1e-5
    )
    up = [i for i, g in enumerate(layout.groups) if g.name.endswith("up.weight")]
    own = [i for i, g in enumerate(content.header.layout.groups) if g.name.endswith("up.weight")]
    rho = max(float(rhos[roles.index("blocks.*.up.weight")]), 0.0)

    def size(r: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(np.sqrt((1 - rho) * np.square(r).sum() + rho * r.sum() ** 2))

    assert size(np.array(answer.reference_unit_rates)[up]) == pytest.approx(
        size(rates[own]), rel=1e-5
    )


def _names(content: profile_pb2.ProfileContent) -> list[str]:
    return [group.name for group in content.layout.groups]


def test_recorded_correlations_equal_those_of_the_gram_matrix() -> None:
    model, optimizer, backward = wide()
    with fslr.torch.Recorder(model, optimizer, every=1) as recorder:
        backward()
        optimizer.step()
        content = recorder.profile("x")
        estimate = recorder.estimate
    assert estimate is not None
    assert estimate.gram is not None
    pairs = [(pair.first, pair.second) for pair in content.correlated_groups]
    rates = np.array(estimate.unit_rates)
    for (i, j), correlation in zip(pairs, content.points[0].correlations, strict=True):
        assert correlation * rates[i] * rates[j] == pytest.approx(
            float(estimate.gram[i, j]), rel=1e-4, abs=1e-6 * rates[i] * rates[j]
        )


def test_an_estimator_without_a_gram_matrix_records_no_correlations() -> None:
    model, optimizer, backward = wide()
    options = fslr.torch.MeasuringOptions(estimator="kronecker")
    with fslr.torch.Recorder(model, optimizer, every=1, options=options) as recorder:
        backward()
        optimizer.step()
        content = recorder.profile("x")
    assert not content.correlated_groups
    assert content_from_proto(content).coherences is None


def test_recorded_coherences_converge_to_those_of_the_exact_changes() -> None:
    """Against forward-mode derivatives, within 5 standard errors of 64 measurements."""
    from torch.func import functional_call, jvp

    from benchmarks.char_gpt import CharGPT

    torch.manual_seed(0)
    model = CharGPT(plan(width=16, blocks=3).config).double()
    names = [name for name, _ in model.named_parameters()]
    group = [name for name in names if name.endswith("up.weight")]
    inputs = torch.randint(0, len(corpus().vocabulary), (8, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    kept: list[float] = []
    for seed in range(64):
        model.load_state_dict(before)
        options = fslr.torch.MeasuringOptions(seed=seed)
        with fslr.torch.Recorder(model, optimizer, every=1, options=options) as recorder:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                model(inputs).flatten(0, 1), inputs.flatten()
            ).backward()
            optimizer.step()
            content = content_from_proto(recorder.profile("x"))
        assert content.coherences is not None
        role = content.header.layout.roles.index("blocks.*.up.weight")
        kept.append(float(content.coherences[0, role]))
    after = {n: p.detach().clone() for n, p in model.named_parameters()}
    changes = [
        jvp(
            lambda w, name=name: functional_call(model, {**before, name: w}, (inputs,)),
            (before[name],),
            (after[name] - before[name],),
        )[1].flatten()
        for name in group
    ]
    r = torch.stack([change.norm() for change in changes])
    whole = torch.stack(changes).sum(0).square().sum()
    exact = float((whole - r.square().sum()) / (r.sum().square() - r.square().sum()))
    error = float(np.std(kept, ddof=1)) / 8
    assert np.mean(kept) == pytest.approx(exact, abs=5 * error + 0.01)  # a ratio of estimates
    assert 5 * error + 0.01 < 0.15
