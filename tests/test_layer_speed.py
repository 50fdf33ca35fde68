"""What a layer costs against torch.nn and the usual version from scratch: bounds with room.

Only ratios of times taken in turns; each bound is about twice what was measured.
"""

from statistics import median

import pytest
import torch

from benchmarks import layers
from benchmarks.layers import BOTH, FORWARD, OURS, SCRATCH, TORCH

# Of a layer's time: at most so many times that of torch.nn, and of the version from scratch.
BOUNDS = {
    ("BatchNorm2d", 32, (32, 32, 56, 56), FORWARD): (1.7, 1.2),
    ("BatchNorm2d", 32, (32, 32, 56, 56), BOTH): (2.5, 0.9),
    ("BatchNorm1d", 512, (4096, 512), BOTH): (6, 1.1),
    ("LayerNorm", 768, (64, 64, 768), FORWARD): (8, 1.8),
    ("LayerNorm", 768, (64, 64, 768), BOTH): (7, 1),
    ("BatchNorm2d", 3, (3, 3, 2, 2), BOTH): (12, 5),
    ("LayerNorm", 4, (2, 3, 4), BOTH): (14, 6),
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", BOUNDS, ids=str)
def test_a_layer_keeps_its_distance_to_torch_and_its_lead_on_the_version_from_scratch(case):
    name, size, shape, what = case
    seconds = layers.seconds_of(name, size, shape, what, rounds=9 if len(shape) > 3 else 40)
    ours, theirs, scratch = (median(seconds[way]) for way in (OURS, TORCH, SCRATCH))
    to_torch, to_scratch = BOUNDS[case]
    assert ours / theirs < to_torch
    assert ours / scratch < to_scratch


@pytest.mark.parametrize(("name", "size", "shape"), layers.LARGE, ids=str)
def test_a_layer_keeps_no_more_for_the_backward_pass_than_torch(name, size, shape):
    shape = (4, *shape[1:]) if len(shape) > 2 else shape
    made = layers.make(name, size, len(shape))
    kept = {way: layers.kept_for_backward(made[way], shape) for way in made}
    assert kept[OURS] == pytest.approx(kept[TORCH], abs=0.02)
    assert kept[TORCH] >= 1
    assert kept[SCRATCH] > 2  # so what is kept is seen


@pytest.mark.parametrize(("name", "size", "shape"), layers.SMALL, ids=str)
def test_what_is_compared_computes_the_same(name, size, shape):
    x, made = torch.randn(shape), layers.make(name, size, len(shape))
    ours, theirs, scratch = (made[way](x) for way in (OURS, TORCH, SCRATCH))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(scratch, theirs)
    if name != "LayerNorm":
        for buffer in ("running_mean", "running_var"):
            expected = getattr(made[TORCH], buffer)
            torch.testing.assert_close(getattr(made[OURS], buffer), expected)
            torch.testing.assert_close(getattr(made[SCRATCH], buffer).flatten(), expected)


def test_the_benchmark_has_a_row_for_every_pass_and_leaves_the_threads_as_they_were():
    section = layers.measure(quick=True)
    assert torch.get_num_threads() == 1
    said = [f"{row.what}: {row.against}" for row in section.rows]
    for name, _, shape in layers.SMALL:
        for what in (FORWARD, BOTH):
            for threads in ("1 thread", "2 threads"):
                for way in (TORCH, SCRATCH):
                    assert f"{name} {shape}, {what}, {threads}: {way}" in said
    assert all(len(sizes) >= 4 for growth in section.growths for sizes in growth.costs.values())
