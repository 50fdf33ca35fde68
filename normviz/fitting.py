"""Which formula makes the outputs of a module, and what moves into its buffers, as measured."""

from dataclasses import dataclass, replace
from itertools import combinations
from math import prod

import torch
from torch import Tensor

from normviz.evidence import SMALL, Bench, NoPattern, passed, stored_in
from normviz.looking import untouched
from normviz.normalization import standardize
from normviz.reduction import Reduction
from normviz.words import five_digits

FAR = 1e6  # a scale at which no ε matters


@dataclass(frozen=True)
class Formula:
    """A formula to be held against outputs; what is None is not known, but for ``inside``."""

    over: Reduction  # which numbers share a statistic
    centred: bool = True  # as in a plan
    scaled: bool = True
    summed: bool = False
    correction: int | None = 0  # what is taken off the count
    eps: float | Tensor | None = 0.0  # a number, or one per slice
    inside: bool | None = True  # the root; None if ε is the least that can divide
    square: bool = False  # whether the mean square divides, whatever is subtracted

    def factor(self, count: int) -> float:
        """What the mean of so many squares is multiplied by."""
        return count if self.summed else count / (count - (self.correction or 0))

    def counted(self, count: int, gain: float, exact: float) -> "Formula":
        """With what the squares of a slice are divided by, as all is so much larger."""
        off = count * (1 - gain * gain)  # the correction, if nothing else makes it larger
        if count > 1 + self.centred and abs(gain * gain * count - 1) < exact:
            return replace(self, summed=True)
        near = round(off) if abs(off - round(off)) < exact and round(off) in (0, 1) else None
        return replace(self, correction=near)

    def with_eps(self, count: int, scale: float, shares: list[Tensor]) -> "Formula":
        """With the ε that shrinks outputs to these shares, at a scale and at a third of it."""
        size, pairs = self.factor(count) ** 0.5, [*zip((scale, scale / 3), shares, strict=True)]
        laws = {
            True: [(size * at) ** 2 * (share**-2 - 1) for at, share in pairs],
            False: [size * at * (1 / share - 1) for at, share in pairs],
            None: [size * at / share for at, share in pairs],
        }
        inside = min(laws, key=lambda law: float((laws[law][1] / laws[law][0] - 1).abs().mean()))
        return replace(self, eps=laws[inside][0], inside=inside)

    def apply(self, x: Tensor) -> Tensor:
        """What the formula makes of x."""
        over, shape, eps = self.over, x.shape, 0.0 if self.eps is None else self.eps
        mean = over.mean(x) * self.centred
        centred = x - over.spread(mean, shape)
        if not self.scaled:
            return centred
        squares = over.mean((x if self.square else centred).square())
        squares = squares * self.factor(over.count(shape))
        return standardize(x, over, mean, squares, eps, self.inside)


def find_invariances(bench: Bench, over: Reduction) -> tuple[bool, bool]:
    """Whether a number added to a slice is gone, and whether a factor is.

    Raises:
        NoPattern: if neither is as in a normalization.
    """
    bench.open(1.0)
    x, other = bench.draw(), bench.draw()
    y, shape = bench.run(x), bench.shape
    size = (y - bench.run(other)).abs().max()

    def per_slice() -> Tensor:
        return over.spread(1 + bench.draw(over.stat_shape(shape)).abs(), shape)

    centred = bench.same(bench.run(x + per_slice()), y, size)
    twice, thrice = bench.run(2 * x), bench.run(3 * x)
    straight = bench.same(thrice - twice, twice - y, size)
    # What saturates, such as a softmax, also stays the same far out, but not near by.
    changes = (thrice - y).abs().mean() / (thrice - bench.run(3 * other)).abs().mean()
    far = bench.run(FAR * x * per_slice()), bench.run(FAR * x)
    scaled = bool(changes < 0.25) and bench.same(*far, size)
    if scaled or (centred and straight and follows(bench, Formula(over, scaled=False), 1.0)):
        return centred, scaled
    alike = "a number added to a slice is gone, but " if centred else ""
    keeps = "stays a factor, and no mean is subtracted" if straight else "is neither gone nor kept"
    raise NoPattern(f"{alike}a factor {keeps}")


def find_formula(bench: Bench, over: Reduction, centred: bool):
    """The formula that makes the outputs, the factor of all, and the slope at which it is seen.

    Raises:
        NoPattern: if none does.
    """
    fits = [measure(bench, Formula(over, centred=centred), slope) for slope in (1.0, SMALL)]
    for (formula, gain), slope in zip(fits, (1.0, SMALL), strict=True):
        if follows(bench, formula, slope):
            return formula, gain, slope
    if not centred and follows(bench, Formula(over, eps=fits[0][0].eps, square=True), 1.0):
        raise NoPattern("a mean is subtracted, and yet the mean square divides")
    raise NoPattern("outputs do not follow from a mean and a variance, or a mean square")


def follows(bench: Bench, formula: Formula, slope: float) -> bool:
    """Whether outputs are straight lines of what the formula makes; with SMALL, near by."""
    bench.open(slope)
    x, one, other = bench.draw(), 0.01 * bench.draw(), bench.draw()  # ε matters in one of them
    if slope == SMALL:
        one, other = x + SMALL * one, x + SMALL * other
    y, *ys = map(bench.run, (x, one, other))
    z, *zs = map(formula.apply, (x, one, other))
    left, right = (ys[0] - y) * (zs[1] - z), (ys[1] - y) * (zs[0] - z)
    if slope == SMALL:  # an edge may lie in between
        near = (left - right).abs() < 0.02 * (left.abs() + right.abs()).mean()
        return bool(near.double().mean() > 0.97)
    return bench.same(left, right, left.abs().max())


def measure(bench: Bench, formula: Formula, slope: float) -> tuple[Formula, float | None]:
    """With ε and the count, from outputs of one pattern at scales down to where ε matters.

    Comes with the factor that all is multiplied by; None if it cannot be told.
    """
    over = formula.over
    bench.open(slope, distinct=False)
    pattern = formula.apply(bench.draw())

    def amplitude(scale: float) -> Tensor:
        return (bench.run(scale * pattern) - bench.run(-scale * pattern)) / 2

    def shrinks_to(scale: float) -> Tensor:
        return over.mean(amplitude(scale).abs()) / over.mean(most.abs())

    most, up = amplitude(FAR), bench.run(FAR * pattern)
    lower = torch.minimum(up, up - 2 * most)
    is_cut = bool((lower == lower.min()).all())  # one of the two, always: as by ReLU
    if slope == SMALL and not bench.slopes and not is_cut:
        return replace(formula, correction=None, eps=None), None
    seen = most.abs() > 0.1 * most.abs().max()
    gain = (1 + is_cut) * float((most / pattern)[seen].median()) / (slope if bench.slopes else 1)
    formula = formula.counted(over.count(bench.shape), gain, 1e3 * bench.exact)
    if formula.summed or formula.correction is not None:
        gain = 1.0
    elif slope == SMALL:
        gain = None
    scale, share = 0.1, most.new_ones(())
    while scale > 1e-9 and not (share < 0.9).all():
        scale /= 10
        share = shrinks_to(scale)
    if (share < 0.9).all():
        shares = [share, shrinks_to(scale / 3)]
        formula = formula.with_eps(over.count(bench.shape), scale, shares)
    return formula, gain


def find_activation(bench: Bench, slope: float) -> str | None:
    """What stands behind a normalization, by what it does."""
    if bench.floors:
        return "cuts below a learned threshold"
    if slope == 1:
        return None
    bench.open(10.0, 0.0)
    y = bench.run(bench.draw())
    ends = {"below": y.min(), "above": y.max()}
    cuts = {side: float(end) for side, end in ends.items() if (y == end).double().mean() > 0.05}
    return " and ".join(f"cuts {side} {five_digits(end)}" for side, end in cuts.items()) or "bends"


@dataclass(frozen=True)
class Stored:
    """The buffers that move in training."""

    kinds: dict[str, str]  # what moves into each
    momentum: float | None = None  # the weight of the batch; None for the plain average
    running: str | None = None  # what there is one per; None if nothing is known of them
    lost: tuple[str, ...] = ()  # those that are no buffers, so that no state_dict holds them

    @property
    def text(self) -> str:
        """In words."""
        what = ", ".join(f"{kind} ({name})" for name, kind in self.kinds.items())
        way = f", with momentum {five_digits(self.momentum)}" if self.momentum else ""
        average = self.running is not None and self.momentum is None
        lost = f" No state_dict holds {' and '.join(self.lost)}: no buffers." if self.lost else ""
        return (
            f"In training it stores {what}{way}{', as the plain average of all' * average}.{lost}"
        )


def find_stored(bench: Bench, pooled: tuple[Reduction, ...]) -> Stored | None:
    """Which buffers move in training, and how; None if none do, or if training refuses x."""
    x, kinds, momentum, running = bench.draw(), {}, None, None
    try:
        zero, one = (buffers_after(bench, [x], start) for start in (0.0, 1.0))
    except Exception:  # whatever the module says then
        return None
    for name, end in zero.items():
        weight = 1 - (one[name] - end)  # of the batch
        if not (weight.any() or end.any()):
            continue
        kinds[name], share = "something else", weight.mean()
        if share and bench.same(weight, share):
            matches = (_match(end / share, x, over, bench.exact) for over in pooled)
            if match := next(filter(None, matches), None):
                (kinds[name], running), momentum = match, float(share)
    if momentum and abs(momentum - 1) < bench.exact and _averages(bench, x):
        momentum = None
    lost = tuple(name for name in kinds if name not in dict(bench.layer.named_buffers()))
    return Stored(kinds, momentum, running, lost) if kinds else None


def _averages(bench: Bench, x: Tensor) -> bool:
    """Whether the second batch weighs a half, where the first has weighed all."""
    y = bench.draw()
    first, second, both = (buffers_after(bench, batches, 0.0) for batches in ([x], [y], [x, y]))
    middles = {name: (end + second[name]) / 2 for name, end in first.items()}
    return all(bench.same(both[name], end, 1 + end.abs().max()) for name, end in middles.items())


def buffers_after(bench: Bench, batches: list[Tensor], start: float) -> dict[str, Tensor]:
    """The buffers after some batches in training, all of them from this value on."""
    with untouched(bench.layer):
        bench.layer.train()
        for held in stored_in(bench.layer).values():
            held.fill_(start if held.is_floating_point() else 0)
        for x in batches:
            passed(bench.layer, x)
        held = stored_in(bench.layer).items()
        return {name: t.detach().clone() for name, t in held if t.is_floating_point()}


def _match(values: Tensor, x: Tensor, over: Reduction, exact: float) -> tuple[str, str] | None:
    """Which statistic of x these values are, and what there is one per."""
    sizes = dict(zip(over.kept, over.stat_shape(x.shape), strict=True))
    known = {
        "the mean": over.mean(x),
        "the biased variance": over.var(x),
        "the unbiased variance": over.var(x, correction=min(1, over.count(x.shape) - 1)),
        "the mean square": over.mean(x.square()),
    }
    for some in (some for count in range(len(sizes) + 1) for some in combinations(sizes, count)):
        if prod(sizes[name] for name in some) != values.numel():
            continue
        joining = Reduction(f"{' '.join(sizes)} -> {' '.join(some)}") if sizes else None
        for name, stat in known.items():
            stat = joining.mean(stat) if joining else stat
            if torch.allclose(stat.reshape(-1), values.reshape(-1), rtol=exact):
                return name, " ".join(some)
    return None
