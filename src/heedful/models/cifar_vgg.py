"""The VGG networks of [J] for CIFAR-sized images: its baseline, the trunk that it puts attention on, and VGG-GAP.

[J] is Jetley, Lord, Lee and Torr, "Learn to pay attention", ICLR 2018. All three are made of the same thirteen
convolutions, each with batch norm and ReLU, and differ in where they pool and in what follows. The trunk pools for the
first time after seven convolutions, so its maps have four times the side of the baseline's, and it costs twelve times
as much: what attention adds to it is seen against the trunk itself, not against the baseline.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions, in the groups between which the baseline pools."""
RATES = (0.3, 0.4, 0.4, 0.4, 0.4)
"""Of the dropout after the convolutions of a group, except the last one."""


class CifarVGG(nn.Module):
    """VGG with batch norm and dropout, the baseline of [J]: five groups of convolutions, then two linear maps.

    On images of 32 x 32 pixels the fifth pooling leaves one place. Of larger images it leaves more, of which the
    largest value counts; the authors' code for 80 x 80 pixels pools before the last convolution instead.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
    """

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks = [nn.Sequential(*group, _pool()) for group in _groups(in_channels)]
        self.block1, self.block2, self.block3, self.block4, self.block5 = blocks
        width = WIDTHS[-1][-1]
        self.hidden = nn.Sequential(
            nn.AdaptiveMaxPool2d(1), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5),
        )  # fmt: skip
        self.classifier = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = self.block3(self.block2(self.block1(x)))
        return self.classifier(self.hidden(self.block5(self.block4(x))))


class CifarVGGTrunk(nn.Module):
    """The network that [J] puts attention on: three levels, the global branch, and a linear map of its vector.

    Without attention it is the control that [J] does not report. `levels` are what attention looks at: the features
    after the seventh, tenth and thirteenth convolution, after ReLU and before pooling, for images of 32 x 32 pixels of
    32, 16 and 8 places a side. With `averaged` it is VGG-GAP, whose class activation maps have 8 x 8 places: thirteen
    convolutions and two poolings, counted in the authors' notebook; that the poolings stand where the trunk has them is
    our guess.

    For 80 x 80 pixels the authors change the first pooling (to 5 x 5, or by another trick for three levels). Here the
    network takes any size from 8 pixels on as it is, and what the last pooling leaves is maximised over: the same at
    32 pixels, more places at 80.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the image.
        width_divisor: all widths are divided by it; 8 makes a network for CPUs. A power of 2 up to 64.
        with_dropout: as [J]; a network so narrow that it cannot overfit learns faster without.
        averaged: the last features are averaged over the places (VGG-GAP) instead of going through the global branch.
    """

    levels = ("block1", "block2", "block3")

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, width_divisor: int = 1, with_dropout: bool = True,
        averaged: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        groups = _groups(in_channels, width_divisor)
        width = WIDTHS[-1][-1] // width_divisor
        self.block1 = nn.Sequential(*groups[0], *groups[1], *groups[2])
        self.block2 = nn.Sequential(_pool(), *groups[3])
        self.block3 = nn.Sequential(_pool(), *groups[4])
        self.global_branch = _average() if averaged else _global_branch(width)
        self.classifier = nn.Linear(width, num_classes)
        self.attended_dropout = 0.5 if with_dropout else 0.0
        _initialise(self)
        if not with_dropout:
            for module in self.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = self.block3(self.block2(self.block1(x)))
        return self.classifier(self.global_branch(x))


def _groups(in_channels: int, divisor: int = 1) -> list[list[nn.Module]]:
    widths = [[width // divisor for width in group] for group in WIDTHS]
    starts = [in_channels, *(group[-1] for group in widths[:-1])]
    return [_group(*of_group) for of_group in zip(starts, widths, RATES, strict=True)]


def _group(in_channels: int, widths: Sequence[int], rate: float) -> list[nn.Module]:
    """Return convolutions with dropout between them."""
    modules: list[nn.Module] = []
    for width in widths:
        modules += [*_convolution(in_channels, width), nn.Dropout(rate)]
        in_channels = width
    return modules[:-1]


def _global_branch(width: int) -> nn.Sequential:
    """Return two convolutions and a linear map, with nothing after it: g of [J]."""
    return nn.Sequential(
        _pool(), *_convolution(width, width), nn.Dropout(0.4),
        _pool(), *_convolution(width, width), nn.Dropout(0.4),
        _pool(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(width, width),
    )  # fmt: skip


def _average() -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _convolution(in_channels: int, channels: int) -> list[nn.Module]:
    # The batch norm cancels the bias, which is the authors' all the same; so is its ε.
    return [nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU()]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, ceil_mode=True)


def _initialise(model: nn.Module) -> None:
    """Draw kernels from N(0, 2 / (k² · outputs)) as the authors' code does; linear maps stay as PyTorch draws them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
