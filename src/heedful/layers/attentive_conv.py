"""What convolutions with attention have in common: they take the place of a plain one, in place, and give it back."""

import copy
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import nn

from heedful.errors import InputError

Kind = TypeVar("Kind", bound="AttentiveConv2d")


class AttentiveConv2d(nn.Conv2d):
    """A drop-in for `nn.Conv2d`, with its arguments, whose `weight` and `bias` keep their keys; a child `attention`.

    Args:
        in_channels: as in `nn.Conv2d`, like all up to dtype.
        out_channels: as there.
        kernel_size: as there.
        stride: as there.
        padding: as there.
        dilation: as there.
        groups: as there.
        bias: as there.
        padding_mode: as there.
        device: as there.
        dtype: as there.
        options: of the attention, by keyword: `gate`, `reduction` and what else its class takes.

    Raises:
        InputError: if the attention refuses the convolution or the options.
    """

    attention_class: ClassVar[type[nn.Module]]
    """Of the child `attention`; it is made from the convolution, which it reads and does not keep, and the options."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.attention = self.attention_class(self, **options)

    @classmethod
    def put_into(cls, conv: nn.Conv2d, **options: Any) -> None:
        """Make one of a plain convolution, in place: it stays the same object, with its parameters and hooks.

        Args:
            conv: of type `nn.Conv2d`; its device, type and mode are those of the attention.
            options: of the attention.

        Raises:
            InputError: if conv is of another type, or the attention refuses it. It is then as it was.
        """
        if type(conv) is not nn.Conv2d:
            raise InputError(f"conv is a {type(conv).__name__}, but only a plain nn.Conv2d can get attention")
        attention = cls.attention_class(conv, **options)
        conv.add_module("attention", attention.train(conv.training))
        conv.__class__ = cls

    @classmethod
    def from_conv(cls: type[Kind], conv: nn.Conv2d, **options: Any) -> Kind:
        """Return one that shares weight and bias with a plain convolution, which stays as it is.

        Arguments and errors are those of `put_into`; hooks are taken over.
        """
        # What is in the memo is shared, not copied.
        made = copy.deepcopy(conv, {id(parameter): parameter for parameter in conv.parameters()})
        cls.put_into(made, **options)
        assert isinstance(made, cls)
        return made

    def take_out(self) -> None:
        """Make the plain convolution of it again, in place; the attention is gone."""
        del self.attention
        self.__class__ = nn.Conv2d  # type: ignore[assignment]
