"""Small models and batches that `diagnose` and `probe` look at."""

import torch
from torch import nn

from normviz import diagnose


def codes(model, *args, **kwargs):
    return diagnose(model, *args, **kwargs).codes


def table(rows=64, columns=3):
    return torch.randn(rows, columns) * 2 + 5


def images(count=16, channels=3, size=8):
    return torch.randn(count, channels, size, size) * 2 + 1


def fed(layer, x, times=60):
    layer.train()
    for _ in range(times):
        layer(x)
    return layer


def model_of(norm, before=3, after=4, bias=False):
    return nn.Sequential(nn.Linear(before, after, bias=bias), norm, nn.ReLU(), nn.Linear(after, 2))


class FrozenBatchNorm2d(nn.Module):
    """As it is published: four buffers, and no mode."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]
