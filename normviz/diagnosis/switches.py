"""Modes, flags and freezing: what stands still, what goes on, and who is looked at."""

from torch import distributed

from normviz.diagnosis.finding import Finding, cell


class HalfFrozen(Finding):
    """The weights stand still and the running statistics move on, or the reverse.

    To freeze takes two steps: requires_grad_(False) stops γ and β, eval() stops the statistics
    (and normalizes with them). Each of them alone leaves the other half going.

    Do: both, layer.eval() and layer.requires_grad_(False), after each model.train(); or none.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    >>> _ = model[1].requires_grad_(False)
    >>> "half-frozen" in diagnose(model, torch.randn(64, 3)).codes
    True
    >>> _ = model[1].eval()
    >>> "half-frozen" in diagnose(model, torch.randn(64, 3)).codes
    False
    """

    code = "half-frozen"
    said = "{still} stand still, {going} move"
    lesson = cell("05_training_and_track_running_stats", "freeze-without-gradient")

    @classmethod
    def find(cls, layer, run):
        """In a model that is in training."""
        if not run.training or not layer.tracks or not layer.affine:
            return None
        weights, stored = " and ".join(layer.affine), "the running statistics"
        if any(name.startswith("running") for name in layer.now.moved) and not layer.trainable:
            return {"still": weights, "going": stored}
        if not layer.training and layer.now.stored and layer.trainable:
            return {"still": stored, "going": weights}
        return None


class FrozenUntilTrain(Finding):
    """A freeze that the next model.train() undoes.

    It was tried on the copy: model.train() puts each layer into training, this one too. From then
    on the batch normalizes, and the running statistics move.

    Do: freeze again after each model.train(), or in a train() of your own; a FrozenBatchNorm has no
    modes.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    >>> _ = model[1].eval().requires_grad_(False)
    >>> "frozen-until-train" in diagnose(model, torch.randn(64, 3)).codes
    True
    >>> "frozen-until-train" in diagnose(model.train().requires_grad_(), torch.randn(64, 3)).codes
    False
    """

    code = "frozen-until-train"
    said = "training is {before} now, {after} after model.train()"
    lesson = cell("05_training_and_track_running_stats", "freeze-undone")

    @classmethod
    def find(cls, layer, run):
        """In eval in a model in training, or without gradients where others have some."""
        if not layer.unfreezes or not layer.tracks:
            return None
        frozen = layer.affine and not layer.trainable and run.trainable
        return {"before": False, "after": True} if run.training or frozen else None


class LateSwitch(Finding):
    """track_running_stats was changed after construction.

    What a layer keeps is decided when it is made. Switched off late, a BatchNorm stops to move its
    running statistics, and eval goes on using them; switched on late, there are none.

    Do: make the layer anew with the flag; or set running_mean and running_var to None as well.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn = nn.BatchNorm1d(3)
    >>> bn.track_running_stats = False
    >>> "late-switch" in diagnose(bn, torch.randn(64, 3)).codes
    True
    >>> "late-switch" in diagnose(nn.BatchNorm1d(3), torch.randn(64, 3)).codes
    False
    """

    code = "late-switch"
    said = "track_running_stats is {flag}, running statistics: {stored}"
    lesson = cell("05_training_and_track_running_stats", "cell-39")

    @classmethod
    def find(cls, layer, run):
        """The flag and the buffers."""
        flag = getattr(layer.module, "track_running_stats", None)
        stored = layer.running is not None
        if flag is None or bool(flag) == stored:
            return None
        return {"flag": bool(flag), "stored": "yes" if stored else "none"}


class Reused(Finding):
    """One layer with running statistics is called more than once in a pass.

    Each call normalizes with its own numbers and moves the running statistics. These become a mix
    that fits none of the calls, and eval uses it for all.

    Do: a layer for each place, the linear layers may be shared; or all inputs in one batch.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> bn, x = nn.BatchNorm1d(3), torch.randn(64, 3)
    >>> "reused" in diagnose(nn.Sequential(bn, nn.ReLU(), bn), x).codes
    True
    >>> "reused" in diagnose(nn.Sequential(bn, nn.ReLU()), x).codes
    False
    """

    code = "reused"
    said = "{calls} calls in one pass, which move one set of running statistics"
    lesson = cell("05_training_and_track_running_stats", "cell-115")

    @classmethod
    def find(cls, layer, run):
        """What stands still may be called often."""
        calls = sum("running_var" in call.moved for call in layer.in_training)
        return {"calls": calls} if calls > 1 else None


class IdleBias(Finding):
    """A bias directly before the layer does nothing.

    It is added to all numbers of a slice, so it is in their mean, and is subtracted again. It gets
    no gradient but rounding, and costs memory and time. The layer's own bias does its work.

    Do: bias=False in the layer before. To take it out of a trained model, subtract it from
    running_mean.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> before, x = nn.Linear(3, 4), torch.randn(64, 3)
    >>> "idle-bias" in diagnose(nn.Sequential(before, nn.BatchNorm1d(4)), x).codes
    True
    >>> "idle-bias" in diagnose(nn.Sequential(before, nn.LayerNorm(4)), x).codes
    False
    """

    code = "idle-bias"
    said = "{by}.bias is added to whole slices and subtracted with their means"
    lesson = cell("06_batchnorm_is_not_linear", "cell-119")

    @classmethod
    def find(cls, layer, run):
        """Where the very output of that layer comes in, and goes nowhere else."""
        call = layer.call
        by = not call.stored and call.var is not None and call.apart
        return {"by": by.by} if by and by.learns else None


class BatchMates(Finding):
    """In eval, a prediction depends on the other samples of the batch.

    The layer has no running statistics, or does not use them. So the same sample gets another
    prediction tomorrow, and a batch of one may be refused.

    Do: track_running_stats=True and training, for statistics that stay; or model.eval(), where a
    train() of its own keeps the layer in training; or a norm that pools each sample alone.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> untracked, x = nn.BatchNorm1d(3, track_running_stats=False), torch.randn(64, 3)
    >>> "batch-mates" in diagnose(untracked, x).codes
    True
    >>> "batch-mates" in diagnose(nn.BatchNorm1d(3), x).codes
    False
    """

    code = "batch-mates"
    said = "with other batch mates, the prediction for sample 0 moves by {moved:.0%}"
    lesson = cell("05_training_and_track_running_stats", "cell-20")
    least = 1e-3

    @classmethod
    def find(cls, layer, run):
        """The model was run with other mates, and the layer pools them."""
        return {"moved": run.mates} if layer.needs_mates and run.mates > cls.least else None


class NoGroup(Finding):
    """A SyncBatchNorm in training, and no process group: there is nobody to share with.

    It computes as a plain BatchNorm, of the numbers of this process alone.

    Do: torch.distributed.init_process_group before training on several GPUs; else it is a
    BatchNorm, and does no harm.

    >>> import torch
    >>> from torch import nn
    >>> from normviz import diagnose
    >>> "no-group" in diagnose(nn.SyncBatchNorm(3), torch.randn(64, 3)).codes
    True
    >>> "no-group" in diagnose(nn.BatchNorm1d(3), torch.randn(64, 3)).codes
    False
    """

    code = "no-group"
    said = "torch.distributed has no process group, and the layer is in training"
    lesson = cell("09_several_workers", "ours")

    @classmethod
    def find(cls, layer, run):
        """In eval, it needs none."""
        synced = any(c.__name__ == "SyncBatchNorm" for c in type(layer.module).__mro__)
        group = distributed.is_available() and distributed.is_initialized()
        return {} if synced and layer.training and not group else None
