"""Runs of the task `clips`: they learn, start from each other, are resumed, measured and refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import heedful
from heedful import InputError
from heedful.evaluate.evaluations import evaluate_runs
from heedful.evaluate.protocols import Asked
from heedful.experiment import carry_out
from heedful.models.cards import ClipCard
from heedful.report import read
from heedful.train import recipe as recipes
from heedful.train.clips import ClipClassification, load_data
from heedful.train.run import Machine, runs_of
from heedful.train.settings import Settings
from heedful.train.tasks import TASKS, check_run
from tests.data.clips_made import write_ntu_rgbd, write_utd_mhad

CPU = Machine(device="cpu", num_workers=0)
SINGLE = {"variant": "none", "epochs": 8, "batch_size": 4, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def mhad(tmp_path_factory):
    return str(write_utd_mhad(tmp_path_factory.mktemp("mhad") / "mhad.npz", num_trials=3))


def recipe_of(source, *rows, **settings):
    shared = {"task": "clips", "data": source, "optimizer": "adam", "schedule": "cosine", "epochs": 2, "batch_size": 4}
    return recipes.from_plain({"seeds": [0], "rows": list(rows), **shared, **settings})


FUSED = (
    {"name": "sensor", "model": "inertial", **SINGLE},
    {"name": "pictures", "model": "depth", **SINGLE, "epochs": 1},
    *(
        {"name": name, "model": "inertial+depth", "variant": name, "start_from": ["sensor", "pictures"]}
        for name in ("mmtm-ign1(0.5)", "late")
    ),
)


@pytest.fixture(scope="module")
def fused(mhad, tmp_path_factory):
    out = tmp_path_factory.mktemp("fused") / "out"
    recipe = recipe_of(mhad, *FUSED, learning_rate=1e-6, drop=0.3)
    return carry_out(recipe, out, machine=CPU, evaluate=["classification"]), out


def result_of(out, name):
    return json.loads((out / "runs" / name / "seed-0" / "result.json").read_text())


def test_a_stream_is_learnt(fused):
    _, out = fused
    assert result_of(out, "sensor")["metrics"]["test_error"] < 15
    # 4 people, 2 classes, 3 times, less one of each class
    assert result_of(out, "sensor")["data"]["train_images"] == 22


def test_fused_networks_start_from_those_of_one_stream(fused):
    _, out = fused
    sensor, both = (heedful.load(out / "runs" / name / "seed-0") for name in ("sensor", "late"))
    trained = dict(sensor.named_parameters())
    for name, parameter in both.named_parameters():
        if name.startswith("streams.inertial."):  # at a rate of 1e-6 little has changed since
            assert torch.allclose(parameter, trained[name], atol=1e-4)


def test_what_is_saved_takes_clips_again(fused):
    _, out = fused
    model = heedful.load(out / "runs" / "mmtm-ign1(0.5)" / "seed-0")
    assert isinstance(model.card, ClipCard)
    assert (model.card.model, model.card.variant) == ("inertial+depth", "mmtm-ign1(0.5)")
    assert model.card.classes == ("wave 1", "wave 2")
    inputs = {name: torch.zeros(2, *stream.shape) for name, stream in model.card.streams.items()}
    assert model(inputs).shape == (2, 2)


def test_errors_are_also_measured_without_each_stream(fused):
    _, out = fused
    folders = [out / "runs" / name / "seed-0" for name in ("sensor", "late")]
    alone, both = evaluate_runs(folders).values()
    assert alone.numbers["without"] == {}
    without = both.numbers["without"]
    assert set(without) == {"inertial", "depth"}
    assert both.numbers["error"] == pytest.approx(result_of(out, "late")["metrics"]["test_error"])
    # What is left is the network of the other stream, hardly trained since.
    assert without["depth"] == pytest.approx(alone.numbers["error"], abs=5)
    assert [h.name for h in both.headlines] == ["error", "error without inertial", "error without depth"]


def test_the_page_shows_weights_of_streams_and_no_images(fused):
    experiment, out = fused
    assert [group.title.split()[0] for group in experiment.groups] == ["inertial", "depth", "inertial+depth"]
    page = (out / "index.html").read_text()
    assert "What is ignored: channels" in page
    assert "Grad-CAM" not in page
    assert "The test split has 24 clips" in page
    assert "error without depth" in (out / "evaluations.md").read_text()
    assert read(out).rows[2].runs[0].metrics.test_loss > 0


def test_a_run_of_clips_is_resumed_exactly(mhad, interrupted, tmp_path):
    (run,) = runs_of(recipe_of(mhad, {"name": "a", "model": "inertial", **SINGLE, "epochs": 3, "augment": ["window"]}))
    interrupted(run, tmp_path / "disturbed", [1.3])
    carry_out(recipe_of(mhad, {"name": "a", "model": "inertial", **SINGLE, "epochs": 3, "augment": ["window"]}),
              tmp_path / "undisturbed", machine=CPU)  # fmt: skip
    first, second = (result_of(tmp_path / name, "a")["metrics"] for name in ("undisturbed", "disturbed"))
    assert first == second


def test_only_training_clips_are_limited(mhad):
    settings = Settings(task="clips", data=mhad, model="inertial", limit=0.5)
    whole, half = (ClipClassification(each, 0).described for each in (replace(settings, limit=None), settings))
    assert half["train_images"] == whole["train_images"] // 2
    assert (half["val_images"], half["test_images"]) == (whole["val_images"], whole["test_images"])


def test_each_class_gives_its_share_of_a_limit(mhad):
    settings = Settings(task="clips", data=mhad, model="inertial")
    found = [load_data(replace(settings, limit=limit), seed).train for limit in (2, 0.3) for seed in (0, 1)]
    assert [part.labels.bincount().tolist() for part in found[:2]] == [[1, 1]] * 2
    assert [part.labels.bincount().tolist() for part in found[2:]] == [[4, 3]] * 2
    first, second, whole = (part.streams["inertial"] for part in (*found[2:], load_data(settings, 0).train))
    assert not torch.equal(first, second)
    assert all(any(torch.equal(clip, other) for other in whole) for clip in first)


def test_a_limit_that_leaves_a_class_without_clips_is_refused(mhad):
    with pytest.raises(InputError, match="limit 1 leaves 1 of 22 training clips and none of class 'wave 2', which has"):
        check_run(Settings(task="clips", data=mhad, model="inertial", limit=1), 0)


def test_files_are_trained_on_too(tmp_path):
    people = (1, 2, 3, 4, 5, 9, 40, 39)
    names = [f"S001C001P{person:03}R001A0{action}" for person in people for action in (13, 60)]
    source = str(write_ntu_rgbd(tmp_path / "ntu", names, frames=5))
    recipe = recipe_of(source, {"name": "skeleton", "model": "hcn", **SINGLE, "epochs": 1}, benchmark="cross-subject")
    carry_out(recipe, tmp_path / "out", machine=CPU)
    assert result_of(tmp_path / "out", "skeleton")["data"]["shapes"] == {"skeleton": [3, 32, 25, 2]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"variant": "none"}, r"inertial\+depth has several streams to be fused: write late, concat"),
        ({"variant": "se"}, "variant 'se' goes into networks of images"),
        ({"variant": "mmtm", "start_from": ["sensors"]}, "row fused, start_from: unknown row to start from 'sensors'"),
        ({"variant": "mmtm", "objective": "icasc"}, "objective is 'icasc', but only the task classification has it"),
        ({"variant": "mmtm", "model": "inertial+dept"}, "unknown network of a stream 'dept': did you mean depth"),
        ({"variant": "mmtm", "augment": ["flip"]}, "augment 'flip'"),
        ({"variant": "mmtm", "task": "classification"}, "takes clips, not images"),
    ],
)
def test_rows_that_cannot_be_are_refused(mhad, tmp_path, row, message):
    shared = {"task": "clips", "data": mhad, "model": "inertial+depth"}
    path = tmp_path / "mine.yaml"
    sensor = {"name": "sensor", "model": "inertial", "variant": "none"}
    path.write_text(json.dumps({"seeds": 1, "rows": [sensor, {"name": "fused", **row}], **shared}))
    with pytest.raises(InputError, match=message):
        recipes.read(str(path))


def test_settings_of_clips_are_refused_elsewhere():
    with pytest.raises(InputError, match=r"drop is 0.5, but only the task clips has it"):
        recipes.compare_recipe(["none"], {"drop": 0.5}, num_seeds=1, first_seed=0)


@pytest.mark.parametrize("setting", [{"image_size": 32}, {"skip_bad_images": True}, {"convention": "timm"}])
def test_settings_of_images_are_refused_for_clips(setting):
    message = f"{next(iter(setting))} is .*, but only the task classification or detection has it: leave it out"
    with pytest.raises(InputError, match=message):
        recipes.compare_recipe(["none"], {"task": "clips", "model": "hcn", **setting}, num_seeds=1, first_seed=0)


CHAIN = [{"name": "again", "model": "inertial", "start_from": ["sensor"]}, {"start_from": ["again"]}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"start_from": ["both"]}],
            r"fused, start_from: both trains inertial\+depth, but must",
        ),
        (
            [{"start_from": ["skeleton"]}],
            "skeleton trains hcn, but must train one of inertial, depth alone",
        ),
        ([{"start_from": ["sensor", "other"]}], "row fused, start_from: model inertial is given twice"),
        (CHAIN, "start_from: again itself starts from sensor: name a row that starts anew"),
        ([{"start_from": ["sensor"], "data": "other.npz"}], "start_from: sensor has data mhad.npz, the row other.npz"),
        ([{"start_from": ["sensor"], "val_fraction": 0.2}], "start_from: sensor has val_fraction 0.1, the row 0.2"),
        ([{"start_from": ["sensor"], "benchmark": "cross-view"}], "sensor has benchmark None, the row cross-view"),
    ],
)
def test_what_a_row_cannot_start_from_is_refused(tmp_path, rows, message):
    alone = {"sensor": "inertial", "other": "inertial", "pictures": "depth", "skeleton": "hcn"}
    before = [{"name": name, "model": model, "variant": "none"} for name, model in alone.items()]
    before += [{"name": "both"}, *rows[:-1]]
    before[-1].setdefault("variant", "none" if "model" in before[-1] else "late")
    path = tmp_path / "mine.yaml"
    shared = {"task": "clips", "data": "mhad.npz", "model": "inertial+depth", "variant": "late", "seeds": 1}

    def read_with(row):
        path.write_text(json.dumps({**shared, "rows": [*before, {"name": "fused", **row}]}))
        return recipes.read(str(path))

    with pytest.raises(InputError, match=message):
        read_with(rows[-1])
    assert read_with({"start_from": ["sensor", "pictures"]}).rows[-1].settings.start_from == ("sensor", "pictures")


def test_a_row_to_start_from_must_be_trained(mhad, tmp_path):
    recipe = recipe_of(mhad, *FUSED)
    chosen = runs_of(recipes.only(recipe, ["late"]))
    with pytest.raises(InputError, match="row late starts from sensor, which is not trained yet with seed 0"):
        carry_out(recipe, tmp_path / "out", machine=CPU, only=chosen)
    assert not (tmp_path / "out" / "runs").exists()


def test_what_starts_from_a_failed_run_is_named_and_the_others_are_kept(mhad, tmp_path):
    sensor = {"name": "sensor", "model": "inertial", **SINGLE, "learning_rate": 1e30}
    pictures = {"name": "pictures", "model": "depth", **SINGLE, "epochs": 1}
    late = {"name": "late", "model": "inertial+depth", "variant": "late", "start_from": ["sensor"]}
    with pytest.raises(InputError, match=r"(?s)sensor, seed 0: the .*loss became.*late, seed 0: a run that it starts"):
        carry_out(recipe_of(mhad, sensor, pictures, late), tmp_path / "out", machine=CPU)
    assert (tmp_path / "out" / "runs" / "pictures" / "seed-0" / "result.json").exists()


def test_other_clips_may_all_be_of_people_to_test_on(fused, mhad, tmp_path):
    arrays = dict(np.load(mhad))
    other = tmp_path / "other.npz"
    np.savez(other, **arrays | {"subject": np.full_like(arrays["subject"], 2)})
    folder = fused[1] / "runs" / "sensor" / "seed-0"
    (found,) = evaluate_runs([folder], asked=Asked(source=str(other))).values()
    assert found.numbers["num_images"] == len(arrays["subject"])
    assert found.numbers["error"] < 15
    np.savez(other, **arrays | {"subject": np.full_like(arrays["subject"], 1)})
    with pytest.raises(InputError, match="other: none of 48 clips is for testing"):
        evaluate_runs([folder], asked=Asked(source=str(other)))


def test_what_has_no_gates_has_no_evidence_and_is_not_gone_through(fused, mhad, monkeypatch):
    _, out = fused
    assert [(out / "runs" / name / "seed-0" / "evidence.npz").exists() for name in ("mmtm-ign1(0.5)", "late")] == [
        True,
        False,
    ]
    task = ClipClassification(Settings(task="clips", data=mhad, model="inertial"), 0)
    monkeypatch.setattr(task, "batches", lambda *_: pytest.fail("the clips were read"))
    assert task.evidence(task.new_model(), torch.device("cpu")) is None


def test_changed_clips_are_not_evaluated_as_the_runs_own(fused, mhad, tmp_path):
    changed = tmp_path / "mhad.npz"
    write_utd_mhad(changed, num_trials=2)
    folder = tmp_path / "run"
    source = fused[1] / "runs" / "sensor" / "seed-0"
    folder.mkdir()
    for name in ("model.json", "model.safetensors", "result.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "run.yaml").write_text((source / "run.yaml").read_text().replace(mhad, str(changed)))
    with pytest.raises(InputError, match="has changed since the run"):
        evaluate_runs([folder])


def test_every_task_says_what_the_engine_asks():
    assert set(TASKS) == {"classification", "clips", "detection"}
    with pytest.raises(InputError, match="no clips that are known here"):
        check_run(Settings(task="clips", data="foo", model="hcn"), 0)
