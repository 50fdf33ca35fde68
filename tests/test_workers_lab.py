"""The workers lab tells what torch.nn does with the parts of a batch, and with the whole."""

import numpy as np
import pytest
import torch
from reading import numbers_in, words_of
from torch import nn

from normviz import labs
from normviz.labs.lab import RuleBroken
from normviz.labs.workers import WorkersSetting, noise_of, parts_of, sizes_of, workers_of

CASES = [
    {},
    {"sync": True},
    {"workers": 1},
    {"workers": 1, "samples": 2},
    {"workers": 3},
    {"workers": 3, "samples": 3, "sync": True},
    {"workers": 8, "samples": 64, "parts": "unequal"},
    {"workers": 4, "samples": 30, "parts": "unequal", "drift": 4.0, "sync": True},
    {"workers": 2, "drift": 0.0, "parts": "unequal"},
    {"workers": 1, "parts": "unequal", "sync": True},
]

every_case = pytest.mark.parametrize("setting", CASES, ids=str)


def by_torch(setting):
    """Of each worker, and of one that has the whole batch: the layer, and its outputs."""
    parts = parts_of(setting)
    whole = torch.cat(parts)
    seen = [whole] * len(parts) if setting.sync else parts
    layers = [nn.BatchNorm1d(1, affine=False).double() for _ in range(len(parts) + 1)]
    outputs = [layer(x) for layer, x in zip(layers, [*seen, whole], strict=True)]
    if setting.sync:
        outputs[:-1] = outputs[-1].split([len(part) for part in parts])
    return layers, outputs


def near(number):
    return pytest.approx(number, rel=6e-5, abs=1e-9)


@every_case
def test_each_worker_is_one_of_torchs(setting):
    setting = WorkersSetting(**setting)
    workers = workers_of(setting)
    [*layers, _], [*outputs, whole] = by_torch(setting)
    expected = whole.split([len(worker.x) for worker in workers])
    for worker, layer, y, one in zip(workers, layers, outputs, expected, strict=True):
        mean, variance = worker.stored
        assert mean == pytest.approx(layer.running_mean.item())
        assert variance == pytest.approx(layer.running_var.item())
        assert worker.mean == pytest.approx(10 * layer.running_mean.item())
        assert worker.far == pytest.approx((y - one).abs().mean().item(), abs=1e-8)


@every_case
def test_the_words_are_those_of_torch(setting):
    lab = labs.workers_lab(**setting)
    setting = lab.read()
    layers, outputs = by_torch(setting)
    words, parts = words_of(lab), parts_of(setting)
    whole, sizes = torch.cat(parts), [len(part) for part in parts]
    assert f"({', '.join(map(str, sizes))} samples)" in words
    [mean, variance] = numbers_in("saves worker 0's running_mean # and running_var #", words)
    assert (mean, variance) == (near(layers[0].running_mean), near(layers[0].running_var))
    if setting.sync or len(parts) == 1:
        assert "running_var" in words
        assert ": those of one big batch." in words
    else:
        stored = numbers_in(r"one big batch would store # and #\.", words)
        assert stored == [near(layers[-1].running_mean), near(layers[-1].running_var)]
        expected = outputs[-1].split(sizes)
        far = [(y - e).abs().mean().item() for y, e in zip(outputs[:-1], expected, strict=True)]
        assert numbers_in("the farthest worker's outputs lie #", words) == [near(max(far))]
    within, between, total = numbers_in(r"within the parts # \+ between them # = #", words)
    assert total == near(whole.var(correction=0).item())
    share = [len(part) / len(whole) for part in parts]
    inside = [part.var(correction=0).item() for part in parts]
    assert within == near(np.dot(share, inside))
    assert within + between == pytest.approx(total, rel=2e-4)
    means = [part.mean().item() for part in parts]
    if len({*sizes}) > 1:
        right, plain = numbers_in("means give #; their plain mean, .*, #", words)
        assert (right, plain) == (near(whole.mean().item()), near(np.mean(means)))
    else:
        assert "plain mean" not in words
        assert numbers_in("Mean:.* #", words) == [near(whole.mean().item())]
    m = sum(sizes) if setting.sync else min(sizes)
    assert f"m = {m} numbers is typically off by √(2/(m − 1)) = {100 * noise_of(m):.0f} %" in words


def test_in_sync_all_are_one_big_batch_and_nothing_is_off():
    for lab in (labs.workers_lab(sync=True), labs.workers_lab(7, 40, "unequal", 4.0, True)):
        assert "each worker's outputs are those of one big batch" in lab.readout.value
        workers = workers_of(lab.read())
        assert {worker.far for worker in workers} == {0.0}
        assert len({worker.stored for worker in workers}) == 1


def test_the_noise_of_a_variance_is_what_many_variances_show():
    numbers = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(1))
    assert numbers.var(1).std().item() == pytest.approx(noise_of(5), rel=0.02)


def test_parts_are_as_equal_as_can_be_or_the_last_is_half_a_share():
    for workers in range(1, 9):
        for samples in range(workers, 65):
            equal = sizes_of(WorkersSetting(workers, samples))
            unequal = sizes_of(WorkersSetting(workers, samples, "unequal"))
            for sizes in (equal, unequal):
                assert (len(sizes), sum(sizes)) == (workers, samples)
                assert min(sizes) >= 1
            assert max(equal) - min(equal) <= 1
            if workers > 1:
                assert unequal[-1] == max(1, samples // (2 * workers))
                assert max(unequal[:-1]) - min(unequal[:-1]) <= 1


def test_the_batch_is_the_same_however_it_is_shared_out():
    for parts in ("equal", "unequal"):
        one = torch.cat(parts_of(WorkersSetting(1, 20, parts, 0.0)))
        other = torch.cat(parts_of(WorkersSetting(5, 20, parts, 0.0)))
        assert torch.equal(one, other)


def test_too_few_numbers_are_refused_in_words_and_sync_helps():
    lab = labs.workers_lab(workers=4, parts="unequal")
    assert "Expected more than 1 value per channel" in lab.readout.value
    assert "worker 3 has one number" in lab.readout.value
    lab.sync.value = True
    assert "worker 3" in lab.picture.value
    assert "Refused" not in lab.readout.value
    lab.samples.value = 3
    assert "Every worker needs a sample: got 4 workers and 3 samples." in lab.readout.value
    with pytest.raises(RuleBroken):
        workers_of(WorkersSetting(3, 3))


def test_what_is_drawn_is_what_is_told(unseen):
    lab = labs.workers_lab(3, 12, "unequal", 1.0)
    lab.draw()
    workers = workers_of(lab.read())
    left, middle, right = lab._plot.axes
    lines = {line.get_label(): line for line in left.lines}
    whole = torch.cat([worker.x for worker in workers])
    assert lines["whole batch: mean"].get_ydata()[0] == pytest.approx(whole.mean().item())
    assert len(lines["numbers"].get_ydata()) == len(whole)
    bars = np.array(lines["worker: mean ± σ"].get_ydata(), dtype=float).reshape(-1, 3)
    for (low, high, _), worker in zip(bars, workers, strict=True):
        assert (low + high) / 2 == pytest.approx(worker.x.mean().item())
        assert (high - low) / 2 == pytest.approx(worker.x.std(correction=0).item())
    [far] = middle.patches
    assert far.get_data().values[::2] == pytest.approx([worker.far for worker in workers])
    for patch, i in zip(right.patches, (0, 1), strict=True):
        stored = [worker.stored[i] for worker in workers]
        assert patch.get_data().values[:-1:2] == pytest.approx(stored)
    assert [t.get_text() for t in right.get_xticklabels()] == ["0", "1", "2", "all"]
