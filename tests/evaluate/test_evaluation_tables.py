import io

from rich.console import Console

from heedful.evaluate.found import Curves, Found, Headline
from heedful.evaluate.tables import as_rich, notes

MAPS = {
    "run": "none/seed-0", "layer": "layer3", "num_images": 9, "ks": 0.25, "ks_at": 0.5, "ks_true_is_higher": False,
    "overlap": None, "insertion": 0.75, "deletion": 0.125, "zero_maps": 9, "randomisation": {"fc": 0.5, "conv1": None},
    "objects": None, "num_located": 0, "left_out": {"localisation": "there is nothing", "max_box_acc": "no boxes"},
}  # fmt: skip


def found_of(*numbers):
    return {str(place): Found(each, ()) for place, each in enumerate(numbers)}


def printed(tables):
    console = Console(width=200, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_numbers_that_nothing_has_are_dashes():
    text = printed(as_rich(found_of(MAPS), "maps"))
    assert "none/seed-0  layer3       9  0.250  0.500        —      0.750     0.125          9" in text
    assert "none/seed-0  0.500      —" in text
    assert "Localisation" not in text


def test_parts_of_different_networks_share_a_table():
    other = {**MAPS, "run": "se/seed-0", "randomisation": {"head": 0.25}}
    text = printed(as_rich(found_of(MAPS, other), "maps"))
    assert "run             fc  conv1   head" in text


def classified(run, error, **more):
    numbers = {"run": run, "data": "mhad", "num_images": 430, "error": error, "top5_error": 1.0, "loss": 0.5, **more}
    names = ("error", *(f"error without {name}" for name in more.get("without", {})))
    values = (error, *more.get("without", {}).values())
    return Found(numbers, tuple(Headline(name, value, "%", "lower") for name, value in zip(names, values, strict=True)))


def test_clips_have_a_column_for_each_stream_that_was_left_out():
    both = classified("late/seed-0", 9.0, without={"inertial": 20.0, "depth": 10.5})
    text = printed(as_rich({"a": both, "b": classified("hcn/seed-0", 12.0, without={})}, "classification"))
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "Classification",
        "run clips error % error without inertial % error without depth % loss",
        "late/seed-0 430 9.000 20.000 10.500 0.500",
        "hcn/seed-0 430 12.000 — — 0.500",
    ]
    text = printed(as_rich({"a": classified("none/seed-0", 9.0)}, "classification"))
    assert " ".join(text.splitlines()[1].split()) == "run images error % loss"


def test_notes_say_what_the_tables_do_not():
    assert notes(found_of(MAPS)) == [
        "none/seed-0: the KS distance is the wrong way round: the true class has the lower probabilities",
        "none/seed-0: no localisation, since there is nothing",
        "none/seed-0: no MaxBoxAccV2, since no boxes",
        "none/seed-0: images whose map is 0 everywhere, which points nowhere and has no overlap: 9",
    ]
    assert notes(found_of({**MAPS, "ks_true_is_higher": True, "left_out": {}, "zero_maps": 0})) == []


def test_columns_that_no_run_has_are_left_out():
    small = {"pxap": 0.5, "pointing_0px": 0.25}
    one = {**MAPS, "objects": "masks", "num_located": 9, "localisation": small, "centre_gaussian": small}
    text = printed(as_rich(found_of(one), "maps"))
    assert "pointing" in text
    assert "pointing 15 px" not in text
    assert "0.500 (0.500)  0.250 (0.250)" in text
    other = {
        **one,
        "localisation": {**small, "pointing_15px": 1.0},
        "centre_gaussian": {"pointing_15px": 0.75, **small},
    }
    assert "1.000 (0.750)" in printed(as_rich(found_of(one, other), "maps"))
    one["left_out"] = {"pointing_15px": "they are too many"}
    assert "none/seed-0: no pointing 15 px, since they are too many" in notes(found_of(one, other))


def attacked(run, *headlines, lines=None):
    numbers = {"run": run, "data": "digits", "num_images": 9}
    curves = (Curves("Error under attack", "ε, in 255ths", "error, %", (0.0, 8.0), lines),) if lines else ()
    return Found(numbers, tuple(Headline(name, value, "%", "lower") for name, value in headlines), curves)


def test_headlines_have_a_column_each_and_what_a_run_has_not_is_a_dash():
    found = {
        "a": attacked("none/seed-0", ("PGD-20 8/255 error", 71.25), ("FGSM 8/255 error", 50.0)),
        "b": attacked("se/seed-0", ("PGD-20 8/255 error", 7.0)),
    }
    lines = printed(as_rich(found, "robustness")).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "Robustness",
        "run data images PGD-20 8/255 error % FGSM 8/255 error %",
        "none/seed-0 digits 9 71.250 50.000",
        "se/seed-0 digits 9 7.000 —",
    ]


def test_curves_have_a_row_for_each_run_and_line():
    found = {
        "a": attacked("none/seed-0", lines={"FGSM": (5.0, 20.5), "PGD-20": (5.0, 80.0)}),
        "b": attacked("se/seed-0", lines={"FGSM": (6.0, 30.25)}),
    }
    lines = printed(as_rich(found, "robustness")).splitlines()
    assert [" ".join(line.split()) for line in lines[4:]] == [
        "Error under attack",
        "run error, % by ε, in 255ths 0 8",
        "none/seed-0 FGSM 5.00 20.50",
        "none/seed-0 PGD-20 5.00 80.00",
        "se/seed-0 FGSM 6.00 30.25",
    ]
