"""A copy of a model runs on a batch, in eval and in training, and its normalizations are watched.

The tensors themselves are not kept, only what is measured of them on the way.
"""

import copy
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from normviz.batches import gap_of, mapped, tensors_in, with_other_mates
from normviz.looking import untouched
from normviz.measuring import (
    Call,
    Known,
    Made,
    alike,
    head_of,
    know,
    measure,
    pools_mates,
)
from normviz.probing import Probe
from normviz.state import RUNNING, epsilon_of

MAPS = nn.Linear | nn.modules.conv._ConvNd
ON_META = "on the meta device, which holds no numbers"
NAMED = re.compile(r"Norm(?!al)")  # LayerNorm, LlamaRMSNorm; not Normal, Normalize


@dataclass(eq=False)
class Watched:
    """A normalization of the model: how it was found, and what it did."""

    name: str  # "" if it is the model itself
    module: nn.Module = field(repr=False)  # of the copy
    kind: str  # the name of its class
    training: bool  # its mode as it was found,
    held: Mapping[str, torch.Tensor] = field(repr=False)  # its weights and buffers,
    trainable: tuple[str, ...]  # and which of these take gradients
    unfreezes: bool = False  # whether model.train() brings it from eval into training
    in_training: list[Call] = field(default_factory=list, repr=False)
    in_eval: list[Call] = field(default_factory=list, repr=False)
    as_found: list[Call] = field(default_factory=list, repr=False)  # one of these two
    needs_mates: bool = False  # in eval, its outputs were seen to depend on the batch mates
    head: torch.Tensor | None = field(default=None, repr=False)  # of its input
    found: Probe | None = field(default=None, repr=False)  # if nothing is known of its class

    @property
    def call(self) -> Call:
        """Its first call, in training if it came so far there."""
        return (self.in_training or self.in_eval)[0]

    @property
    def now(self) -> Call:
        """Its first call in the mode in which it was found."""
        return (self.as_found or self.in_eval or self.in_training)[0]

    @property
    def running(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Running mean and variance, as they were found."""
        found = tuple(self.held[name] for name in RUNNING if name in self.held)
        return found if len(found) == 2 else None

    @property
    def tracks(self) -> bool:
        """Whether it would move its running statistics in training."""
        on = getattr(self.module, "track_running_stats", True)
        return bool(self.running and on and (not self.found or self.found.stored))

    @property
    def affine(self) -> tuple[str, ...]:
        """The names of its parameters."""
        return tuple(n for n, p in self.module._parameters.items() if p is not None)


@dataclass(eq=False)
class Run:
    """All normalizations of a model, in the order of the forward pass."""

    layers: list[Watched]
    training: bool  # the mode in which the model was found
    trainable: bool  # whether any of its parameters takes a gradient
    refused: str | None = None  # what the model said to the batch in training, if it took none
    mates: float = 0.0  # in eval, how far a prediction moves with its batch mates, relatively


def watch(model: nn.Module, args: tuple, kwargs: dict, call: Callable | None) -> Run:
    """Run a copy of a model in eval and in training, and once more if batch mates may matter.

    Raises:
        ValueError: if the model does not take the batch in eval.
    """
    with stand_in(model) as (twin, restart):
        run = Run([], model.training, any(p.requires_grad for p in twin.parameters()))
        watcher = Watcher(twin, call or (lambda model, *a, **k: model(*a, **k)))
        found, trained = _modes_of(twin), _modes_of(twin.train())
        twin.eval()
        restart()
        try:
            y = watcher.run(args, kwargs, "in_eval")
        except Exception as error:
            raise ValueError(_words(twin, error)) from error
        if watcher.may_need_mates and (others := with_other_mates(args, kwargs)):
            restart()
            with suppress(Exception):  # what it takes may belong together in other ways
                run.mates = gap_of(y, watcher.run(*others, "with_mates"))
        del y
        for part, mode in (found if run.training else trained).items():
            part.training = mode
        restart()
        try:
            watcher.run(args, kwargs, "in_training")
        except Exception as error:
            run.refused = f"{type(error).__name__}: {error}"
        for layer in watcher.seen:
            after = trained[layer.module]
            layer.unfreezes = after and not layer.training
            in_training = run.training or layer.training == after
            layer.as_found = layer.in_training if in_training else layer.in_eval
        for hook in watcher.hooks:  # or the layers would keep the whole copy
            hook.remove()
        run.layers = watcher.seen
        return run


def _modes_of(model: nn.Module) -> dict[nn.Module, bool]:
    return {part: part.training for part in model.modules()}


class Watcher:
    """The hooks on a model, and what they have seen."""

    def __init__(self, model: nn.Module, call: Callable):
        self.model, self.call = model, call
        self.layers = dict(_normalizations(model))
        self.seen: list[Watched] = []
        self.known: dict[tuple, Known] = {}
        maps = {name: part for name, part in model.named_modules() if isinstance(part, MAPS)}
        self.uses = Uses()
        self.hooks = [
            part.register_forward_hook(partial(self._mark, name), prepend=True)
            for name, part in maps.items()
        ]
        for layer in self.layers.values():
            before, after = partial(self._before, layer), partial(self._after, layer)
            self.hooks += [
                layer.module.register_forward_pre_hook(before, with_kwargs=True),
                layer.module.register_forward_hook(after, with_kwargs=True),
            ]

    @property
    def may_need_mates(self) -> bool:
        """Whether a layer in eval pools samples, or nobody knows what it pools."""
        calls = (call for layer in self.seen for call in layer.in_eval)
        return any(call.plan is None or pools_mates(call) for call in calls)

    def run(self, args: tuple, kwargs: dict, phase: str):
        """One pass of the model, on copies of the arguments."""
        self.phase, self.pending = phase, []
        args, kwargs = mapped(lambda t: t.detach().clone(), (args, kwargs))
        with torch.no_grad(), self.uses:
            self.uses.inside = 0
            y = self.call(self.model, *args, **kwargs)
        for tensor in tensors_in(y):
            if made := getattr(tensor, "_normviz_made", None):
                made.uses += 1
        return y

    def _mark(self, name: str, part, args, y) -> None:
        if isinstance(y, torch.Tensor):
            axis = y.ndim - 1 - len(getattr(part, "kernel_size", ()))
            biases = 0 if part.bias is None else part.bias.numel()
            learns = bool(biases) and part.bias.requires_grad
            y._normviz_made = Made(name, axis, learns, biases, y._version)

    def _before(self, layer: Watched, part, args, kwargs) -> None:
        self.uses.inside += 1
        x = next((t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)), None)
        if x is not None and x.is_meta:
            raise ValueError(f"{layer.kind} got an input {ON_META}")
        usual = x is not None and x.is_floating_point() and x.layout == torch.strided
        call = self._call(layer, x) if usual else None
        held = {name: t.clone() for name, t in part._buffers.items() if t is not None}
        self.pending.append((call, held))
        if call and self.phase != "with_mates":
            getattr(layer, self.phase).append(call)

    def _call(self, layer: Watched, x: torch.Tensor) -> Call | None:
        """What there is to be known before the call; None if it is no normalization."""
        plan, stored, found = self._known(layer.module, x)
        if not plan and not (NAMED.search(layer.kind) and (found is None or found.pooled)):
            return None
        made = getattr(x, "_normviz_made", None)
        made = made if made and made.version == x._version else None
        call = Call(tuple(x.shape), x.dtype, plan, stored, made=made)
        if layer not in self.seen:
            self.seen.append(layer)
            layer.found = found
            layer.head = plan and head_of(x, plan)
        if self.phase == "in_training" and plan is not None and x.numel():
            measure(call, x)
        if plan is None and x.ndim:
            call.first = (x[0].clone(),)
        return call

    def _known(self, part: nn.Module, x: torch.Tensor) -> Known:
        """What it pools; of layers that are alike, one is asked."""
        keys = alike(part, x)
        known = self.known.get(keys[0]) or self.known.get(keys[1]) or know(part, x)
        plan, _, found = known
        if found:
            self.known[keys[0 if plan and plan.sizes else 1]] = known
        return known

    def _after(self, layer: Watched, part, args, kwargs, y) -> None:
        self.uses.inside -= 1
        call, held = self.pending.pop()
        if call is None:
            return
        now = part._buffers
        call.moved = tuple(n for n, t in held.items() if n in now and not _equal(t, now[n]))
        if call.first and isinstance(y, torch.Tensor) and y.ndim:
            call.first = (*call.first, y[0].clone())
        if self.phase != "with_mates":
            return
        if call.plan is not None:
            layer.needs_mates |= pools_mates(call)
        elif len(call.first) == len(layer.in_eval[0].first) == 2:
            gaps = [*map(gap_of, layer.in_eval[0].first, call.first)]
            layer.needs_mates |= gaps[0] < 1e-6 and gaps[1] > 1e-3


class Uses(TorchFunctionMode):
    """Counts who, besides the normalizations, uses what comes out of a map."""

    inside = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        if not self.inside and isinstance(y, torch.Tensor | tuple | list):
            for tensor in tensors_in((args, kwargs)):
                if made := getattr(tensor, "_normviz_made", None):
                    made.uses += 1
        return y


# What a layer is, and what it pools


def _normalizations(model: nn.Module) -> Iterator[tuple[str, Watched]]:
    """What may be a normalization of a model; what holds one is a block, not a layer."""
    declared = {name: part for name, part in model.named_modules() if _is_called_one(name, part)}
    for name, part in model.named_modules():
        inner = (p for p in part.modules() if p is not part)
        own = not type(part).__module__.startswith("torch.") and not part._modules
        if name in declared and any(p in declared.values() for p in inner):
            continue
        if name not in declared and not own:
            continue
        tensors = {**part._parameters, **part._buffers}.items()
        held = {n: t.detach().clone() for n, t in tensors if t is not None}
        trainable = (n for n, p in part._parameters.items() if p is not None and p.requires_grad)
        kind = type(part).__name__
        yield name, Watched(name, part, kind, part.training, held, tuple(trainable))


def _is_called_one(name: str, part: nn.Module) -> bool:
    """Whether a name of its classes says so, or a plan."""
    classes = type(part).__mro__[: -len(nn.Module.__mro__)]
    named = any(NAMED.search(cls.__name__) or "plan" in vars(cls) for cls in classes)
    return named and "parametrizations" not in name.split(".")


def _equal(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _words(model: nn.Module, error: Exception) -> str:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    reason = str(error).strip().removesuffix(".") or "no more words"
    more = f"; {meta} is {ON_META}" if meta and ON_META not in reason else ""
    what = f"{type(error).__name__}: {reason}{more}"
    return f"the model must take the batch: in eval it raised {what}."


@contextmanager
def stand_in(model: nn.Module) -> Iterator[tuple[nn.Module, Callable[[], None]]]:
    """A copy of a model that may run, and what sets the random state back to where it was.

    Where ``copy`` refuses, it is the model itself, which afterwards is what it was.
    """
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    devices = {t.device.index for t in model.parameters() if t.is_cuda}
    of_devices = {device: torch.cuda.get_rng_state(device) for device in devices}

    def restart():
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        for device, state in of_devices.items():
            torch.cuda.set_rng_state(state, device)

    twin = None
    with suppress(Exception):  # a tensor with a history, a lock, an open file
        twin = copy.deepcopy(model)
    try:
        with untouched(model) if twin is None else nullcontext():
            yield model if twin is None else twin, restart
    finally:
        restart()


def epsilon(layer: Watched) -> float:
    """What the layer adds to the variance; 0 where nobody knows."""
    eps = epsilon_of(layer.module, layer.call.dtype)
    return float(eps) if isinstance(eps, float | int) else 0.0
