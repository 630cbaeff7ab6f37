"""An .npz file: what is taken, and what is refused with which words."""

import numpy as np
import pytest
import torch

from heedful.data.npz import read_npz
from heedful.data.pool import TEST
from heedful.errors import InputError


def make_arrays(count=12):
    generator = np.random.default_rng(0)
    return {
        "images": generator.integers(0, 256, (count, 10, 10, 3), dtype=np.uint8),
        "labels": np.arange(count) % 3,
        "test": np.arange(count) >= count // 2,
        "classes": np.array(["ant", "bee", "cat"]),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "beasts.npz"


def test_everything_is_read(path):
    arrays = make_arrays()
    np.savez(path, **arrays)
    pool = read_npz(path, image_size=None)
    np.testing.assert_array_equal(pool.images.permute(0, 2, 3, 1).numpy(), arrays["images"])
    assert pool.labels.tolist() == arrays["labels"].tolist()
    assert (pool.given == TEST).tolist() == arrays["test"].tolist()
    assert pool.classes == ("ant", "bee", "cat")
    assert (pool.name, pool.image_size) == ("beasts", 10)


def test_the_least_is_enough(path):
    arrays = make_arrays()
    np.savez_compressed(path, images=arrays["images"][..., 0], labels=arrays["labels"].astype(np.uint8))
    pool = read_npz(path, image_size=None)
    assert (pool.images == torch.from_numpy(arrays["images"][:, None, :, :, 0])).all()
    assert pool.classes == ("0", "1", "2")
    assert not (pool.given == TEST).any()


def test_image_size_scales(path):
    np.savez(path, images=np.full((6, 10, 16, 3), 77, dtype=np.uint8), labels=np.arange(6) % 2)
    pool = read_npz(path, image_size=20)
    assert pool.images.shape == (6, 3, 20, 20)
    assert pool.image_size == 20
    assert (pool.images == 77).all()


def test_fingerprint_is_of_the_bytes(path, tmp_path):
    arrays = make_arrays()
    np.savez(path, **arrays)
    first = read_npz(path, image_size=None).fingerprint
    (tmp_path / "copy.npz").write_bytes(path.read_bytes())
    assert read_npz(tmp_path / "copy.npz", image_size=20).fingerprint == first
    arrays["images"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)
    assert read_npz(path, image_size=None).fingerprint != first


WRONG = {
    "images are float": ({"images": np.zeros((12, 10, 10, 3))}, r"images are float64, but images must be uint8 \(N, H"),
    "one image": ({"images": np.zeros((10, 10), np.uint8)}, r"images have shape \(10, 10\), but"),
    "video": ({"images": np.zeros((12, 2, 10, 10, 3), np.uint8)}, r"images have shape \(12, 2, 10, 10, 3\), but"),
    "two channels": ({"images": np.zeros((12, 10, 10, 2), np.uint8)}, r"images have shape \(12, 10, 10, 2\), but"),
    "four channels": ({"images": np.zeros((12, 10, 10, 4), np.uint8)}, r"images have shape \(12, 10, 10, 4\), but"),
    "channels first": ({"images": np.zeros((12, 3, 10, 10), np.uint8)}, "move the channels last: .*transpose"),
    "no images": ({"images": np.zeros((0, 10, 10, 3), np.uint8)}, "there is no pixel"),
    "not square": ({"images": np.zeros((12, 10, 11, 3), np.uint8)}, "10 × 11 pixels, not square: give an image size"),
    "lengths differ": ({"labels": np.arange(11) % 3}, r"labels have shape \(11,\), but must have \(12,\)"),
    "labels in a column": ({"labels": np.arange(12).reshape(12, 1)}, r"labels have shape \(12, 1\)"),
    "labels are float": ({"labels": np.arange(12) % 3 / 1}, "labels are float64, but must be integers"),
    "labels are bool": ({"labels": np.arange(12) % 2 == 0}, "labels are bool, but must be integers"),
    "negative label": ({"labels": np.arange(12) % 3 - 1}, "labels go down to -1"),
    "label out of range": ({"labels": np.arange(12) % 4}, "labels go up to 3, but with 3 classes the last is 2"),
    "one class": ({"labels": np.ones(12, int)}, "all labels are 1, but there must be two classes"),
    "classes are numbers": ({"classes": np.arange(3)}, "classes are int64 of shape"),
    "classes are bytes": ({"classes": np.array([b"a", b"b", b"c"])}, "classes are .S1 of shape"),
    "test is int": ({"test": np.arange(12) % 2}, r"test is int64 of shape \(12,\), but must be bool \(12,\)"),
    "test is short": ({"test": np.arange(11) > 5}, r"test is bool of shape \(11,\), but"),
    "test is empty": ({"test": np.zeros(12, bool)}, "test is false for every image"),
    "all is test": ({"test": np.ones(12, bool)}, "test is true for every image"),
    "pickled images": ({"images": np.array([None] * 12)}, "pickled objects, which are not loaded"),
    "pickled classes": ({"classes": np.array(["a", "b", "c"], dtype=object)}, "pickled objects, which are not loaded"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused(path, case):
    changed, message = WRONG[case]
    np.savez(path, **(make_arrays() | changed))
    with pytest.raises(InputError, match=message) as error:
        read_npz(path, image_size=None)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_a_missing_key_is_named(path, key):
    arrays = make_arrays()
    del arrays[key]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"has no '{key}': it needs 'images' and 'labels', and has .*classes"):
        read_npz(path, image_size=None)


def test_class_numbers_far_beyond_the_images_are_refused(path):
    np.savez(path, images=make_arrays()["images"], labels=np.arange(12) * 10**9)
    with pytest.raises(InputError, match="labels go up to 11000000000 with 12 images"):
        read_npz(path, image_size=None)


def test_files_of_another_kind_are_refused(path):
    path.write_text("images, labels\n")
    with pytest.raises(InputError, match=r"is not an \.npz file that numpy can read"):
        read_npz(path, image_size=None)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"is not an \.npz file that numpy can read"):
        read_npz(path, image_size=None)
    with path.open("wb") as file:
        np.save(file, make_arrays()["images"])
    with pytest.raises(InputError, match="holds one array and no names"):
        read_npz(path, image_size=None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused(path, save):
    save(path, **make_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"is not an \.npz file that numpy can read"):
        read_npz(path, image_size=None)
    path.write_bytes(whole[:600] + bytes(256) + whole[856:])
    with pytest.raises(InputError, match=r"is not an \.npz file that numpy can read"):
        read_npz(path, image_size=None)
