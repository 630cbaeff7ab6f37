"""Maps that know nothing of the network or the image: what every localisation number is read beside."""

import numpy as np
from jaxtyping import Float64

DEVIATION = 0.25


def centre_gaussian(height: int, width: int, deviation: float = DEVIATION) -> Float64[np.ndarray, "height width"]:
    """Return a Gaussian around the middle of the image: photographs have their object there.

    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, whose finding is that many
    methods hardly surpass it. PxAP, MaxBoxAccV2 and the pointing game see little but the order of its values; energy
    and Jaccard depend on the deviation, which is our choice.

    Args:
        height: in pixels.
        width: in pixels.
        deviation: standard deviation as a part of the side, over 0.
    """
    rows, columns = (((np.arange(side) + 0.5) / side - 0.5) / deviation for side in (height, width))
    return np.exp(-(rows[:, None] ** 2 + columns**2) / 2)
