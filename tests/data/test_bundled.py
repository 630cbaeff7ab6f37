"""Digits as scikit-learn has them; CIFAR and SVHN as torchvision lays them out, without a download."""

import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from scipy.io import savemat
from sklearn.datasets import load_digits

from heedful.data.bundled import read_cifar, read_digits, read_svhn
from heedful.data.load import load
from heedful.data.pool import TEST
from heedful.errors import InputError


def test_digits_are_scaled_from_sixteen_to_255():
    pool = read_digits(image_size=None)
    bunch = load_digits()
    for channel in range(3):
        difference = pool.images[:, channel].numpy() - bunch.images * 255 / 16
        assert abs(difference).max() <= 0.5
    assert (pool.images.min(), pool.images.max()) == (0, 255)
    assert pool.labels.tolist() == bunch.target.tolist()
    assert pool.classes == tuple("0123456789")
    assert (pool.augmentation, pool.image_size) == (("shift-zero",), 8)
    assert not pool.given.any()


def test_digits_can_be_enlarged():
    small, large = read_digits(image_size=None), read_digits(image_size=32)
    assert large.images.shape == (1797, 3, 32, 32)
    assert large.image_size == 32
    assert large.fingerprint == small.fingerprint
    means = [pool.images.double().mean(dim=(1, 2, 3)) for pool in (small, large)]
    assert (means[0] - means[1]).abs().max() < 4


def make_cifar(root, dataset, monkeypatch, count=20):
    """Write made-up images in torchvision's layout and let their digests be the expected ones; return the arrays."""
    generator = np.random.default_rng(0)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    num_classes = 10 if dataset.base_folder.startswith("cifar-10-") else 100
    names = [f"class{i}" for i in range(num_classes)]
    arrays = {}
    for list_name in ("train_list", "test_list"):
        expected = []
        for file_name, _ in getattr(dataset, list_name):
            data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
            labels = generator.integers(0, num_classes, count).tolist()
            key = "labels" if num_classes == 10 else "fine_labels"
            expected.append((file_name, _write(folder / file_name, {"data": data, key: labels})))
            arrays.setdefault(list_name, []).append((data, labels))
        monkeypatch.setattr(dataset, list_name, expected)
    meta = dataset.meta
    digest = _write(folder / meta["filename"], {meta["key"]: names})
    monkeypatch.setattr(dataset, "meta", meta | {"md5": digest})
    return arrays


def _write(path, content):
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("by_environment", [False, True])
def test_cifar_is_read_from_its_folder(tmp_path, monkeypatch, name, by_environment):
    dataset = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    arrays = make_cifar(tmp_path, dataset, monkeypatch)
    monkeypatch.setenv("HEEDFUL_DATA", str(tmp_path if by_environment else tmp_path / "elsewhere"))
    pool = read_cifar(name, root=None if by_environment else tmp_path, image_size=None)
    parts = arrays["train_list"] + arrays["test_list"]
    expected = np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(pool.images.numpy(), expected)
    assert pool.labels.tolist() == [label for _, labels in parts for label in labels]
    num_train = 20 * len(arrays["train_list"])
    assert (pool.given == TEST).tolist() == [False] * num_train + [True] * 20
    assert pool.classes[:2] == ("class0", "class1")
    assert read_cifar(name, root=tmp_path, image_size=16).images.shape[2:] == (16, 16)


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("Dataset not found or corrupted.")])
def test_a_failed_download_says_where_to_put_the_files(tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(InputError) as caught:
        read_cifar("cifar10", root=tmp_path, image_size=None)
    message = str(caught.value)
    assert f"cifar10 is not in {tmp_path}" in message
    for part in ("cifar-10-python.tar.gz", "cifar-10-batches-py/", "HEEDFUL_DATA", ".npz", str(error)):
        assert part in message


def make_svhn(root, monkeypatch, count=40):
    """Write made-up images in SVHN's layout and let their digests be the expected ones; return images and labels."""
    dataset, generator, split_list, arrays = torchvision.datasets.SVHN, np.random.default_rng(0), {}, []
    root.mkdir(exist_ok=True)
    for split in ("train", "test"):
        url, name, _ = dataset.split_list[split]
        images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(count) % 10
        # Its images run along the last axis, and its zeros are labelled 10.
        savemat(root / name, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        split_list[split] = [url, name, hashlib.md5((root / name).read_bytes()).hexdigest()]
        arrays.append((images, labels))
    monkeypatch.setattr(dataset, "split_list", split_list)
    return [np.concatenate(parts) for parts in zip(*arrays, strict=True)]


@pytest.mark.parametrize("by_environment", [False, True])
def test_svhn_is_read_from_its_folder(tmp_path, monkeypatch, by_environment):
    images, labels = make_svhn(tmp_path, monkeypatch)
    monkeypatch.setenv("HEEDFUL_DATA", str(tmp_path if by_environment else tmp_path / "elsewhere"))
    pool = read_svhn(root=None if by_environment else tmp_path, image_size=None)
    np.testing.assert_array_equal(pool.images.numpy(), images.transpose(0, 3, 1, 2))
    assert pool.labels.tolist() == labels.tolist()
    assert (pool.given == TEST).tolist() == [False] * 40 + [True] * 40
    assert pool.classes == tuple("0123456789")
    assert (pool.name, pool.augmentation, pool.image_size) == ("svhn", ("shift",), 32)
    smaller = read_svhn(root=tmp_path, image_size=16)
    assert smaller.images.shape == (80, 3, 16, 16)
    assert smaller.fingerprint == pool.fingerprint


def test_svhn_is_known_by_its_name(tmp_path, monkeypatch):
    make_svhn(tmp_path, monkeypatch)
    dataset = load("svhn", seed=0, root=tmp_path, val_fraction=0.25)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [30, 10, 40]
    assert dataset.augmentation == ("shift",)


def test_a_changed_file_of_svhn_is_fetched_again_or_asked_for(tmp_path, monkeypatch):
    make_svhn(tmp_path, monkeypatch)
    with (tmp_path / "test_32x32.mat").open("ab") as file:
        file.write(b"more")

    def fail(url, *arguments, **options):
        if "test" in url:
            raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.svhn, "download_url", fail)
    with pytest.raises(InputError) as caught:
        read_svhn(root=tmp_path, image_size=None)
    message = str(caught.value)
    assert f"svhn is not in {tmp_path}" in message
    for part in ("train_32x32.mat and test_32x32.mat", "HEEDFUL_DATA", ".npz", "no network"):
        assert part in message
