"""Class maps and the losses on them, loop by loop from the papers' equations; slow."""

import math

import torch


def gradient(head, activations, image, cls):
    """Gradient of one class score by one image's activations, with the rest of the batch left as it is."""
    leaf = activations.detach().clone().requires_grad_()
    return torch.autograd.grad(head(leaf)[image, cls], leaf)[0][image]


def relu(number):
    return max(number, 0.0)


def weights(method, a, g):
    """Return w[k][i][j] of A_k[i][j] in the sum over channels; a and g: (C, h, w) of one image and class."""
    channels, height, width = a.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    z = len(places)
    found = torch.zeros(channels, height, width, dtype=torch.float64)
    for k in range(channels):
        total = sum(float(a[k, i, j]) for i, j in places)
        gk = {p: float(g[k][p]) for p in places}
        if method == "cam":
            constant = sum(gk.values())
        elif method == "grad-cam":
            constant = sum(gk.values()) / z
        elif method == "channel":
            constant = sum(relu(value) for value in gk.values()) / z
        elif method == "grad-cam++":
            alpha = {p: 0.0 if v == 0 else v**2 / (2 * v**2 + total * v**3) for p, v in gk.items()}
            constant = sum(alpha[p] * relu(gk[p]) for p in places)
        elif method == "xgrad-cam":
            constant = sum(gk[p] * float(a[k][p]) / total for p in places) if total else 0.0
        for p in places:
            if method == "layer-cam":
                found[k][p] = relu(gk[p])
            elif method == "hires-cam":
                found[k][p] = gk[p]
            else:
                found[k][p] = constant
    return found


def class_map(method, a, g):
    """Return the map (h, w) of one image and class."""
    total = (weights(method, a, g) * a).sum(0)
    return total if method == "cam" else total.clamp(min=0)


def separation(target, confusing, mask):
    """[W], equation 3, for one image; maps (h, w) as they are."""
    above, below = 0.0, 0.0
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            above += min(float(target[i, j]), float(confusing[i, j])) * float(mask[i, j])
            below += float(target[i, j]) + float(confusing[i, j])
    return 2 * above / below if below else 0.0


def mask(target, sigma=0.55, omega=100):
    """[W], equation 4, of a map divided by its maximum."""
    scaled = target / target.max()
    return scaled.apply_(lambda value: 1 / (1 + math.exp(-omega * (value - sigma))))


def consistency(inner, mask, theta=0.8):
    """[W], equation 5, for one image."""
    total = float(inner.sum())
    return theta - float((inner * mask).sum()) / total if total else 0.0
