"""How implementations of SE and CBAM differ from each other, each as a named convention that a layer can follow.

"laakom-code" is the Keras code of the authors of [L], "Learning to ignore"; "cbam-code" that of CBAM's authors; "timm"
timm's `SEModule` and `CbamModule`. "paper" is what the papers say; what they leave open is PyTorch's.
"""

from dataclasses import dataclass
from typing import Literal

from heedful.errors import unknown
from heedful.layers.widths import hidden_width

Pool = Literal["mean", "max"]


@dataclass(frozen=True)
class Convention:
    """What an implementation decides where others decide otherwise.

    Args:
        reduction: channels C divided by the hidden width of the MLP, unless the user gives another.
        se_multiple: of what the hidden width of SE is a multiple, nearest to C / reduction and at least this; None: the
            width is C / reduction rounded down, and at least 1.
        cbam_multiple: likewise in CBAM.
        cbam_bias: whether the MLP of CBAM has biases; that of SE always has.
        mlp_std: deviation of the normal distribution from which the MLP's weights are drawn; None: PyTorch's default.
        zero_biases: whether the biases of the MLP start at 0.
        pools: order of the pooled maps that CBAM's spatial convolution sees.
        spatial_fan: side of the spatial convolution that its He-normal weights are scaled by; None: PyTorch's default.
        norm_momentum: of the batch norm after the spatial convolution; None: there is none.
        norm_scale: at which the scale of that batch norm starts.
    """

    reduction: int = 16
    se_multiple: int | None = None
    cbam_multiple: int | None = None
    cbam_bias: bool = True
    mlp_std: float | None = None
    zero_biases: bool = False
    pools: tuple[Pool, ...] = ("mean", "max")
    spatial_fan: Literal["fan_in", "fan_out"] | None = None
    norm_momentum: float | None = None
    norm_scale: float = 1.0

    def se_hidden(self, channels: int, reduction: int | None = None) -> int:
        """Return the hidden width of SE; reduction None: the convention's own.

        Raises:
            InputError: if channels or reduction is less than 1.
        """
        return _hidden(channels, self.reduction if reduction is None else reduction, self.se_multiple)

    def cbam_hidden(self, channels: int, reduction: int | None = None) -> int:
        """Return the hidden width of CBAM's MLP; reduction None: the convention's own.

        Raises:
            InputError: if channels or reduction is less than 1.
        """
        return _hidden(channels, self.reduction if reduction is None else reduction, self.cbam_multiple)


CONVENTIONS: dict[str, Convention] = {
    "paper": Convention(),
    "laakom-code": Convention(reduction=8, mlp_std=0.01, zero_biases=True, spatial_fan="fan_in"),
    "cbam-code": Convention(
        zero_biases=True, pools=("max", "mean"), spatial_fan="fan_out", norm_momentum=0.01, norm_scale=0.0
    ),
    "timm": Convention(se_multiple=8, cbam_multiple=1, cbam_bias=False, norm_momentum=0.1),
}
"""Name -> convention. What the codes do and a convention leaves out:

- "laakom-code", "cbam-code": where C is less than the reduction their hidden width is 0, which Keras refuses and which
  leaves CBAM a constant mask; here it is 1.
- "laakom-code": Keras cuts He-normal weights off at two deviations; the deviation is the same.
- "cbam-code": the maximum's gradient goes to one place where places tie; here it is shared, as in the other codes.
- "timm": its ResNets draw the MLP, there 1x1 convolutions, He-normal after the layers were made; here it keeps
  PyTorch's default.
"""


def convention_named(name: str) -> Convention:
    """Return the convention of this name.

    Raises:
        InputError: if there is none; the message names those that there are.
    """
    if name not in CONVENTIONS:
        raise unknown("convention", name, CONVENTIONS)
    return CONVENTIONS[name]


def _hidden(channels: int, reduction: int, multiple: int | None) -> int:
    floor = hidden_width(channels, reduction)
    if multiple is None:
        return floor
    # A product with 1 / reduction, as timm has it: a quotient can round to the other side of a half.
    return max(multiple, int(channels * (1 / reduction) + multiple / 2) // multiple * multiple)
