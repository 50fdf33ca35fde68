"""A reduction partitions an array: who shares a statistic with whom, and what the statistic is."""

import copy
import dataclasses
import pickle
import subprocess
import sys
import tracemalloc
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import normviz
from normviz import Reduction, draw_slices, normalize
from normviz.reduction import _PART

claim = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def meetings(draw):
    """A reduction and a shape that fits it, with the sizes of all names and which of them are kept.

    One to four axes; any of them may be a group of two or three names, and one may be an ellipsis.
    """
    blocks = draw(st.lists(st.sampled_from(["one", "one", "group"]), min_size=1, max_size=4))
    ellipsis_at = draw(st.none() | st.integers(0, len(blocks)))
    if ellipsis_at is not None:
        blocks.insert(ellipsis_at, "ellipsis")
    letters, left, right, given_sizes = iter("abcdefghijklmn"), [], [], {}
    shape, split, kept = [], [], []
    for block in blocks:
        how_many = {"one": 1, "group": draw(st.integers(2, 3)), "ellipsis": draw(st.integers(0, 2))}
        sizes = [draw(st.integers(1, 3)) for _ in range(how_many[block])]
        names = ["..."] if block == "ellipsis" else [next(letters) for _ in sizes]
        keep = [draw(st.booleans()) for _ in names]
        left.append(f"({' '.join(names)})" if block == "group" else names[0])
        right += [name for name, k in zip(names, keep, strict=True) if k]
        shape += [prod(sizes)] if block == "group" else sizes
        split += sizes
        kept += keep * len(sizes) if block == "ellipsis" else keep
        if block == "group":  # one of the sizes may be left out
            told = dict(zip(names, sizes, strict=True))
            told.pop(draw(st.sampled_from([*names, "none"])), None)
            given_sizes |= told
    reduction = Reduction(f"{' '.join(left)} -> {' '.join(right)}", **given_sizes)
    return reduction, tuple(shape), tuple(split), kept


def random_array(shape, seed=0):
    return np.random.default_rng(seed).normal(3, 2, shape)


def by_label(labels, x, statistic):
    """One value per label, by picking its elements one at a time."""
    return np.array([statistic(x[labels == label]) for label in range(labels.max() + 1)])


@claim
@given(meetings())
def test_labels_partition_the_array_into_equal_parts(meeting):
    reduction, shape, _, _ = meeting
    labels = reduction.labels(shape)
    assert labels.shape == shape
    values, sizes = np.unique(labels, return_counts=True)
    assert values.tolist() == list(range(prod(reduction.stat_shape(shape))))
    assert set(sizes) == {reduction.count(shape)}


@claim
@given(meetings())
def test_labels_count_in_c_order_of_the_kept_axes(meeting):
    reduction, shape, split, kept = meeting
    stat_shape = tuple(size for size, keep in zip(split, kept, strict=True) if keep)
    assert reduction.stat_shape(shape) == stat_shape
    at = [index for index, keep in zip(np.indices(split), kept, strict=True) if keep]
    expected = np.ravel_multi_index(at, stat_shape) if at else np.zeros(split, int)
    assert np.array_equal(reduction.labels(shape), expected.reshape(shape))


@claim
@given(meetings(), st.data())
def test_labels_of_a_part_are_a_part_of_the_labels(meeting, data):
    reduction, shape, _, _ = meeting
    at = [data.draw(st.lists(st.integers(0, size - 1), max_size=4)) for size in shape]
    part = reduction.labels(shape, at=at)
    assert np.array_equal(part, reduction.labels(shape)[np.ix_(*at)])


@claim
@given(meetings(), st.sampled_from([0, 1]))
def test_mean_and_variance_are_those_of_each_label(meeting, correction):
    reduction, shape, _, _ = meeting
    assume(reduction.count(shape) > correction)
    x, labels = random_array(shape), reduction.labels(shape)
    mean, var = reduction.mean(x), reduction.var(x, correction=correction)
    assert mean.shape == var.shape == reduction.stat_shape(shape)
    np.testing.assert_allclose(np.ravel(mean), by_label(labels, x, np.mean), rtol=1e-12)
    expected = by_label(labels, x, lambda part: np.var(part, ddof=correction))
    np.testing.assert_allclose(np.ravel(var), expected, rtol=1e-12, atol=1e-25)


@claim
@given(meetings())
def test_numpy_and_torch_get_the_same_numbers(meeting):
    reduction, shape, _, _ = meeting
    x = random_array(shape)
    tensor = torch.from_numpy(x)
    stat = reduction.mean(x)
    for ours, theirs in [
        (stat, reduction.mean(tensor)),
        (reduction.var(x), reduction.var(tensor)),
        (reduction.spread(stat, shape), reduction.spread(torch.as_tensor(stat), tensor.shape)),
        (reduction.numbers(x, 0), reduction.numbers(tensor, 0)),
    ]:
        assert isinstance(ours, np.ndarray | np.float64)
        assert isinstance(theirs, torch.Tensor)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-25)


@claim
@given(meetings())
def test_spread_gives_each_element_the_statistic_of_its_label(meeting):
    reduction, shape, _, _ = meeting
    mean = reduction.mean(random_array(shape))
    spread = reduction.spread(mean, shape)
    assert np.array_equal(spread, np.ravel(mean)[reduction.labels(shape)])


@claim
@given(meetings(), st.data())
def test_numbers_are_those_of_one_label_in_their_order(meeting, data):
    reduction, shape, _, _ = meeting
    x, labels = random_array(shape), reduction.labels(shape)
    label = data.draw(st.integers(0, labels.max()))
    assert np.array_equal(reduction.numbers(x, label), x[labels == label])
    position = tuple(reduction.locate(label, shape).values())
    assert label == (np.ravel_multi_index(position, reduction.stat_shape(shape)) if position else 0)


@claim
@given(meetings(), st.data())
def test_a_changed_element_moves_the_outputs_of_its_label_and_no_others(meeting, data):
    reduction, shape, _, _ = meeting
    assume(reduction.count(shape) >= 3)  # one number always gives 0, and two give -1 and 1
    labels = reduction.labels(shape)
    index = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    x = random_array(shape)
    other = x.copy()
    other[index] += 1
    before, after = (normalize(torch.from_numpy(a), reduction, 1e-5)[0].numpy() for a in (x, other))
    assert np.array_equal(before != after, labels == labels[index])


BATCH = [("BatchNorm1d", 2), ("BatchNorm1d", 3), ("BatchNorm2d", 4), ("BatchNorm3d", 5)]
AXES = {1: "c", 2: "n c", 3: "n t c", 4: "n c h w", 5: "n c d h w"}


def built_on(cls):
    return type("Mine", (type("Between", (cls,), {}),), {})


@pytest.mark.parametrize("library", [nn, normviz], ids=["torch", "normviz"])
@pytest.mark.parametrize("change", [lambda cls: cls, built_on], ids=["itself", "subclass"])
@pytest.mark.parametrize(("name", "ndim"), BATCH)
def test_batch_norm_pools_all_axes_but_the_channels(name, ndim, change, library):
    layer = change(getattr(library, name))(3)
    axes = "n c l" if ndim == 3 else AXES[ndim]
    assert Reduction.of(layer, ndim) == Reduction(f"{axes} -> c")
    assert Reduction.of(layer, ndim, by="weight") == Reduction(f"{axes} -> c")
    shape = (2, 3, 4, 5, 6)[:ndim]
    assert Reduction.of(layer, ndim).stat_shape(shape) == layer.running_mean.shape


@pytest.mark.parametrize("library", [nn, normviz], ids=["torch", "normviz"])
@pytest.mark.parametrize("change", [lambda cls: cls, built_on], ids=["itself", "subclass"])
@pytest.mark.parametrize(("ndim", "last"), [(n, k) for n in range(1, 6) for k in range(1, n + 1)])
def test_layer_norm_pools_the_last_axes_and_weighs_along_them(ndim, last, change, library):
    shape = (2, 3, 4, 5, 6)[:ndim]
    layer = change(library.LayerNorm)(shape[-last:])
    names = AXES[ndim].split()
    statistic, weight = Reduction.of(layer, ndim), Reduction.of(layer, ndim, by="weight")
    assert (statistic.kept, statistic.pooled) == (tuple(names[:-last]), tuple(names[-last:]))
    assert (weight.kept, weight.pooled) == (statistic.pooled, statistic.kept)
    assert weight.stat_shape(shape) == layer.weight.shape


def test_layer_norm_takes_more_axes_than_there_are_usual_names_for():
    reduction = Reduction.of(normviz.LayerNorm([6, 7]), 7)
    assert reduction.stat_shape((1, 2, 3, 4, 5, 6, 7)) == (1, 2, 3, 4, 5)
    assert reduction.count((1, 2, 3, 4, 5, 6, 7)) == 42


def test_spaces_and_the_order_of_sizes_make_no_difference():
    same = Reduction("n(a b c)->n  c", a=2, b=3), Reduction("n (a b c) -> n c", b=np.int64(3), a=2)
    assert same[0] == same[1]
    assert len({*same}) == 1
    assert repr(same[0]) == repr(same[1]) == "Reduction('n (a b c) -> n c', a=2, b=3)"
    assert eval(repr(same[0])) == same[1]


def test_an_axis_may_have_any_name():
    reduction = Reduction("self (pattern shape) -> pattern", self=2, pattern=3)
    assert reduction.stat_shape((2, 6)) == (3,)


@pytest.mark.parametrize(
    "other", [Reduction("n c -> n"), Reduction("n c -> c", n=2), Reduction("n l -> l"), "n c -> c"]
)
def test_another_choice_is_unequal(other):
    assert Reduction("n c -> c") != other


@pytest.mark.parametrize(
    "change", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_copies_are_equal_and_work(change):
    reduction = Reduction("n (g c) l -> n g", g=2)
    twin = change(reduction)
    assert (twin, hash(twin)) == (reduction, hash(reduction))
    assert twin.stat_shape((3, 6, 5)) == (3, 2)


@pytest.mark.parametrize("name", ["pattern", "sizes", "kept", "other"])
def test_a_reduction_never_changes(name):
    reduction = Reduction("n c -> c")
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        setattr(reduction, name, "n c -> n")
    assert reduction == Reduction("n c -> c")


def test_labels_are_read_only_and_small_whatever_the_shape():
    labels = Reduction("n c h w -> c").labels((10**4, 3, 10**4, 10**4))
    assert labels.strides == (0, labels.itemsize, 0, 0)
    with pytest.raises(ValueError, match="read-only"):
        labels[0, 0, 0, 0] = 1


@pytest.mark.parametrize(
    "x", [random_array((4, 3)), torch.from_numpy(random_array((4, 3)))], ids=type
)
def test_nothing_is_written_to_the_input(x):
    before, reduction = copy.deepcopy(x), Reduction("n c -> c")
    reduction.var(x), reduction.spread(reduction.mean(x), x.shape)
    assert (x == before).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_pooled_in_float32(dtype):
    x = (torch.from_numpy(random_array((3000, 2))) + 40).to(dtype)
    reduction = Reduction("n c -> c")
    assert reduction.mean(x).dtype == reduction.var(x).dtype == torch.float32
    torch.testing.assert_close(reduction.mean(x), x.double().mean(0).float())
    torch.testing.assert_close(reduction.var(x), x.double().var(0, correction=0).float())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, int, bool])
def test_numpy_statistics_are_pooled_in_float64(dtype):
    x = (10 * random_array((3000, 2)) - 25).astype(dtype)
    mean, var = Reduction("n c -> c").mean(x), Reduction("n c -> c").var(x)
    assert mean.dtype == var.dtype == np.float64
    np.testing.assert_allclose(mean, x.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(var, x.astype(float).var(0), rtol=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_a_mean_of_ten_thousand_costs_no_digits_in_float32(kind):
    x = random_array((400, 3)) + 1e4
    var = Reduction("n c -> c").var(kind(x.astype(np.float32)))
    np.testing.assert_allclose(var, x.var(0), rtol=1e-3)


@pytest.mark.parametrize("kind", [np.zeros, torch.zeros], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("pattern", "shape", "stat_shape", "count"),
    [
        ("n c -> n", (0, 3), (0,), 3),
        ("n c l -> n c", (2, 0, 3), (2, 0), 3),
        ("n c -> n c", (0, 3), (0, 3), 1),
    ],
)
def test_an_array_without_slices_has_no_statistics(pattern, shape, stat_shape, count, kind):
    reduction, x = Reduction(pattern), kind(shape)
    assert (reduction.stat_shape(shape), reduction.count(shape)) == (stat_shape, count)
    assert tuple(reduction.mean(x).shape) == tuple(reduction.var(x).shape) == stat_shape
    assert tuple(reduction.spread(reduction.mean(x), shape).shape) == shape
    assert reduction.labels(shape).shape == shape


def test_empty_slices_have_labels_but_no_mean():
    reduction = Reduction("n c -> c")
    assert (reduction.count((0, 3)), reduction.stat_shape((0, 3))) == (0, (3,))
    assert reduction.labels((0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="no mean over no numbers"):
        reduction.mean(np.zeros((0, 3)))


@pytest.mark.parametrize("count", [1, _PART - 1, _PART, _PART + 1, 3 * _PART + 5])
@pytest.mark.parametrize("shape", [(-1, 2), (2, -1), (2, -1, 2)], ids=str)
def test_a_large_array_is_measured_part_by_part_and_loses_no_digit(count, shape):
    x = np.random.default_rng(count).normal(1e4, 1, 4 * count).astype(np.float32).reshape(shape)
    axis = int(np.argmax(x.shape))
    kept = [name for i, name in enumerate("abc"[: x.ndim]) if i != axis]
    var = Reduction(f"{' '.join('abc'[: x.ndim])} -> {' '.join(kept)}").var(x)
    np.testing.assert_allclose(var, x.astype(float).var(axis), rtol=1e-12, atol=1e-12)


def test_the_variance_of_a_large_array_needs_no_copy_of_it():
    x = np.ones((4, 1024, 1024), np.float32)
    for view in (x, x.T):
        tracemalloc.start()
        Reduction("a b c ->").var(view)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.2 * x.nbytes


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")  # of which we know
def test_a_mask_is_refused_rather_than_lost():
    masked = np.ma.masked_greater([[1.0, 2], [3, 1000]], 10)
    tensor = torch.masked.masked_tensor(*map(torch.tensor, (masked.data, ~masked.mask)))
    reduction = Reduction("n c -> c")
    for call in (reduction.mean, reduction.var, reduction.sum, lambda x: draw_slices(x, reduction)):
        for x, all_numbers in ((masked, masked.data), (tensor, tensor.get_data())):
            with pytest.raises(
                ValueError, match=r"must not be masked.* x\.(get_)?data(\(\))? has all"
            ):
                call(x)
            call(all_numbers)


def test_torch_statistics_can_be_differentiated():
    x = torch.from_numpy(random_array((3, 4, 2))).requires_grad_()
    reduction = Reduction("n (g c) l -> n g", g=2)
    assert torch.autograd.gradcheck(lambda x: (reduction.mean(x), reduction.var(x, 1)), x)


def test_the_words_for_people_name_what_is_pooled_and_what_is_kept():
    assert str(Reduction("n c h w -> c")) == "over n, h, w, one per c"
    assert str(Reduction("n c ->")) == "over n, c, one for all"
    assert str(Reduction("n c -> n c")) == "of each number alone, one per n, c"
    assert Reduction("n ... (g c) -> g", g=2).name_axes((3, 4, 5, 6)) == (
        "n",
        "axis 1",
        "axis 2",
        "c",
    )
    assert Reduction("n ... c -> ...").locate(5, (2, 3, 4, 5)) == {"axis 1": 1, "axis 2": 1}


@pytest.mark.parametrize(
    "program",
    [
        "import normviz",
        "import normviz, numpy; normviz.Reduction('n c -> c').mean(numpy.ones((2, 3)))",
    ],
)
def test_the_import_stays_light(program):
    heavy = "{'torch', 'matplotlib', 'ipywidgets'} & {*sys.modules}"
    root = Path(normviz.__file__).parent.parent
    python = [sys.executable, "-c", f"import sys; {program}; print(sorted({heavy}))"]
    found = subprocess.run(python, cwd=root, check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
