"""What a worker cannot read: the user gets the same words as without workers."""

import shutil

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from heedful.data import ImageFiles, box_batches
from heedful.data.boxes import Boxed
from heedful.data.clip_batches import clip_batches
from heedful.data.clip_data import load_clips
from heedful.data.file_batches import file_batches
from heedful.data.loaded import Loaded
from heedful.errors import InputError
from tests.data.clips_made import write_ntu_rgbd


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.png"
    Image.new("RGB", (20, 16)).save(path)
    path.write_bytes(path.read_bytes()[:50])
    return path


def of_files(broken, num_workers, monkeypatch):
    split = ImageFiles((broken,) * 4, torch.zeros(4, dtype=torch.int64), 8)
    return file_batches(split, (0.5,) * 3, (0.5,) * 3, 2, num_workers=num_workers)


def of_boxes(broken, num_workers, monkeypatch):
    monkeypatch.setattr(box_batches, "LARGEST_HELD", 0)
    image = Boxed(broken, torch.tensor([[1.0, 2.0, 5.0, 6.0]]), torch.tensor([0]), torch.tensor([False]), (16, 20))
    return box_batches.box_batches((image,) * 4, 2, image_size=8, num_workers=num_workers)


def of_clips(broken, num_workers, monkeypatch):
    names = [f"S001C001P00{person}R001A001" for person in (1, 2, 3)]
    root = broken.parent / "ntu"
    shutil.rmtree(root, ignore_errors=True)
    write_ntu_rgbd(root, names, frames=4)
    data = load_clips(root, streams=("skeleton",), seed=0)
    file = root / "nturgb+d_skeletons" / f"{names[2]}.skeleton"
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    return clip_batches(data.test, data, 1, num_workers=num_workers)


@pytest.mark.parametrize("made", [of_files, of_boxes, of_clips])
def test_workers_say_what_one_process_says(broken, monkeypatch, made):
    messages = []
    for num_workers in (0, 2):
        batches = made(broken, num_workers, monkeypatch)
        with pytest.raises(InputError) as raised:
            list(batches)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert str(broken.parent) in messages[0]


class Failing:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 2:
            raise self.error
        return index


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_before_come_and_a_message_of_lines_stays_whole(num_workers):
    batches = Loaded(DataLoader(Failing(InputError("one: 1\ntwo: 2")), batch_size=1, num_workers=num_workers))
    assert len(batches) == 3
    found = iter(batches)
    assert [next(found).tolist() for _ in range(2)] == [[0], [1]]
    with pytest.raises(InputError, match=r"\Aone: 1\ntwo: 2\Z"):
        next(found)


def test_other_errors_stay_as_they_are():
    with pytest.raises(KeyError, match="Caught KeyError in DataLoader worker"):
        list(Loaded(DataLoader(Failing(KeyError("gone")), num_workers=1)))
