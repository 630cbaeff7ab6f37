"""How often a network is wrong: top-1 and top-5 error, and the mean loss."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.temporary import evaluation_mode


@torch.inference_mode()
def classification(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float | None]:
    """Return `error` and `top5_error` in percent and `loss` (mean cross-entropy in nats) over all images.

    Args:
        model: from images to logits; run in evaluation mode.
        batches: (images, labels), on the model's device.

    Returns:
        `top5_error` is None where there are fewer than six classes.
    """
    from torchmetrics.functional.classification import multiclass_accuracy

    with evaluation_mode(model):
        outputs = [(model(images).float(), labels) for images, labels in batches]
    logits, labels = torch.cat([o for o, _ in outputs]), torch.cat([t for _, t in outputs])
    num_classes = logits.shape[1]

    def error(top_k: int) -> float:
        accuracy = multiclass_accuracy(logits, labels, num_classes=num_classes, average="micro", top_k=top_k)
        return 100 * (1 - accuracy.double().item())

    return {
        "error": error(1),
        "top5_error": error(5) if num_classes > 5 else None,
        "loss": F.cross_entropy(logits, labels).item(),
    }
