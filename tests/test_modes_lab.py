"""The modes lab says what torch.nn does, at every position of its controls."""

import re
from html import unescape
from itertools import product
from random import Random
from xml.etree import ElementTree

import pytest
import torch
from reading import cells_of, number
from torch import nn

from normviz import labs
from normviz.labs import modes

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
SHAPES = {
    "typical": (4, 2, 3),
    "shifted": (4, 2, 3),
    "one sample": (1, 2, 3),
    "one value": (1, 2, 1),
}
PLACES = [*product((True, False), (True, False), (True, False), SHAPES)]
REFUSAL = "more than 1 value per channel"

every_place = pytest.mark.parametrize(
    ("training", "track_running_stats", "set_after", "batch"), PLACES
)


def torch_layer(training, track_running_stats, set_after):
    """The layer of torch.nn, trained before; its flag was given at once, or came later."""
    made_with = track_running_stats != set_after
    layer = nn.BatchNorm1d(2, track_running_stats=made_with)
    if made_with:
        layer.load_state_dict(
            {
                "running_mean": torch.tensor(modes.RUNNING_MEAN),
                "running_var": torch.tensor(modes.RUNNING_VAR),
                "num_batches_tracked": torch.tensor(modes.BATCHES_TRACKED),
            },
            strict=False,
        )
    layer.track_running_stats = track_running_stats
    return layer.train(training)


def state_of(layer):
    buffers = {name: getattr(layer, name) for name in BUFFERS}
    return {name: None if b is None else b.clone() for name, b in buffers.items()}


def torch_passes(training, track_running_stats, set_after, x):
    """What comes out, and the buffers before and after."""
    layer = torch_layer(training, track_running_stats, set_after)
    before = state_of(layer)
    with torch.no_grad():
        output = layer(x)
    return output, before, state_of(layer)


def rows_of(lab):
    """What the table says, row by row."""
    rows = ElementTree.fromstring(lab.readout.value).findall("tr")
    return {row.find("th").text: "".join(row.find("td").itertext()) for row in rows}


def numbers_in(text):
    return [number(part) for part in text.split(", ")]


def pictures_of(lab):
    """The numbers in each picture, as tensors."""
    shape, found = SHAPES[lab.batch.value], []
    for svg in re.findall("<svg.*?</svg>", lab.picture.value, re.DOTALL):
        cells = cells_of(svg)
        assert len(cells) == torch.Size(shape).numel()
        found.append(torch.tensor([cells[index][1] for index in sorted(cells)]).reshape(shape))
    return found


def told_moves(text):
    """before → after, as the table tells it."""
    if stays := re.fullmatch("stays (.*)", text):
        return numbers_in(stays[1]), numbers_in(stays[1])
    before, after = re.fullmatch("moves from (.*) to (.*)", text).groups()
    assert before != after
    return numbers_in(before), numbers_in(after)


def standardized_by(mean, var, x):
    return (x - mean.view(1, 2, 1)) / (var.view(1, 2, 1) + 1e-5).sqrt()


def assert_refused(lab):
    assert 'role="alert"' in lab.readout.value
    assert REFUSAL in unescape(lab.readout.value)
    assert "Traceback" not in lab.readout.value + lab.picture.value
    assert "<svg" not in lab.picture.value


def assert_true_to_torch(lab):
    """The table and both pictures say what torch.nn does at these positions of the controls."""
    place = lab.training.value, lab.track_running_stats.value, lab.set_after.value
    x = modes.BATCHES[lab.batch.value]
    try:
        output, before, after = torch_passes(*place, x)
    except ValueError as error:
        assert REFUSAL in str(error)
        assert_refused(lab)
        return
    assert 'role="alert"' not in lab.readout.value
    rows = rows_of(lab)
    assert [*rows] == ["statistics that normalize", *BUFFERS, "a prediction"]

    shown, normalized = pictures_of(lab)
    torch.testing.assert_close(shown, x)
    torch.testing.assert_close(normalized, output, atol=6e-3, rtol=0)

    by_batch = standardized_by(x.mean((0, 2)), x.var((0, 2), unbiased=False), x)
    by_running = standardized_by(
        torch.tensor(modes.RUNNING_MEAN), torch.tensor(modes.RUNNING_VAR), x
    )
    assert not torch.allclose(by_batch, by_running, atol=1e-3)
    whose = "of this batch"
    if torch.allclose(output, by_running, atol=1e-4):
        whose = "of earlier training: the running ones"
    else:
        torch.testing.assert_close(output, by_batch, atol=1e-4, rtol=0)
    assert rows["statistics that normalize"] == whose

    for name in BUFFERS:
        if before[name] is None:
            assert rows[name] == "there is none"
            continue
        assert ("moves" in rows[name]) == (not torch.equal(before[name], after[name]))
        for told, true in zip(told_moves(rows[name]), (before[name], after[name]), strict=True):
            assert told == pytest.approx(true.reshape(-1).tolist(), rel=1e-4)

    depends = not torch.equal(in_company(place, x, 0)[0], in_company(place, x, 50)[0])
    assert (
        rows["a prediction"] == f"{'depends' if depends else 'does not depend'} on its batch mates"
    )


def in_company(place, x, offset):
    """The output of a batch of three: sample 0 of x, and two others."""
    mates = torch.arange(2.0 * x[0].numel()).reshape(2, *x.shape[1:]) + offset
    output, _, _ = torch_passes(*place, torch.cat([x[:1], mates]))
    return output


@every_place
def test_a_lab_opens_true_to_torch(training, track_running_stats, set_after, batch):
    lab = labs.modes_lab(training, track_running_stats, set_after, batch)
    assert_true_to_torch(lab)


def test_one_lab_is_true_to_torch_after_every_single_move():
    lab, values, random = labs.modes_lab(), (True, False), Random(0)
    for _ in range(40):
        name = random.choice(("training", "track_running_stats", "set_after", "batch"))
        getattr(lab, name).value = random.choice([*SHAPES] if name == "batch" else values)
        assert_true_to_torch(lab)


def test_the_caption_names_the_position():
    captions = set()
    for training, track, set_after in product((True, False), repeat=3):
        lab = labs.modes_lab(training, track, set_after)
        caption = "".join(ElementTree.fromstring(lab.readout.value).find("caption").itertext())
        assert caption.startswith("training," if training else "eval,")
        assert f"track_running_stats={track}," in caption
        assert ("set after" in caption) == set_after
        captions.add(caption)
    assert len(captions) == 8


def test_the_batches_are_what_their_names_say():
    assert [*modes.BATCHES] == [*SHAPES]
    assert {name: tuple(x.shape) for name, x in modes.BATCHES.items()} == SHAPES
    shift = modes.BATCHES["shifted"] - modes.BATCHES["typical"]
    assert shift.unique().tolist() == [6]
    typical = modes.BATCHES["typical"]
    torch.testing.assert_close(
        typical.mean((0, 2)), torch.tensor(modes.RUNNING_MEAN), atol=0.5, rtol=0
    )
    for name in ("one sample", "one value"):
        _, c, length = SHAPES[name]
        torch.testing.assert_close(modes.BATCHES[name], typical[:1, :c, :length])
