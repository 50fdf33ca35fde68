"""What all layers share: ε, weight and bias, and one forward pass.

A layer supplies its plan and no formula: which numbers share a mean and a variance, and which share
a weight and a bias. One ``normalize``, with one hand-derived backward, serves them all.

The layers stand on nn.Module alone, to be read from top to bottom. Tools that look for torch's own
classes, such as ``update_bn`` or ``convert_sync_batchnorm``, skip them. ``torch.func``,
``torch.export`` and ``torch.compile`` take them, the last one not as a single graph;
``torch.jit.script`` and ``torch.fx`` do not, as they follow no decisions, and what
``torch.jit.trace`` makes holds for inputs of one shape.
"""

from typing import ClassVar

import torch
from torch import nn

from normviz.formula import widen
from normviz.normalization import normalize_precisely
from normviz.plans import Plan
from normviz.refusals import RefusedInput, check_input, check_numbers, positive_int
from normviz.state import arguments_of, epsilon_of
from normviz.telling import tell


class Norm(nn.Module):
    """A layer that normalizes as its plan says: a subclass has a method ``plan(self, ndim)``.

    Args:
        eps: added to the variance, inside the root; 0 or more.
        shape: of weight and bias, which start at 1 and 0.
        affine: whether there are any.
        bias: False for a weight without a bias.
        device, dtype: of weight and bias.

    >>> class NormPerRow(Norm):
    ...     def __init__(self, num_features, eps=1e-5):
    ...         super().__init__(eps, (num_features,))
    ...         self.num_features = num_features
    ...
    ...     def plan(self, ndim):
    ...         return Plan(
    ...             "n c h w", statistic="n h", weight="c", sizes=(("c", self.num_features),)
    ...         )
    >>> NormPerRow(3)(torch.arange(24.0).reshape(1, 3, 2, 4)).detach()[0, 0, 0]
    tensor([-1.4335, -1.2826, -1.1317, -0.9808])
    """

    starts: ClassVar[dict[str, float]] = {"weight": 1.0, "bias": 0.0}  # what is learned or kept
    keeps_channels_last = True  # in memory
    printed: tuple[str, ...] = ("eps",)  # arguments besides those without a default
    optional: tuple[str, ...] = ()  # which of eps and momentum may be None

    def __init__(self, eps, shape, affine=True, bias=True, device=None, dtype=None):
        super().__init__()
        self.eps = eps
        check_numbers(self)
        shape = [positive_int("a size of the weight", size) for size in shape]
        for name, wanted in {"weight": affine, "bias": affine and bias}.items():
            empty = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, empty)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set everything to where it started: every weight to 1 and every bias to 0."""
        for name, start in self.starts.items():
            if getattr(self, name, None) is not None:
                nn.init.constant_(getattr(self, name), start)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input, normalized as the plan says, scaled and shifted."""
        plan = check_input(self, input)
        if not input.numel():  # no numbers have no mean
            return self.scale_and_shift(widen(input), input, plan)
        return self.as_laid_out(self.by_input(input, plan)[0], input)

    def by_input(self, input: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, ...]:
        """The output, and the mean and the variance that made it, in float64."""
        if plan.mixed or plan.summed or not plan.scaled or plan.normalizes != "input":
            raise RefusedInput(
                f"a plan must ask for one mean (or none) and one variance per slice of the input, "
                f"or the layer must have a by_input of its own: got {plan!r}."
            )
        eps = epsilon_of(self, input.dtype)
        affine = self.weight, self.bias, plan.sharing
        y, mean, var = normalize_precisely(
            input, plan.reduction, eps, *affine, centred=plan.centred
        )
        tell(plan, "batch", mean, var, eps, batch=(mean, var))
        return y, mean, var

    def scale_and_shift(self, y: torch.Tensor, input: torch.Tensor, plan: Plan) -> torch.Tensor:
        """y, in the dtype of sums, with weight and bias; in the dtype of the input."""
        sharing, shape = plan.sharing, input.shape  # gradients add up in float32
        for parameter, act in ((self.weight, torch.mul), (self.bias, torch.add)):
            if parameter is not None:
                shared = widen(parameter).reshape(sharing.stat_shape(shape))
                y = act(y, sharing.spread(shared, shape))
        return y.clone() if y is input else y.to(input.dtype)

    def as_laid_out(self, y: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
        """y in memory as torch's layer has it: channels last where they are last in the input."""
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.ndim)
        if last and self.keeps_channels_last and not input.is_contiguous():
            strides = input.movedim(1, -1).stride()  # of a part, such as every second sample, too
            if strides[-1] and [*strides] == sorted(strides, reverse=True):
                return y.contiguous(memory_format=last)
        return y.contiguous()

    def extra_repr(self) -> str:
        """The arguments, as torch.nn prints them."""
        shown = [str(value) for value in arguments_of(self).values()]
        for name in self.printed:
            value = getattr(self, name)
            value = value is not None if name in self._parameters else value
            shown.append(f"{name}={value}")
        return ", ".join(shown)
