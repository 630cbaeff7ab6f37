"""Begin a network of several streams from networks that were trained before, each perhaps alone."""

from collections.abc import Mapping

from torch import Tensor, nn

from heedful.errors import InputError, unknown


def load_streams(model: nn.Module, trained: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give streams the weights of networks that were trained before, each perhaps alone: in place, all or nothing.

    What fuses the streams stays as it is. `concat` has no use for the last linear maps of the networks it starts from.

    Args:
        model: made by `build_streams`.
        trained: stream -> state dict of a network with that stream; entries of other streams have no effect.

    Raises:
        InputError: if a stream is unknown, or a state dict does not fit it.
    """
    streams = model.streams
    assert isinstance(streams, nn.ModuleDict)
    for name in trained:
        if name not in streams:
            raise unknown("stream", name, streams)
    fitting = {name: _fitting(name, streams[name], state) for name, state in trained.items()}
    for name, state in fitting.items():
        streams[name].load_state_dict(state)


def _fitting(name: str, network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what of a state dict is this stream's, without the last linear map that `concat` takes away."""
    prefix = f"streams.{name}."
    taken_away = tuple(f"{inner}." for inner, module in network.named_modules() if isinstance(module, nn.Identity))
    given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    given = {key: value for key, value in given.items() if not key.startswith(taken_away)}
    ours = network.state_dict()
    wrong = [
        key for key in {**ours, **given} if key not in ours or key not in given or ours[key].shape != given[key].shape
    ]
    if wrong:
        key = wrong[0]
        here, there = (str(tuple(one[key].shape)) if key in one else "nothing" for one in (ours, given))
        raise InputError(
            f"the weights do not fit stream {name!r}: {prefix}{key} is {here} in the network, {there} in the weights "
            f"({len(wrong)} differ): give the state dict of the same network, with as many classes"
        )
    return given
