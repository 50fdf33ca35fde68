"""How exact a normalized output is: four ways to compute it, against an oracle.

The inputs are random numbers ``scale · (offset + z)``, with z of mean 0 and variance 1, rounded to
the dtype; the oracle takes them as they are after that, so it judges the way alone.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from functools import lru_cache
from itertools import chain, product
from math import fsum, log10, prod

import numpy as np
import torch
from torch import nn

import normviz
from benchmarks.compare import Row, Section, Spread
from normviz import Reduction

# Below this many epsilons, errors count as equal. A right way comes near 2: it rounds the centred
# number twice, 1/σ and their product, each by half an epsilon. Twice that is no lost digit.
FLOOR = 4
OFFSETS = (0, 1, 1e2, 1e4, 1e6, 1e8)
SCALES = (  # each with an eps
    *((1e-20, 0), (1e-20, 1e-5), (1e-10, 0), (1e-3, 1e-5), (1, 1e-5)),
    *((1e3, 1e-5), (1e10, 1e-5), (1e18, 1e-5), (1e20, 1e-5)),
)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EXACT = 20_000  # numbers in a slice that decimals are fast enough for


@dataclass(frozen=True)
class Cell:
    """One place in the table.

    Attributes:
        layer: The name of the layer, in torch.nn and in normviz.
        dtype: Of the input and of the layer.
        offset: The mean of the numbers, in standard deviations.
        scale: Their standard deviation.
        count: How many numbers share a statistic.
        eps: Of the layer.
    """

    layer: str
    dtype: torch.dtype
    offset: float = 0
    scale: float = 1
    count: int = 1000
    eps: float = 1e-5

    def draw(self, seed: int) -> torch.Tensor:
        """Three slices, one a row, but a single one of a million numbers or more."""
        generator = torch.Generator().manual_seed(seed)
        slices = 3 if self.count < 10**6 else 1
        numbers = torch.randn(slices, self.count, generator=generator, dtype=torch.float64)
        return (self.scale * (self.offset + numbers)).to(self.dtype)

    def lay_out(self, slices: torch.Tensor) -> torch.Tensor:
        """The input whose slices these are."""
        return LAYERS[self.layer](slices).contiguous()


def in_images(slices: torch.Tensor) -> torch.Tensor:
    """(c, m) as (n, c, h, w), in images of some pixels."""
    channels, count = slices.shape
    side = max(side for side in (1, 10, 50) if count % side**2 == 0)
    return slices.reshape(channels, -1, side, side).movedim(0, 1)


# The layers, each with how an input comes from its slices, one a row.
LAYERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "BatchNorm1d": lambda slices: slices.T,  # (n, c)
    "BatchNorm2d": in_images,
    "LayerNorm": lambda slices: slices,  # (n, c)
}


def in_slices(layer: str, x: torch.Tensor) -> torch.Tensor:
    """The numbers that share a statistic, one row for each statistic."""
    reduction = Reduction.of(layer_of(nn, layer, x, 1e-5), x.ndim)
    slices = range(prod(reduction.stat_shape(x.shape)))
    return torch.stack([reduction.numbers(x, label) for label in slices])


def oracle(numbers: torch.Tensor, eps: float) -> tuple[np.ndarray, float, float]:
    """The right y of one slice, its mean and its biased variance, rounded to float64 at the end.

    Up to 20,000 numbers it counts in decimals of 60 digits; beyond, in float64 with sums that are
    exact (``math.fsum``), and once more about what the first mean leaves.
    """
    if len(numbers) > EXACT:
        return _oracle_in_float64(numbers, eps)
    with localcontext(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN):
        x = [*map(Decimal, numbers.tolist())]
        mean = sum(x) / len(x)
        centred = [number - mean for number in x]
        var = sum(number * number for number in centred) / len(x)
        std = (var + Decimal(eps)).sqrt()
        y = [float(number / std) for number in centred]
        return np.array(y), float(mean), float(var)


def _oracle_in_float64(numbers, eps):
    x = numbers.double().numpy()
    mean = _sum(x) / len(x)
    centred = x - mean
    rest = _sum(centred) / len(x)
    centred -= rest
    var = _sum(centred * centred) / len(x)
    return centred / np.sqrt(var + eps), mean + rest, var


def _sum(x: np.ndarray) -> float:
    parts = np.array_split(x, len(x) // 2**16 + 1)
    return fsum(chain.from_iterable(part.tolist() for part in parts))


def error(y: torch.Tensor, right: np.ndarray) -> float:
    """The largest error of y, in epsilons of its dtype, relative to the larger of |y| and 1.

    A y that is not a number, or that is wrong from the first digit on, counts as 1/epsilon.

    >>> error(torch.tensor([1.0, 2**20 + 0.125]), np.array([1 - 2**-22, 2**20]))
    2.0
    """
    off = np.abs(y.detach().double().numpy() - right) / np.maximum(np.abs(right), 1)
    return float(np.nan_to_num(off, nan=1.0).clip(max=1).max()) / torch.finfo(y.dtype).eps


def by_squares(x: torch.Tensor, over: tuple[int, ...], eps: float) -> torch.Tensor:
    """E[x²] - E[x]², in the dtype of x."""
    mean = x.mean(over, keepdim=True)
    var = x.square().mean(over, keepdim=True) - mean.square()
    return (x - mean) / (var + eps).sqrt()


def from_scratch(x: torch.Tensor, over: tuple[int, ...], eps: float) -> torch.Tensor:
    """The usual from-scratch version, in the dtype of x: the mean of squares of the centred x."""
    mean = x.mean(over, keepdim=True)
    var = (x - mean).square().mean(over, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


def layer_of(library, name: str, x: torch.Tensor, eps: float, *, affine: bool = False) -> nn.Module:
    """A layer for x in training; a BatchNorm stores the last batch."""
    made, known = getattr(library, name), {"num_features": x.shape[1], "momentum": 1}
    known |= {"normalized_shape": x.shape[-1], "affine": affine, "elementwise_affine": affine}
    taken = inspect.signature(made).parameters.keys() & known.keys()
    return made(eps=eps, dtype=x.dtype, **{argument: known[argument] for argument in taken})


WAYS: dict[str, Callable[[str, torch.Tensor, float], torch.Tensor]] = {
    # BatchNorm refuses an eps of 0; the least number above it makes no difference.
    "normviz": lambda name, x, eps: layer_of(normviz, name, x, max(eps, 5e-324))(x),
    "torch.nn": lambda name, x, eps: layer_of(nn, name, x, max(eps, 5e-324))(x),
    "from scratch": lambda name, x, eps: from_scratch(x, _over(name, x), eps),
    "E[x²] − E[x]²": lambda name, x, eps: by_squares(x, _over(name, x), eps),
}


def _over(name, x):
    reduction = Reduction.of(layer_of(nn, name, x, 1e-5), x.ndim)
    return tuple(i for i, axis in enumerate(reduction.axes) if axis[0] in reduction.pooled)


def errors(cell: Cell, seed: int) -> dict[str, float]:
    """The largest error of each way; empty where there is nothing to compare.

    That is where the dtype cannot hold the input, and where all slices are constant after rounding
    and eps is 0, so that y would be 0/0. With an eps, a constant slice has to become exactly 0.
    """
    slices, right = _judged(replace(cell, layer=""), seed)
    x, found = cell.lay_out(slices), {}
    for way, normalize in WAYS.items() if right else ():
        y = in_slices(cell.layer, normalize(cell.layer, x, cell.eps))
        found[way] = max(error(y[i], wanted) for i, wanted in right.items())
    return found


@lru_cache(maxsize=1)
def _judged(cell: Cell, seed: int) -> tuple[torch.Tensor, dict[int, np.ndarray]]:
    """Slices, and the right y of those that have one: for a cell of any layer."""
    slices, right = cell.draw(seed), {}
    for i, numbers in enumerate(slices if slices.isfinite().all() else ()):
        if cell.eps or (numbers != numbers[0]).any():
            right[i] = oracle(numbers, cell.eps)[0]
    return slices, right


def running_errors(cell: Cell, seed: int) -> dict[str, float]:
    """The largest error, in epsilons, of the statistics that a BatchNorm stores."""
    slices, found = cell.draw(seed), {}
    for way, library in (("normviz", normviz), ("torch.nn", nn)):
        layer, off = layer_of(library, cell.layer, cell.lay_out(slices), cell.eps), []
        layer(cell.lay_out(slices))
        stored = zip(slices, layer.running_mean.tolist(), layer.running_var.tolist(), strict=True)
        for numbers, stored_mean, stored_var in stored:
            _, mean, var = oracle(numbers, cell.eps)
            unbiased = var * cell.count / (cell.count - 1)
            off.append(abs(stored_mean - mean) / max(abs(mean), var**0.5))
            off.append(abs(stored_var - unbiased) / (unbiased or 1))  # of a constant it is 0
        found[way] = max(off) / torch.finfo(cell.dtype).eps
    return found


def cells(*, quick: bool = False) -> Iterator[Cell]:
    """The whole table: every offset with every scale; the largest sizes in a few places only."""
    if quick:
        wheres = product(DTYPES[1:3], (0, 1e2, 1e4), ((1, 1e-5), (1e20, 1e-5)), (10, 1000))
    else:
        wheres = chain(
            product(DTYPES, OFFSETS, SCALES, (2, 10, 1000)),
            product(DTYPES, OFFSETS, [(1, 1e-5)], [10**5]),
            product([torch.float32], (0, 1e4), [(1, 1e-5)], [10**6, 10**7]),
            product((*DTYPES[:2], DTYPES[3]), [0], [(1, 1e-5)], [10**6, 10**7]),
        )
    for (dtype, offset, (scale, eps), count), layer in product(wheres, LAYERS):
        yield Cell(layer, dtype, offset, scale, count, eps)


def measure(*, quick: bool = False) -> Section:
    """The largest errors of the four ways over offsets, scales, sizes and dtypes."""
    table, seeds = [*cells(quick=quick)], range(2 if quick else 3)
    found = {}
    for seed, cell in product(seeds, table):
        # Large slices are average enough; to draw them again would take most of the time.
        if (cell.count <= EXACT or not seed) and (wrong := errors(cell, seed)):
            found[cell, seed] = wrong
    return Section("Exactness", _rows(found, seeds), _notes(found, quick))


def _rows(found, seeds) -> list[Row]:
    rows = []
    for layer, dtype in product(LAYERS, DTYPES):
        of_kind = {key: wrong for key, wrong in found.items() if _kind(key[0]) == (layer, dtype)}
        if of_kind:
            what = f"{layer}, {_name(dtype)}: largest error, where it compares worst"
            rows.append(Row(what, "torch.nn", _ratio(of_kind, seeds), aim=2))
    for layer in LAYERS:
        cell = Cell(layer, torch.float32, offset=1e4)
        where_poor = {(cell, seed): found[cell, seed] for seed in seeds}
        what = f"{layer}, float32, 1000 numbers at offset 10⁴: largest error"
        rows.append(Row(what, "torch.nn", _ratio(where_poor, seeds), aim=0.1))
    return rows


def _ratio(found, seeds) -> Spread:
    """normviz against torch.nn in the cell where that is worst, for each draw."""
    worst = dict.fromkeys(seeds, 0.0)
    for (_, seed), wrong in found.items():
        ratio = max(wrong["normviz"], FLOOR) / max(wrong["torch.nn"], FLOOR)
        worst[seed] = max(worst[seed], ratio)
    return Spread.of([*worst.values()])


def _notes(found, quick: bool) -> str:
    plain = {key: wrong for key, wrong in found.items() if key[0].scale == 1}
    centred = {key: wrong for key, wrong in found.items() if key[0].offset == 0}
    both = {key: wrong for key, wrong in plain.items() if key in centred}
    tables = [
        READ_THIS,
        "Over all offsets, scales and sizes:",
        _table("layer, dtype", _worst(found, lambda c: (c.layer, _name(c.dtype)))),
        "At the scale 1, over all layers and sizes:",
        _table("dtype, offset", _worst(plain, lambda c: (_name(c.dtype), _power(c.offset)))),
        "At the offset 0, over all layers and sizes:",
        _table(
            "dtype, scale, eps",
            _worst(centred, lambda c: (_name(c.dtype), _power(c.scale), f"{c.eps:g}")),
        ),
        "At the scale 1 and the offset 0, over all layers:",
        _table(
            "dtype, numbers per statistic",
            _worst(both, lambda c: (_name(c.dtype), _power(c.count))),
        ),
        "What a BatchNorm1d with 1000 numbers per channel stores, at the scale 1: in epsilons "
        "relative to running_var itself, and to the larger of running_mean and the standard "
        "deviation:",
        _table("dtype, offset", _running(quick)),
    ]
    return "\n\n".join(tables)


READ_THIS = f"""\
The unit is the machine epsilon of the dtype: the largest |y − oracle| over a tensor, relative to \
the larger of |y| and 1. Up to 0.5 nothing could be better; 1/epsilon (8.4·10⁶ in float32) means \
not one right digit, or no number.

Inputs are scale · (offset + z), z normally distributed, rounded to the dtype. The oracle takes \
the rounded numbers, and eps, and counts in decimals of 60 digits, for more than 20,000 numbers in \
float64 with exact sums. Where the dtype cannot hold the input there is no comparison, and neither \
where rounding left a constant and eps is 0 (that is 0/0); with an eps a constant has to give \
exactly 0. In float16 and bfloat16 the two ways by hand compute in that dtype, both layers in \
float32.

Ratios count errors below {FLOOR} epsilons as {FLOOR}: twice what the four roundings of a \
right way add up to. They are taken cell by cell, and the worst one stands in the table, for each \
draw. The tables here show largest errors."""


def _worst(found, key) -> dict[tuple, dict[str, float]]:
    worst, of_dtype = {}, lambda item: DTYPES.index(item[0][0].dtype)
    for (cell, _), wrong in sorted(found.items(), key=of_dtype):
        at = worst.setdefault(key(cell), dict.fromkeys(wrong, 0.0))
        for way in wrong:
            at[way] = max(at[way], wrong[way])
    return worst


def _running(quick: bool) -> dict[tuple, dict[str, float]]:
    where = product(DTYPES[2:], OFFSETS[:3] if quick else OFFSETS)
    drawn = ((Cell("BatchNorm1d", *place), 0) for place in where)
    found = {(cell, seed): running_errors(cell, seed) for cell, seed in drawn}
    return _worst(found, lambda cell: (_name(cell.dtype), _power(cell.offset)))


def _table(heading: str, lines: dict[tuple, dict[str, float]]) -> str:
    head = [*heading.split(", "), *next(iter(lines.values()))]
    body = [[*key, *map(_digits, wrong.values())] for key, wrong in lines.items()]
    return "\n".join(map(_line, [head, ["---"] * len(head), *body]))


def _line(columns: Iterable[str]) -> str:
    return f"| {' | '.join(columns)} |"


def _digits(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _power(number: float) -> str:
    """10⁻²⁰, 10⁴; but 0, 1, 2 and 10 as they are."""
    if number in (0, 1, 2, 10):
        return f"{number:g}"
    return "10" + f"{log10(number):.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _kind(cell: Cell) -> tuple[str, torch.dtype]:
    return cell.layer, cell.dtype
