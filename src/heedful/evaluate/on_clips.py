"""How often a network of clips is wrong on a run's test clips, and how often if it lacks one of its streams."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedful.data.batches import Moved
from heedful.data.clip_batches import clip_batches
from heedful.data.clip_data import ClipData, part_to_test, read_clips
from heedful.errors import InputError
from heedful.evaluate.classification import classification
from heedful.evaluate.found import Found, Headline
from heedful.evaluate.runs import TrainedRun, require_unchanged
from heedful.models.cards import ClipCard

BATCH_SIZE = 64


def clip_errors(model: nn.Module, run: TrainedRun, source: str | None = None, limit: int | None = None) -> Found:
    """Return error and loss on test clips; of a network of several streams also the error without each of them.

    Args:
        model: a network of clips.
        run: where it comes from.
        source: other clips of the same streams and classes, of which those of the people to test on count; None: the
            run's own.
        limit: at most so many clips, evenly spaced.

    Raises:
        InputError: if the clips are not there any more, have changed, or are of other classes; or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, but it must be at least 1")
    data = clips_to_test(run, source)
    count = len(data.test)
    test = data.test if limit is None or limit >= count else data.test.at(torch.arange(limit) * count // limit)
    batches = Moved(clip_batches(test, data, BATCH_SIZE), next(model.parameters()).device)
    found = classification(model, batches)
    streams = tuple(data.shapes) if len(data.shapes) > 1 else ()
    without = {name: classification(model, Without(batches, name))["error"] for name in streams}
    errors = {"error": found["error"], **{f"error without {name}": error for name, error in without.items()}}
    return Found(
        {"data": data.name, "num_images": len(test), **found, "without": without},
        tuple(Headline(name, error, "%", "lower") for name, error in errors.items() if error is not None),
    )


def clips_to_test(run: TrainedRun, source: str | None) -> ClipData:
    """Return the clips to test on and no others, to be normalised as the network takes them; see `clip_errors`."""
    card, settings = run.card, run.settings
    assert isinstance(card, ClipCard)
    if run.seed is None:
        raise InputError(f"{run.folder} does not say on which clips the network was trained: train it by a recipe")
    own = settings["data"]
    clips = read_clips(own if source is None else source, tuple(card.streams))
    if source is None or source == own:
        require_unchanged(run, own, clips.fingerprint)
    if clips.classes != card.classes:
        raise InputError(f"{source} has other classes than the run: {', '.join(clips.classes)}")
    none = clips.at(torch.arange(0))
    return ClipData(
        name=clips.name,
        classes=clips.classes,
        train=none,
        val=none,
        test=part_to_test(clips, settings["benchmark"]),
        shapes={name: stream.shape for name, stream in card.streams.items()},
        mean={name: stream.mean for name, stream in card.streams.items()},
        deviation={name: stream.deviation for name, stream in card.streams.items()},
        fingerprint=clips.fingerprint,
    )


@dataclass(frozen=True)
class Without:
    """Batches of clips that lack one stream."""

    batches: Iterable[tuple[dict[str, Tensor], Any]]
    stream: str

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor | None], Any]]:
        return (({**inputs, self.stream: None}, labels) for inputs, labels in self.batches)
