"""Large tensors, some slices at a time, so that what is worked out stays in the cache.

On large images or texts, the forward and the backward pass of a layer together take two to four
times as long without it: each of some twenty steps then reads all numbers from memory, and writes
them to memory that is fresh each time.
"""

from functools import partial
from itertools import repeat

import torch

from normviz.reduction import Reduction

# How many numbers each thread works on at a time: few enough for its share of the cache (2 MiB of
# float32), and enough to make the cost of starting an operation small.
BLOCK = 2**19


class Blocks:
    """How tensors of one shape are cut, into parts that hold some slices each.

    Args:
        reduction: what makes the slices.
        x: a tensor of that shape.
        whole: not to cut at all.

    A tensor without an axis to cut along stays whole, too: channels that are neighbours in memory,
    as in (N, C), or one slice of everything.
    """

    def __init__(self, reduction: Reduction, x: torch.Tensor, *, whole: bool = False):
        self.reduction, self.shape = reduction, x.shape
        # Along the first axis that is long enough, or else the longest; but not along the one whose
        # numbers are neighbours in memory, which would then be read in scraps.
        self.axes = {i: at for i, at in reduction.cuts(x.shape).items() if x.stride(i) > 1}
        block, numbers = BLOCK * torch.get_num_threads(), x.numel()
        self.small = numbers <= BLOCK
        self.whole = whole or numbers <= block or not self.axes
        if not self.whole:
            fine = (axis for axis in self.axes if numbers <= block * x.shape[axis])
            self.axis = next(fine, max(self.axes, key=x.shape.__getitem__))
            self.size = max(1, block * x.shape[self.axis] // numbers)

    def cut(self, x):
        """The parts of a tensor."""
        return [x] if self.whole else x.split(self.size, self.axis)

    def cut_statistic(self, statistic):
        """The statistics of each part."""
        return [statistic] if self.whole else statistic.split(self.size, self.axes[self.axis])

    def cut_shared(self, parameter, shared: Reduction):
        """A weight or a bias for each part: one per slice, or laid over all numbers."""
        if parameter is None:
            return repeat(None)
        if shared == self.reduction:
            return self.cut_statistic(parameter)
        return self.cut(shared.spread(parameter, self.shape))

    def join(self, statistics, reduction: Reduction):
        """Statistics of all from those of each part."""
        if self.whole:
            return statistics[0]
        at = reduction.cuts(self.shape).get(self.axis)  # if it is not kept, all parts share them
        join = sum if at is None else partial(torch.cat, dim=at)
        return map(join, zip(*statistics, strict=True))
