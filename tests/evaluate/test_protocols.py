"""The table of evaluations: what each is told, what is refused, and the files of what is found."""

import json
import shutil
import typing

import pytest
from test_runs import made_run, photos  # noqa: F401  # the fixture

from heedful import InputError, load
from heedful.cli import seeing
from heedful.evaluate import evaluations, protocols
from heedful.evaluate.epsilons import parse_epsilons
from heedful.evaluate.evaluations import evaluate_runs, is_evaluated, name_of, write
from heedful.evaluate.found import Curves, Found, Headline
from heedful.evaluate.protocols import PROTOCOLS, Asked, Protocol, check
from heedful.evaluate.robustness import robustness
from heedful.evaluate.runs import own_images, read_run, statistics_of
from heedful.evaluate.wanted import check_labels, parse
from tests.data_made import bright_squares, many_squares

PNG = b"\x89PNG\r\n\x1a\n of a picture"


@pytest.fixture
def squares(tmp_path):
    return bright_squares(tmp_path / "squares.npz")


@pytest.fixture
def run(tmp_path, squares):
    return read_run(made_run(tmp_path / "none" / "seed-0", squares))


def found_by(subject, asked):
    """What a made-up protocol finds: the number of images asked for, and of what it is told."""
    numbers = {"data": "made up", "num_images": len(subject.prepared(asked)[0].split), "steps": asked.steps}
    curves = Curves("Curve", "x", "y", (0.0, 1.0), {"a": (2.0, 3.0)})
    return Found(numbers, (Headline("steps", float(asked.steps), "", "higher"),), (curves,), {"picture": PNG})


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "robustness", Protocol(found_by, ("limit", "steps")))


def test_the_command_line_knows_every_protocol():
    assert set(typing.get_args(seeing.Protocol)) == set(PROTOCOLS)


def test_options_of_the_command_line_are_those_of_asked_and_have_the_same_defaults():
    import inspect

    given = {name: parameter.default for name, parameter in inspect.signature(seeing.evaluate).parameters.items()}
    given = {"source": given.pop("data"), "num_seeds": given.pop("seeds"), **given}
    given["epsilons"] = parse_epsilons(given["epsilons"])
    assert {name: given[name] for name in Asked.__dataclass_fields__} == vars(Asked())
    assert set(given) - set(Asked.__dataclass_fields__) == {"runs", "on", "out", "device"}


def test_every_option_is_used_by_some_protocol():
    used = {name for protocol in PROTOCOLS.values() for name in protocol.options}
    assert used == set(Asked.__dataclass_fields__) - {"source"}


@pytest.mark.parametrize(
    ("on", "asked", "message"),
    [
        ("robustnes", Asked(), "unknown protocol 'robustnes': did you mean robustness"),
        ("robustness", Asked(fuse="mean"), "robustness does not use --fuse: leave it out, or evaluate on segmentation"),
        ("maps", Asked(steps=3), "maps does not use --steps: leave it out, or evaluate on robustness"),
        ("segmentation", Asked(num_seeds=2), "segmentation does not use --seeds: .* evaluate on transfer"),
        ("classification", Asked(train_per_class=2), "does not use --train-per-class"),
        ("transfer", Asked(), "transfer needs other data than the run's own: give a folder of class folders"),
        ("segmentation", Asked(), "segmentation needs other data than the run's own: give a folder"),
        ("transfer", Asked(source="missing/photos"), "missing/photos: no such file or folder"),
        ("transfer", Asked(source=""), "no such file or folder"),
    ],
)
def test_what_cannot_be_asked(on, asked, message):
    with pytest.raises(InputError, match=message):
        check(on, asked)
    with pytest.raises(InputError, match=message):
        evaluate_runs([], on=on, asked=asked)


@pytest.mark.parametrize("on", list(PROTOCOLS))
def test_what_each_can_be_asked(on, tmp_path):
    others = {"layer": "layer3", "method": "cam", "limit": 3, "epsilons": (0.0,), "steps": 1, "corruptions": True,
              "fuse": "mean", "train_per_class": 2, "num_seeds": 1}  # fmt: skip
    asked = {name: others[name] for name in PROTOCOLS[on].options}
    assert check(on, Asked(source=str(tmp_path), **asked)) is PROTOCOLS[on]


def test_robustness_is_told_everything(run):
    asked = Asked(limit=4, epsilons=(0.0, 0.5), steps=2, corruptions=True)
    found = evaluate_runs([run.folder], on="robustness", asked=asked)[str(run.folder)]
    expected = robustness(
        load(run.folder), own_images(run).limited(4), *statistics_of(run.card),
        epsilons=(0.0, 0.5), steps=2, corruptions=True, classes=run.card.classes,
    )  # fmt: skip
    assert found.numbers == {"run": run.name, **expected.numbers}
    assert found.numbers["corruption_error"] is not None
    assert found.pictures == expected.pictures
    assert [headline.name for headline in found.headlines][:2] == ["FGSM 0.5 error", "PGD-2 0.5 error"]


def test_localization_is_told_everything(tmp_path, photos):  # noqa: F811
    folder = made_run(tmp_path / "run", photos / "images", size=16)
    asked = Asked(layer="layer2", method="channel", limit=2)
    numbers = evaluate_runs([folder], on="localization", asked=asked)[str(folder)].numbers
    assert (numbers["layer"], numbers["method"], numbers["num_images"]) == ("layer2", "channel", 2)
    own = evaluate_runs([folder], on="maps", asked=asked)[str(folder)]
    assert numbers["scores"]["channel"]["pxap"] == pytest.approx(own.numbers["localisation"]["pxap"])
    assert {headline.name: headline.value for headline in own.headlines}["PxAP"] == own.numbers["localisation"]["pxap"]


@pytest.mark.parametrize("higher", [True, False])
def test_headlines_of_maps(run, monkeypatch, higher):
    numbers = {"ks": 0.25, "ks_true_is_higher": higher, "insertion": 0.5, "deletion": None, "ks_at": 0.5,
               "chart": {"probabilities": [0.0, 1.0], "true": [0.0, 1.0], "confusing": [0.5, 1.0]}}  # fmt: skip
    monkeypatch.setattr(protocols, "evaluate_maps", lambda *_, **__: numbers)
    found = evaluate_runs([run.folder], on="maps")[str(run.folder)]
    assert found.headlines == (
        Headline("KS", 0.25 if higher else -0.25, "", "higher"),
        Headline("insertion", 0.5, "", "higher"),
    )
    assert found.pictures["ks"].startswith(b"\x89PNG")


def test_the_headline_of_classification(tmp_path, run):
    found = evaluate_runs([run.folder])[str(run.folder)]
    assert found.headlines == (Headline("error", found.numbers["error"], "%", "lower"),)
    several = made_run(tmp_path / "several", many_squares(tmp_path / "several.npz"))
    found = evaluate_runs([several])[str(several)]
    assert found.headlines == (Headline("mAP", found.numbers["map"], "%", "higher"),)


def test_files_say_what_was_asked_and_found(run, made_up):
    asked = Asked(limit=3, steps=7)
    paths = write(evaluate_runs([run.folder], on="robustness", asked=asked), "robustness", asked)
    assert [path.name for path in paths] == ["robustness.json", "picture.png", "robustness-curves.png"]
    assert paths[1].read_bytes() == PNG
    content = json.loads(paths[0].read_text())
    assert content.pop("heedful")
    assert content == {
        "run": "none/seed-0", "data": "made up", "num_images": 3, "steps": 7, "protocol": "robustness", "source": None,
        "options": {"limit": 3, "steps": 7},
        "headlines": [{"name": "steps", "value": 7.0, "unit": "", "better": "higher"}],
        "curves": [{"title": "Curve", "x_name": "x", "y_name": "y", "x": [0, 1], "lines": {"a": [2, 3]}}],
        "pictures": {"picture": "picture.png"},
    }  # fmt: skip


def test_files_of_several_data_lie_beside_each_other(run, made_up, tmp_path):
    sources = [None, str(bright_squares(tmp_path / "more squares.npz")), str(tmp_path / "squares.npz")]
    written = []
    for source in sources:
        asked = Asked(source=source)
        found = evaluate_runs([run.folder], on="robustness", asked=asked)
        written.append([path.name for path in write(found, "robustness", asked)])
    others = ["robustness-more_squares.json", "picture-more_squares.png", "robustness-more_squares-curves.png"]
    own = ["robustness.json", "picture.png", "robustness-curves.png"]
    assert written == [own, others, own]  # what the run was trained on is its own, by whichever name


def test_what_needs_a_source_names_it_though_it_is_the_runs_own(run, monkeypatch, squares):
    monkeypatch.setitem(PROTOCOLS, "transfer", Protocol(found_by, ("steps",), needs="a folder"))
    asked = Asked(source=str(squares))
    paths = write(evaluate_runs([run.folder], on="transfer", asked=asked), "transfer", asked)
    assert [path.name for path in paths] == [
        "transfer-squares.json",
        "picture-squares.png",
        "transfer-squares-curves.png",
    ]


def test_what_was_found_on_other_data_of_the_same_name_is_kept(run, made_up, tmp_path):
    sources = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sources.append(str(bright_squares(tmp_path / name / "photos.npz")))
    first, second = (Asked(source=source) for source in sources)
    write(evaluate_runs([run.folder], on="robustness", asked=first), "robustness", first)
    found = evaluate_runs([run.folder], on="robustness", asked=second)
    path = run.folder / "robustness-photos.json"
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"robustness-photos.json holds .* on .*photos.npz, of the same name"):
        write(found, "robustness", second)
    assert path.read_bytes() == before
    shutil.rmtree(tmp_path / "a")  # it was moved, perhaps to where it is now
    write(found, "robustness", second)
    assert path.read_bytes() != before


def test_what_is_evaluated_already_with_the_same_options(run, made_up):
    assert not is_evaluated(run, "robustness", Asked())
    write(evaluate_runs([run.folder], on="robustness"), "robustness")
    assert is_evaluated(run, "robustness", Asked())
    assert not is_evaluated(run, "robustness", Asked(steps=3))
    assert not is_evaluated(run, "maps", Asked())
    for damaged in ("{", "[]", '{"run": "none/seed-0"}'):
        (run.folder / "robustness.json").write_text(damaged)
        assert not is_evaluated(run, "robustness", Asked())


def test_numbers_are_written_after_their_pictures(run, made_up, monkeypatch):
    found = evaluate_runs([run.folder], on="robustness")
    written = []
    monkeypatch.setattr(evaluations.files, "write", lambda path, content: written.append(path.name))
    write(found, "robustness")
    assert written == ["picture.png", "robustness-curves.png", "robustness.json"]


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/photos.npz", "photos"), ("digits", "digits"), ("a/b c*/", "b_c_"), ("v1.2/", "v1.2"), ("a/x/..", "a")],
)
def test_names_of_data(tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/b c*", "a/x", "v1.2"):
        (tmp_path / folder).mkdir(parents=True)
    assert name_of(source) == name


def test_evaluations_of_an_experiment(tmp_path, squares):
    assert parse(["robustness", f"transfer={squares}"]) == [
        ("robustness", Asked()),
        ("transfer", Asked(source=str(squares))),
    ]
    with_equals = bright_squares(tmp_path / "a=b.npz")
    assert parse([f"transfer={with_equals}"])[0][1].source == str(with_equals)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["robust"], "unknown protocol 'robust'"),
        (["transfer"], "transfer needs other data"),
        (["transfer="], "transfer needs other data"),
        (["maps=missing/"], "missing/: no such file or folder"),
        (["maps", "maps"], "maps is wanted twice"),
        (["maps=digits", "transfer=digits", "maps=digits"], "maps=digits is wanted twice"),
    ],
)
def test_what_an_experiment_cannot_be_evaluated_on(wanted, message):
    with pytest.raises(InputError, match=message):
        parse(wanted)


def test_images_with_several_classes_are_for_classification_alone(tmp_path):
    from heedful.data import load as load_data

    several = load_data(str(many_squares(tmp_path / "several.npz")), seed=0)
    check_labels(parse(["classification", "transfer=digits"]), several)
    with pytest.raises(InputError, match="several has images with several classes each, which robustness cannot take"):
        check_labels(parse(["classification", "robustness"]), several)
