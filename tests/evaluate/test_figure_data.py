"""Images with masks, in each of the layouts; and what is wrong with them, said by name."""

import numpy as np
import pytest
from PIL import Image

from heedful import InputError
from heedful.data.dataset import ImageArray, ImageFiles
from heedful.data.images import read_square
from heedful.evaluate.figure_data import figures_of
from tests.figures_made import SIDE, class_folders, object_discovery, rectangle, save_figure, weizmann


def check_each(figures, count):
    """Every image is there with its own mask, brought to the square alike."""
    assert len(figures.sample.paths) == len(figures.sample.split) == count
    for number, path in enumerate(figures.sample.paths):
        expected = rectangle(int("".join(filter(str.isdigit, path.stem))))
        assert (figures.mask(number) == expected).all()
        assert (figures.sample.split.images[number].permute(1, 2, 0).numpy() == read_square(path, SIDE)).all()


def test_class_folders(tmp_path):
    figures = figures_of(str(class_folders(tmp_path, {"cat": 2, "dog": 3})), SIDE)
    check_each(figures, 5)
    assert figures.groups == ("cat", "dog")
    assert figures.sample.split.labels.tolist() == [0, 0, 1, 1, 1]


def test_class_folders_that_are_links(tmp_path):
    class_folders(tmp_path / "made", {"cat": 2})
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "tom").symlink_to(tmp_path / "made" / part / "cat", target_is_directory=True)
    figures = figures_of(str(tmp_path), SIDE)
    check_each(figures, 2)
    assert figures.groups == ("tom",)


def test_weizmann_has_the_name_of_its_folder_for_a_class(tmp_path):
    figures = figures_of(str(weizmann(tmp_path / "horses", 3)), SIDE)
    check_each(figures, 3)
    assert figures.groups == ("horses",)
    assert figures.sample.name == "horses"


def test_object_discovery_as_a_whole_and_one_folder_of_it(tmp_path):
    root = object_discovery(tmp_path / "Data", {"Airplane100": 2, "Horse100": 3})
    (root / "readme").mkdir()
    whole = figures_of(str(root), SIDE)
    check_each(whole, 5)
    assert whole.groups == ("Airplane100", "Horse100")
    assert whole.sample.split.labels.tolist() == [0, 0, 1, 1, 1]
    part = figures_of(str(root / "Horse100"), SIDE)
    check_each(part, 3)
    assert part.groups == ("Horse100",)


def test_the_middle_square_of_images_and_masks(tmp_path):
    wide = np.zeros((SIDE, 2 * SIDE), dtype=bool)
    wide[4:9, SIDE // 2 : SIDE // 2 + 3] = wide[:, :2] = True
    save_figure(tmp_path / "images" / "1.png", tmp_path / "masks" / "1.png", wide)
    mask = figures_of(str(tmp_path), SIDE).mask(0)
    assert (mask == wide[:, SIDE // 2 : -SIDE // 2]).all()
    assert mask.sum() == 15


def test_large_images_stay_files_and_limits_are_even(tmp_path):
    root = str(class_folders(tmp_path, {"cat": 4}))
    assert isinstance(figures_of(root, 128).sample.split, ImageFiles)
    few = figures_of(root, SIDE).limited(2)
    assert isinstance(few.sample.split, ImageArray)
    assert [path.stem for path in few.sample.paths] == ["0", "2"]
    assert (few.mask(1) == rectangle(2)).all()


def test_no_folder_and_no_layout(tmp_path):
    with pytest.raises(InputError, match="no such folder; give one with images/CLASS"):
        figures_of(str(tmp_path / "none"), SIDE)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="holds no images with masks"):
        figures_of(str(tmp_path), SIDE)


def test_a_mask_is_missing(tmp_path):
    class_folders(tmp_path, {"cat": 3})
    for number in (0, 2):
        (tmp_path / "masks" / "cat" / f"{number}.png").unlink()
    with pytest.raises(InputError, match=r"images/cat/0.png lacks its mask .*masks/cat/0.png \(and 1 more\)"):
        figures_of(str(tmp_path), SIDE)


def test_a_mask_of_another_size(tmp_path):
    weizmann(tmp_path, 3)
    Image.new("1", (SIDE, SIDE - 1)).save(tmp_path / "mask" / "horse2.png")
    with pytest.raises(InputError, match=r"horse2.png has 16 x 15 pixels, but its image 16 x 16"):
        figures_of(str(tmp_path), SIDE)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_broken_files(tmp_path, part):
    class_folders(tmp_path, {"cat": 2})
    (tmp_path / part / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{part}/cat/1.png cannot be read"):
        figures_of(str(tmp_path), SIDE)
