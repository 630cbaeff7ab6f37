"""ResNets for CIFAR-sized images (He et al., CVPR 2016, section 4.2), of depth 6n+2.

[L]'s "ResNet50" on CIFAR is this network at depth 50 = 6·8+2 (0.76 M parameters), not the ImageNet network. As in the
authors' code the shortcut that changes width is a 1x1 convolution without batch norm; He et al. pad with zeros instead
(2,560 parameters less). Their convolutions have a bias, which the batch norm behind them cancels; ours have none.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, then the addition."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        """Return relu(shortcut(x) + branch(x))."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + branch)


class CifarResNet(nn.Module):
    """ResNet v1 of three stages with 16, 32 and 64 channels.

    Args:
        depth: 6n+2, for example 20 or 50.
        num_classes: number of outputs.
        in_channels: channels of the image.

    Raises:
        InputError: if the depth is not 6n+2 with n at least 1.
    """

    def __init__(self, depth: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 6)
        if rest or num_blocks < 1:
            raise InputError(f"depth is {depth}, but a CIFAR ResNet has depth 6n+2: 8, 20, 32, 44, 50, 56, 110")
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, num_blocks, stride=1)
        self.layer2 = _stage(16, 32, num_blocks, stride=2)
        self.layer3 = _stage(32, 64, num_blocks, stride=2)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(in_channels: int, channels: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(num_blocks - 1)))
