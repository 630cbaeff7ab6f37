import io

from rich.console import Console

from heedful.evaluate.tables import as_rich, notes

MAPS = {
    "run": "none/seed-0", "layer": "layer3", "num_images": 9, "ks": 0.25, "ks_at": 0.5, "ks_true_is_higher": False,
    "overlap": None, "insertion": 0.75, "deletion": 0.125, "zero_maps": 9, "randomisation": {"fc": 0.5, "conv1": None},
    "objects": None, "num_located": 0, "left_out": {"localisation": "there is nothing", "max_box_acc": "no boxes"},
}  # fmt: skip


def printed(tables):
    console = Console(width=200, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_numbers_that_nothing_has_are_dashes():
    text = printed(as_rich({"a": MAPS}, "maps"))
    assert "none/seed-0  layer3       9  0.250  0.500        —      0.750     0.125          9" in text
    assert "none/seed-0  0.500      —" in text
    assert "Localisation" not in text


def test_parts_of_different_networks_share_a_table():
    other = {**MAPS, "run": "se/seed-0", "randomisation": {"head": 0.25}}
    text = printed(as_rich({"a": MAPS, "b": other}, "maps"))
    assert "run             fc  conv1   head" in text


def test_notes_say_what_the_tables_do_not():
    assert notes({"a": MAPS}) == [
        "none/seed-0: the KS distance is the wrong way round: the true class has the lower probabilities",
        "none/seed-0: no localisation, since there is nothing",
        "none/seed-0: no MaxBoxAccV2, since no boxes",
        "none/seed-0: images whose map is 0 everywhere, which points nowhere and has no overlap: 9",
    ]
    assert notes({"a": {**MAPS, "ks_true_is_higher": True, "left_out": {}, "zero_maps": 0}}) == []


def test_columns_that_no_run_has_are_left_out():
    small = {"pxap": 0.5, "pointing_0px": 0.25}
    found = {"a": {**MAPS, "objects": "masks", "num_located": 9, "localisation": small, "centre_gaussian": small}}
    text = printed(as_rich(found, "maps"))
    assert "pointing" in text
    assert "pointing 15 px" not in text
    assert "0.500 (0.500)  0.250 (0.250)" in text
    found["b"] = {
        **found["a"],
        "localisation": {**small, "pointing_15px": 1.0},
        "centre_gaussian": {"pointing_15px": 0.75, **small},
    }
    assert "1.000 (0.750)" in printed(as_rich(found, "maps"))
    found["a"]["left_out"] = {"pointing_15px": "they are too many"}
    assert "none/seed-0: no pointing 15 px, since they are too many" in notes(found)
