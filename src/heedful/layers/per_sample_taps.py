"""The sum over a kernel's taps with channels last, where it is matrix products and a few passes over small maps.

The places of the input that share a remainder under the stride meet the same taps: for each such phase one product of
places and taps' kernels gives what every tap adds anywhere, and each is scaled and added where it belongs. The backward
pass spreads the gradient likewise, and two products give those of map and kernel. No patches and no images' kernels are
made, and with stride 2 no place is taken twice, so that both passes are quicker than oneDNN's convolution there.
"""

import torch
from torch import Tensor

from heedful.layers.per_sample_geometry import Geometry, Phase


def forward(x: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> tuple[Tensor, list[Tensor]]:
    """Return y, in the memory format of x, and each phase's products (N, rows, columns, taps, C2).

    Args:
        x: maps (N, C1, H, W).
        weight: kernel (C2, C1, h, w).
        scale: (N, h, w, C2).
        geometry: with one group.
    """
    size = (x.shape[2], x.shape[3])
    shape = (x.shape[0], *geometry.output_size(size), weight.shape[0])
    last = x.permute(0, 2, 3, 1).contiguous()
    y, products = None, []
    for phase in geometry.phases(size):
        places, kernels = _places(last, phase), _kernels(weight, phase)
        product = torch.mm(places.flatten(0, 2), kernels.flatten(0, 1).t())
        products.append(product.view(*places.shape[:3], *kernels.shape[:2]))
        y = _add(y, shape, products[-1], _scales(scale, phase), phase)
    return _like(x, x.new_zeros(shape) if y is None else y), products


def _add(y: Tensor | None, shape: tuple[int, ...], products: Tensor, scales: Tensor, phase: Phase) -> Tensor:
    """Add a phase's products, scaled, where they belong; begin with a tap that reaches all of y, if there is one."""
    whole = (slice(0, shape[1]), slice(0, shape[2]))
    reaching_all = [number for number, tap in enumerate(phase.taps) if tap.outputs == whole]
    begun = reaching_all[0] if y is None and reaching_all else None
    if begun is not None:
        rows, columns = phase.taps[begun].inputs
        y = products[:, rows, columns, begun] * scales[begun]
    elif y is None:
        y = products.new_zeros(shape)
    for number, tap in enumerate(phase.taps):
        if number != begun:
            reached = products[:, tap.inputs[0], tap.inputs[1], number]
            y[:, tap.outputs[0], tap.outputs[1]].addcmul_(reached, scales[number])
    return y


def backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    products: list[Tensor],
    geometry: Geometry,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and scale, those that are needed.

    Args:
        g: gradient of y.
        x: as for `forward`.
        weight: likewise.
        scale: likewise.
        products: what `forward` returned, or none of it: they are computed again.
        geometry: as for `forward`.
        needs: for which of x, weight and scale.
    """
    last, g = x.permute(0, 2, 3, 1).contiguous(), g.permute(0, 2, 3, 1).contiguous()
    phases = list(geometry.phases((x.shape[2], x.shape[3])))
    # What no phase writes is zero: places between strides, and taps that lie in the padding.
    all_met = len(phases) == geometry.stride[0] * geometry.stride[1]
    of_x, of_weight, of_scale = [
        None if not needed else torch.empty_like(tensor) if all_met else torch.zeros_like(tensor)
        for tensor, needed in zip((last, weight, scale), needs[:3], strict=True)
    ]
    for index, phase in enumerate(phases):
        places, kernels = _places(last, phase), _kernels(weight, phase)
        if of_scale is not None:
            product = products[index] if products else torch.mm(places.flatten(0, 2), kernels.flatten(0, 1).t())
            _add_scale_gradient(of_scale, g, product.view(*places.shape[:3], *kernels.shape[:2]), phase)
        spread = _spread(g, scale, places, phase).flatten(0, 2).flatten(1)
        if of_x is not None:
            of_places = torch.mm(spread, kernels.flatten(0, 1)).view(places.shape)
            of_x[:, phase.places[0], phase.places[1]] = of_places
        if of_weight is not None:
            of_phase = torch.mm(spread.t(), places.flatten(0, 2)).view(*_by_tap(weight, phase).shape)
            _by_tap(of_weight, phase).copy_(of_phase)
    return None if of_x is None else _like(x, of_x), of_weight, of_scale


def _places(last: Tensor, phase: Phase) -> Tensor:
    """Return the phase's places of the map, (N, rows, columns, C1), contiguous."""
    return last[:, phase.places[0], phase.places[1]].contiguous()


def _by_tap(weight: Tensor, phase: Phase) -> Tensor:
    """Return the phase's taps of the kernel, a view (rows, columns, C2, C1)."""
    return weight.permute(2, 3, 0, 1)[phase.kernel[0], phase.kernel[1]]


def _kernels(weight: Tensor, phase: Phase) -> Tensor:
    """Return the phase's taps of the kernel, (taps, C2, C1), contiguous."""
    return _by_tap(weight, phase).flatten(0, 1).contiguous()


def _scales(scale: Tensor, phase: Phase) -> Tensor:
    """Return the phase's taps of the scale, (taps, N, 1, 1, C2)."""
    return scale[:, phase.kernel[0], phase.kernel[1]].flatten(1, 2).transpose(0, 1)[:, :, None, None]


def _spread(g: Tensor, scale: Tensor, places: Tensor, phase: Phase) -> Tensor:
    """Return, for each place, the gradients that the taps bring back to it: (N, rows, columns, taps, C2)."""
    spread = g.new_empty(*places.shape[:3], len(phase.taps), g.shape[3])
    scales = _scales(scale, phase)
    for number, tap in enumerate(phase.taps):
        torch.mul(
            g[:, tap.outputs[0], tap.outputs[1]], scales[number], out=spread[:, tap.inputs[0], tap.inputs[1], number]
        )
        for rows, columns in tap.rest:
            spread[:, rows, columns, number] = 0
    return spread


def _add_scale_gradient(of_scale: Tensor, g: Tensor, product: Tensor, phase: Phase) -> None:
    sums, one_product = [], torch.empty_like(g)
    for number, tap in enumerate(phase.taps):
        reached = g[:, tap.outputs[0], tap.outputs[1]]
        into = one_product.view(-1)[: reached.numel()].view(reached.shape)
        torch.mul(reached, product[:, tap.inputs[0], tap.inputs[1], number], out=into)
        sums.append(into.sum((1, 2)))
    into = of_scale[:, phase.kernel[0], phase.kernel[1]]
    into.copy_(torch.stack(sums, 1).view(into.shape))


def _like(x: Tensor, last: Tensor) -> Tensor:
    """Return (N, H, W, C) as (N, C, H, W) in the memory format of x."""
    first = last.permute(0, 3, 1, 2)
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return first if channels_last else first.contiguous()
