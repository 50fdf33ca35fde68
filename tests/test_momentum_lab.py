"""The momentum lab says what torch's BatchNorm1d remembers, at every position of its controls."""

from itertools import product
from math import inf, nan

import numpy as np
import pytest
import torch
from reading import numbers_in, plain, spoken
from torch import nn

from normviz import labs
from normviz.labs.momentum import MomentumSetting, batches_of, view_momentum, weights_of
from normviz.plots import Plot

MOMENTA = (None, 0, 0.1, 0.37, 0.5, 1)
SIZES, COUNTS, DRIFTS = (2, 8, 64), (1, 5, 60), (0, 0.5, -0.5)
# Any two of size, count and drift meet in one of these nine.
PLACES = [(SIZES[i], COUNTS[j], DRIFTS[(i + j) % 3]) for i in range(3) for j in range(3)]
RULE = 'role="alert"'

every_momentum = pytest.mark.parametrize("of_new", MOMENTA)
in_both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@pytest.fixture(scope="module")
def plot():
    return Plot(3)


def torch_history(setting):
    """running_mean and running_var of torch's layer, at the start and after each batch."""
    layer = nn.BatchNorm1d(1, momentum=setting.momentum).train(setting.training)
    history = [(0.0, 1.0)]
    for x in batches_of(setting):
        layer(x)
        history.append((layer.running_mean.item(), layer.running_var.item()))
    assert layer.num_batches_tracked == setting.batches * setting.training
    return np.array(history).T


def torch_weights(setting):
    """What the start and each batch weigh, by a layer in which each has a channel of its own."""
    channels = torch.eye(setting.batches + 1, dtype=torch.float64)
    layer = nn.BatchNorm1d(len(channels), momentum=setting.momentum, dtype=torch.float64)
    layer.running_mean.copy_(channels[0])
    for batch in channels[1:]:
        layer.train(setting.training)(batch.expand(2, -1))
    return layer.running_mean.tolist()


def assert_told(words, setting):
    """The words say what torch's layer holds at the end, and what the data have."""
    mean, var = (values[-1] for values in torch_history(setting))
    if not setting.batches:
        assert numbers_in("running_mean is # and running_var is #", words) == [0, 1]
        return
    told = numbers_in(
        "running_mean #, where the data have #; running_var #, where the data have #", words
    )
    wanted = [mean, 3 + setting.drift * setting.batches, var, 4]
    assert told == pytest.approx(wanted, rel=6e-5, abs=1e-6)


def setting_of(lab):
    return MomentumSetting(
        None if lab.average.value else lab.momentum.value,
        lab.batch_size.value,
        lab.batches.value,
        lab.drift.value,
        lab.training.value,
    )


def assert_true_to_torch(lab):
    setting = setting_of(lab)
    assert RULE not in lab.readout.value or not setting.batches
    assert_told(plain(lab.readout.value), setting)


@every_momentum
@in_both_modes
def test_every_curve_every_bar_and_the_words_are_true_to_torch(unseen, plot, of_new, training):
    for size, count, drift in PLACES:
        setting = MomentumSetting(of_new, size, count, drift, training)
        view, data = view_momentum(setting, plot), batches_of(setting)
        assert_told(plain(view.words), setting)
        assert_told(view.pictures[0].text, setting)

        batches = [[x.mean() for x in data], [x.var() for x in data]]
        truths = [3 + drift * np.arange(count + 1), np.full(count + 1, 4)]
        for axes, running, of_batch, truth in zip(
            plot.axes, torch_history(setting), batches, truths, strict=False
        ):
            drawn = {line.get_label(): line for line in axes.lines}
            for name, wanted in {"running": running, "truth": truth}.items():
                np.testing.assert_allclose(drawn[name].get_ydata(), wanted, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(drawn["each batch"].get_ydata(), of_batch, rtol=1e-6)
            assert [*drawn["each batch"].get_xdata()] == [*range(1, count + 1)]
            assert [*drawn["running"].get_xdata()] == [*range(count + 1)]
        (bars,) = plot.axes[2].patches
        heights = bars.get_data().values[::2]
        np.testing.assert_allclose(heights, torch_weights(setting), rtol=1e-9, atol=1e-12)


@every_momentum
def test_before_the_first_batch_the_start_weighs_all(of_new):
    assert weights_of(MomentumSetting(of_new, 8, 0, 0, True)) == {"start": 1}


@every_momentum
@pytest.mark.parametrize("count", [1, 2, 3, 60])
def test_the_words_tell_what_the_start_and_each_batch_weigh(unseen, plot, of_new, count):
    setting = MomentumSetting(of_new, 8, count, 0.1, True)
    words, weights = plain(view_momentum(setting, plot).words), torch_weights(setting)
    assert f"After {count} batch{'es' * (count > 1)}:" in words
    assert f"num_batches_tracked is {count}." in words
    if of_new is None:
        assert "the start nothing" in words
        (each,) = numbers_in("Each batch weighs # %", words)
        assert weights[1:] == pytest.approx([each / 100] * count, rel=0.005)
    else:
        (start,) = numbers_in("The start still weighs # %", words)
        assert weights[0] == pytest.approx(start / 100, abs=0.000051)


def test_a_larger_batch_and_more_of_them_change_no_number():
    whole = torch.stack(batches_of(MomentumSetting(0.1, 64, 60, 0.5, True)))
    assert whole.shape == (60, 64, 1)
    assert len(whole.unique()) > 3800
    for count, size in product((0, 1, 5, 59, 60), (1, 2, 8, 63)):
        for other, training in ((0.1, True), (None, False)):
            some = batches_of(MomentumSetting(other, size, count, 0.5, training))
            assert len(some) == count
            assert all(x.shape == (size, 1) for x in some)
            assert all(torch.equal(x, y[:size]) for x, y in zip(some, whole, strict=False))


@pytest.mark.parametrize("drift", DRIFTS)
def test_the_data_have_the_mean_and_the_variance_that_are_said(drift):
    still, moved = (
        torch.stack(batches_of(MomentumSetting(0.1, 64, 60, d, True))).double() for d in (0, drift)
    )
    count = still.numel()
    assert abs(still.mean() - 3) < 4 * 2 / count**0.5
    assert abs(still.var() - 4) < 4 * 4 * (2 / count) ** 0.5
    steps = drift * torch.arange(1, 61, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(moved - still, steps.expand_as(still), atol=1e-5, rtol=0)


def test_a_lab_opens_on_small_batches_and_slide_follows_what_is_asked_for():
    assert setting_of(labs.momentum_lab()) == MomentumSetting(0.1, 8, 30, 0, True)
    assert setting_of(labs.momentum_lab(None)) == MomentumSetting(None, 8, 30, 0, True)
    assert labs.momentum_lab(0.25).slide.value == 0.25


def test_the_picture_follows_the_controls_and_carries_the_words():
    lab, seen = labs.momentum_lab(), set()
    for count in (30, 31):
        lab.batches.value = count
        assert_told(spoken(lab), setting_of(lab))
        for title in ("running_mean", "running_var", "weight of each batch"):
            assert f">{title}<" in lab.picture.value
        seen.add(lab.picture.value)
    assert len(seen) == 2


def test_the_button_adds_one_batch_and_stops_at_the_last(unseen):
    lab = labs.momentum_lab(batches=0)
    for count in (1, 2, 3):
        lab.step.click()
        assert lab.batches.value == count
        assert_true_to_torch(lab)
    lab.batches.value = 59
    for _ in range(3):
        lab.step.click()
        assert lab.batches.value == 60
        assert "After 60 batches" in lab.readout.value


def test_the_slider_and_the_text_follow_each_other(unseen):
    lab = labs.momentum_lab()
    for value in (0.3, 0, 1, 0.123):
        lab.momentum.value = value
        assert lab.slide.value == value
        assert_true_to_torch(lab)
    for value in (0.7, 1, 0, 0.55):
        lab.slide.value = value
        assert lab.momentum.value == value
        assert_true_to_torch(lab)


@pytest.mark.parametrize("typed", [1.5, -0.2, 1.0001, nan, inf])
def test_a_typed_momentum_out_of_range_shows_the_rule_and_the_lab_goes_on(typed):
    lab = labs.momentum_lab(0.4)
    lab.momentum.value = typed
    assert RULE in lab.readout.value
    assert "momentum must be from 0 to 1" in plain(lab.readout.value)
    assert f"got {typed}" in plain(lab.readout.value)
    assert "<svg" not in lab.picture.value
    assert lab.slide.value == 0.4
    lab.momentum.value = 0.2
    assert lab.slide.value == 0.2
    assert "<svg" in lab.picture.value
    assert_true_to_torch(lab)


def test_momentum_none_is_the_plain_average_of_all_batches(unseen):
    lab = labs.momentum_lab(batches=6, batch_size=3)
    by_momentum = lab.readout.value
    lab.average.value = True
    batches = torch.stack(batches_of(setting_of(lab)))
    told = numbers_in("running_mean #,.*; running_var #,", plain(lab.readout.value))
    wanted = [batches.mean().item(), batches.var(1).mean().item()]
    assert told == pytest.approx(wanted, rel=6e-5)
    lab.momentum.value = 1.5
    assert RULE not in lab.readout.value
    lab.average.value = False
    assert RULE in lab.readout.value
    lab.momentum.value = 0.1
    assert lab.readout.value == by_momentum


@in_both_modes
def test_no_batch_is_said_to_be_no_batch(training):
    lab = labs.momentum_lab(batches=0, training=training, batch_size=1)
    assert RULE in lab.readout.value
    assert "No batch yet" in plain(lab.readout.value)
    assert_true_to_torch(lab)
    assert "<svg" in lab.picture.value
    lab.batch_size.value = 2
    lab.batches.value = 1
    assert "No batch yet" not in plain(lab.readout.value)
    assert_true_to_torch(lab)


def test_one_value_per_channel_shows_the_rule_in_training_and_does_no_harm_in_eval():
    lab = labs.momentum_lab(batch_size=1)
    rule = "Expected more than 1 value per channel when training"
    with pytest.raises(ValueError, match=rule):
        torch_history(setting_of(lab))
    assert rule in plain(lab.readout.value)
    lab.training.value = False
    assert "In eval nothing moves" in plain(lab.readout.value)
    assert "<svg" in lab.picture.value
    assert_true_to_torch(lab)
    lab.batch_size.value = 2
    lab.training.value = True
    assert_true_to_torch(lab)
