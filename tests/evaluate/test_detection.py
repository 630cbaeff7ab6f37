"""COCO's metrics: against pycocotools itself, against average precision from its definition, and their properties."""

import contextlib
import io
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from heedful import InputError
from heedful.evaluate.detection import DetectionError, detection

CLASSES = ("cat", "dog", "owl")
STATS = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "recall_1", "recall_10", "recall_100",
)  # fmt: skip


def truth(boxes, labels, *, image=0, crowd=None, **more):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "crowd": torch.tensor(crowd if crowd is not None else [False] * len(labels), dtype=torch.bool),
        "image": torch.tensor(image),
        **more,
    }


def found(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def random_boxes(rng, count):
    """Boxes of 5 to 200 pixels a side, on quarters of a pixel, which float32 holds exactly."""
    corner, sides = rng.integers(0, 400, (count, 2)), rng.choice([20, 60, 200, 500, 800], (count, 2))
    sides = sides + rng.integers(0, 20, (count, 2))
    return np.concatenate([corner, corner + sides], 1) / 4


def made_up(seed, num_images=12):
    """Images with 0 to 9 boxes, some of them crowds; detections are boxes moved a little, others, and none."""
    rng, predictions, targets = np.random.default_rng(seed), [], []
    for image in range(num_images):
        count = 0 if image % 5 == 3 else int(rng.integers(1, 10))
        boxes, labels = random_boxes(rng, count), rng.integers(1, 3, count)
        targets.append(truth(boxes.tolist(), labels.tolist(), image=image, crowd=(rng.random(count) < 0.2).tolist()))
        moved = boxes + rng.integers(-9, 10, boxes.shape) / 4
        others = random_boxes(rng, 130 if image == 1 else int(rng.integers(0, 5)))
        guesses = np.concatenate([moved, others])[: None if image % 4 else 0]
        right = np.where(rng.random(count) < 0.8, labels, 3 - labels)
        guessed = np.concatenate([right, rng.integers(1, 4, len(others))])[: len(guesses)]
        scores = rng.integers(1, 8, len(guesses)) / 8  # with many ties
        predictions.append(found(guesses.tolist(), guessed.tolist(), scores.tolist()))
    return predictions, targets


def measured(predictions, targets, classes=CLASSES):
    error = DetectionError(classes)
    error.add(predictions, targets)
    return error.numbers()


def by_pycocotools(predictions, targets):
    """Return the numbers of COCOeval on the same boxes, in percent, and the average precision of each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def plain(box):
        left, top, right, bottom = box.tolist()
        return [left, top, right - left, bottom - top]

    number = itertools.count(1)
    annotations = [
        {"id": next(number), "image_id": target["image"].item(), "category_id": label, "iscrowd": int(crowd),
         "bbox": plain(box), "area": plain(box)[2] * plain(box)[3]}
        for target in targets
        for box, label, crowd in zip(target["boxes"], target["labels"].tolist(), target["crowd"].tolist(), strict=True)
    ]  # fmt: skip
    results = [
        {"image_id": target["image"].item(), "category_id": label, "bbox": plain(box), "score": score}
        for prediction, target in zip(predictions, targets, strict=True)
        for box, label, score in zip(
            prediction["boxes"], prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": target["image"].item()} for target in targets],
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [None if value == -1 else 100 * value for value in evaluation.stats]
    of_class = evaluation.eval["precision"][:, :, :, 0, 2]
    classes = [of_class[:, :, n] for n in range(len(CLASSES))]
    return dict(zip(STATS, stats, strict=False)), [100 * c[c > -1].mean() for c in classes if (c > -1).any()]


@pytest.mark.parametrize("seed", range(4))
def test_numbers_are_those_of_pycocotools(seed, capfd):
    predictions, targets = made_up(seed)
    numbers = measured(predictions, targets)
    assert capfd.readouterr() == ("", "")
    stats, of_class = by_pycocotools(predictions, targets)
    assert {name: numbers[name] for name in STATS} == pytest.approx(stats, rel=1e-10)
    shown = [each["ap"] for each in numbers["classes"].values() if each["ap"] is not None]
    assert shown == pytest.approx(of_class, rel=1e-10)
    assert 1 < numbers["map"] < numbers["map50"] < 99
    assert None not in stats.values()


def test_numbers_of_classes_and_boxes():
    predictions, targets = made_up(0)
    numbers = measured(predictions, targets)
    assert list(numbers["classes"]) == list(CLASSES)
    there = [(target["labels"] == label) & ~target["crowd"] for label in (1, 2, 3) for target in targets]
    counts = [int(sum(mask.sum() for mask in there[n : n + len(targets)])) for n in (0, 12, 24)]
    assert [each["num_boxes"] for each in numbers["classes"].values()] == counts
    assert (counts[2], numbers["num_boxes"]) == (0, sum(counts))
    assert numbers["classes"]["owl"] == {"ap": None, "ap50": None, "num_boxes": 0}
    for name, key in (("map", "ap"), ("map50", "ap50")):
        of_classes = [each[key] for each in numbers["classes"].values() if each[key] is not None]
        assert numbers[name] == pytest.approx(np.mean(of_classes))


def overlap(a, b):
    left, top, right, bottom = *np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])
    shared = max(right - left, 0) * max(bottom - top, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def precision_by_definition(predictions, targets):
    """AP at an overlap of 0.5 of class 1: each detection, the surest first, takes the box it overlaps most of those
    that are not taken; precision is the highest at that recall or beyond, its mean over 101 recalls."""
    guesses = sorted(
        ((score, n, box) for n, p in enumerate(predictions)
         for box, score, label in zip(p["boxes"].numpy(), p["scores"].tolist(), p["labels"].tolist(), strict=True)
         if label == 1),
        key=lambda guess: -guess[0],
    )  # fmt: skip
    free = [[box for box, label in zip(t["boxes"].numpy(), t["labels"].tolist(), strict=True) if label == 1]
            for t in targets]  # fmt: skip
    num_boxes, hits, points = sum(map(len, free)), 0, []
    for rank, (_, n, box) in enumerate(guesses, start=1):
        best = max(range(len(free[n])), key=lambda k: overlap(box, free[n][k]), default=None)
        if best is not None and overlap(box, free[n][best]) >= 0.5:
            free[n].pop(best)
            hits += 1
        points.append((hits / num_boxes, hits / rank))
    recalls = np.linspace(0, 1, 101)
    return 100 * np.mean([max((p for r, p in points if r >= recall), default=0) for recall in recalls])


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_its_definition(seed):
    rng, predictions, targets = np.random.default_rng(seed), [], []
    for image in range(4):
        boxes = random_boxes(rng, 4)
        targets.append(truth(boxes.tolist(), [1, 1, 1, 2], image=image))
        guesses = np.concatenate([boxes + rng.integers(-19, 20, boxes.shape) / 8, random_boxes(rng, 2)])
        scores = rng.permutation(100)[: len(guesses)] / 100 + image / 1000
        predictions.append(found(guesses.tolist(), [1, 1, 1, 2, 1, 1], scores.tolist()))
    numbers = measured(predictions, targets)
    expected = precision_by_definition(predictions, targets)
    assert numbers["classes"]["cat"]["ap50"] == pytest.approx(expected, rel=1e-9)
    assert 10 < expected < 99


def test_a_detection_on_a_crowd_does_not_count_and_one_beside_it_does():
    target = truth([[0, 0, 20, 20], [30, 0, 90, 40]], [1, 1], crowd=[False, True])
    hit, on_crowd, beside = [0, 0, 20, 20], [35, 5, 50, 20], [100, 0, 120, 20]
    without = measured([found([hit], [1], [0.5])], [target])
    assert without["map"] == pytest.approx(100)
    with_it = measured([found([on_crowd, hit], [1, 1], [0.9, 0.5])], [target])
    assert {**with_it, "recall_1": 100.0} == without  # of one detection an image, it is the one
    assert measured([found([beside, hit], [1, 1], [0.9, 0.5])], [target])["map"] == pytest.approx(50)


def test_an_image_that_comes_again_is_counted_once_and_the_order_does_not_count():
    predictions, targets = made_up(1)
    expected = measured(predictions, targets)
    error = DetectionError(CLASSES)
    for n in (*reversed(range(len(targets))), 4, 7):
        error.add([predictions[n]], [targets[n]])
    assert error.numbers() == expected
    halves = DetectionError(CLASSES), DetectionError(CLASSES)
    for n, half in enumerate(halves):
        half.add(predictions[6 * n : 6 * n + 6], targets[6 * n : 6 * n + 6])
    halves[1].include(halves[0])
    assert halves[1].numbers() == expected
    assert error.percent() == 100 - expected["map"]


def test_sizes_count_pixels_of_the_file():
    box = [10, 10, 30, 30]
    small = measured([found([box], [1], [0.5])], [truth([box], [1])])
    assert small["map_small"] == pytest.approx(100)
    assert (small["map_medium"], small["map_large"]) == (None, None)
    large = measured([found([box], [1], [0.5])], [truth([box], [1], scale=torch.full((4,), 5.0))])
    assert large["map_large"] == large["map"] == pytest.approx(100)
    assert (large["map_small"], large["map_medium"]) == (None, None)


@pytest.mark.parametrize("guesses", [found([], [], []), found([[0, 0, 5, 5]], [1], [0.5])])
@pytest.mark.parametrize("target", [truth([], []), truth([[0, 0, 5, 5]], [1], crowd=[True])])
def test_without_boxes_there_is_no_average_precision(guesses, target):
    numbers = measured([guesses], [target])
    assert {numbers[name] for name in STATS} == {None}
    error = DetectionError(CLASSES)
    error.add([guesses], [target])
    with pytest.raises(InputError, match="none of 1 images has a box"):
        error.percent()


class Fixed(nn.Module):
    """A detector that finds the same in every image: the box of its first pixel's colours, in percent."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        assert not self.training
        return [found([[0, 0, *(100 * image[:2, 0, 0]).tolist()]], [1], [0.5]) for image in images]


def test_a_detector_is_measured_batch_by_batch():
    images = [torch.full((3, 4, 6), value) for value in (0.2, 0.4, 0.6)]
    targets = [truth([[0, 0, side, side]], [1], image=n) for n, side in enumerate((20, 40, 20))]
    model = Fixed().train()
    numbers = detection(model, [(images[:2], targets[:2]), (images[2:], targets[2:])], CLASSES)
    assert model.training
    assert numbers == measured(model.eval()(images), targets)
    nameless = detection(model, [(images, targets)])
    assert nameless == {**numbers, "classes": {}}
    assert numbers["recall_100"] == pytest.approx(100 * 2 / 3)
    assert not any(isinstance(value, torch.Tensor) for value in numbers.values())
