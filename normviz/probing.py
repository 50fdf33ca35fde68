"""What a module does, found by moving numbers and watching; ``probe`` says it in words."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from normviz import plans
from normviz.evidence import Bench, NoPattern, Slices, changing, moved, reason_of
from normviz.fitting import Formula, find_activation, find_formula, find_invariances, find_stored
from normviz.looking import untouched
from normviz.plans import Plan
from normviz.reduction import Reduction
from normviz.refusals import RefusedInput, check_tensor
from normviz.state import set_epsilon
from normviz.words import five_digits

EVERY = {*range(99)}  # of the axes, taken apart: no more are known of
WHERE = {True: "inside the root", False: "outside the root", None: "the least divisor"}  # ε


@dataclass(frozen=True, eq=False, repr=False)
class Probe:
    """What a module was seen to do. None stands for what could not be told, or is not there.

    Attributes:
        plan: what it pools in the mode that it is in, or else in training.
        declared: the plan that it declares.
        agrees: whether what it declares is what was found; None where that cannot be compared.
        pooled: one number moves the outputs of these slices, now.
        centred: whether a number added to a whole slice is gone.
        scaled: whether a factor of a whole slice is gone.
        summed: whether squares are added up rather than averaged.
        eps: what keeps the divisor from 0, about.
        eps_inside: True inside the root, False outside; None if neither fits.
        correction: what is taken off the count that divides the squares: 0 for a biased variance.
        weight, bias: which outputs share one.
        batch_mates: by mode, whether a sample's outputs depend on the other samples.
        stored: the buffers that move in training, each with what moves into it.
        momentum: the weight of the new batch there; None for the plain average.
        activation: what stands behind the normalization.
        text: all of it, in words.

    >>> found = probe(nn.BatchNorm1d(3), torch.randn(5, 3))
    >>> found.slice, found.stored["running_var"], found.batch_mates
    (Reduction('n c -> c'), 'the unbiased variance', {'training': True, 'eval': False})
    """

    plan: Plan | None = None
    declared: Plan | None = None
    agrees: bool | None = None
    pooled: tuple[Reduction, ...] = ()
    centred: bool | None = None
    scaled: bool | None = None
    summed: bool | None = None
    eps: float | None = None
    eps_inside: bool | None = None
    correction: float | None = None
    weight: Reduction | None = None
    bias: Reduction | None = None
    batch_mates: dict[str, bool | None] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)
    momentum: float | None = None
    activation: str | None = None
    text: str = ""

    @property
    def slice(self) -> Reduction | None:
        """Which numbers move together now, if there is one answer."""
        return self.pooled[0] if len(self.pooled) == 1 else None

    @property
    def summary(self) -> str:
        """What was found, in a line: the formula, or why there is none.

        >>> probe(nn.LayerNorm(4), torch.randn(3, 4)).summary
        'found by moving numbers: x − mean; biased variance; ε is 1e−5, inside the root'
        """
        if not self.plan:
            return self.text.splitlines()[-1].removesuffix(".")
        kind = "squared norm" if self.summed else "variance" if self.centred else "mean square"
        bias = {0: "biased ", 1: "unbiased "}.get(self.correction, "")
        facts = ["x − mean"] * bool(self.centred)
        facts += [f"{bias * (kind == 'variance')}{kind}"] * bool(self.scaled)
        if self.eps:
            facts.append(f"ε is {five_digits(self.eps)}, {WHERE[self.eps_inside]}")
        if self.activation:
            facts.append(f"behind it an activation, which {self.activation}")
        return f"found by moving numbers: {'; '.join(facts)}"

    def __repr__(self) -> str:
        return self.text


def probe(layer: nn.Module, x: Tensor) -> Probe:
    """What a module does to an input like x, found by moving numbers, whatever its class.

    It runs some hundred times, in float64, as it is, with its hooks, on random numbers in the shape
    of x, or a smaller one if x is large; its weights are moved, too. Afterwards it is what it was,
    and so is the random state.

    Args:
        layer: any module from one tensor to one tensor.
        x: an input, a floating-point tensor of a shape that the module takes.

    Returns:
        What was seen. Its plan is None if that is no normalization, and the text says why.

    Raises:
        ValueError: if layer is no module, or does not take x.

    >>> found = probe(nn.GroupNorm(2, 6), torch.randn(4, 6, 5))
    >>> found.slice, found.centred, found.eps_inside, found.agrees
    (Reduction('n (g c) l -> n g', g=2), True, True, True)
    >>> print(probe(nn.Softmax(-1), torch.randn(4, 6)))
    One number moves 6 of 24 outputs: over c, one per n.
    Other samples move none in training and in eval.
    No normalization: a number added to a slice is gone, but a factor is neither gone nor kept.
    """
    check_tensor(layer, x)
    if not isinstance(layer, nn.Module):
        raise RefusedInput(f"layer must be a torch module: got {type(layer).__name__}.")
    declared = None
    with suppress(ValueError):
        declared = plans.declared(layer, x.ndim)[1]
    with torch.inference_mode(False), torch.no_grad(), untouched(layer):
        set_epsilon(layer, x.dtype)  # not that of float64
        bench = Bench(layer, tuple(x.shape))
        try:
            layer.to("cpu", torch.float64)
            with untouched(layer):
                y = layer(x.detach().to("cpu", torch.float64, copy=True))
        except Exception as error:
            kind = type(layer).__name__
            raise RefusedInput(f"{kind} does not take x: {reason_of(error)}.") from error
        return _Probing(bench, declared).report(y)


class _Probing:
    """One probe on its way: what was found, and what is to be said of it."""

    def __init__(self, bench: Bench, declared: Plan | None):
        self.bench, self.declared = bench, declared
        self.found, self.lines = Probe(declared=declared), []

    def note(self, line: str = "", **found) -> None:
        self.found = replace(self.found, **found)
        self.lines += [line] * bool(line)

    def report(self, y) -> Probe:
        """All that can be found; y is what the module has made of the input."""
        shape = self.bench.shape
        try:
            self._check_output(y)
            if self.bench.shape != shape:
                self.note(f"It was tried on the shape {self.bench.shape}.")
            self._look()
        except NoPattern as reason:
            if self.bench.layer.training or not self._look_in_training():
                self.note(f"No normalization: {reason}.")
        self._compare()
        return replace(self.found, text="\n".join(self.lines))

    def _check_output(self, y) -> None:
        """Whether it can be compared with the input, number by number."""
        bench = self.bench
        if not isinstance(y, Tensor) or not y.is_floating_point():
            raise NoPattern(f"its output is no tensor of real numbers, but {type(y).__name__}")
        if tuple(y.shape) != bench.shape:
            raise NoPattern(f"its output has another shape, {tuple(y.shape)}")
        if not y.numel() or not y.ndim:
            raise NoPattern("there are no numbers that could share anything")
        bench.choose_shape()
        x = bench.draw()
        once, again = bench.run(x), bench.run(x, seed=1)
        if not once.isfinite().all():
            raise NoPattern("from ordinary numbers, it makes nan or inf")
        if moved(once, again).any():
            raise NoPattern("it is random: the same numbers come out differently a second time")

    def _look(self) -> None:
        """All that is done in the mode that the module is in."""
        self.bench.find_roles()
        if not self.bench.depends({}):
            raise NoPattern("no output depends on the input")
        slices = self.bench.find_slices()
        if self.bench.restore(slices.split):
            return self._look()
        names = self._name_axes(slices)
        pooled = tuple(_reduce(slices, names, over) for over in slices.pooled if over)
        self.note(_say_slices(pooled, self.bench.shape), pooled=pooled)
        if "n" in names:
            modes = {"training": True, "eval": False}
            mates = {mode: self.bench.has_mates(on) for mode, on in modes.items()}
            self.note(_say_mates(mates), batch_mates=mates)
        if not pooled:
            self._say_each_alone(slices, names)
            raise NoPattern("no output depends on another number than its own")
        over = pooled[0] if len(pooled) == 1 else _reduce(slices, names, EVERY)
        slope = self._find_slope(over, whole=len(pooled) > 1)
        sharing = self._find_sharing(slices, names, slope)
        if stored := find_stored(self.bench, pooled):
            self.note(stored.text, stored=stored.kinds, momentum=stored.momentum)
        self._note_plan(slices, names, pooled, sharing, stored and stored.running)

    def _look_in_training(self) -> bool:
        """Whether it pools in training what it does not pool in eval; all that is noted, too."""
        layer = self.bench.layer
        with untouched(layer):
            layer.train()
            trained = _Probing(Bench(layer, self.bench.shape), self.declared)
            trained.bench.whole = self.bench.whole
            with suppress(Exception):  # in training it may not take x
                trained._look()
        if not trained.found.plan:
            return False
        own = {"pooled": self.found.pooled, "batch_mates": self.found.batch_mates}
        self.lines += ["In training:", *(line for line in trained.lines if line not in self.lines)]
        self.found = replace(trained.found, **own)
        return True

    def _name_axes(self, slices: Slices) -> tuple[str, ...]:
        """A name for each axis: as declared, if that fits, or by what is pooled."""
        ndim = len(self.bench.shape)
        if self.declared and self.declared.normalizes == "input":
            with suppress(ValueError):  # it declares something for another shape
                axes = self.declared.reduction.name_axes(self.bench.shape)
                return tuple(name.replace(" ", "_") for name in axes)
        if ndim == 3 and slices.pooled == (frozenset({2}),):
            return "n", "t", "c"
        return tuple(plans.channels_first(ndim).split()) if ndim > 1 else ("c",) * ndim

    # What is done with a slice

    def _find_slope(self, over: Reduction, whole: bool) -> float:
        """What is done with a slice, or with all if slices overlap; the slope at which it shows."""
        centred, scaled = find_invariances(self.bench, over)
        gone = {True: "is gone", False: "is not gone"}
        line = f"A number added to a whole slice {gone[centred]}; a factor of it {gone[scaled]}."
        self.note(line, centred=centred, scaled=scaled)
        if whole or not scaled:
            return 1.0
        formula, gain, slope = find_formula(self.bench, over, centred)
        line = _say_divisor(formula, gain, over.count(self.bench.shape))
        self.note(line, summed=formula.summed, correction=formula.correction)
        self.note(**_say_eps(formula))
        if kind := find_activation(self.bench, slope):
            self.note(f"An activation stands behind it: it {kind}.", activation=kind)
        return slope

    # What is shared and kept

    def _find_sharing(self, slices: Slices, names, slope: float) -> dict[str, Reduction]:
        """Which outputs share a weight, and which a bias."""
        found = self.bench.find_sharing(slices.split, slope)
        sharing = {role: _reduce(slices, names, EVERY - kept) for role, kept in found.items()}
        seen = [f"one {role} per {', '.join(r.kept) or 'layer'}" for role, r in sharing.items()]
        said = f"{' and '.join(seen).capitalize()}." if seen else "No weight and no bias is seen."
        self.note(said, **sharing)
        return sharing

    def _say_each_alone(self, slices: Slices, names) -> None:
        """Each output from its own number: by stored numbers, or by a function."""
        bench = self.bench
        bench.state = {name: 0.5 + bench.distinct(held) for name, held in bench.tensors().items()}
        bench.state |= dict.fromkeys(bench.floors, -1e3) | dict.fromkeys(bench.shifts, 30.0)
        x, *others = bench.draw(), bench.draw(), bench.draw()
        y, one, other = map(bench.run, (x, *others))
        slope = (one - y) / (others[0] - x)
        off = (other - y - slope * (others[1] - x)).abs() > 1e3 * bench.exact * y.abs().max()
        if off.double().mean() > 0.01:
            self.note("Each output is a function of its own number.")
        elif bench.same(slope, torch.ones_like(slope), 1e3):
            self.note("Each output is its own number, moved by a fixed one at most.")
        else:
            kept = changing(slope, slices.split, 1e3 * bench.exact)
            sharing = _reduce(slices, names, EVERY - kept)
            per = ", ".join(sharing.kept) or "layer"
            self.note(f"Stored numbers make each output: one slope and one shift per {per}.")
            self.note(weight=sharing, bias=sharing)

    # What all of it makes

    def _note_plan(self, slices: Slices, names, pooled, sharing, running) -> None:
        order = [name for axis in slices.name(names) for name in axis]
        kept = {name for reduction in pooled for name in reduction.kept}
        shared = (*sharing.values(), None)[0]
        mixed = tuple((f"per {' '.join(over.kept)}", " ".join(over.kept)) for over in pooled)
        plan = Plan(
            axes=pooled[0].pattern.partition(" ->")[0],
            statistic=" ".join(name for name in order if name in kept),
            weight=" ".join(shared.kept) if shared else "",
            sizes=slices.sizes(names),
            running=running,
            centred=bool(self.found.centred),
            scaled=bool(self.found.scaled),
            mixed=mixed if len(pooled) > 1 else (),
            summed=bool(self.found.summed),
        )
        self.note(plan=plan)

    def _compare(self) -> None:
        """Whether what is declared is what was found."""
        declared = self.declared
        if not declared:
            return
        what = f"It declares {declared.reduction.pattern!r}"
        if declared.normalizes != "input":
            what = f"{what} of its {declared.normalizes}"
            agrees = self._agrees_on_weight()
        else:
            try:
                agrees = self._agrees()
            except ValueError:  # it is for another shape
                agrees = False
        said = {
            True: "as was found",
            False: "something else was found",
            None: "not to be told here",
        }
        self.note(f"{what}: {said[agrees]}.", agrees=agrees)

    def _agrees(self) -> bool | None:
        declared, found, shape = self.declared, self.found, self.bench.shape

        def same(one: Reduction, other: Reduction) -> bool:
            return np.array_equal(one.labels(shape), other.labels(shape))

        if declared.mixed:
            now = declared.pooled(stored=not self.bench.layer.training)
            return _near(now, shape) == _near(found.pooled, shape)
        if not (plan := found.plan):
            unseen = not self.bench.layer.training and not found.pooled
            return None if unseen or declared.reduction.count(shape) == 1 else False
        pairs = [(plan.reduction, declared.reduction)]
        pairs += [(seen, declared.sharing) for seen in (found.weight, found.bias) if seen]
        if plan.running is not None:
            if declared.running is None:
                return False
            pairs.append((plan.per(plan.running), declared.per(declared.running)))
        choices = ("centred", "scaled", "summed", "mixed")
        return all(same(*pair) for pair in pairs) and all(
            getattr(plan, choice) == getattr(declared, choice) for choice in choices
        )

    def _agrees_on_weight(self) -> bool | None:
        """Whether outputs stay where slices of the weight are raised, or multiplied."""
        bench, declared = self.bench, self.declared
        held, weight = bench.tensors(), declared.normalizes
        stored = [name for name in (f"parametrizations.{weight}.original1", weight) if name in held]
        if not stored:
            return None
        bench.state, x, weight = {}, bench.draw(), held[stored[0]]
        over = declared.reduction
        change = bench.draw(over.stat_shape(weight.shape)).abs() + 1
        change = over.spread(change, weight.shape)
        states = (weight + change if declared.centred else weight * change, weight + 1 + weight**2)
        y, slices, each = bench.run(x), *(bench.run(x, {stored[0]: state}) for state in states)
        size = y.abs().max()
        return bench.same(slices, y, size) and not bench.same(each, y, size)


def _reduce(slices: Slices, names: tuple[str, ...], over) -> Reduction:
    """The reduction that pools these axes, taken apart."""
    parts = slices.name(names)
    flat = [name for axis in parts for name in axis]
    kept = " ".join(name for i, name in enumerate(flat) if i not in over)
    axes = " ".join(f"({' '.join(axis)})" if len(axis) > 1 else axis[0] for axis in parts)
    return Reduction(f"{axes} -> {kept}", **dict(slices.sizes(names))).of_any_size()


def _say_divisor(formula: Formula, gain: float | None, count: int) -> str:
    """What the squares of so many numbers are divided by."""
    kind, correction = "variance" if formula.centred else "mean square", formula.correction
    if formula.summed:
        return "Squares are added up rather than averaged."
    if gain is None:
        return f"What the {kind} is divided by cannot be told behind the activation."
    if correction is None:
        return f"Besides a {kind}, {five_digits(gain)} is a factor of all."
    if not formula.centred:
        return f"The mean square is that of {count:,} numbers."
    bias = "unbiased" if correction else "biased"
    return f"The variance is {bias}: {count:,} numbers, divided by {count - correction:,}."


def _say_eps(formula: Formula) -> dict:
    """A line on ε, and what was found."""
    if formula.eps is None:
        return {"line": "ε cannot be told behind the activation."}
    eps = torch.as_tensor(formula.eps)
    if not eps.any():
        return {"line": "No ε is seen.", "eps": 0.0}
    low, high = map(float, (eps.min(), eps.max()))
    much = five_digits(low) if high < 1.001 * low else f"{five_digits(low)} to {five_digits(high)}"
    line = f"ε is {much}, {WHERE[formula.inside]}."
    return {"line": line, "eps": float(f"{eps.mean():.6g}"), "eps_inside": formula.inside}


def _near(reductions: tuple[Reduction, ...], shape: tuple[int, ...]) -> list[bytes]:
    """The outputs that a number moves, for three places of it."""
    masks = []
    for at in ([0] * len(shape), [n - 1 for n in shape], [n // 2 for n in shape]):
        same = [r.labels(shape) == r.label_at(tuple(at), shape) for r in reductions]
        masks.append(np.any(same, axis=0).tobytes())
    return masks


def _say_slices(pooled: tuple[Reduction, ...], shape: tuple[int, ...]) -> str:
    if not pooled:
        return "One number moves one output, its own: nothing is pooled now."
    if len(pooled) == 1:
        count = f"{pooled[0].count(shape):,} of {prod(shape):,}"
        return f"One number moves {count} outputs: {pooled[0]}."
    return f"One number moves outputs in more than one way: {'; and '.join(map(str, pooled))}."


def _say_mates(mates: dict[str, bool | None]) -> str:
    seen = {True: [], False: [], None: []}
    for mode, moves in mates.items():
        seen[moves].append(f"in {mode}")
    verbs = {True: "move its outputs", False: "move none", None: "cannot be told about"}
    said = [f"{verbs[moves]} {' and '.join(modes)}" for moves, modes in seen.items() if modes]
    return f"Other samples {', and '.join(said)}."
