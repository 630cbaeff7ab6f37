"""Shares of several processes: together they are the whole, image for image."""

import pytest
import torch
from PIL import Image

from heedful.data import Batches, ImageArray, ImageFiles
from heedful.data.box_batches import box_batches
from heedful.data.boxes import Boxed
from heedful.data.file_batches import file_batches
from heedful.data.share import Share, batch_sampler, check_share, in_order, num_training_batches
from heedful.errors import InputError

MEAN, DEVIATION = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def of_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pixels = torch.randint(0, 256, (23, 10, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    split = ImageFiles(tuple(folder / f"{number}.png" for number in range(23)), torch.arange(23), 8)
    return lambda batch_size, **options: file_batches(split, MEAN, DEVIATION, batch_size, **options)


@pytest.fixture(scope="module")
def of_array():
    images = torch.randint(0, 256, (23, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return lambda batch_size, **options: Batches(
        ImageArray(images, torch.arange(23)), MEAN, DEVIATION, batch_size, **options
    )


@pytest.fixture(params=["of_files", "of_array"])
def epoch(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("count", range(12))
@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_parts_follow_each_other_and_differ_by_one_at_most(count, num):
    parts = [range(count)[Share(index, num).of(count)] for index in range(num)]
    assert [element for part in parts for element in part] == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("augment", [(), ("flip", "shift"), ("crop",)])
@pytest.mark.parametrize("num", [2, 3])
def test_the_shares_of_a_training_batch_are_the_batch_of_one_process(epoch, num, augment):
    whole = list(epoch(6, augment=augment, seed=4))
    shares = [list(epoch(6, augment=augment, seed=4, share=Share(index, num))) for index in range(num)]
    assert [len(labels) for _, labels in whole] == [6, 6, 6, 5]
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat([part for part, _ in parts]), images)
        assert torch.equal(torch.cat([part for _, part in parts]), labels)
        assert {len(part) for _, part in parts} <= {len(labels) // num, len(labels) // num + 1}


@pytest.mark.parametrize("num", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [5, 7, 100])
def test_in_order_every_image_comes_once_among_all_processes(epoch, num, batch_size):
    whole = torch.cat([images for images, _ in epoch(batch_size)])
    shares = [epoch(batch_size, share=Share(index, num)) for index in range(num)]
    batches = [batch for share in shares for batch in share]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(23))
    assert torch.equal(torch.cat([images for images, _ in batches]), whole)
    assert max(len(labels) for _, labels in batches) <= -(-batch_size // num)
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


@pytest.mark.parametrize(("num", "expected"), [(1, [6, 6, 6, 5]), (5, [6, 6, 6, 5]), (6, [6, 6, 6])])
def test_a_last_batch_with_less_than_an_image_for_each_is_left_out(epoch, num, expected):
    shares = [epoch(6, seed=0, share=Share(index, num)) for index in range(num)]
    sizes = [[len(labels) for _, labels in share] for share in shares]
    assert [sum(batch) for batch in zip(*sizes, strict=True)] == expected
    assert all(len(share) == len(expected) for share in shares)
    assert min(min(each) for each in sizes) >= 1


def test_numbers_of_batches():
    assert [num_training_batches(count, 4, Share(0, 2)) for count in (8, 9, 10, 11)] == [2, 2, 3, 3]
    assert [num_training_batches(count, 4, Share(0, 3)) for count in (8, 9, 10, 11)] == [2, 2, 2, 3]
    assert num_training_batches(3, 1) == 3
    assert in_order(7, 4, Share(1, 2)) == [slice(3, 5), slice(5, 7)]
    assert in_order(0, 4) == []


def test_files_of_others_are_not_read(of_files, monkeypatch):
    from heedful.data import file_batches as module

    read, opened = module.read_rgb, []
    monkeypatch.setattr(module, "read_rgb", lambda path, size: opened.append(path) or read(path, size))
    labels = torch.cat([labels for _, labels in of_files(6, seed=0, share=Share(1, 2))])
    assert sorted(int(path.stem) for path in opened) == sorted(labels.tolist())
    assert len(opened) == 3 * 3 + 3


@pytest.mark.parametrize(
    ("batch_size", "num", "message"), [(2, 3, "batch_size is 2, but 3 processes"), (30, 24, "23 images for 24")]
)
@pytest.mark.parametrize("seed", [None, 0])
def test_too_many_processes_are_refused(epoch, batch_size, num, message, seed):
    with pytest.raises(InputError, match=message):
        epoch(batch_size, seed=seed, share=Share(0, num))


def test_one_image_is_too_few_to_train_on(of_files):
    one = ImageArray(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="the training split has 1 image or clip, but batch norm cannot train on less"):
        Batches(one, MEAN, DEVIATION, 4, seed=0)
    assert [len(Batches(one, MEAN, DEVIATION, *given)) for given in ((4,), (1, (), 0))] == [1, 1]
    check_share(2, 4, Share(0, 2), training=True)
    with pytest.raises(InputError, match="has 1 image or clip"):
        batch_sampler(1, 4, seed=0)


@pytest.mark.parametrize("seed", [None, 3])
def test_images_with_boxes_are_shared_likewise(tmp_path, seed):
    Image.new("RGB", (12, 10)).save(tmp_path / "image.png")
    boxes, size = torch.tensor([[1.0, 2.0, 5.0, 6.0]]), (10, 12)
    split = tuple(
        Boxed(tmp_path / "image.png", boxes, torch.tensor([0]), torch.tensor([False]), size) for _ in range(11)
    )
    options = {"image_size": 8, "augment": () if seed is None else ("flip",), "seed": seed}

    def epoch(share):
        batches = list(box_batches(split, 4, share=share, **options))
        assert [len(images) for images, _ in batches] == [len(targets) for _, targets in batches]
        return [[(int(target["image"]), target["boxes"]) for target in targets] for _, targets in batches]

    whole, *shares = epoch(Share()), epoch(Share(0, 2)), epoch(Share(1, 2))
    assert [len(batch) for batch in whole] == ([1] * 11 if seed is None else [4, 4, 3])
    if seed is None:
        assert [number for share in shares for batch in share for number, _ in batch] == list(range(11))
        return
    for batch, *parts in zip(whole, *shares, strict=True):
        together = [each for part in parts for each in part]
        assert [number for number, _ in together] == [number for number, _ in batch]
        assert all(torch.equal(ours, its) for (_, ours), (_, its) in zip(together, batch, strict=True))
