"""Running statistics: what a layer remembers of its batches, and normalizes with in eval.

Source: Ioffe and Szegedy 2015, "Batch Normalization", section 3.1. Libraries disagree on the stored
variance (torch stores the unbiased one, Flax and Keras the biased one) and on momentum (here, as in
torch, it is the weight of the *new* batch; in Keras, Flax and ONNX it is the weight of the old
value).
"""

import torch

from normviz.formula import precise, widen
from normviz.layers.norm import Norm
from normviz.normalization import normalize_precisely
from normviz.plans import Plan
from normviz.refusals import check_input, check_numbers, positive_int
from normviz.state import stored_statistics
from normviz.telling import tell


class TrackingNorm(Norm):
    """A layer per channel that can keep running statistics, per what its plan says.

    Arguments as those of BatchNorm1d.
    """

    _version = 2  # of the state_dict: since 2 it holds num_batches_tracked
    printed = ("eps", "momentum", "affine", "bias", "track_running_stats")
    counts = True  # whether the counter of batches moves
    optional = ("momentum",)
    track_running_stats = False  # until there are any

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
        shape = (positive_int("num_features", num_features),)
        super().__init__(eps, shape, affine, bias, device, dtype)
        self.num_features, self.momentum = shape[0], momentum
        check_numbers(self)
        self.affine = affine
        self.track_running_stats = track_running_stats
        buffers = dict.fromkeys(("running_mean", "running_var", "num_batches_tracked"))
        if track_running_stats:
            buffers["running_mean"] = torch.zeros(shape, device=device, dtype=dtype)
            buffers["running_var"] = torch.ones(shape, device=device, dtype=dtype)
            buffers["num_batches_tracked"] = torch.tensor(0, device=device)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

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
        """The input, normalized as the plan says; in training the running statistics move."""
        plan = check_input(self, input)
        stored, mean, var = stored_statistics(self, plan), None, None
        if stored is None and input.numel():
            y, mean, var = self.by_input(input, plan)
        else:
            y = self.by_stored(input, plan, stored)
        if self.moves():
            count = plan.reduction.count(input.shape) if input.numel() else 0
            self.track(plan, count, mean, var)
        return self.as_laid_out(y, input)

    def moves(self) -> bool:
        """Whether the running statistics move in a forward pass."""
        return self.training and self.track_running_stats

    def by_stored(self, input: torch.Tensor, plan: Plan, stored) -> torch.Tensor:
        """The output by running statistics; or that of no numbers, which take none at all."""
        if not stored:
            return self.scale_and_shift(widen(input), input, plan)
        tell(plan, "running", *map(precise, stored), self.eps)
        affine = self.weight, self.bias, plan.sharing
        running = plan.per(plan.running)
        return normalize_precisely(input, running, self.eps, *affine, stored=stored)[0]

    @torch.no_grad()
    def track(self, plan: Plan, count: int, mean, var) -> None:
        """Move the running statistics: new = (1 - momentum)·old + momentum·batch.

        ``count`` is that of the numbers behind each mean and variance.

        The variance that is stored is the unbiased one, though the biased one normalizes. Where a
        running value is kept per fewer axes than a statistic, as in InstanceNorm, it moves towards
        the average. That drops what lies between the means of the parts, and so does the plain
        average of all batches, with momentum=None: ``Moments.join`` would have it, torch has not.
        """
        momentum = self.momentum or 0.0
        if self.counts and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the n-th batch weighs 1/n: the plain average of all batches
                momentum = 1 / self.num_batches_tracked.item()
        if not count or self.running_mean is None:
            return  # an empty batch counts, but has nothing to add
        if plan.statistic != plan.running:
            mean, var = map(plan.joining(plan.running).mean, (mean, var))
        bessel = count / (count - 1) if plan.centred else 1
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        self.running_var.mul_(1 - momentum).add_(var, alpha=momentum * bessel)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version") in (None, 1) and self.track_running_stats:
            own = self.num_batches_tracked
            start = torch.tensor(0) if own is None or own.is_meta else own
            state_dict.setdefault(f"{prefix}num_batches_tracked", start)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
