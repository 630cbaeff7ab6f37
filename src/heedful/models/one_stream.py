"""A network of one stream that takes its input by the stream's name, as networks of several streams do."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from heedful.errors import InputError, unknown


class OneStream(nn.Module):
    """The network alone; its parameters have the names that they have in a `TwoStream`.

    Args:
        name: of the stream.
        network: puts out the logits of the classes.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({name: network})

    def forward(self, inputs: Mapping[str, Tensor | None]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes.

        Args:
            inputs: the stream's name -> batch.

        Raises:
            InputError: if there is another stream, or not this one: alone, it cannot be absent.
        """
        ((name, network),) = self.streams.items()
        for other in inputs:
            if other != name:
                raise unknown("stream", other, self.streams)
        values = inputs.get(name)
        if values is None:
            raise InputError(f"stream {name!r} is absent, but the network has no other: give its clips")
        return network(values)
