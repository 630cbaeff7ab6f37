"""One sentence per case, word for word; and what the notes must admit."""

import dataclasses
import json
import math

import pytest
from made_up import ENVIRONMENT, recipe_row, write_recipe, write_run

from heedful.report.results import read
from heedful.report.sentences import answer, notes, sentence
from heedful.report.tables import Comparison, compare
from heedful.statistics import Paired, Summary, paired

REFERENCE = Comparison(
    label="none",
    error=Summary(6.0, 0.2, 5.8, 6.2, 5),
    top5=None,
    paired=None,
    holm_p=math.nan,
    num_comparisons=3,
    parameters=1,
    flops=1,
    train_ratio=1.0,
    inference_ratio=1.0,
    expected=None,
    failed=(),
    unfinished=(),
    unpaired=(),
)


def row(label, pair, holm_p=None, **others):
    """A row beside the reference."""
    p = pair.p_value if pair and holm_p is None else holm_p
    return dataclasses.replace(REFERENCE, label=label, paired=pair, holm_p=math.nan if p is None else p, **others)


LOWER = Paired(-0.9, -1.5, -0.3, 0.01, 0.0625, 0.8, 5)
UNDECIDED = Paired(-0.2, -0.9, 0.5, 0.5, 0.6, 1.2, 5)
ONE = Paired(-0.9, math.nan, math.nan, math.nan, math.nan, math.nan, 1)


@pytest.mark.parametrize(
    ("comparison", "text"),
    [
        (row("se-ign3", LOWER), "se-ign3 lowers the error by 0.9 points (0.3 to 1.5); 5 seeds"),
        (
            row("se", Paired(0.9, 0.3, 1.5, 0.01, 0.06, 0.8, 5)),
            "se raises the error by 0.9 points (0.3 to 1.5); 5 seeds",
        ),
        (
            row("se", Paired(-0.05, -0.08, -0.02, 0.001, 0.06, 0.8, 5)),
            "se lowers the error by 0.050 points (0.020 to 0.080); 5 seeds",
        ),
        (
            row("cbam", UNDECIDED),
            "cbam: no evidence of a difference to none: 5 seeds can show differences above 1.2 points",
        ),
        (
            row("se", LOWER, holm_p=0.06),
            "se: 0.9 points lower error than none (0.3 to 1.5), but this does not survive the correction for "
            "3 comparisons; 5 seeds",
        ),
        (row("se", ONE), "se: 0.9 points lower error than none, but 1 seed cannot tell a difference from chance"),
        (
            row("se", dataclasses.replace(ONE, difference=0.0)),
            "se: the same error as none, but 1 seed cannot tell a difference from chance",
        ),
        (row("se", None), "se: no seed is finished by both se and none"),
        (row("se", None, error=None, unfinished=(0,)), "se: no run is finished"),
        (row("se", None, error=None, failed=(0, 1)), "se: its runs failed (seeds 0 and 1)"),
        (
            row("se", paired([5.0, 6.0, 7.0], [5.0, 6.0, 7.0])),
            "se: no evidence of a difference to none: the same error as none in each of 3 seeds",
        ),
        (
            row("se", paired([5.5, 6.5, 7.5], [5.0, 6.0, 7.0])),
            "se: no evidence of a difference to none: 0.5 points higher error than none in each of 3 seeds",
        ),
        (
            row("se", paired([x + 0.5 for x in range(8)], list(range(8)))),
            "se raises the error by 0.5 points in every seed; 8 seeds",
        ),
    ],
)
def test_sentence(comparison, text):
    assert sentence(comparison, REFERENCE) == text


def test_the_first_row_is_what_the_others_are_compared_with():
    assert sentence(REFERENCE, REFERENCE) == "none, which the others are compared with: 6.00 % error; 5 seeds"


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ([], "none stands alone: there is nothing to compare it with."),
        ([row("se", LOWER)], "se lowers the error of none."),
        ([row("se", UNDECIDED)], "No evidence that se differs from none."),
        ([row("se", UNDECIDED), row("cbam", LOWER, 0.07)], "No evidence that any variant differs from none."),
        (
            [row("a", LOWER), row("b", LOWER), row("c", UNDECIDED), row("d", UNDECIDED)],
            "a and b lower the error of none; no evidence that c and d differ from none.",
        ),
        (
            [row("a", dataclasses.replace(LOWER, difference=0.9)), row("b", None, error=None)],
            "a raises the error of none; b: no finished run.",
        ),
        ([row("se", ONE), row("cbam", ONE)], "1 seed cannot tell any variant from none."),
        ([row("no-one", LOWER)], "no-one lowers the error of none."),
    ],
)
def test_answer(others, text):
    assert answer([REFERENCE, *others]) == text


def test_without_the_first_row_there_is_no_answer():
    missing = dataclasses.replace(REFERENCE, error=None)
    assert answer([missing, row("se", None)]) == (
        "none has no finished run, so there is nothing to compare the others with yet."
    )


def make(folder, variants, seeds=(0,), environments=None, **others):
    """An experiment's only group, from finished runs without pictures."""
    rows = [variant if isinstance(variant, dict) else recipe_row(variant) for variant in variants]
    write_recipe(folder, rows, list(seeds), **others)
    for i, each in enumerate(rows):
        for seed in seeds:
            environment = environments[seed] if environments else ENVIRONMENT
            write_run(folder, each, seed, 5.0 + 0.3 * (i * seed % 3), pictures=False, environment=environment)
    (group,) = read(folder).groups
    return notes(group, compare(group))


def test_notes_of_an_experiment_with_gaps(experiment):
    group = experiment.groups[0]
    assert notes(group, compare(group)) == [
        "cbam: the loss became NaN or infinite with seed 3, which its numbers leave out; "
        "a variant that can fail is worse than its other seeds show.",
        "se: seed 4 not finished yet.",
        "Differences use only the seeds that both sides finished: se without seed 4 and cbam without seed 3.",
        "se and se-ign3 are the same family of functions (the sign of the last linear map turned): "
        "a difference between them can only be chance.",
        "With 4 seeds the permutation test cannot fall below 0.125, however large the difference.",
        "With 5 seeds the permutation test cannot fall below 0.0625, however large the difference.",
        "The test split has 180 images: one of them more or less is 0.56 points.",
    ]


@pytest.mark.parametrize(
    ("variants", "family"),
    [
        (["none", "se", "se-ign3"], "se and se-ign3"),
        (["se-ign1(1)", "se"], "se-ign1(1) and se"),
        (["se", "se-ign3", "se-ign1(1)"], "se, se-ign3 and se-ign1(1)"),
        (["aw+se", "aw-ign3+se", "se"], "aw+se and aw-ign3+se"),
        (["simam-ign1(1)", "simam-ign3", "simam"], "simam-ign1(1) and simam-ign3"),  # no map whose sign could turn
        (["se", "cbam-ign3"], None),
        (["se", "se-ign2", "se-ign1(0.5)"], None),
        (["se-ign1(1)", "se-ign1(0.1)"], None),
        ([recipe_row("se", name="a"), recipe_row("se-ign3", name="b", learning_rate=0.01)], None),
    ],
)
def test_variants_that_are_the_same_in_distribution(tmp_path, variants, family):
    found = [note for note in make(tmp_path, variants) if "same family" in note]
    assert [note.split(" are the same family")[0] for note in found] == ([family] if family else [])


@pytest.mark.parametrize(("num_seeds", "floor"), [(2, "0.5, however"), (6, "0.0312."), (1, None)])
def test_floor_of_the_permutation_test(tmp_path, num_seeds, floor):
    found = [note for note in make(tmp_path, ["none", "se"], range(num_seeds)) if "permutation" in note]
    assert len(found) == (floor is not None)
    assert all(f"With {num_seeds} seeds the permutation test cannot fall below {floor}" in note for note in found)


def test_a_scaled_experiment(tmp_path):
    first = make(tmp_path, ["none"], scale=0.1)[0]
    assert first.startswith("Scaled to 0.1 of the epochs and images: these numbers stand for the scaled experiment")


def test_times_of_different_machines(tmp_path):
    machines = {0: ENVIRONMENT, 1: {**ENVIRONMENT, "device": "cuda, another"}}
    found = make(tmp_path, ["none", "se"], (0, 1), machines)
    assert "The runs were made on 2 different devices: their times cannot be compared." in found
    assert not any("devices" in note for note in make(tmp_path, ["none", "se"], (0, 1)))


def test_images_that_were_left_out_are_named(tmp_path):
    make(tmp_path, ["none"])
    path = next(tmp_path.rglob("result.json"))
    result = json.loads(path.read_text())
    result["data"] |= {"skipped_images": ["a/1.png"], "ignored_files": [f"{i}.txt" for i in range(7)]}
    path.write_text(json.dumps(result))
    (group,) = read(next(tmp_path.rglob("recipe.yaml")).parent).groups
    found = notes(group, compare(group))
    assert "1 unreadable image left out: a/1.png." in found
    assert "7 other files left out: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ..." in found
