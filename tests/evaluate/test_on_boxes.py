"""`heedful evaluate --on detection`: on which images, what is found and drawn, and which runs it takes."""

import io
import json
import re
import sys

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from test_runs import made_run

from heedful import InputError, cli, load, record
from heedful.data.box_batches import box_batches
from heedful.data.boxes import Boxed, divide_boxes, read_boxes
from heedful.evaluate import evaluations, on_boxes
from heedful.evaluate.detected import COLOURS, FPN, MOST_NAMED, Boxes, Panel, Row, drawn, mask_rows, seen
from heedful.evaluate.detection import DetectionError, detection
from heedful.evaluate.evaluations import evaluate_runs
from heedful.evaluate.found import Found, Headline
from heedful.evaluate.on_boxes import own_boxes, spaced
from heedful.evaluate.protocols import PROTOCOLS, Asked
from heedful.evaluate.runs import read_run
from heedful.evaluate.tables import as_rich
from heedful.evaluate.wanted import check_tasks, parse
from heedful.experiment import compare
from tests.data_made import bright_squares, coco_json
from tests.detectors_made import SIZE, boxes_folder, detector_run, write_detector


@pytest.fixture
def folder(tmp_path):
    return boxes_folder(tmp_path / "pets")


@pytest.fixture
def heedful(monkeypatch, capfd):
    """Run a command in this process; return exit code, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["heedful", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        return code, re.sub(r"\x1b\[[0-9;]*m", "", out), err

    return call


def annotated_by(model, folder):
    """Put what a detector finds first in each image into the annotations of the test images."""
    content = json.loads((folder / "val.json").read_text())
    images = [image for image in read_boxes(folder).images if "val" in image.path.name]
    for entry, (pictures, targets) in zip(
        content["images"], box_batches(tuple(images), 1, image_size=SIZE), strict=True
    ):
        found = (model(pictures)[0]["boxes"] * targets[0]["scale"]).tolist()
        own = [each for each in content["annotations"] if each["image_id"] == entry["id"]]
        for annotation, (left, top, right, bottom) in zip(own, found, strict=False):
            annotation["bbox"] = [left, top, right - left, bottom - top]
    (folder / "val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("seed", "settings"), [(0, {}), (3, {"val_fraction": 0.4, "limit": 24})])
def test_own_images_are_those_that_training_tested_on(tmp_path, seed, settings):
    shown = {f"{n}.png": [(("cat", "dog")[n % 2], n, 2, 10, 12)] for n in range(30)}
    coco_json(tmp_path / "pets" / "annotations.json", shown, size=48)  # without a test split
    detector_run(tmp_path / "run", tmp_path / "pets", seed=seed, **settings)
    name, images = own_boxes(read_run(tmp_path / "run"))
    chosen = {"val_fraction": 0.3, **settings}
    expected = divide_boxes(read_boxes(tmp_path / "pets"), seed=seed, image_size=SIZE, **chosen).test
    assert name == "pets"
    assert [image.path for image in images] == [image.path for image in expected]
    assert 1 < len(images) < 10


def test_what_is_found_is_what_the_detector_finds_in_its_test_images(tmp_path, folder, heedful, monkeypatch):
    monkeypatch.setattr(on_boxes, "NUM_SHOWN", 1)
    annotated_by(write_detector(tmp_path / "first", "cbam"), folder)
    model = detector_run(tmp_path / "run", folder, "cbam")
    code, out, err = heedful("evaluate", tmp_path / "run", "--on", "detection", "--device", "cpu")
    assert err == ""
    assert code == 0
    images = [image for image in read_boxes(folder).images if "val" in image.path.name]
    assert len(images) == 5
    expected = detection(model, box_batches(tuple(images), 1, image_size=SIZE), ("cat", "dog"))
    content = json.loads((tmp_path / "run" / "detection.json").read_text())
    assert {name: content[name] for name in expected} == expected
    assert (content["data"], content["num_images"], content["num_boxes"]) == ("pets", 5, 7)
    assert content["headlines"] == [
        {"name": name, "value": content[key], "unit": "%", "better": "higher"}
        for name, key in (("mAP", "map"), ("mAP@0.5", "map50"), ("mAP@0.75", "map75"))
    ]
    assert content["map50"] > 5
    assert content["classes"]["cat"]["num_boxes"] == 4
    assert re.search(r"class +run +boxes +mAP % +mAP@0.5 %\n", out)
    assert re.search(r"\ncat +\S+/run +4 +\d", out)
    with Image.open(tmp_path / "run" / content["pictures"]["detections"]) as picture:
        assert (picture.format, picture.width) == ("PNG", 1100)


def test_what_is_found_in_an_image_does_not_depend_on_those_beside_it(tmp_path):
    model, images = write_detector(tmp_path / "run", "se"), []
    for number, (height, width) in enumerate([(60, 48), (48, 90)]):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        none = torch.zeros(0)
        images.append(Boxed(tmp_path / f"{number}.png", none.view(0, 4), none.long(), none.bool(), (height, width)))

    def found(*split):
        return [each["scores"] for pictures, _ in box_batches(split, 4, image_size=SIZE) for each in model(pictures)]

    together = found(*images)
    assert len(together[0]) > 0
    assert all(torch.equal(found(image)[0], scores) for image, scores in zip(images, together, strict=True))
    pictures = [picture for (picture,), _ in box_batches(tuple(images), 4, image_size=SIZE)]
    assert not torch.equal(model(pictures)[0]["scores"], together[0])  # where SE pools over the padding, too


def test_runs_of_one_call_read_their_data_once_and_the_next_call_anew(tmp_path, folder, monkeypatch):
    reads = []

    def counted(source, **options):
        reads.append(source)
        return read_boxes(source, **options)

    for name in ("a", "b"):
        write_detector(tmp_path / name)
    monkeypatch.setattr(evaluations, "read_boxes", counted)
    other = coco_json(tmp_path / "other" / "train.json", {"1.png": [("cat", 1, 1, 9, 9)]}, size=48).parent

    def num_images():
        found = evaluate_runs([tmp_path / "a", tmp_path / "b"], on="detection", asked=Asked(str(other)))
        return [each.numbers["num_images"] for each in found.values()]

    assert num_images() == [1, 1]
    assert len(reads) == 1
    coco_json(other / "train.json", {name: [("cat", 1, 1, 9, 9)] for name in ("1.png", "2.png")}, size=48)
    assert num_images() == [2, 2]


def test_fewer_images_are_evenly_spaced(tmp_path, folder):
    detector_run(tmp_path / "run", folder)
    images = own_boxes(read_run(tmp_path / "run"))[1]
    assert spaced(images, 2) == (images[0], images[2])
    assert spaced(images, 5) == spaced(images, None) == images
    found = evaluate_runs([tmp_path / "run"], on="detection", asked=Asked(limit=2))[str(tmp_path / "run")]
    assert (found.numbers["num_images"], found.numbers["num_boxes"]) == (2, 4)
    with pytest.raises(InputError, match="limit is 0, but it must be at least 1"):
        spaced(images, 0)


def test_other_data_are_labelled_by_the_classes_of_the_run(tmp_path, folder):
    detector_run(tmp_path / "run", folder)
    for place, names in (("same", ("cat", "dog")), ("turned", ("dog", "cat"))):
        coco_json(tmp_path / place / "train.json", {"1.png": [("cat", 1, 1, 9, 9)], "2.png": [("dog", 4, 4, 30, 30)]},
                  size=48, names=names)  # fmt: skip
    same, turned = (
        evaluate_runs([tmp_path / "run"], on="detection", asked=Asked(str(tmp_path / place)))[str(tmp_path / "run")]
        for place in ("same", "turned")
    )
    assert same.numbers["num_images"] == 2  # without a test split, all
    assert {**turned.numbers, "data": "same"} == same.numbers
    assert {name: own["num_boxes"] for name, own in same.numbers["classes"].items()} == {"cat": 1, "dog": 1}


def test_of_other_data_the_test_split_is_taken(tmp_path, folder):
    detector_run(tmp_path / "run", folder)
    other = boxes_folder(tmp_path / "others", num_test=3)
    found = evaluate_runs([tmp_path / "run"], on="detection", asked=Asked(str(other)))[str(tmp_path / "run")]
    assert (found.numbers["data"], found.numbers["num_images"]) == ("others", 3)


def test_boxes_are_as_large_as_in_the_file(tmp_path):
    coco_json(tmp_path / "train.json", {"1.png": [("cat", 20, 40, 100, 100)]}, size=600)
    ((_, (target,)),) = box_batches(read_boxes(tmp_path).images, 1, image_size=64)
    assert target["boxes"][0, 2] < 20
    error = DetectionError()
    error.add([{**target, "scores": torch.ones(1)}], [target])
    numbers = error.numbers()
    assert numbers["map_large"] == pytest.approx(100)
    assert (numbers["map_small"], numbers["map_medium"]) == (None, None)


def test_what_cannot_be_measured(tmp_path, folder, monkeypatch):
    def measure(source=None, run="run"):
        return evaluate_runs([tmp_path / run], on="detection", asked=Asked(source and str(source)))

    detector_run(tmp_path / "run", folder)
    coco_json(tmp_path / "owls" / "train.json", {"1.png": [("owl", 1, 1, 9, 9)]}, size=48, names=("owl", "cat"))
    with pytest.raises(InputError, match="owls has other classes than the run: unknown class 'owl'"):
        measure(tmp_path / "owls")
    coco_json(tmp_path / "nothing" / "train.json", {"1.png": []}, size=48)
    with monkeypatch.context() as context:
        context.setattr(on_boxes, "detection", None)  # said before anything is looked for
        with pytest.raises(InputError, match="none of 1 images of nothing has a box"):
            measure(tmp_path / "nothing")
    write_detector(tmp_path / "saved")
    with pytest.raises(InputError, match="does not say on which data the network was trained: give --data"):
        measure(run="saved")
    (tmp_path / "run" / "result.json").write_text(json.dumps({"data": {"fingerprint": "other"}}))
    with pytest.raises(InputError, match="has changed since the run in"):
        measure()


def test_each_run_is_measured_by_what_can(tmp_path, folder, heedful):
    detector_run(tmp_path / "boxes", folder)
    made_run(tmp_path / "classes", bright_squares(tmp_path / "squares.npz"))
    for on, run, message in (
        ("maps", "boxes", "finds objects, which maps cannot measure: evaluate on detection"),
        ("classification", "boxes", "finds objects, which classification cannot measure: evaluate on detection"),
        ("detection", "classes", "classifies images, which detection cannot measure: evaluate on classification, maps"),
    ):
        code, _, err = heedful("evaluate", tmp_path / run, "--on", on)
        assert code == 2
        assert message in " ".join(err.split())
    # The first run could be measured, but nothing is done before all are looked at.
    done = []
    with pytest.raises(InputError, match="classes classifies images"):
        evaluate_runs([tmp_path / "boxes", tmp_path / "classes"], on="detection", done=lambda *each: done.append(each))
    assert not done


def test_every_task_can_be_measured():
    assert {task for protocol in PROTOCOLS.values() for task in protocol.tasks} == {
        "classification", "clips", "detection",
    }  # fmt: skip


def test_an_experiment_refuses_what_cannot_measure_its_rows(tmp_path):
    squares = bright_squares(tmp_path / "squares.npz")
    with pytest.raises(InputError, match="row none classifies images, which detection cannot measure"):
        compare(["none"], data=str(squares), epochs=1, out=tmp_path / "out", evaluate=["detection"])
    assert not (tmp_path / "out").exists()
    wanted = parse(["detection", "classification"])
    with pytest.raises(InputError, match="row b finds objects, which classification cannot measure"):
        check_tasks(wanted, {"b": "detection"})
    check_tasks(wanted[:1], {"a": "detection", "b": "detection"})


def test_a_detector_sees_boxes_of_enough_score(tmp_path):
    write_detector(tmp_path / "run", "cbam")
    model, image = load(tmp_path / "run"), torch.rand(3, 64, 96)
    (expected,) = model([image])
    least = expected["scores"].median().item()
    found = seen(model.train(), image, least_score=least).boxes
    assert model.training
    kept = expected["scores"] >= least
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_allclose(found.corners, expected["boxes"][kept].detach(), rtol=1e-5)
    np.testing.assert_array_equal(found.labels, expected["labels"][kept] - 1)
    assert (found.scores >= least).all()


def over_pixels(mask, stride, height, width):
    """Return the mask at the pixels' centres, along rows and columns by numpy."""
    rows, columns = ((np.arange(side) + 0.5) / stride - 0.5 for side in (height, width))
    wide = np.stack([np.interp(columns, np.arange(mask.shape[1]), row) for row in mask])
    return np.stack([np.interp(rows, np.arange(mask.shape[0]), column) for column in wide.T], axis=1)


@pytest.mark.parametrize(("variant", "gate"), [("aw+cbam", "before.spatial"), ("bam", "before")])
@pytest.mark.parametrize("size", [(64, 98), (71, 64)])  # padded to 64 x 128 and 96 x 64
def test_masks_lie_where_the_network_saw_them(tmp_path, variant, gate, size):
    model, image = write_detector(tmp_path / "run", variant), torch.rand(3, *size)
    with record(model) as kept, torch.no_grad():
        model([image])
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    masks = seen(model, image, least_score=0.5).masks
    assert len(passes) == 1
    # At the fourth level the map has two places on its shorter side, which is no picture.
    assert list(masks) == [f"{kind}_blocks.{level}.0.{gate}" for kind in ("inner", "layer") for level in range(3)]
    for site, mask in masks.items():
        small = kept[FPN + site][0].mean(0).numpy()  # of a gate that weighs each channel by itself, the mean
        stride = 4 * 2 ** int(site.split(".")[1])
        np.testing.assert_allclose(mask, over_pixels(small, stride, *size), rtol=1e-4)


@pytest.mark.parametrize("variant", ["none", "aw+se"])
def test_gates_of_channels_or_weights_have_no_mask_of_pixels(tmp_path, variant):
    assert seen(write_detector(tmp_path / "run", variant), torch.rand(3, 64, 96), least_score=0.5).masks == {}


def boxes_of(count, labels=None, scores=True):
    corners = np.stack([np.array([4.0 * n, 2.0 * n, 4.0 * n + 20, 2.0 * n + 10]) for n in range(count)])
    labels = np.arange(count) % 2 if labels is None else np.array(labels)
    return Boxes(corners, labels, np.linspace(0.5, 0.999, count) if scores else None)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def frames(figure):
    return [each for each in figure.axes[0].patches if isinstance(each, Rectangle) and not each.get_fill()]


PIXELS = np.zeros((60, 120, 3), np.uint8)


def test_few_boxes_have_name_and_score_and_many_their_score_alone():
    few = drawn([Row([Panel(PIXELS, "image", "text", boxes_of(2))], 2)], ("cat", "dog"))
    assert words(few) == ["cat", "dog", "image", "text", "cat 0.50", "dog 1.00"]
    many = drawn([Row([Panel(PIXELS, "image", "text", boxes_of(MOST_NAMED + 1))], 2)], ("cat", "dog"))
    assert words(many)[:6] == ["cat", "dog", "image", "text", "50", "54"]
    assert len(frames(many)) == MOST_NAMED + 1
    panels = [Panel(PIXELS, "image", "", boxes_of(count, scores=False)) for count in (MOST_NAMED, MOST_NAMED + 1)]
    assert words(drawn([Row(panels[:1], 2)], ("cat", "dog")))[4:] == ["cat", "dog"] * (MOST_NAMED // 2)
    assert words(drawn([Row(panels, 2)], ("cat", "dog"))) == ["cat", "dog", "image", "", "image", ""]


def test_of_more_classes_than_colours_each_box_names_its_own():
    count = len(COLOURS) + 1
    classes = [f"kind {n}" for n in range(count)]
    figure = drawn([Row([Panel(PIXELS, "", "", boxes_of(2 * count, [*range(count)] * 2))], 2)], classes)
    assert words(figure)[2:4] == ["kind 0 50", "kind 1 53"]  # and no legend before
    outlines = [frame.get_edgecolor() for frame in frames(figure)]
    assert outlines[0] == outlines[count - 1] == outlines[count]
    assert len(set(outlines)) == len(COLOURS)


def test_tags_stay_in_the_picture():
    boxes = Boxes(np.array([[0.0, 0, 30, 30], [112.0, 30, 120, 40]]), np.array([0, 0]), np.array([0.9, 0.8]))
    figure = drawn([Row([Panel(PIXELS, "", "", boxes)] * 2, 2)], ("animal",))
    figure.draw_without_rendering()
    edge = figure.axes[0].transData.transform((10, 0))[0]
    tags = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text().startswith("animal 0")]
    assert len(tags) == 4
    assert all(tag.x1 < edge for tag in tags)


def test_boxes_stand_where_they_are_in_the_picture():
    figure = drawn([Row([Panel(PIXELS, "", ""), Panel(PIXELS, "", "", boxes_of(3))], 2)], ("cat", "dog"))
    (left, right, bottom, top), (frame, *_) = figure.axes[0].images[1].get_extent(), frames(figure)[2:]
    assert (frame.get_x() - left) / (right - left) == pytest.approx(8 / 120)
    assert (frame.get_y() - top) / (bottom - top) == pytest.approx(4 / 60)
    assert frame.get_width() / (right - left) == pytest.approx(20 / 120)
    assert frame.get_height() / (bottom - top) == pytest.approx(10 / 60)
    assert (right - left) / (bottom - top) == pytest.approx(2)  # not distorted


def test_lateral_and_output_masks_stand_in_rows_of_their_own_with_their_range():
    masks = {
        f"{kind}_blocks.{n}.0.before.spatial": np.linspace(0.25, 0.5 + n, 12, dtype=np.float32).reshape(3, 4)
        for kind, count in (("inner", 3), ("layer", 5))
        for n in range(count)
    }
    rows = mask_rows(PIXELS, masks)
    assert [[panel.name for panel in row.panels] for row in rows] == [
        [f"lateral {n} spatial" for n in range(3)],
        [f"output {n} spatial" for n in range(4)],
        ["output 4 spatial"],
    ]
    assert {row.num_columns for row in rows} == {4}
    assert [panel.text for panel in rows[0].panels] == ["0.25 to 0.5", "0.25 to 1.5", "0.25 to 2.5"]
    picture = rows[0].panels[0].picture.astype(int).sum(2)
    assert picture[-1, -1] > picture[0, 0]
    assert mask_rows(PIXELS, {}) == []


def test_the_table_has_a_row_for_each_class_of_each_run():
    def found(run, **precisions):
        classes = {name: {"ap": ap, "ap50": ap and 2 * ap, "num_boxes": 2} for name, ap in precisions.items()}
        numbers = {"run": run, "data": "pets", "num_images": 3, "classes": classes}
        return Found(numbers, (Headline("mAP", 50.0, "%", "higher"),))

    headlines, table = as_rich({"a": found("a", cat=12.5, dog=None), "b": found("b", cat=25.0, owl=1.0)}, "detection")
    assert headlines.row_count == 2
    columns = [list(column.cells) for column in table.columns]
    assert columns == [
        ["cat", "cat", "dog", "owl"],
        ["a", "b", "a", "b"],
        ["2"] * 4,
        ["12.500", "25.000", "—", "1.000"],
        ["25.000", "50.000", "—", "2.000"],
    ]


def test_a_picture_of_a_figure_can_be_read():
    content = io.BytesIO()
    drawn([Row([Panel(PIXELS, "a $ b", "x_1", boxes_of(1))], 2)], ("c$d$", "dog")).savefig(content, format="png")
    with Image.open(content) as picture:
        assert picture.size[0] == 1000
