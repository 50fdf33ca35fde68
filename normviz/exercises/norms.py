"""One norm from scratch, right or wrong: what the exercises compare an answer with."""

from collections.abc import Callable, Sequence

import torch


def norm_over(
    mean_over: Sequence[int],
    var_over: Sequence[int] | None = None,
    *,
    correction: int = 0,
    factor: float | Callable[[torch.Tensor], float] = 1.0,
    eps: float = 1e-5,
    outside: float = 0.0,
    root: float = 0.5,
    detach: Sequence[str] = (),
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A norm without weight and bias.

    Args:
        mean_over: the axes that the mean pools.
        var_over: those that the variance pools; by default the same.
        correction: 0 for the biased variance, 1 for the unbiased one.
        factor: of that variance, or a function from the input to it.
        eps: added inside the root.
        outside: added outside of it.
        root: the power of the variance: 1 for no root.
        detach: which of ``"mean"`` and ``"var"`` are cut off from the gradient.
    """
    var_over = mean_over if var_over is None else var_over

    def norm(x):
        mean = x.mean(dim=mean_over, keepdim=True)
        var = x.var(dim=var_over, keepdim=True, correction=correction)
        mean, var = (
            s.detach() if name in detach else s for name, s in (("mean", mean), ("var", var))
        )
        scaled = var * (factor(x) if callable(factor) else factor)
        return (x - mean) / ((scaled + eps) ** root + outside)

    return norm
