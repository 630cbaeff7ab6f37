"""Networks of one stream, for `heedful.models.two_stream`: skeletons, inertial sensors, small depth clips, video.

Each names its `levels`, early to deep, at which streams can be fused, and its `input_shape` without the batch.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import InputError, unknown


class HCN(nn.Module):
    """Skeletons: hierarchical co-occurrence network (Li et al., IJCAI 2018, figure 3).

    Two branches, for the joints' places and for their motion, look at each joint by itself first. Then the joints
    become the channels, so that every kernel sees them all. Persons share all weights up to `conv6`, whose largest
    value over the persons counts, the paper's "late fusion".

    The motion is the difference between frames that follow each other, stretched to as many frames. ReLU stands behind
    `conv1`, `conv5`, `conv6` and `fc7`, dropout behind `conv4`, `conv5`, `conv6` and `fc7`, as in the paper; that it
    follows the pooling is our choice. The code of MMTM's authors fuses at these three `levels` too; it weights the
    first person only at `conv5`, where all are places of one map here, and has 512 hidden units.

    Args:
        num_classes: number of outputs; UTD-MHAD has 27.
        num_joints: 20 in UTD-MHAD, 25 in NTU RGB+D.
        num_frames: to which every clip is resampled; 16 or more, 32 in the paper.
        in_channels: coordinates of a joint.
        hidden: units of `fc7`; 256 in the paper.
        dropout: in [0, 1]; 0.5 in the paper.

    Raises:
        InputError: if there are too few frames.
    """

    levels = ("conv5", "conv6", "fc7")

    def __init__(
        self, *, num_classes: int, num_joints: int = 20, num_frames: int = 32, in_channels: int = 3, hidden: int = 256,
        dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_frames < 16:
            raise InputError(f"num_frames is {num_frames}, but four poolings by 2 need 16 frames or more")
        self.input_shape = (in_channels, num_frames, num_joints)
        self.persons = Persons(self.input_shape)
        self.position = EachPerson(*_point_then_joints(in_channels, num_joints, dropout))
        self.motion = EachPerson(Motion(), *_point_then_joints(in_channels, num_joints, dropout))
        self.conv5 = EachPerson(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout))
        self.conv6 = EachPerson(nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout))
        places = (num_frames // 16) * (POINT_WIDTH // 16)
        self.fc7 = nn.Sequential(nn.Linear(256 * places, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.fc8 = nn.Linear(hidden, num_classes)

    def forward(self, x: Float[Tensor, "batch coordinates frames joints *persons"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes, of skeletons of one person, or of several in a last dimension."""
        x = self.persons(x)
        x = torch.cat([self.position(x), self.motion(x)], 1)
        x = self.conv6(self.conv5(x)).amax(2)
        return self.fc8(self.fc7(x.flatten(1)))


POINT_WIDTH = 32
"""What is known of each joint before the joints are seen together, `conv2` in the paper."""


class Persons(nn.Module):
    """Skeletons as (N, C, persons, T, J).

    Args:
        shape: coordinates, frames and joints.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch _ persons _ _"]:
        """Return the skeletons with the persons in the third dimension."""
        if tuple(x.shape[1:4]) != self.shape or x.ndim not in (4, 5):
            raise InputError(
                f"the skeletons are {tuple(x.shape)}, but the network takes {('N', *self.shape)}: coordinates, frames, "
                "joints, and persons behind them if there are several. Resample the clips, or make the network anew"
            )
        return x[:, :, None] if x.ndim == 4 else x.movedim(4, 2)


class EachPerson(nn.Module):
    """Modules for (N, C, H, W), one after the other, applied to each person of (N, C, persons, H, W).

    Args:
        modules: which all persons share.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.each = nn.Sequential(*modules)

    def forward(self, x: Float[Tensor, "batch _ persons _ _"]) -> Float[Tensor, "batch _ persons _ _"]:
        """Return what the modules make of every person."""
        apart = self.each(x.transpose(1, 2).flatten(0, 1))
        return apart.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)


class Motion(nn.Module):
    """The differences between frames that follow each other."""

    def forward(
        self, x: Float[Tensor, "batch coordinates frames joints"]
    ) -> Float[Tensor, "batch coordinates frames joints"]:
        """Return as many frames as there were, between which is interpolated."""
        return F.interpolate(x.diff(dim=2), size=x.shape[2:], mode="bilinear", align_corners=False)


class JointsAsChannels(nn.Module):
    """(N, C, T, J) to (N, J, T, C)."""

    def forward(
        self, x: Float[Tensor, "batch channels frames joints"]
    ) -> Float[Tensor, "batch joints frames channels"]:
        """Return the transpose."""
        return x.transpose(1, 3)


def _point_then_joints(in_channels: int, num_joints: int, dropout: float) -> list[nn.Module]:
    """Return `conv1` to `conv4` of a branch."""
    return [
        nn.Conv2d(in_channels, 64, 1), nn.ReLU(), nn.Conv2d(64, POINT_WIDTH, (3, 1), padding=(1, 0)),
        JointsAsChannels(),
        nn.Conv2d(num_joints, 32, 3, padding=1), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.Dropout(dropout),
    ]  # fmt: skip


class InertialNetwork(nn.Module):
    """Inertial sensors: three convolutions over time, each with batch norm and ReLU, and the mean over time.

    The fully convolutional network of Wang, Yan and Oates, "Time series classification from scratch with deep neural
    networks", IJCNN 2017. It pools nothing before the end and takes any length.

    Args:
        num_classes: number of outputs.
        in_channels: of the sensors; 6 of an accelerometer and a gyroscope.
        num_samples: in time, as a rule; it decides no weight.
    """

    levels = ("layer1", "layer2", "layer3")

    def __init__(self, *, num_classes: int, in_channels: int = 6, num_samples: int = 128) -> None:
        super().__init__()
        self.input_shape = (in_channels, num_samples)
        self.layer1 = _over_time(in_channels, 128, 8)
        self.layer2 = _over_time(128, 256, 5)
        self.layer3 = _over_time(256, 128, 3)
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x: Float[Tensor, "batch channels samples"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean(2))


def _over_time(in_channels: int, channels: int, kernel_size: int) -> nn.Sequential:
    # Padded here: padding="same" warns for a kernel of even size.
    padding = nn.ConstantPad1d(((kernel_size - 1) // 2, kernel_size // 2), 0.0)
    return nn.Sequential(padding, nn.Conv1d(in_channels, channels, kernel_size), nn.BatchNorm1d(channels), nn.ReLU())


class ClipNetwork(nn.Module):
    """Small clips, such as depth of 60 x 80 pixels: convolutions over places, then over time, four times.

    The factorised convolutions are those of Tran et al., "A closer look at spatiotemporal convolutions", CVPR 2018, in
    a network without residuals that is small enough for CPUs. Each `layer` halves the sides, and from the second on
    the frames too.

    Args:
        num_classes: number of outputs.
        in_channels: of a frame.
        num_frames: as a rule; any number from 1 on will do.
        height: of a frame, likewise.
        width: likewise.
        channels: of the first layer; each further one has twice as many.
    """

    levels = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self, *, num_classes: int, in_channels: int = 1, num_frames: int = 12, height: int = 60, width: int = 80,
        channels: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_shape = (in_channels, num_frames, height, width)
        self.layer1 = _over_places_and_time(in_channels, channels, time_stride=1)
        self.layer2 = _over_places_and_time(channels, 2 * channels, time_stride=2)
        self.layer3 = _over_places_and_time(2 * channels, 4 * channels, time_stride=2)
        self.layer4 = _over_places_and_time(4 * channels, 8 * channels, time_stride=2)
        self.fc = nn.Linear(8 * channels, num_classes)

    def forward(self, x: Float[Tensor, "batch channels frames height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3, 4)))


def _over_places_and_time(in_channels: int, channels: int, *, time_stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        nn.BatchNorm3d(channels), nn.ReLU(),
        nn.Conv3d(channels, channels, (3, 1, 1), (time_stride, 1, 1), (1, 0, 0), bias=False),
        nn.BatchNorm3d(channels), nn.ReLU(),
    )  # fmt: skip


def video_resnet(name: str, *, num_classes: int, pretrained: bool = False) -> nn.Module:
    """Return a video ResNet of torchvision's (Tran et al., CVPR 2018), for clips (N, 3, frames, height, width).

    Args:
        name: "r3d_18", "mc3_18" or "r2plus1d_18".
        num_classes: number of outputs.
        pretrained: with torchvision's weights from Kinetics-400, but for the last linear map.

    Raises:
        InputError: for another name.
    """
    from torchvision.models import video

    made = {"r3d_18": video.r3d_18, "mc3_18": video.mc3_18, "r2plus1d_18": video.r2plus1d_18}
    if name not in made:
        raise unknown("video network", name, made)
    network: Any = made[name](weights="KINETICS400_V1" if pretrained else None)
    network.fc = nn.Linear(network.fc.in_features, num_classes)
    network.levels = ("layer1", "layer2", "layer3", "layer4")
    network.input_shape = (3, 16, 112, 112)
    return network
