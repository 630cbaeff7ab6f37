"""How wide an attention layer is: its channels, and the hidden width that a reduction makes of them."""

from heedful.errors import InputError


def checked(channels: int) -> int:
    """Return the number of channels.

    Raises:
        InputError: if it is less than 1.
    """
    if channels < 1:
        raise InputError(
            f"channels is {channels!r}, but it must be at least 1: the number of channels of the feature map"
        )
    return channels


def hidden_width(channels: int, reduction: int) -> int:
    """Return `channels // reduction`, and 1 where that is 0.

    Raises:
        InputError: if either is less than 1.
    """
    if channels < 1 or reduction < 1:
        raise InputError(f"channels={channels!r} and reduction={reduction!r} must both be at least 1")
    return max(1, channels // reduction)
