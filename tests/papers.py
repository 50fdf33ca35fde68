"""The layers that torch.nn has not, word for word from their papers, in plain torch; and any plan.

Each referee is made like the layer and has its parameters and buffers under the same names, so that
states can be exchanged. Nothing of normviz is used, but for ``ByPlan``, which reads labels.
"""

import torch
from torch import nn

from normviz import plan_of


class Referee(nn.Module):
    """Parameters and buffers as those of the layer that it judges."""

    def __init__(self, layer):
        super().__init__()
        self.made = {name: value for name, value in vars(layer).items() if name[0] != "_"}
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer.detach().clone())

    def forward(self, x):
        per_channel = {
            name: parameter.double()[:, None, None]
            for name, parameter in self.named_parameters()
            if parameter.ndim == 1
        }
        return self.formula(x.double(), **per_channel).to(x.dtype)


class FilterResponseNorm2d(Referee):
    def formula(self, x, weight, bias, threshold=None, learned_eps=None):
        eps = self.made["eps"] + (0 if learned_eps is None else learned_eps.abs())
        y = x / ((x**2).mean((2, 3), keepdim=True) + eps).sqrt() * weight + bias
        return y if threshold is None else torch.maximum(y, threshold)


class SwitchableNorm2d(Referee):
    def formula(self, x, weight, bias, **_):
        means, variances = [], []
        for axes in ((2, 3), (1, 2, 3), (0, 2, 3)):
            means.append(x.mean(axes, keepdim=True))
            variances.append(((x - means[-1]) ** 2).mean(axes, keepdim=True))
        if self.training:
            for name, new in (("running_mean", means[2]), ("running_var", variances[2])):
                old, momentum = getattr(self, name), self.made["momentum"]
                old.copy_((1 - momentum) * old + momentum * new.detach().flatten())
        else:
            means[2] = self.running_mean.double()[:, None, None]
            variances[2] = self.running_var.double()[:, None, None]
        mean = sum(s * m for s, m in zip(self.mean_weight.double().softmax(0), means, strict=True))
        var = sum(
            s * v for s, v in zip(self.var_weight.double().softmax(0), variances, strict=True)
        )
        return (x - mean) / (var + self.made["eps"]).sqrt() * weight + bias


class MABN2d(Referee):
    def formula(self, x, weight, bias):
        eps = self.made["eps"]
        if not self.training:
            return x / (self.running_var.double()[:, None, None] + eps).sqrt() * weight + bias
        self.iterations += 1
        t, memory, warmup = int(self.iterations), self.made["memory"], self.made["warmup"]
        self.memory_x2[t % memory] = (x.detach() ** 2).mean((0, 2, 3))
        averaged = not (t <= memory or t < warmup)
        var = self.memory_x2.double().mean(0) if averaged else (x.detach() ** 2).mean((0, 2, 3))
        r = ((var + eps) / (self.running_var.double() + eps)).sqrt().clamp(1 / 5, 5)
        r = r if t > max(1000, warmup) else torch.ones_like(r)
        self.running_var.copy_(0.98 * self.running_var + 0.02 * var)
        std = (var + eps).sqrt()[:, None, None]
        z = x.detach() / std

        def pull_back(g):
            self.memory_gz[t % memory] = (g * z).mean((0, 2, 3))
            gz = self.memory_gz.double().mean(0) if averaged else (g * z).mean((0, 2, 3))
            return g - z * gz[:, None, None]  # autograd divides it by std

        z_of_x = x / std
        if z_of_x.requires_grad:
            z_of_x.register_hook(pull_back)
        return z_of_x * r[:, None, None] * weight + bias


class CentredConv2d(Referee):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.made["stride"])


class ByPlan(Referee):
    """Any layer that declares a plan: sums over equal labels, and the formula."""

    def __init__(self, layer):
        super().__init__(layer)
        self.plan = lambda ndim: plan_of(layer, ndim)

    def forward(self, x):
        plan, wide = self.plan(x.ndim), x.double()
        labels = torch.tensor(plan.reduction.labels(x.shape)).flatten()
        places = torch.tensor(plan.sharing.labels(x.shape)).flatten()

        def average(numbers):
            total = numbers.new_zeros(int(labels.max()) + 1).index_add(0, labels, numbers.flatten())
            return (total / plan.reduction.count(x.shape))[labels].reshape(x.shape)

        centred = wide - average(wide) if plan.centred else wide
        y = centred / (average(centred**2) + self.made["eps"]).sqrt()
        if hasattr(self, "weight"):
            y = y * self.weight.double().flatten()[places].reshape(x.shape)
        if hasattr(self, "bias"):
            y = y + self.bias.double().flatten()[places].reshape(x.shape)
        return y.to(x.dtype)
