"""Grad-CAM by finite differences: nothing of autograd."""

import torch


@torch.no_grad()
def slow_grad_cam(network, layer, image, class_index, step=1e-6):
    """Return relu(Σ_k mean_ij(∂y/∂A_k) A_k) for one image (1, C, H, W) of a sequential network."""
    activation = network[: layer + 1](image.clone()).clone()
    head = network[layer + 1 :]
    weights = torch.zeros(activation.shape[1], dtype=image.dtype)
    for k in range(activation.shape[1]):
        for i in range(activation.shape[2]):
            for j in range(activation.shape[3]):
                scores = []
                for sign in (1, -1):
                    moved = activation.clone()
                    moved[0, k, i, j] += sign * step
                    scores.append(head(moved)[0, class_index])
                weights[k] += (scores[0] - scores[1]) / (2 * step)
    weights /= activation.shape[2] * activation.shape[3]
    return torch.relu((weights[:, None, None] * activation[0]).sum(0))
