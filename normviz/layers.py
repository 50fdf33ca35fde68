"""BatchNorm and LayerNorm from scratch, drop-in for torch.nn.

A layer supplies two reductions and no formula: which numbers share a mean and a variance, and which
share a weight and a bias. One ``normalize``, with one hand-derived backward, serves them all.

Sources: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1 and section 3.1; Ba, Kiros and
Hinton 2016, "Layer Normalization", equations 3 and 4. Libraries disagree on the stored variance
(torch stores the unbiased one, Flax and Keras the biased one) and on momentum (here, as in torch,
it is the weight of the *new* batch; in Keras, Flax and ONNX it is the weight of the old value).

The layers stand on nn.Module alone, to be read from top to bottom. Tools that look for torch's own
classes, such as ``update_bn`` or ``convert_sync_batchnorm``, pass them by. ``torch.export`` refuses
them: its tensors hold no numbers, and ``normalize`` looks at those of a variance before it uses it.
"""

import operator
from numbers import Real

import torch
from torch import nn

from normviz.normalization import normalize, standardize, widen
from normviz.reduction import Reduction


class RefusedInput(ValueError, RuntimeError):
    """What a layer refuses, before it changes anything.

    torch.nn raises ValueError for some of these and RuntimeError for others; code that catches
    either one goes on working.
    """


class _Norm(nn.Module):
    """What BatchNorm and LayerNorm share: weight, bias, and what they refuse."""

    def _make_parameters(self, shape, affine, bias, device, dtype):
        for name, wanted in {"weight": affine, "bias": affine and bias}.items():
            empty = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, empty)

    def reset_parameters(self) -> None:
        """Set every weight to 1 and every bias to 0."""
        for parameter, start in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                nn.init.constant_(parameter, start)


class _BatchNorm(_Norm):
    _version = 2  # of the state_dict: since 2 it holds num_batches_tracked

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        self.num_features = _positive_int("num_features", num_features)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        _check_numbers(self)
        self._make_parameters((num_features,), affine, bias, device, dtype)
        buffers = dict.fromkeys(("running_mean", "running_var", "num_batches_tracked"))
        if track_running_stats:
            buffers["running_mean"] = torch.zeros(num_features, device=device, dtype=dtype)
            buffers["running_var"] = torch.ones(num_features, device=device, dtype=dtype)
            buffers["num_batches_tracked"] = torch.tensor(0, device=device)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget all batches: running_mean 0, running_var 1, num_batches_tracked 0."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set every weight to 1 and every bias to 0, and forget all batches."""
        self.reset_running_stats()
        super().reset_parameters()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input, normalized per channel; in training the running statistics move."""
        reduction = check_input(self, input)
        count, mean, var = reduction.count(input.shape), None, None
        if uses_batch_statistics(self) and count:
            y, mean, var = normalize(input, reduction, self.eps, self.weight, self.bias)
        else:
            y = self._apply_running_statistics(input, reduction)
        if self.training and self.track_running_stats:
            self._track(mean, var, count)
        return y.contiguous(memory_format=self._memory_format(input))

    def _apply_running_statistics(self, input, reduction):
        """In eval; and in training where there are no numbers, which takes no statistics at all."""
        y, shape = widen(input), input.shape
        if y.numel():
            mean, var = widen(self.running_mean), widen(self.running_var)
            y = standardize(y, reduction, mean, var, self.eps)
        if self.weight is not None:
            y = y * reduction.spread(widen(self.weight), shape)  # gradients add up in float32
        if self.bias is not None:
            y = y + reduction.spread(widen(self.bias), shape)
        return y.clone() if y is input else y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean, var, count):
        """Move the running statistics: new = (1 - momentum)·old + momentum·batch.

        The variance that is stored is the unbiased one, though the biased one normalizes.
        """
        momentum = self.momentum or 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the n-th batch weighs 1/n: the plain average of all batches
                momentum = 1 / self.num_batches_tracked.item()
        if count and self.running_mean is not None:  # an empty batch counts, but has nothing to add
            unbiased = var * (count / (count - 1))
            for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.copy_(widen(running).lerp(batch, momentum))

    def _memory_format(self, input: torch.Tensor) -> torch.memory_format:
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.ndim)
        is_last = not input.is_contiguous() and input.movedim(1, -1).is_contiguous()
        return last if last and is_last else torch.contiguous_format

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version") in (None, 1) and self.track_running_stats:
            own = self.num_batches_tracked
            start = torch.tensor(0) if own is None or own.is_meta else own
            state_dict.setdefault(f"{prefix}num_batches_tracked", start)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """The arguments, as torch.nn prints them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """One mean and one variance per channel, of (N, C) over n, of (N, C, L) over n and l.

    In training, ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with the statistics of the
    batch (biased variance), and the running statistics move towards them (unbiased variance). In
    eval, the same with the running statistics.

    Args:
        num_features: C, the number of channels.
        eps: added to the variance, inside the root; 0 or more.
        momentum: weight of the new batch in the running statistics, 0 to 1; None for the plain
            average of all batches.
        affine: whether there are a weight and a bias, one of each per channel, starting at 1 and 0.
        track_running_stats: whether there are running statistics; without, eval uses the batch.
        device, dtype: of weight, bias and the running statistics.
        bias: False for a weight without a bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules. Nothing has changed then, the batch counter included.

    >>> bn = BatchNorm1d(2, affine=False)
    >>> bn(torch.arange(18.0).reshape(3, 2, 3))[0, 0]
    tensor([-1.4094, -1.2081, -1.0067])
    >>> bn.running_mean, bn.running_var
    (tensor([0.7000, 1.0000]), tensor([3.6750, 3.6750]))
    """


class BatchNorm2d(_BatchNorm):
    """One mean and one variance per channel, of (N, C, H, W) over n, h and w.

    Arguments, formula and errors are those of :class:`BatchNorm1d`.

    >>> BatchNorm2d(3, affine=False)(torch.arange(36.0).reshape(3, 3, 2, 2))[0, 0]
    tensor([[-1.3690, -1.2676],
            [-1.1661, -1.0647]])
    """


class BatchNorm3d(_BatchNorm):
    """One mean and one variance per channel, of (N, C, D, H, W) over n, d, h and w.

    Arguments, formula and errors are those of :class:`BatchNorm1d`.

    >>> BatchNorm3d(2)(torch.randn(3, 2, 4, 5, 6)).shape
    torch.Size([3, 2, 4, 5, 6])
    """


class LayerNorm(_Norm):
    """One mean and one variance per sample (or token), over the last axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the biased variance. There are no
    running statistics, so training and eval are the same.

    Args:
        normalized_shape: the sizes of the last axes, which are pooled; an int for the last one.
        eps: added to the variance, inside the root; 0 or more.
        elementwise_affine: whether there are a weight and a bias of shape ``normalized_shape``,
            starting at 1 and 0; every slice meets all of them.
        bias: False for a weight without a bias.
        device, dtype: of weight and bias.

    Raises:
        RefusedInput: a ValueError and RuntimeError at once, for an argument or an input outside
            these rules.

    >>> LayerNorm(4, elementwise_affine=False)(torch.arange(12.0).reshape(3, 4))[0]
    tensor([-1.3416, -0.4472,  0.4472,  1.3416])
    """

    def __init__(
        self,
        normalized_shape,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        sizes = (
            tuple(normalized_shape)
            if hasattr(normalized_shape, "__iter__") and not isinstance(normalized_shape, str)
            else (normalized_shape,)
        )
        if not sizes:
            raise RefusedInput("normalized_shape must name at least one axis: got an empty one.")
        self.normalized_shape = tuple(_positive_int("normalized_shape", size) for size in sizes)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        _check_numbers(self)
        self._make_parameters(self.normalized_shape, elementwise_affine, bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input normalized over its last axes, scaled and shifted."""
        reduction = check_input(self, input)
        by_weight = Reduction.of(self, input.ndim, by="weight")
        y, _, _ = normalize(input, reduction, self.eps, self.weight, self.bias, by_weight)
        return y.contiguous()

    def extra_repr(self) -> str:
        """The arguments, as torch.nn prints them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


def uses_batch_statistics(layer: nn.Module) -> bool:
    """Whether a layer, normviz's or torch.nn's, normalizes with the statistics of the batch.

    Only a BatchNorm in eval that has running statistics does not.
    """
    return layer.training or getattr(layer, "running_mean", None) is None


def check_input(layer: nn.Module, x: torch.Tensor) -> Reduction:
    """The reduction that a layer (normviz's or torch.nn's) makes on x, if it can take x.

    Raises:
        RefusedInput: naming the argument, the rule, what was given and what would do.
    """
    if not isinstance(x, torch.Tensor):
        raise RefusedInput(
            f"x must be a torch tensor: got {type(x).__name__}; torch.as_tensor(x) makes one."
        )
    if not x.is_floating_point():
        raise RefusedInput(f"x must be a floating-point tensor: got {x.dtype}; x.float() would do.")
    if isinstance(layer, _Norm):
        _check_numbers(layer)
    try:
        reduction = Reduction.of(layer, x.ndim)
    except ValueError as error:
        raise RefusedInput(f"{error} x has shape {tuple(x.shape)}.") from None
    if hasattr(layer, "normalized_shape"):
        last = tuple(x.shape[-len(layer.normalized_shape) :])
        if last != tuple(layer.normalized_shape):
            raise RefusedInput(
                f"the last axes of x must be normalized_shape {tuple(layer.normalized_shape)}: got "
                f"{last} in the shape {tuple(x.shape)}."
            )
    else:
        _check_channels(layer, x, reduction)
    _check_dtypes(layer, x)
    return reduction


def _check_channels(layer, x, reduction):
    if x.shape[1] != layer.num_features:
        raise RefusedInput(
            f"axis 1 of x must have num_features={layer.num_features} channels: got {x.shape[1]} "
            f"in the shape {tuple(x.shape)}."
        )
    if uses_batch_statistics(layer) and reduction.count(x.shape) == 1:
        instead = (
            "a larger batch, or layer.eval(), would do."
            if layer.running_mean is not None
            else "only a larger batch would do."
        )
        raise RefusedInput(
            "Expected more than 1 value per channel when training, or without running statistics: "
            f"got x of shape {tuple(x.shape)}, and one number has no spread; {instead}"
        )


def _check_dtypes(layer, x):
    allowed = {x.dtype, torch.promote_types(x.dtype, torch.float32)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        state = getattr(layer, name, None)
        if state is not None and state.dtype not in allowed:
            raise RefusedInput(
                f"x and {name} must have one dtype (a half-precision x may meet float32): got "
                f"{x.dtype} and {state.dtype}; x.to({state.dtype}) would do."
            )


def _check_numbers(layer):
    """The numbers that a layer was made with, which its owner may have changed since."""
    if not (isinstance(layer.eps, Real) and layer.eps >= 0):
        raise RefusedInput(f"eps must be a number, 0 or more: got {layer.eps!r}; 1e-5 is usual.")
    momentum = getattr(layer, "momentum", None)
    if momentum is not None and not (isinstance(momentum, Real) and 0 <= momentum <= 1):
        raise RefusedInput(
            "momentum must be from 0 to 1 (the weight of the new batch), or None: got "
            f"{momentum!r}; 0.1 is usual."
        )


def _positive_int(name: str, value) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise RefusedInput(f"{name} takes positive ints: got {value!r}.")
    return number
