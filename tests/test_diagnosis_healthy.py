"""Healthy models of many kinds, trained on structured data, give no finding."""

import pytest
import torch
from patients import FrozenBatchNorm2d
from torch import nn
from torch.nn import functional as F

import normviz
from normviz import diagnose

CLASSES = 4


def images(count, channels=3, size=12):
    """Smooth patterns, one for each class, with noise, brightness and contrast of their own."""
    patterns = torch.randn(CLASSES, channels, size // 3, size // 3)
    patterns = F.interpolate(patterns, size=(size, size), mode="bilinear")
    labels = torch.randint(CLASSES, (count,))
    contrast = 0.5 + torch.rand(count, 1, 1, 1)
    brightness = 0.3 * torch.randn(count, 1, 1, 1)
    noise = 0.5 * torch.randn(count, channels, size, size)
    return contrast * patterns[labels] + brightness + noise, labels


def tokens(count, length=10, words=30):
    """Sequences of words; the class says which ones are frequent."""
    labels = torch.randint(CLASSES, (count,))
    rare = torch.randint(words, (count, length))
    own = labels[:, None] * 5 + torch.randint(5, (count, length))
    return torch.where(torch.rand(count, length) < 0.5, own, rare), labels


def sequences(count):
    """Waves of a frequency for each class, in 6 mixed channels."""
    labels = torch.randint(CLASSES, (count,))
    at = torch.arange(40.0) + 40 * torch.rand(count, 1)
    waves = torch.sin(at * (labels[:, None] + 1) / 4)[:, None]
    return waves * torch.randn(6, 1) + 0.5 * torch.randn(count, 6, 40), labels


def tables(count):
    centres = 2 * torch.randn(CLASSES, 20)
    labels = torch.randint(CLASSES, (count,))
    return (centres[labels] + torch.randn(count, 20)) * torch.rand(20) * 5, labels


class Residual(nn.Module):
    def __init__(self, norm, channels):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_one = norm(channels)
        self.two = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_two = norm(channels)

    def forward(self, x):
        y = self.norm_one(self.one(x)).relu_()
        return (self.norm_two(self.two(y)) + x).relu()


class Block(nn.Module):
    """A transformer's, pre-norm."""

    def __init__(self, norm, width):
        super().__init__()
        self.before, self.after = norm(width), norm(width)
        self.attention = nn.MultiheadAttention(width, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.after(x))


class LlamaRMSNorm(nn.Module):
    """As it is published: no class of torch, and another name for ε."""

    def __init__(self, width, variance_epsilon=1e-6):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), variance_epsilon

    def forward(self, x):
        return (
            self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        )


class Transformer(nn.Module):
    def __init__(self, norm, width=24, words=30):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(10, width)
        self.blocks = nn.Sequential(Block(norm, width), Block(norm, width))
        self.norm, self.head = norm(width), nn.Linear(width, CLASSES)

    def forward(self, ids):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)).mean(1))


class ViT(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 3, 3)  # 4 × 4 of them: as many as channels
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(Block(nn.LayerNorm, width), Block(nn.LayerNorm, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = conv_norm(3, 8)
        self.low = conv_norm(8, 16)
        self.up = conv_norm(24, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        high = self.down(x)
        low = F.interpolate(self.low(F.max_pool2d(high, 2)), scale_factor=2)
        return self.head(self.up(torch.cat([high, low], 1)).mean((2, 3)))


class Frozen(nn.Module):
    """A backbone with its BatchNorms frozen, and a train() that leaves them so."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = cnn(nn.BatchNorm2d)[:-1], nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.backbone(x))

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self


def conv_norm(before, after, norm=nn.BatchNorm2d, **more):
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False, **more)
    return nn.Sequential(conv, norm(after), nn.ReLU())


def cnn(norm):
    return nn.Sequential(
        *conv_norm(3, 8, norm),
        *conv_norm(8, 16, norm, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def resnet(norm=nn.BatchNorm2d):
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    return nn.Sequential(conv_norm(3, 8, norm), Residual(norm, 8), Residual(norm, 8), *pooled)


def conv_1d(norm=nn.BatchNorm1d):
    first = nn.Conv1d(6, 16, 5, bias=False), norm(16), nn.ReLU()
    second = nn.Conv1d(16, 16, 5, bias=False), norm(16), nn.ReLU()
    return nn.Sequential(
        *first, *second, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, CLASSES)
    )


def mlp(norm=nn.BatchNorm1d):
    first = nn.Linear(20, 32, bias=False), norm(32), nn.ReLU()
    return nn.Sequential(
        *first, nn.Linear(32, 32, bias=False), norm(32), nn.ReLU(), nn.Linear(32, 4)
    )


def post_norm():
    """A residual MLP, normalized behind each sum."""
    return nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, CLASSES))


class Dense(nn.Module):
    """Norm first, and what comes in goes on beside what comes out."""

    def __init__(self, before, after):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def dense():
    tail = nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Dense(8, 8), Dense(16, 8), *tail)


def depthwise():
    return nn.Sequential(
        conv_norm(3, 3, groups=3),
        nn.Conv2d(3, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(16, 8, 1, bias=False),  # on one pixel, as in squeeze and excitation
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def autoencoder():
    up = nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(conv_norm(3, 8, stride=2), *up, nn.Flatten(), nn.Linear(8 * 144, CLASSES))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.cell = nn.Embedding(30, 16), nn.LSTMCell(16, 24)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, CLASSES)

    def forward(self, ids):
        h = c = torch.zeros(len(ids), 24)
        for x in self.words(ids).unbind(1):
            h, c = self.cell(x, (h, c))
            h = self.norm(h)
        return self.head(h)


def bordered(count):
    """As handwritten digits are: black around the middle."""
    x, labels = images(count, size=12)
    return F.pad(x, (5, 5, 4, 4)), labels


def frozen_right():
    model = Frozen()
    train(model.backbone.append(model.head), images)
    model.backbone = model.backbone[:-1]
    model.backbone.requires_grad_(False)
    return model.train()


def frozen_layers():
    model = cnn(nn.BatchNorm2d)
    train(model, images)
    for place, part in enumerate(model):
        if isinstance(part, nn.BatchNorm2d):
            model[place] = FrozenBatchNorm2d(part.num_features)
            model[place].load_state_dict(part.state_dict(), strict=False)
    return model


def groups(channels):
    return nn.GroupNorm(2, channels)


def style(channels):
    return nn.InstanceNorm2d(channels, affine=True)


MODELS = {
    "small CNN": (lambda: cnn(nn.BatchNorm2d), images),
    "small CNN of normviz": (lambda: cnn(normviz.BatchNorm2d), images),
    "ResNet": (resnet, images),
    "ResNet with GroupNorm": (lambda: resnet(groups), images),
    "U-Net": (UNet, images),
    "InstanceNorm": (lambda: cnn(style), images),
    "GroupNorm": (lambda: cnn(groups), images),
    "MLP": (mlp, tables),
    "MLP with LayerNorm": (post_norm, tables),
    "convolutions in one dimension": (conv_1d, sequences),
    "ViT": (ViT, images),
    "transformer": (lambda: Transformer(nn.LayerNorm), tokens),
    "transformer with RMSNorm": (lambda: Transformer(nn.RMSNorm), tokens),
    "transformer with a published RMSNorm": (lambda: Transformer(LlamaRMSNorm), tokens),
    "dense blocks": (dense, images),
    "depthwise convolutions": (depthwise, images),
    "autoencoder": (autoencoder, images),
    "LSTM with LayerNorm": (Recurrent, tokens),
    "black borders": (lambda: cnn(nn.BatchNorm2d), bordered),
    "frozen backbone": (frozen_right, images),
    "FrozenBatchNorm": (frozen_layers, images),
}


def train(model, data, steps=60):
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    all_inputs, all_labels = data(32 * steps)
    for x, labels in zip(all_inputs.split(32), all_labels.split(32), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return all_inputs


@pytest.mark.parametrize("name", MODELS)
def test_a_healthy_model_has_no_finding(name):
    make, data = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        inputs = train(model, data)
        for training, count in ((True, 16), (True, 64), (False, 2), (False, 16), (False, 64)):
            diagnosis = diagnose(model.train(training), inputs[:count])
            found = [f for f in diagnosis.findings if count > 18 or f.code != "few-numbers"]
            assert not found, "\n".join(map(str, found))
            assert diagnosis.layers
