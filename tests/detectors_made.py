"""Detectors made up for the tests: they are not trained, but lean to the first class."""

import json

import torch
import yaml

from heedful.data.boxes import read_boxes
from heedful.models.cards import DetectorCard
from heedful.models.detection import detector_of
from heedful.models.saved import save
from tests.data_made import coco_json

SIZE = 64
CLASSES = ("cat", "dog")


def boxes_folder(root, *, num_train=6, num_test=5, names=CLASSES, size=48):
    """Write a folder in COCO's layout; image n shows n % 3 + 1 boxes, cats and dogs in turn, the last none."""
    for part, count in (("train", num_train), ("val", num_test)):
        shown = {
            f"{part}{n}.png": [(names[(n + k) % 2], 3 * k + n, 2 * k, 20 + n, 16 + k) for k in range(n % 3 + 1)]
            for n in range(count)
        }
        shown[f"{part}{count - 1}.png"] = []
        coco_json(root / f"{part}.json", shown, size=size, names=names, images=root / "images")
    return root


def write_detector(folder, variant="none", *, classes=CLASSES):
    """Write a detector as training does, and return it in evaluation mode."""
    folder.mkdir(parents=True, exist_ok=True)
    card = DetectorCard("fasterrcnn_resnet18_fpn_small", variant, classes, SIZE)
    torch.manual_seed(1)
    model = detector_of(card).eval()
    with torch.no_grad():
        scores = model.roi_heads.box_predictor.cls_score
        scores.weight *= 20  # so that some are above 0.5, and others not
        scores.bias[1] += 0.9
    save(model, card, folder)
    return model


def detector_run(folder, source, variant="none", *, seed=0, **settings):
    """Write a run's folder as training leaves it, and return the detector."""
    pool = read_boxes(source)
    model = write_detector(folder, variant, classes=pool.classes)
    settings = {"task": "detection", "data": str(source), "val_fraction": 0.3, "limit": None, **settings}
    (folder / "run.yaml").write_text(yaml.safe_dump({"row": variant, "seed": seed, "settings": settings}))
    (folder / "result.json").write_text(json.dumps({"data": {"fingerprint": pool.fingerprint}}))
    return model
