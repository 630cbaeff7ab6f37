"""DenseNet for CIFAR-sized images (Huang et al., CVPR 2017) as [L] uses it: depth 40, growth 12, no compression.

Each layer is BN-ReLU-1x1 convolution to 4·growth, BN-ReLU-3x3 convolution to growth. Attention goes where the authors
of [L] put it: at the end of each dense block, and after the pooling of each transition, not in every layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError


class DenseLayer(nn.Module):
    """A bottlenecked layer, which appends `growth` channels to its input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels_and_growth h w"]:
        """Return the concatenation of x and its new features."""
        new = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """BN-ReLU-1x1 convolution of the same width, average pooling by 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        """Return the features at half the resolution."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseBlock(nn.Module):
    """Dense layers in a row."""

    def __init__(self, in_channels: int, num_layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DenseLayer(in_channels + i * growth, growth) for i in range(num_layers)))

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return the concatenation of the input and every layer's features."""
        return self.layers(x)


class CifarDenseNet(nn.Module):
    """DenseNet of three dense blocks with bottlenecks and without compression.

    Args:
        depth: 6n+4, for example 40: n layers of two convolutions in each block.
        growth: channels that each layer adds, 12 in [L].
        num_classes: number of outputs.
        in_channels: channels of the image.

    Raises:
        InputError: if the depth is not 6n+4 with n at least 1.
    """

    attention_sites = ("block1", "transition1", "block2", "transition2", "block3")

    def __init__(
        self,
        depth: int = 40,
        *,
        growth: int = 12,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        num_layers, rest = divmod(depth - 4, 6)
        if rest or num_layers < 1:
            raise InputError(f"depth is {depth}, but a CIFAR DenseNet with bottlenecks has depth 6n+4, for example 40")
        widths = [(2 + num_layers * i) * growth for i in range(4)]
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.block1 = DenseBlock(widths[0], num_layers, growth)
        self.transition1 = Transition(widths[1])
        self.block2 = DenseBlock(widths[1], num_layers, growth)
        self.transition2 = Transition(widths[2])
        self.block3 = DenseBlock(widths[2], num_layers, growth)
        self.bn = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.transition2(self.block2(x))
        x = F.relu(self.bn(self.block3(x)))
        return self.fc(x.mean((2, 3)))
