"""Batches of images with boxes: scaled, flipped and shuffled, the boxes along with the pixels."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from heedful.data import box_batches as module
from heedful.data.box_batches import box_batches, scaled_size
from heedful.data.boxes import Boxed
from heedful.data.share import Share
from heedful.errors import InputError


def bright(path, box, *, height=24, width=30, crowd=False):
    """Return an image of dark noise with a bright box, and write its file."""
    pixels = np.random.default_rng(height * width).integers(0, 40, (height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(path)
    return Boxed(
        path=path,
        boxes=torch.tensor([box], dtype=torch.float32),
        labels=torch.tensor([1]),
        crowd=torch.tensor([crowd]),
        size=(height, width),
    )


@pytest.fixture
def split(tmp_path):
    """Return seven images with a bright box, each at its own place."""
    return tuple(bright(tmp_path / f"{i}.png", (2 * i, i, 2 * i + 9, i + 12)) for i in range(7))


def everything(loader):
    """Return images and targets of all batches."""
    batches = list(loader)
    return [image for images, _ in batches for image in images], [t for _, targets in batches for t in targets]


def same(first, second):
    """Return whether images and targets are equal, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True)) and all(
        torch.equal(a[key], b[key]) for a, b in zip(first[1], second[1], strict=True) for key in a
    )


def test_a_batch_is_what_a_detector_takes(split):
    loader = box_batches(split, 3, image_size=24)
    assert len(loader) == 7
    batches = list(loader)
    assert [len(images) for images, _ in batches] == [1] * 7  # so that none is padded to the size of another
    images, targets = batches[3]
    assert images[0].dtype == torch.float32
    assert images[0].shape == (3, 24, 30)
    assert targets[0]["boxes"].tolist() == [[6, 3, 15, 15]]
    assert targets[0]["labels"].tolist() == [2]  # 0 is the background
    assert targets[0]["crowd"].tolist() == [False]
    assert [int(target["image"]) for _, ts in batches for target in ts] == list(range(7))
    with Image.open(split[3].path) as file:
        np.testing.assert_allclose(images[0].permute(1, 2, 0), np.asarray(file) / 255, atol=1e-6)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), image_size=st.integers(8, 900))
def test_the_scaled_size_leaves_torchvisions_detector_nothing_to_scale(height, width, image_size):
    new_height, new_width = scaled_size((height, width), image_size)
    shorter, longer = sorted((new_height, new_width))
    assert shorter == image_size or longer == 2 * image_size
    assert shorter <= image_size
    assert longer <= 2 * image_size
    # What it computes, and truncates; see the test below for its own code.
    scale = min(image_size / shorter, 2 * image_size / longer)
    assert (int(new_height * scale), int(new_width * scale)) == (new_height, new_width)
    exact = min(image_size * max(height, width) / min(height, width), 2 * image_size)
    assert abs(longer - exact) <= 0.5 + 1e-9
    assert abs(shorter - max(1, exact * min(height, width) / max(height, width))) <= 0.5 + 1e-9


@pytest.mark.parametrize(("height", "width"), [(24, 30), (61, 93), (10, 90), (200, 33), (480, 640)])
def test_torchvisions_detector_takes_images_and_boxes_as_they_are(tmp_path, height, width):
    split = (bright(tmp_path / "a.png", (1, 2, 8, 9), height=height, width=width),)
    ((image,), (target,)) = next(iter(box_batches(split, 1, image_size=48)))
    transform = GeneralizedRCNNTransform(48, 96, [0.0] * 3, [1.0] * 3, size_divisible=1)
    images, targets = transform([image], [{"boxes": target["boxes"], "labels": target["labels"]}])
    assert images.image_sizes == [tuple(image.shape[1:])]
    assert torch.equal(images.tensors[0], image)
    assert torch.equal(targets[0]["boxes"], target["boxes"])


@pytest.mark.parametrize("image_size", [12, 24, 60])
@pytest.mark.parametrize("augment", [(), ("flip",)])
def test_boxes_stay_on_their_objects(split, image_size, augment):
    images, targets = everything(box_batches(split, 2, image_size=image_size, augment=augment, seed=3))
    for image, target in zip(images, targets, strict=True):
        x1, y1, x2, y2 = target["boxes"][0].tolist()
        rows, columns = torch.arange(image.shape[1]) + 0.5, torch.arange(image.shape[2]) + 0.5
        # A pixel that the scaled edge runs through is mixed, and so may be its neighbour.
        far = 24 / 24 if image_size == 24 else 1.5 * max(1, image_size / 24)
        inner = ((rows > y1 + far) & (rows < y2 - far))[:, None] & ((columns > x1 + far) & (columns < x2 - far))
        outer = ((rows < y1 - far) | (rows > y2 + far))[:, None] | ((columns < x1 - far) | (columns > x2 + far))
        assert inner.any()
        assert image[:, inner].min() > 0.99
        assert image[:, outer].max() < 0.2
        original = split[int(target["image"])].boxes
        back = target["boxes"] * target["scale"]
        if not torch.allclose(back, original, atol=1e-4):
            mirrored = torch.stack([30 - back[:, 2], back[:, 1], 30 - back[:, 0], back[:, 3]], dim=1)
            torch.testing.assert_close(mirrored, original, atol=1e-4, rtol=0)


def test_about_half_are_flipped_and_each_epoch_others(split):
    many = split * 30

    def flipped(seed):
        _, targets = everything(box_batches(many, 8, image_size=24, augment=("flip",), seed=seed))
        order = {int(target["image"]): target["boxes"] for target in targets}
        return torch.tensor([not torch.equal(order[i], image.boxes) for i, image in enumerate(many) if i in order])

    first, second = flipped(0), flipped(1)
    assert 70 < first.sum() < 140  # of 210; the boxes lie nowhere in the middle
    assert 70 < (first ^ second).sum() < 140


def test_an_epoch_follows_from_its_seed(split):
    def epoch(seed):
        return everything(box_batches(split, 2, image_size=24, augment=("flip",), seed=seed))

    def order(found):
        return [int(target["image"]) for target in found[1]]

    assert same(epoch(5), epoch(5))
    assert order(epoch(5)) != order(epoch(6))
    state = torch.get_rng_state()
    epoch(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_and_memory_change_nothing(split, monkeypatch):
    def epoch(num_workers=0):
        loader = box_batches(split, 2, image_size=20, augment=("flip",), seed=5, num_workers=num_workers)
        assert loader.loader.num_workers == (num_workers if module.LARGEST_HELD == 0 else 0)
        return everything(loader)

    held = epoch(num_workers=2)
    monkeypatch.setattr(module, "LARGEST_HELD", 0)
    assert same(held, epoch())
    assert same(held, epoch(num_workers=2))


def test_a_small_split_is_read_once_for_each_size_and_forgotten_with_the_images(tmp_path, monkeypatch):
    gc.collect()
    before = len(module._held)
    images = tuple(bright(tmp_path / f"{i}.png", (1, 1, 9, 9)) for i in range(3))
    first = everything(box_batches(images, 2, image_size=24))
    assert len(module._held) == before + 3
    images[0].path.unlink()
    assert same(first, everything(box_batches(images, 2, image_size=24)))
    with pytest.raises(InputError, match=r"image .*0.png cannot be read .*: mend or remove it"):
        everything(box_batches(images, 2, image_size=12))
    monkeypatch.setattr(module, "LARGEST_HELD", 3 * 3 * 24 * 30 - 1)  # a byte less than they need
    with pytest.raises(InputError, match=r"image .*0.png cannot be read"):
        everything(box_batches(images, 2, image_size=24))
    del images
    gc.collect()
    assert len(module._held) == before


@pytest.mark.parametrize(
    ("count", "batch_size", "seed", "sizes"),
    [
        (7, 3, 0, [3, 3]),  # batch norm cannot train on one
        (7, 3, None, [1] * 7),
        (5, 3, 0, [3, 2]),
        (3, 1, 0, [1, 1, 1]),
    ],
)
def test_a_last_training_batch_of_one_image_is_left_out(split, count, batch_size, seed, sizes):
    loader = box_batches(split[:count], batch_size, image_size=24, seed=seed)
    assert [len(images) for images, _ in loader] == sizes
    assert len(loader) == len(sizes)


def test_processes_share_the_images_of_a_split_one_at_a_time(split):
    shares = [list(box_batches(split, 4, image_size=24, share=Share(index, 2))) for index in range(2)]
    numbers = [[[int(target["image"]) for target in targets] for _, targets in share] for share in shares]
    assert numbers == [[[0], [1], [2]], [[3], [4], [5], [6]]]


def test_images_without_boxes_and_crowds_go_along(tmp_path):
    image = bright(tmp_path / "a.png", (1, 1, 9, 9), crowd=True)
    empty = Boxed(image.path, image.boxes[:0], image.labels[:0], image.crowd[:0], image.size)
    _, targets = everything(box_batches((image, empty), 2, image_size=12, augment=("flip",), seed=0))
    crowd, none = sorted(targets, key=lambda target: int(target["image"]))
    assert crowd["crowd"].tolist() == [True]
    assert none["boxes"].shape == (0, 4)
    assert none["labels"].dtype == torch.int64
    assert none["labels"].shape == none["crowd"].shape == (0,)


def test_grey_and_turned_images_are_read_upright_and_in_colour(tmp_path):
    pixels = np.zeros((20, 30), dtype=np.uint8)
    pixels[:, :10] = 255  # the left third; turned clockwise, the upper third
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    image = Boxed(tmp_path / "a.jpg", boxes, torch.tensor([0]), torch.tensor([False]), (30, 20))
    ((found,), _) = next(iter(box_batches((image,), 1, image_size=20)))
    assert found.shape == (3, 30, 20)
    assert found[:, :9].min() > 0.9
    assert found[:, 11:].max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"augment": ("crop",), "seed": 0}, "augment has 'crop', but images with boxes can only be flipped"),
        ({"augment": ("flipp",), "seed": 0}, "unknown augmentation 'flipp': did you mean flip"),
        ({"augment": ("flip",)}, "without a seed nothing is drawn"),
    ],
)
def test_wrong_arguments_are_refused(split, arguments, message):
    with pytest.raises(InputError, match=message):
        box_batches(split, **({"batch_size": 2, "image_size": 24} | arguments))
