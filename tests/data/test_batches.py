"""Batches from memory and from files: every image once, normalised, augmented by the seed alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from heedful.data import Batches, DataSet, ImageArray, ImageFiles, batches, normalise
from heedful.data.augment import AUGMENTATIONS
from heedful.errors import InputError

MEAN, DEVIATION = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


def make_split(count=30, size=8):
    images = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageArray(images, torch.arange(count))


def make_batches(split, batch_size=8, **options):
    return Batches(split, MEAN, DEVIATION, batch_size, **options)


def joined(some_batches):
    images, labels = zip(*some_batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_normalise():
    images = make_split(5).images
    expected = (images.double() / 255 - torch.tensor(MEAN).double().view(1, 3, 1, 1)) / torch.tensor(
        DEVIATION
    ).double().view(1, 3, 1, 1)
    normalised = normalise(images, MEAN, DEVIATION)
    torch.testing.assert_close(normalised.double(), expected, rtol=1e-5, atol=1e-5)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_without_a_seed_images_come_in_order_as_they_are():
    split = make_split(30)
    some_batches = make_batches(split)
    assert [len(labels) for _, labels in some_batches] == [8, 8, 8, 6]
    assert len(some_batches) == 4
    images, labels = joined(some_batches)
    assert labels.tolist() == list(range(30))
    assert torch.equal(images, normalise(split.images, MEAN, DEVIATION))


@pytest.mark.parametrize("batch_size", [8, 200, 700])
def test_with_a_seed_every_image_comes_once_in_another_order(batch_size):
    split = make_split(1400)
    images, labels = joined(make_batches(split, batch_size, seed=3))
    assert labels.sort().values.tolist() == list(range(1400))
    assert labels.tolist() != list(range(1400))
    assert torch.equal(images, normalise(split.images[labels], MEAN, DEVIATION))
    again, other = (joined(make_batches(split, batch_size, seed=seed))[1] for seed in (3, 4))
    assert torch.equal(labels, again)
    assert not torch.equal(labels, other)


def test_augmentations_are_applied_in_turn():
    split = make_split(40)
    images, labels = joined(make_batches(split, augment=("shift-zero", "flip"), seed=3))
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(40, generator=generator)
    expected = []
    for index in order.split(8):
        chunk = split.images[index]
        for name in ("shift-zero", "flip"):
            chunk = AUGMENTATIONS[name](chunk, generator)
        expected.append(chunk)
    assert torch.equal(labels, order)
    assert torch.equal(images, normalise(torch.cat(expected), MEAN, DEVIATION))


def test_the_number_of_threads_is_left_as_it_was(monkeypatch):
    before, during, between = torch.get_num_threads(), [], []

    def record(images, generator):
        during.append(torch.get_num_threads())
        if len(during) == 3:
            raise RuntimeError("broken")
        return images

    monkeypatch.setitem(AUGMENTATIONS, "flip", record)
    torch.set_num_threads(2)
    try:
        some_batches = make_batches(make_split(30), augment=("flip",), seed=0)
        with pytest.raises(RuntimeError, match="broken"):
            between.extend(torch.get_num_threads() for _ in some_batches)
        assert torch.get_num_threads() == 2
        assert (during, between) == ([1, 1, 1], [2, 2])
    finally:
        torch.set_num_threads(before)


def test_batches_iterated_again_are_the_same():
    some_batches = make_batches(make_split(), augment=("flip", "crop"), seed=1)
    assert torch.equal(joined(some_batches)[0], joined(some_batches)[0])


@pytest.mark.parametrize(
    ("count", "batch_size", "seed", "sizes"),
    [
        (9, 4, 0, [4, 4]),
        (9, 4, None, [4, 4, 1]),
        (10, 4, 0, [4, 4, 2]),
        (8, 4, 0, [4, 4]),
        (3, 1, 0, [1, 1, 1]),
        (3, 100, 0, [3]),
        (1025, 512, 0, [512, 512]),
    ],
)
def test_a_last_training_batch_of_one_image_is_left_out(tmp_path, count, batch_size, seed, sizes):
    some_batches = make_batches(make_split(count), batch_size, seed=seed)
    assert [len(labels) for _, labels in some_batches] == sizes
    assert len(some_batches) == len(sizes)
    if count < 20:
        loader = file_loader(make_files(tmp_path, count), batch_size, seed=seed)
        assert [len(labels) for _, labels in loader] == sizes
        assert len(loader) == len(sizes)


def make_files(folder, count=12, size=24, height=30, width=40):
    """Write images whose red is their number, with the left half green and the six leftmost columns blue."""
    paths = []
    for number in range(count):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[..., 0] = number * 10
        pixels[:, : width // 2, 1] = 255
        pixels[:, :6, 2] = 255
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return ImageFiles(tuple(paths), torch.arange(count), size)


def file_loader(split, batch_size=5, mean=MEAN, deviation=DEVIATION, **options):
    parts = {"train": split, "val": split, "test": split}
    data = DataSet(
        name="files",
        classes=tuple(map(str, range(12))),
        mean=mean,
        deviation=deviation,
        image_size=split.image_size,
        augmentation=(),
        fingerprint="",
        **parts,
    )
    return batches(split, data, batch_size, **options)


def raw(images):
    """Undo the normalisation."""
    return (images * torch.tensor(DEVIATION).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)) * 255


def test_batches_takes_a_split_in_memory_too():
    split = make_split()
    some_batches = file_loader(ImageFiles((), torch.arange(0), 8))
    data = DataSet("a", ("x",), split, split, split, MEAN, DEVIATION, 8, (), "")
    assert len(some_batches) == 0
    ours = batches(split, data, 8, augment=("flip",), seed=2)
    assert torch.equal(joined(ours)[0], joined(make_batches(split, augment=("flip",), seed=2))[0])


def test_files_come_in_order_scaled_and_cropped_for_evaluation(tmp_path):
    split = make_files(tmp_path)
    images, labels = joined(file_loader(split))
    assert labels.tolist() == list(range(12))
    assert images.shape == (12, 3, 24, 24)
    assert images.dtype == torch.float32
    assert images[:5].is_contiguous(memory_format=torch.channels_last)
    for image, number in zip(raw(images), range(12), strict=True):
        torch.testing.assert_close(image[0], torch.full((24, 24), 10.0 * number), atol=1e-2, rtol=0)
    # 30 × 40 pixels become 27 × 36, of which columns 6 to 29 are kept: green ends in the middle, blue is cut off.
    assert (raw(images)[:, 2] < 1).all()
    assert (raw(images)[:, 1, :, :10] > 254).all()
    assert (raw(images)[:, 1, :, 14:] < 1).all()


def test_training_files_are_shuffled_by_the_seed(tmp_path):
    split = make_files(tmp_path)
    first, same, other = (joined(file_loader(split, seed=seed))[1].tolist() for seed in (1, 1, 2))
    assert sorted(first) == list(range(12))
    assert first == same != other


@pytest.mark.parametrize("augment", [("flip", "crop"), ("shift",), ("shift-zero", "flip")])
def test_file_augmentation_depends_on_the_seed_not_on_workers_or_the_global_generator(tmp_path, augment):
    split = make_files(tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    images, labels = joined(file_loader(split, augment=augment, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, _ = joined(file_loader(split, augment=augment, seed=1, num_workers=2))
    assert torch.equal(images, again)
    other, other_labels = joined(file_loader(split, augment=augment, seed=2))
    assert not torch.equal(images[labels.argsort()], other[other_labels.argsort()])


def test_each_file_augmentation_does_what_its_name_says(tmp_path):
    split = make_files(tmp_path)
    plain = {}
    for augment in ((), ("flip",), ("shift",), ("shift-zero",), ("crop",)):
        images, labels = joined(file_loader(split, augment=augment, seed=1))
        plain[augment] = raw(images[labels.argsort()])
    reference = plain[()]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(plain[("flip",)], reference, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(plain[("flip",)], reference, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    # Red is the same all over an image: only zero fill changes it.
    for name in ("shift", "crop"):
        torch.testing.assert_close(plain[(name,)][:, 0], reference[:, 0], atol=1e-2, rtol=0)
        assert not torch.equal(plain[(name,)], reference)
    assert (plain[("shift-zero",)][1:, 0].round() == 0).any()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, but it must be at least 1"),
        ({"augment": ("flop",), "seed": 0}, "unknown augmentation 'flop': did you mean flip"),
        ({"augment": ("flip",)}, "without a seed nothing is drawn"),
    ],
)
def test_wrong_options_are_refused(tmp_path, in_memory, options, message):
    make = make_batches if in_memory else file_loader
    with pytest.raises(InputError, match=message):
        make(make_split() if in_memory else make_files(tmp_path, 2), **options)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_file_that_was_spoilt_since_is_named(tmp_path, content, num_workers):
    split = make_files(tmp_path, 3, size=96)
    path = split.paths[1]
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(InputError, match=rf"image {path} cannot be read \(.*\): mend or remove it"):
        list(file_loader(split, num_workers=num_workers))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_stay_on_the_splits_device():
    split = make_split().to("cuda")
    images, labels = joined(make_batches(split, seed=3))
    assert images.device == labels.device == split.images.device
    assert torch.equal(images.cpu(), normalise(split.images.cpu()[labels.cpu()], MEAN, DEVIATION))
    augmented = make_batches(split, augment=tuple(AUGMENTATIONS), seed=3)
    assert torch.equal(joined(augmented)[0], joined(augmented)[0])


def test_to_moves_the_split():
    split = make_split()
    assert split.to("meta").images.device.type == "meta"
    assert torch.equal(split.to("cpu").images, split.images)
