"""Pre-activation ResNets for CIFAR-sized images (He et al., "Identity mappings", ECCV 2016), of depth 9n+2.

[J] (Jetley et al., "Learn to pay attention", ICLR 2018) takes ResNet-164, n = 18, plain and, with a branch of its own
that makes a global vector, as a trunk for attention. As in the authors' code, and He's, the first 1x1 convolution of a
stage has the stride, and the shortcut that changes the width starts behind the first batch norm and ReLU.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError

WIDTHS = (16, 64, 128, 256)
"""Channels of the first convolution and of the three stages."""


class PreActivationBottleneck(nn.Module):
    """BN-ReLU before each of a 1x1, a 3x3 and a 1x1 convolution, then the addition, with nothing after it."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, stride, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        widens = in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if widens else None

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        """Return shortcut(x) + branch(x)."""
        activated = F.relu(self.bn1(x))
        branch = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        branch = self.conv3(F.relu(self.bn3(branch)))
        return (x if self.shortcut is None else self.shortcut(activated)) + branch


class CifarPreResNet(nn.Module):
    """Pre-activation ResNet of three stages with 64, 128 and 256 channels.

    `levels` are what attention looks at: the sums that end the stages, without batch norm or ReLU, as in [J]'s code.

    Args:
        depth: 9n+2, for example 164.
        num_classes: number of outputs.
        in_channels: channels of the image.
        convolved: the last features go through a convolution, a pooling to one place and a linear map, which is [J]'s
            global vector, instead of being averaged over the places.

    Raises:
        InputError: if the depth is not 9n+2 with n at least 1.
    """

    levels = ("layer1", "layer2", "layer3")
    attended_dropout = 0.3
    """Before the linear map that classifies attended features, in [J]'s code; its VGG networks have 0.5.

    Here it stands before the projection of the global vector too, where [J]'s has 0.5.
    """

    def __init__(
        self, depth: int = 164, *, num_classes: int = 10, in_channels: int = 3, convolved: bool = False
    ) -> None:
        super().__init__()
        num_blocks, rest = divmod(depth - 2, 9)
        if rest or num_blocks < 1:
            raise InputError(f"depth is {depth}, but a pre-activation ResNet with bottlenecks has depth 9n+2: 11, 164")
        first, *widths = WIDTHS
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.layer1 = _stage(first, widths[0], num_blocks, stride=1)
        self.layer2 = _stage(widths[0], widths[1], num_blocks, stride=2)
        self.layer3 = _stage(widths[1], widths[2], num_blocks, stride=2)
        self.global_branch = _convolved(widths[2]) if convolved else _averaged(widths[2])
        self.classifier = nn.Linear(widths[2], num_classes)
        _initialise(self)

    def forward(self, x: Float[Tensor, "batch in_channels h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.classifier(self.global_branch(x))


def _stage(in_channels: int, channels: int, num_blocks: int, *, stride: int) -> nn.Sequential:
    first = PreActivationBottleneck(in_channels, channels, stride)
    return nn.Sequential(first, *(PreActivationBottleneck(channels, channels, 1) for _ in range(num_blocks - 1)))


def _averaged(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _convolved(width: int) -> nn.Sequential:
    """Return the branch that makes the global vector; of 32 x 32 pixels its second pooling has 4 x 4 places."""
    return nn.Sequential(
        nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width, eps=1e-3), nn.ReLU(), nn.Dropout(0.4),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(width, width),
    )  # fmt: skip


def _initialise(model: nn.Module) -> None:
    """Draw kernels from N(0, 2 / (k² · outputs)), and set biases to 0, as the authors' code does."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
