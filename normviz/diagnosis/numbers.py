"""Weights and buffers that no layer can compute with."""

import torch

from normviz.diagnosis.finding import Finding, cell

HALF = {torch.float16, torch.bfloat16}


class NotFinite(Finding):
    """A weight, a buffer or the input holds nan or inf.

    All that it meets becomes nan, and a running statistic that has become nan stays so.

    Do: find the first layer with one; load the last good state; bn.reset_running_stats() and some
    batches heal running statistics.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn = nn.BatchNorm1d(3)
    >>> _ = bn.running_var.fill_(torch.inf)
    >>> "not-finite" in diagnose(bn, torch.randn(64, 3)).codes
    True
    >>> "not-finite" in diagnose(nn.BatchNorm1d(3), torch.randn(64, 3)).codes
    False
    """

    code = "not-finite"
    said = "{name} holds {count} numbers that are nan or inf"
    lesson = cell("04_bessels_correction", "one-number")

    @classmethod
    def find(cls, layer, run):
        """Of inputs, only the first in the model: the others have it from there."""
        for name, held in layer.held.items():
            if count := int((~held.isfinite()).sum()):
                return {"name": name, "count": count}
        odd = (other for other in run.layers if _odd_inputs(other))
        if next(odd, None) is layer:
            return {"name": "the input", "count": _odd_inputs(layer)}
        return None


def _odd_inputs(layer) -> int:
    """In how many slices the mean or the variance of the input is not finite."""
    call = layer.call
    return 0 if call.var is None else int((~(call.mean + call.var).isfinite()).sum())


class NegativeVariance(Finding):
    """A running variance is below 0.

    It is no variance, and its root is nan: eval gives nan, from an input without any. Mean and
    variance were swapped, ε was subtracted, or the numbers are random.

    Do: load the right tensor; (bn.running_var >= 0).all() tells.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn = nn.BatchNorm1d(3)
    >>> _ = bn.running_var.fill_(-1)
    >>> "negative-variance" in diagnose(bn, torch.randn(64, 3)).codes
    True
    >>> "negative-variance" in diagnose(nn.BatchNorm1d(3), torch.randn(64, 3)).codes
    False
    """

    code = "negative-variance"
    said = "{count} of {all} running variances are below 0, down to {least:g}"
    lesson = cell("06_batchnorm_is_not_linear", "cell-29")

    @classmethod
    def find(cls, layer, run):
        """Of the buffer."""
        var = layer.held.get("running_var")
        count = 0 if var is None else int((var < 0).sum())
        return {"count": count, "all": var.numel(), "least": float(var.min())} if count else None


class HalfPrecision(Finding):
    """Running statistics in half precision.

    Each time they move they are rounded, and a step below half of the last digit is no step. In
    float16, a variance below 6e−8 is stored as 0, and one above 65504 as inf.

    Do: bn.float() after model.half(), before training or loading; half-precision inputs may meet
    it.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> x = torch.randn(64, 3).bfloat16()
    >>> "half-precision" in diagnose(nn.BatchNorm1d(3).bfloat16(), x).codes
    True
    >>> "half-precision" in diagnose(nn.BatchNorm1d(3), x).codes
    False
    """

    code = "half-precision"
    said = "running statistics in {dtype}; they {go}, and {zeros} variances are 0"
    lesson = cell("07_the_relatives", "rms-round")

    @classmethod
    def find(cls, layer, run):
        """Where they move, or where something was lost already; in eval they serve as they are."""
        if layer.running is None or layer.running[1].dtype not in HALF:
            return None
        var, moves = layer.running[1], layer.training and layer.tracks
        zeros, dtype = int((var == 0).sum()), str(var.dtype).removeprefix("torch.")
        if not moves and not zeros:
            return None
        return {"dtype": dtype, "go": "move" if moves else "stand still", "zeros": zeros}
