"""Complete recordings without a framework: which steps are measured, and what a profile has."""

from __future__ import annotations

import numpy as np
import pytest

from fslr import AttachError, MeasurementError, Provenance
from fslr.training.events import Listeners
from fslr.training.recording import Recording
from tests.unit.training.numbers_runs import BASE, LAYOUT, recording, steps_of
from tests.unit.training.numbers_training import NumbersTraining


def test_a_recording_becomes_a_profile() -> None:
    kept = recording()
    NumbersTraining(BASE, schedule=lambda step: 0.01 / (1 + step)).train(kept, 10)
    content = kept.profile(Provenance("numbers", width=4, loss_name="none"))
    assert [point.step for point in content.points] == [0, 3, 6, 9]
    for point in content.points:
        assert list(point.unit_rates) == pytest.approx(BASE)
        assert point.learning_rate == pytest.approx(0.01 / (1 + point.step))
    assert (content.total_steps, content.base_learning_rate) == (10, 0.01)
    assert content.provenance.optimizer == "SGD"
    assert (content.provenance.width, content.provenance.loss_name) == (4, "none")
    assert content.layout == LAYOUT


def test_a_recording_measures_at_the_steps_of_an_interval_function() -> None:
    kept = Recording(
        LAYOUT,
        optimizer="SGD",
        every=lambda step: 1 if step < 2 else 5,
        listeners=Listeners([]),
    )
    NumbersTraining(BASE).train(kept, 14)
    points = kept.profile(Provenance("numbers")).points
    assert [point.step for point in points] == [0, 1, 2, 7, 12]


def test_a_recording_with_a_dense_start_adds_steps_to_the_regular_ones() -> None:
    kept = recording(every=10, dense_start_steps=16)
    training = NumbersTraining(BASE)
    training.train(kept, 7)
    resumed = recording(every=10, dense_start_steps=16)
    resumed.load_state_dict(kept.state_dict())
    training.train(resumed, 34)
    assert steps_of(resumed) == [0, 1, 2, 4, 8, 10, 20, 30, 40]
    with pytest.raises(AttachError, match=r"dense_start_steps is -1; use 0 for no dense start"):
        recording(dense_start_steps=-1)


def test_a_recording_measures_densely_while_a_group_that_steps_has_the_rate_zero() -> None:
    kept, training = recording(every=25), NumbersTraining((1.0, 0.0, 2.0, 0.5))
    training.train(kept, 3)
    training.sensitivities = np.array(BASE)
    training.train(kept, 50)
    assert steps_of(kept) == [0, 1, 2, 4, 25, 50]
    # A group that is not trained moves nothing, and is not waited for.
    kept, training = recording(every=25), NumbersTraining((1.0, 0.0, 2.0, 0.5))
    training.scaler.learning_rates = lambda: [0.01, 0.0, 0.01, 0.01]  # type: ignore[method-assign]
    with np.errstate(divide="ignore", invalid="ignore"):
        training.train(kept, 30)
    assert steps_of(kept) == [0, 25]


def test_a_recording_without_measurements_has_no_profile() -> None:
    with pytest.raises(MeasurementError, match="no step was measured, so there is no profile"):
        recording().profile(Provenance("numbers"))
    with pytest.raises(AttachError, match=r"every is 0; measure every step \(1\) or less often"):
        recording(every=0)


def test_a_resumed_recording_equals_an_uninterrupted_one() -> None:
    whole, first, second = recording(), recording(), recording()
    NumbersTraining(BASE).train(whole, 12)
    training = NumbersTraining(BASE)
    training.train(first, 5)
    second.load_state_dict(first.state_dict())
    training.train(second, 7)
    assert second.state_dict() == whole.state_dict()
