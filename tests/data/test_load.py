"""From source to data set: routing, measuring, and the same arguments giving the same data set."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heedful.data import ImageArray, ImageFiles, divided, folder_of, load, read
from heedful.data.load import array_moments
from heedful.errors import InputError


def save_npz(path, count=60, **arrays):
    images = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    images[..., 2] //= 4
    np.savez(path, **({"images": images, "labels": np.arange(count) % 3} | arrays))
    return str(path)


def pixels(*splits):
    return sorted(image.numpy().tobytes() for split in splits for image in split.images)


def test_splits_hold_every_image_once(tmp_path):
    source = save_npz(tmp_path / "a.npz")
    data = load(source, seed=0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [48, 6, 6]
    everything = np.load(source)["images"].transpose(0, 3, 1, 2)
    assert pixels(data.train, data.val, data.test) == sorted(image.tobytes() for image in everything)
    first = everything[np.flatnonzero((everything == data.train.images[0].numpy()).all(axis=(1, 2, 3)))[0]]
    np.testing.assert_array_equal(first, data.train.images[0].numpy())


def test_labels_stay_with_their_images(tmp_path):
    shades = (np.arange(60) * 4).astype(np.uint8)
    images = np.broadcast_to(shades[:, None, None], (60, 8, 8)).copy()
    data = load(save_npz(tmp_path / "a.npz", images=images), seed=0)
    for split in (data.train, data.val, data.test):
        assert (split.images[:, 0, 0, 0] // 4 % 3).tolist() == split.labels.tolist()


def test_a_seed_decides_and_nothing_else(tmp_path):
    source = save_npz(tmp_path / "a.npz")
    first, same, other = (load(source, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train.images, same.train.images)
    assert (first.mean, first.fingerprint) == (same.mean, same.fingerprint)
    assert pixels(first.test) != pixels(other.test)
    assert first.fingerprint == other.fingerprint


def test_a_pool_read_once_serves_several_seeds(tmp_path):
    source = save_npz(tmp_path / "a.npz")
    pool = read(source)
    for seed in (1, 2, 1):
        ours, whole = divided(pool, seed=seed, limit=40), load(source, seed=seed, limit=40)
        for name in ("train", "val", "test"):
            assert torch.equal(getattr(ours, name).images, getattr(whole, name).images)
        assert (ours.mean, ours.deviation) == (whole.mean, whole.deviation)


def test_every_option_reaches_the_splits(tmp_path):
    source = save_npz(tmp_path / "a.npz")
    data = load(source, seed=0, limit=30, val_fraction=0.2, test_fraction=0.3, image_size=16)
    assert [len(split) for split in (data.train, data.val, data.test)] == [15, 6, 9]
    assert data.train.images.shape == (15, 3, 16, 16)
    assert data.image_size == 16


def test_mean_and_deviation_are_of_the_training_split_alone(tmp_path):
    data = load(save_npz(tmp_path / "a.npz"), seed=0)
    values = data.train.images.numpy().transpose(0, 2, 3, 1).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(data.deviation, values.std(axis=0), rtol=1e-9)


def test_mean_and_deviation_of_files_are_of_the_training_split_alone(make_folder):
    root = make_folder({"ant": 10, "bee": 10}, height=72, width=72)
    data = load(str(root), seed=0, image_size=72)
    assert isinstance(data.train, ImageFiles)
    in_memory = load(str(root), seed=0, image_size=64)
    values = np.stack([np.asarray(_open(path)) for path in data.train.paths]).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(data.deviation, values.std(axis=0), rtol=1e-9)
    assert torch.equal(data.train.labels, in_memory.train.labels)
    assert not {*data.train.paths} & {*data.val.paths}
    assert len({*data.train.paths, *data.val.paths, *data.test.paths}) == 20


def _open(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.copy()


def test_a_constant_channel_does_not_make_the_deviation_zero(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)
    images[..., 1] = 7
    data = load(save_npz(tmp_path / "a.npz", images=images), seed=0)
    assert data.deviation[1] == 1 / 255
    assert data.mean[1] == pytest.approx(7 / 255)
    assert data.deviation[0] > 0.2


def test_moments_of_more_than_one_batch_are_exact():
    images = torch.randint(0, 256, (5000, 3, 3, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = images.double() / 255
    expected = torch.stack([values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))])
    torch.testing.assert_close(array_moments(images), expected, rtol=1e-12, atol=0)


def test_digits_by_name():
    data = load("digits", seed=0)
    assert data.name == "digits"
    assert [len(split) for split in (data.train, data.val, data.test)] == [1439, 179, 179]
    assert data.augmentation == ("shift-zero",)


def test_a_folder_is_32_pixels_unless_said(make_folder):
    root = make_folder({"ant": 5, "bee": 5})
    data = load(str(root), seed=0)
    assert isinstance(data.train, ImageArray)
    assert data.image_size == data.train.images.shape[3] == 32
    assert data.classes == ("ant", "bee")


def test_a_folders_bad_images_and_other_files_are_listed(make_folder):
    root = make_folder({"ant": 5, "bee": 5})
    (root / "ant/notes.txt").write_text("what we saw")
    (root / "ant/2.png").write_text("not an image")
    with pytest.raises(InputError, match="1 of 10 images"):
        load(str(root), seed=0)
    data = load(str(root), seed=0, skip_bad_images=True)
    assert (data.skipped, data.ignored) == (("ant/2.png",), ("ant/notes.txt",))
    assert len(data.train) + len(data.val) + len(data.test) == 9


def test_a_class_whose_images_are_all_bad_is_named(make_folder):
    root = make_folder({"ant": 5, "bee": 1})
    (root / "bee/0.png").write_text("not an image")
    with pytest.raises(InputError, match="class 'bee' has too few images: 0"):
        load(str(root), seed=0, skip_bad_images=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar1O", "unknown data 'cifar1O': did you mean cifar10"),
        ("xyz", "unknown data 'xyz': choose one of digits, cifar10, cifar100, svhn, a folder, an .npz file"),
        ("photos/mine", "photos/mine: no such file or folder; the names that are known are digits"),
        ("mine.npz", "mine.npz: no such file or folder"),
        ("~/nowhere", "~/nowhere: no such file or folder"),
        ("", "unknown data ''"),
    ],
)
def test_an_unknown_source_is_refused(source, message, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        load(source, seed=0)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"a.csv is a file but no .npz: give an .npz file, a folder or one of digits"):
        load(str(tmp_path / "a.csv"), seed=0)


@pytest.mark.parametrize("image_size", [0, -8, 7, 4097])
def test_an_image_size_out_of_range_is_refused(image_size):
    with pytest.raises(InputError, match=f"image_size is {image_size}, but it must be from 8 to 4096"):
        load("digits", seed=0, image_size=image_size)


def test_numbers_are_checked_before_any_image_is_read(tmp_path):
    with pytest.raises(InputError, match="val_fraction is 2"):
        load(str(tmp_path / "missing.npz"), seed=0, val_fraction=2.0)


def test_numbers_per_class_reach_the_splits(tmp_path):
    source = save_npz(tmp_path / "a.npz")
    options = {"train_per_class": 12, "test_per_class": 4}
    for data in (load(source, seed=0, **options), divided(read(source), seed=0, **options)):
        counts = [split.labels.bincount().tolist() for split in (data.train, data.val, data.test)]
        assert counts == [[12] * 3, [1] * 3, [4] * 3]


def test_a_name_stays_a_name_where_a_folder_is_called_so(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert folder_of("digits") is None
    assert folder_of("mine") == Path("mine")
    assert folder_of("nothing") is None
    assert folder_of("") is None
