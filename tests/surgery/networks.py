"""Small networks of a user's own, each with one peculiarity."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block that ends in a functional ReLU, with the branch behind a dropout."""

    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels * stride, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels * stride)
        self.drop = nn.Dropout2d(0.1)
        self.down = nn.Conv2d(channels, channels * stride, 1, stride) if stride > 1 else None

    def forward(self, x):
        shortcut = x if self.down is None else self.down(x)
        return F.relu(self.drop(self.bn(self.conv(x))) + shortcut)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.stage1 = nn.Sequential(Block(8), Block(8))
        self.stage2 = nn.Sequential(Block(8, 2), Block(16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))


class Plain(nn.Module):
    """Made for images of 12 x 12 pixels: 224 pixels fail at the linear map."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.relu = nn.ReLU()
        self.head = nn.Linear(16 * 8 * 8, 3)
        self.kept = None

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        self.kept = x
        return self.head(self.relu(self.conv2(x)).flatten(1))


class Branching(nn.Module):
    """Cannot be traced: its way depends on the values of the image."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv1(x)
        if x.shape[0] > 1000:
            return x
        return self.conv2(x) if x.dim() == 4 and len(x) < 1000 else x


class Twice(nn.Module):
    """Calls the same convolution twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x))


class Tied(nn.Module):
    """Holds one module under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = self.first
        self.third = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.third(self.second(self.first(x)))


class Making(nn.Module):
    """Makes a tensor of its own in the forward, on the CPU: it cannot run on meta tensors."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x) + torch.zeros(1)
