"""FGSM and PGD from their equations, image by image; slow."""

import torch
from torch.nn import functional as F


def gradient(model, image, label, mean, deviation):
    """∇_x of the cross-entropy at one image (C, H, W) of pixels in [0, 1]."""
    pixels = image.clone().requires_grad_()
    channels = [(pixels[c] - mean[c]) / deviation[c] for c in range(len(mean))]
    F.cross_entropy(model(torch.stack(channels)[None]), label[None]).backward()
    return pixels.grad


def fgsm(model, image, label, epsilon, mean, deviation):
    return (image + epsilon * gradient(model, image, label, mean, deviation).sign()).clamp(0, 1)


def pgd(model, image, label, epsilon, mean, deviation, steps, step_size, start):
    """From the pixels `start`: a step along the sign, then back into the ball and into [0, 1], pixel by pixel."""
    current = start
    for _ in range(steps):
        moved = current + step_size * gradient(model, current, label, mean, deviation).sign()
        back = [
            min(max(value, pixel - epsilon, 0.0), pixel + epsilon, 1.0)
            for value, pixel in zip(moved.flatten().tolist(), image.flatten().tolist(), strict=True)
        ]
        current = torch.tensor(back, dtype=image.dtype).reshape(image.shape)
    return current
