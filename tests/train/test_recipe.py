import dataclasses
import re

import pytest
import torch
import yaml

import heedful
from heedful import InputError, build_detector, build_streams, parse
from heedful.models.named_streams import streams_of
from heedful.train import recipe as recipes
from heedful.train.classify import Classifier
from heedful.train.detect import Detector
from heedful.train.elsewhere import ELSEWHERE
from heedful.train.module import Training, rate_factor
from heedful.train.objective import attention_losses
from heedful.train.prepare import load_data
from heedful.train.recipe import compare_recipe
from heedful.train.settings import Settings


def written(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


MINE = {
    "title": "mine",
    "model": "cifar_resnet8",
    "epochs": 7,
    "rows": [
        {"name": "plain"},
        {"name": "attended", "variant": "se-ign3", "epochs": 9, "expected": {"top1_error": [7.28, 0.17]}},
    ],
}


def test_rows_put_their_own_settings_over_the_shared_ones(tmp_path):
    recipe = recipes.read(written(tmp_path, MINE))
    plain, attended = recipe.rows
    assert (plain.settings.epochs, plain.settings.variant) == (7, "none")
    assert (attended.settings.epochs, attended.settings.variant) == (9, "se-ign3")
    assert attended.expected == {"top1_error": (7.28, 0.17)}
    assert recipe.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, r"unknown setting 'epoch': did you mean epochs"),
        ({"epochs": 0}, "epochs is 0: .*greater than 0"),
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"learning_rate": -1}, "learning_rate is -1: .*greater than 0"),
        ({"schedule": "step"}, "schedule is 'step': .*'steps', 'step10', 'multiplied', 'cosine' or 'annealed'"),
        (
            {"schedule": "step10"},
            r"milestones is \[\] with the schedule step10: step10 and multiplied need them, such as \[81, 122\]",
        ),
        ({"milestones": [3]}, r"milestones is \[3\] with the schedule steps"),
        ({"schedule": "step10", "milestones": [5, 3]}, r"milestones is \[5, 3\], but they must ascend"),
        ({"schedule": "step10", "milestones": [3, 3]}, r"milestones is \[3, 3\], but they must ascend"),
        ({"schedule": "step10", "milestones": [0]}, "milestones is 0: .*greater than 0"),
        ({"objective": "icasc-gradcan"}, "unknown objective 'icasc-gradcan': did you mean icasc-gradcam"),
        ({"variant": "se@icasx"}, "unknown objective 'icasx': did you mean icasc"),
        ({"variant": "se@icasc@icasc"}, "write one @ and one objective after it"),
        ({"objective": "icasc", "compile": True}, "compile is true with the objective icasc: .*leave compile out"),
        ({"objective": "icasc", "inner": "layer2"}, "inner is layer2 and last is None: name both layers, or neither"),
        ({"attention_weight": -1}, "attention_weight is -1: .*greater than or equal to 0"),
        ({"attention_weight": [1, 0]}, "attention_weight is "),
        ({"start_epoch": -1}, "start_epoch is -1"),
        ({"objective": "icasc", "start_epoch": 20, "epochs": 20}, "start_epoch is 20 with 20 epochs, so that"),
        ({"test_crops": 5}, "test_crops is 5: .*1 or 10"),
        ({"rows": [{"name": "a", "variant": "se@icasc", "objective": "icasc"}]}, "row a has its objective after @ and"),
        ({"model": "cifar_resnet9"}, "unknown model 'cifar_resnet9': did you mean cifar_resnet"),
        ({"variant": "see"}, "unknown attention layer 'see': did you mean se"),
        ({"limit": 1.5}, "limit is 1.5"),
        ({"limit": 0}, "limit is 0"),
        ({"seeds": [0, 0]}, "seed 0 is given twice"),
        ({"seeds": [-1]}, "seeds is -1"),
        ({"seeds": 0}, "no seed is given"),
        ({"rows": []}, "no row is given"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "row a is given twice"),
        ({"rows": [{"variant": "se"}]}, "has no name"),
        ({"rows": [{"name": "../up"}]}, "name is '../up'"),
        ({"rows": [{"name": "/top"}]}, "name is '/top'"),
        ({"augment": ["flop"]}, "unknown augmentation 'flop'"),
        ({"rows": "se"}, "a list called rows"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        recipes.read(written(tmp_path, MINE | change))


@pytest.mark.parametrize("content", ["rows: [", "just text", "- a\n- b\n", "\x00"])
def test_what_is_no_recipe_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"recipe .*mine.yaml"):
        recipes.read(written(tmp_path, content))


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean laakom2021/table1"):
        recipes.read("laakom/table1")


def test_compare_recipe_names_rows_by_their_variants():
    recipe = compare_recipe(["none", "SE-ign1(0.50)"], {"epochs": 4}, num_seeds=2, first_seed=5)
    assert [(row.name, row.settings.variant, row.settings.epochs) for row in recipe.rows] == [
        ("none", "none", 4),
        ("se-ign1(0.5)", "se-ign1(0.5)", 4),
    ]
    assert recipe.seeds == (5, 6)


def test_an_objective_after_the_variant_is_the_rows_alone(tmp_path):
    variants = ["none", "none@icasc", "SE @ icasc-gradcam++", "se@cross-entropy"]
    recipe = compare_recipe(variants, {"ramp": 2}, num_seeds=1, first_seed=0)
    assert [(row.name, row.settings.variant, row.settings.objective, row.settings.ramp) for row in recipe.rows] == [
        ("none", "none", "cross-entropy", 2),
        ("none@icasc", "none", "icasc", 2),
        ("se@icasc-gradcam++", "se", "icasc-gradcam++", 2),
        ("se@cross-entropy", "se", "cross-entropy", 2),
    ]
    shared = compare_recipe(["none", "se@cross-entropy"], {"objective": "icasc"}, num_seeds=1, first_seed=0)
    assert [row.settings.objective for row in shared.rows] == ["icasc", "cross-entropy"]
    own = recipes.read(written(tmp_path, MINE | {"rows": [{"name": "a", "variant": "se@icasc"}]}))
    assert (own.rows[0].settings.variant, own.rows[0].settings.objective) == ("se", "icasc")


def test_a_recipe_of_before_there_were_objectives_is_read_as_it_was_meant():
    plain = recipes.to_plain(compare_recipe(["none", "se"], {}, num_seeds=1, first_seed=0))
    added = ("objective", "milestones", "factors", "decay_all", "inner", "last", "attention_weight", "start_epoch",
             "ramp", "first_order", "train_per_class", "test_per_class", "test_crops")  # fmt: skip
    for row in plain["rows"]:
        for key in added:
            del row[key]
    again = recipes.from_plain(plain)
    assert again == compare_recipe(["none", "se"], {}, num_seeds=1, first_seed=0)


@pytest.mark.parametrize(
    ("variants", "seeds", "message"),
    [
        (["none", "se", "se-attend"], (1, 0), "row se is given twice"),
        ([], (1, 0), "no variant to train"),
        (["none"], (0, 0), "give at least 1 seed"),
        (["none"], (-2, 0), "give at least 1 seed"),
        (["none"], (2, -1), "a first seed from 0 on"),
    ],
)
def test_compare_recipe_refuses_what_cannot_be_compared(variants, seeds, message):
    with pytest.raises(InputError, match=message):
        compare_recipe(variants, {}, num_seeds=seeds[0], first_seed=seeds[1])


def test_plain_form_comes_back_as_the_same_recipe(tmp_path):
    recipe = recipes.read(written(tmp_path, MINE | {"limit": 0.5, "augment": ["flip"]}))
    again = recipes.from_plain(yaml.safe_load(yaml.safe_dump(recipes.to_plain(recipe))))
    assert again == recipe
    assert isinstance(again.rows[0].settings.limit, float)


def test_scaling_shrinks_epochs_and_images_and_says_so(tmp_path):
    recipe = recipes.read(written(tmp_path, MINE | {"epochs": 200}))
    small = recipes.scaled(recipe, 0.1)
    assert small.scale == 0.1
    assert small.rows[0].settings.epochs == 20
    assert small.rows[0].settings.limit == pytest.approx(0.1)
    assert small.rows[1].settings.epochs == 1  # of 9
    counted = {"schedule": "step10", "milestones": [81, 122], "start_epoch": 30, "ramp": 10, "train_per_class": 60}
    small = recipes.scaled(recipes.read(written(tmp_path, MINE | counted | {"epochs": 200})), 0.1).rows[0].settings
    assert (small.milestones, small.start_epoch, small.ramp, small.train_per_class) == ((8, 12), 3, 1, 6)
    smallest = recipes.scaled(recipes.read(written(tmp_path, MINE | counted | {"epochs": 40})), 0.01).rows[0].settings
    assert (smallest.epochs, smallest.start_epoch) == (1, 0)
    assert small.limit is None  # the number of images of each class says all
    limited = dataclasses.replace(recipe.rows[0], settings=dataclasses.replace(recipe.rows[0].settings, limit=500))
    assert recipes.scaled(dataclasses.replace(recipe, rows=(limited,)), 0.1).rows[0].settings.limit == 50
    for factor in (0, -1, 1.1):
        with pytest.raises(InputError, match="scale is"):
            recipes.scaled(recipe, factor)


def test_only_keeps_exact_names_or_parts_of_names(tmp_path):
    recipe = recipes.read(written(tmp_path, MINE | {"rows": [{"name": n} for n in ("a/se", "a/se-ign3", "b/se")]}))
    assert [row.name for row in recipes.only(recipe, ["a/se"]).rows] == ["a/se"]
    assert [row.name for row in recipes.only(recipe, ["a/"]).rows] == ["a/se", "a/se-ign3"]
    assert [row.name for row in recipes.only(recipe, ["b", "ign3"]).rows] == ["a/se-ign3", "b/se"]
    with pytest.raises(InputError, match="unknown row 'c/se'"):
        recipes.only(recipe, ["c/se"])


TWINS = ("_small", "_bccd", "_coco128", "_utd_mhad")
"""How recipes end that are small relatives of a paper's table, without its numbers."""


def test_every_shipped_recipe_is_read_and_opens_with_what_a_reader_needs():
    shipped = recipes.shipped()
    assert {"laakom2021/table1", "laakom2021/table2"} <= set(shipped)
    assert {f"wang2019/table{n}{kind}" for n in range(3, 9) for kind in ("", "_small")} <= set(shipped)
    jetley = ("cifar10", "cifar100", "svhn", "cub", "cifar10_small", "cub_small")
    assert {f"jetley2018/{name}" for name in jetley} <= set(shipped)
    assert {f"{table}{kind}" for table in ("laakom2021/table3", "zhu2021/table1") for kind in ("", "_small")} <= set(
        shipped
    )
    for name, path in shipped.items():
        recipe = recipes.read(name)
        head = path.read_text().split("\ntitle:")[0].lower()
        assert all(word in head for word in ("paper", "table", "command", "cost", "expected", "departures")), name
        assert recipe.paper == name.split("/")[0]
        for row in recipe.rows:
            parse(row.settings.variant)
            assert row.expected is None or not name.endswith(TWINS)
        assert any(row.expected for row in recipe.rows) or name.endswith(TWINS) or "recalled" in head
        for data in {row.settings.data for row in recipe.rows} & set(ELSEWHERE):
            assert f"--data {data}=folder" in head or f"--data {data}=file" in head


@pytest.mark.parametrize(("table", "layer"), [("laakom2021/table1", "se"), ("laakom2021/table2", "cbam")])
def test_the_tables_of_laakom_have_their_rows_and_settings(table, layer):
    recipe = recipes.read(table)
    assert len(recipe.rows) == 2 * 2 * 7
    variants = ["none", layer, *(f"{layer}-{gate}" for gate in ("ign1(1)", "ign1(0.5)", "ign1(0.8)", "ign2", "ign3"))]
    for model in ("cifar_resnet50", "cifar_densenet40"):
        for data in ("cifar10", "cifar100"):
            group = [r.settings for r in recipe.rows if (r.settings.model, r.settings.data) == (model, data)]
            assert [settings.variant for settings in group] == variants
    first = recipe.rows[0].settings
    assert first == Settings(
        variant="none", model="cifar_resnet50", data="cifar10", epochs=200, batch_size=128, learning_rate=0.1,
        momentum=0.9, weight_decay=1e-4, schedule="steps", augment=("flip", "shift"), val_fraction=0.2, reduction=8,
        convention="laakom-code",
    )  # fmt: skip
    best = next(row for row in recipe.rows if row.name == f"resnet50/cifar100/{layer}-ign3")
    assert best.expected["top1_error"] == {"se": (30.95, 0.08), "cbam": (30.88, 0.22)}[layer]
    assert best.expected["top5_error"] == {"se": (9.49, 0.36), "cbam": (9.38, 0.32)}[layer]


IMAGENET = {
    "none": (23.73, 6.85),
    "se": (22.70, 6.35), "se-ign1(1)": (22.60, 6.29), "se-ign1(0.5)": (23.03, 6.58), "se-ign1(0.8)": (22.88, 6.30),
    "se-ign2": (23.16, 6.55), "se-ign3": (22.59, 6.32),
    "cbam": (22.91, 6.58), "cbam-ign1(1)": (22.84, 6.50), "cbam-ign1(0.5)": (22.84, 6.52),
    "cbam-ign1(0.8)": (22.84, 6.40), "cbam-ign2": (23.02, 6.39), "cbam-ign3": (23.10, 6.44),
}  # fmt: skip
"""Table 3 of [L]: variant -> top-1 and top-5 error."""


def test_the_table_of_laakom_on_imagenet_has_its_rows_and_settings():
    rows = recipes.read("laakom2021/table3").rows
    assert {row.settings.variant: (row.expected["top1_error"], row.expected["top5_error"]) for row in rows} == IMAGENET
    assert [row.name for row in rows] == [row.settings.variant for row in rows] == list(IMAGENET)
    assert rows[0].settings == Settings(
        variant="none", model="resnet50", data="imagenet", image_size=224, epochs=90, batch_size=256,
        learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, schedule="step10", milestones=(30, 60, 80),
        augment=("flip", "crop"), val_fraction=0.02, reduction=8, convention="laakom-code",
    )  # fmt: skip
    assert [row.settings.variant for row in recipes.read("laakom2021/table3_small").rows] == list(IMAGENET)


def gains(**of_rows):
    """Return what [Z] prints for one network: variant -> points of top-1 error below the plain one, and top-5 error."""
    names = {"channel": "aw+cbam_channel", "mean": "aw+cbam_mean", "aw_se": "aw+se"}
    return {names.get(name, name): numbers for name, numbers in of_rows.items()}


# Sums of plain error and gain are the printed errors, as the paper's text says too: 1.18, 0.42, 0.57, 0.56, 0.19, 2.57.
ZHU = {
    "resnet50": (24.56, gains(none=(0, 7.50), aw=(1.18, 6.79), se=(1.42, 6.70), aw_se=(1.84, 6.47),
                              channel=(1.74, 6.41), mean=(1.36, 6.58))),
    "resnet101": (23.38, gains(none=(0, 6.88), aw=(1.00, 6.21), se=(1.03, 6.19), aw_se=(1.60, 5.74),
                               channel=(1.74, 5.76), mean=(1.06, 6.18))),
    "mobilenet": (31.39, gains(none=(0, 11.51), se=(1.42, 10.63), aw_se=(1.98, 10.59), cbam=(2.38, 9.99),
                               mean=(2.57, 9.98))),
}  # fmt: skip


def test_the_table_of_zhu_has_its_errors_and_the_settings_of_the_code_that_made_it():
    rows = recipes.read("zhu2021/table1").rows
    assert len(rows) == 6 + 6 + 5
    for network, (plain, printed) in ZHU.items():
        group = [row for row in rows if row.name.startswith(f"{network}/")]
        assert [row.name.split("/")[1] for row in group] == [row.settings.variant for row in group] == list(printed)
        found = {row.settings.variant: (row.expected["top1_error"], row.expected["top5_error"]) for row in group}
        for variant, (gain, top5) in printed.items():
            assert found[variant] == pytest.approx((plain - gain, top5), abs=1e-9)
    for model in ("resnet50", "resnet101", "mobilenetv1_100"):
        assert next(row.settings for row in rows if row.settings.model == model) == Settings(
            variant="none", model=model, data="imagenet", image_size=224, epochs=90, batch_size=256, learning_rate=0.1,
            momentum=0.9, weight_decay=1e-4, decay_all=True, schedule="step10", milestones=(30, 60),
            augment=("flip", "crop"), val_fraction=0.02, convention="cbam-code",
        )  # fmt: skip


def test_the_twin_of_zhu_has_the_rows_of_a_resnet_and_of_mobilenet():
    found = [(row.settings.model, row.name, row.settings.variant) for row in recipes.read("zhu2021/table1_small").rows]
    assert found == [
        (model, f"{network}/{variant}", variant)
        for network, model, table in (
            ("resnet26", "resnet26", "resnet50"),
            ("mobilenet", "mobilenetv1_100", "mobilenet"),
        )
        for variant in ZHU[table][1]
    ]


def test_data_from_elsewhere_replaces_the_name():
    recipe = recipes.with_data(recipes.read("laakom2021/table1"), ["cifar100=mine.npz"])
    assert {row.settings.data for row in recipe.rows} == {"cifar10", "mine.npz"}
    assert [row.settings.data for row in recipe.rows if "cifar100" in row.name] == 14 * ["mine.npz"]
    for wrong in ("cifar100", "cifar=x.npz", "=x"):
        with pytest.raises(InputError, match="write NAME=SOURCE, where NAME is one of cifar10"):
            recipes.with_data(recipes.read("laakom2021/table1"), [wrong])


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("table3", {"none": 81.70, "inner": 85.15, "inner+consistency": 85.77, "inner+last+consistency": 86.20}),
        ("table4", {"none": 72.78, "none@icasc-gradcam": 74.02, "none@icasc": 76.11}),
        ("table6", {"1-crop/none": 69.51, "1-crop/none@icasc": 69.90, "10-crops/none": 72.12,
                    "10-crops/none@icasc": 73.04}),
        ("table7", {"resnet50/none": 81.7, "resnet50/none@icasc": 86.2, "resnet101/none": 82.5,
                    "resnet101/none@icasc": 86.5}),
    ],
)  # fmt: skip
def test_the_tables_of_wang_have_the_papers_accuracies(table, expected):
    recipe = recipes.read(f"wang2019/{table}")
    found = {row.name: 100 - row.expected["top1_error"] for row in recipe.rows}
    assert found == pytest.approx(expected)
    assert {row.settings.objective for row in recipe.rows if row.name.endswith("none")} == {"cross-entropy"}


def test_the_settings_of_wang_are_those_of_its_tables_and_appendix():
    first = {n: recipes.read(f"wang2019/table{n}").rows[0].settings for n in range(3, 9)}
    found = {
        n: (s.epochs, s.batch_size, s.learning_rate, s.momentum, s.weight_decay, s.schedule, s.milestones)
        for n, s in first.items()
    }
    birds = (90, 10, 0.001, 0.9, 5e-4, "step10", (30, 60))
    assert found == {
        3: birds,
        4: (160, 128, 0.1, 0.9, 5e-4, "step10", (81, 122)),
        5: (20, 16, 0.01, 0.9, 1e-3, "annealed", ()),
        6: (90, 256, 0.1, 0.9, 1e-4, "step10", (30, 60)),
        7: birds,
        8: (20, 16, 0.01, 0.9, 1e-3, "annealed", ()),
    }
    assert [first[n].image_size for n in range(3, 9)] == [448, None, 299, 224, 448, 299]
    caltech = recipes.read("wang2019/table5").rows
    assert [(row.settings.model, row.settings.train_per_class) for row in caltech[::2]] == [
        ("resnet18", 30), ("resnet18", 60), ("vgg19", 30), ("vgg19", 60),
    ]  # fmt: skip
    assert {row.settings.test_per_class for row in caltech} == {25}
    assert [row.expected["map"] for row in recipes.read("wang2019/table8").rows] == [77.44, 82.12, 83.17]


HALVED = ("multiplied", tuple(range(25, 300, 25)), (0.5,), 300)
"""[J]'s schedule: the rate halves every 25 of 300 epochs."""


def rows_of_vgg(*errors):
    """Return the paper's errors by the names of rows: plain, averaged, the control, and attention in its order."""
    names = ("vgg", "vgg_gap", "vgg_att/none", "vgg_att/pay1-dp", "vgg_att/pay2-dp-indep", "vgg_att/pay2-dp",
             "vgg_att/pay1-pc", "vgg_att/pay2-pc", "vgg_att/pay3-pc")  # fmt: skip
    return dict(zip(names, errors, strict=True))


@pytest.mark.parametrize(
    ("table", "errors"),
    [
        ("cifar10", rows_of_vgg(7.77, 9.87, None, 6.14, 5.91, 5.86, 5.67, 5.23, 6.34)
            | {"resnet164": 6.03, "resnet164_att/none": None, "resnet164_att/pay2-pc": None}),
        ("cifar100", rows_of_vgg(30.62, 31.77, None, 24.22, 23.24, 24.01, 23.70, 23.19, 22.97)
            | {"resnet164": 25.34, "resnet164_att/none": None, "resnet164_att/pay2-pc": None}),
        ("svhn", {"vgg": 4.27, "vgg_gap": 5.84, "vgg_att/none": None, "vgg_att/pay2-pc": 3.74,
                  "vgg_att/pay3-pc": 3.52}),
        ("cub", {"vgg": 34.64, "vgg_gap": 29.50, "vgg_att/none": None, "vgg_att/pay2-pc": 26.80,
                 "vgg_att/pay3-pc": 26.95}),
    ],
)  # fmt: skip
def test_of_the_errors_of_jetley_only_those_count_that_were_read_and_the_others_stand_behind_the_rows(table, errors):
    recipe = recipes.read(f"jetley2018/{table}")
    told = {row.name: row.expected["top1_error"] for row in recipe.rows if row.expected}
    assert told == ({"vgg": 30.62, "vgg_att/pay3-pc": 22.97} if table == "cifar100" else {})
    text = recipes.shipped()[f"jetley2018/{table}"].read_text()
    recalled = dict(re.findall(r"- {name: (\S+),.*}  # recalled, not verified: ([\d.]+)", text))
    assert {name: float(error) for name, error in recalled.items()} | told == {
        name: error for name, error in errors.items() if error is not None
    }


def test_the_settings_of_jetley_are_those_of_its_code_in_the_terms_of_torch():
    for table, rate in (("cifar10", 0.1), ("cifar100", 0.1), ("svhn", 0.01), ("cub", 0.01)):
        vgg = [row.settings for row in recipes.read(f"jetley2018/{table}").rows if row.name.startswith("vgg")]
        for s in vgg:
            assert (s.learning_rate, s.momentum, s.nesterov) == (rate, 0.9, False)
            assert (s.weight_decay, s.decay_all, s.batch_size) == (5e-4, True, 128)
            assert s.augment == (() if table == "svhn" else ("flip",))
            assert table == "cub" or (s.schedule, s.milestones, s.factors, s.epochs) == HALVED
    birds = vgg[0]
    assert (birds.milestones, birds.factors) == (tuple(range(30, 301, 30)), (2, 2, *8 * [0.5]))
    assert (birds.epochs, birds.image_size) == (320, 80)
    assert {rate_factor(birds, epoch) for epoch in range(60, 90)} == {4}
    for table in ("cifar10", "cifar100"):
        for row in recipes.read(f"jetley2018/{table}").rows[-3:]:
            s = row.settings
            assert (s.learning_rate, s.nesterov, s.batch_size, s.schedule, s.epochs) == (0.1, True, 64, "steps", 200)
            assert (s.weight_decay, s.decay_all, s.augment) == (5e-4, True, ("flip", "shift"))
            assert [rate_factor(s, epoch) for epoch in (59, 60, 120, 160)] == pytest.approx([1, 0.2, 0.04, 0.008])


def test_data_that_does_not_come_with_heedful_is_asked_for(tmp_path):
    for name in ELSEWHERE:
        with pytest.raises(InputError, match=rf"data '{name}' does not come with heedful.* --data {name}=FOLDER"):
            load_data(Settings(data=name), 0)
    (tmp_path / "birds").mkdir()
    replaced = recipes.with_data(recipes.read("wang2019/table7"), [f"cub200={tmp_path / 'birds'}"])
    with pytest.raises(InputError, match="birds"):
        load_data(replaced.rows[0].settings, 0)  # it is looked into


DISTINCT = {"laakom2021": 26, "wang2019": 17, "jetley2018": 14, "zhu2021": 17}
"""Paper -> networks that its recipes train, at least."""


@pytest.mark.parametrize(("paper", "least"), DISTINCT.items())
def test_every_row_of_every_shipped_recipe_takes_a_step(paper, least):
    distinct = {
        (s.model, s.variant, s.reduction, s.convention, s.objective, s.inner, s.last, s.attention_weight)
        for name in recipes.shipped()
        for s in settings_of(name)
        if name.startswith(paper) and s.task == "classification"
    }
    assert len(distinct) >= least
    for model, variant, reduction, convention, objective, inner, last, weight in sorted(distinct, key=str):
        network = heedful.build(model, variant, num_classes=100, reduction=reduction, convention=convention)
        needed = 32 if model.startswith("cifar") else 64 if model.startswith("vgg") else 128  # for maps of 4 x 4
        size = 32 if objective == "cross-entropy" else needed
        images, labels = torch.randn(2, 3, size, size), torch.tensor([3, 99])
        settings = Settings(objective=objective, inner=inner, last=last, attention_weight=weight)
        learner = Classifier(network, attention=attention_losses(network, settings, images))
        module = Training(network, learner, settings, seed=0)
        loss = module.training_step((images, labels), 1)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


SHAPES = {"skeleton": (3, 32, 25), "inertial": (6, 128), "depth": (1, 12, 16, 16), "video": (3, 4, 32, 32)}
"""Stream -> a small clip."""


@pytest.mark.parametrize("table", ["laakom2021/table4", "laakom2021/table4_utd_mhad"])
def test_every_row_of_clips_takes_a_step(table):
    rows = recipes.read(table).rows
    assert len(rows) >= 8
    for s in (row.settings for row in rows):
        torch.manual_seed(0)
        network = build_streams(s.model, s.variant, num_classes=5, shapes=SHAPES, factor=s.factor, drop=s.drop)
        inputs = {name: torch.randn(2, *SHAPES[name]) for name in streams_of(s.model)}
        loss = Training(network, Classifier(network), s, seed=0).training_step((inputs, torch.tensor([1, 4])), 1)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("table", ["zhu2021/table2", "zhu2021/table2_bccd", "zhu2021/table2_coco128"])
def test_every_row_of_detection_takes_a_step(table):
    rows = recipes.read(table).rows
    more = {"table2": ["cbam", "aw+cbam"], "table2_bccd": [], "table2_coco128": []}[table.split("/")[1]]
    assert [row.settings.variant for row in rows] == ["none", "aw", "se", "aw+se", *more]
    target = {"boxes": torch.tensor([[4.0, 4, 30, 40]]), "labels": torch.tensor([2]), "crowd": torch.tensor([False])}
    for s in (row.settings for row in rows):
        torch.manual_seed(0)
        network = build_detector(s.model, s.variant, num_classes=3, image_size=48).train()
        batch = ([torch.rand(3, 48, 64)] * 2, [target] * 2)
        loss = Training(network, Detector(network), s, seed=0).training_step(batch, 1)
        loss.backward()
        assert torch.isfinite(loss)


def test_the_table_of_laakom_on_clips_has_the_papers_numbers():
    rows = {row.name: row for row in recipes.read("laakom2021/table4").rows}
    printed = {"mmtm": 89.98, "mmtm-ign1(1)": 89.99, "mmtm-ign1(0.5)": 90.52, "mmtm-ign1(0.8)": 88.70,
               "mmtm-ign2": 90.21, "mmtm-ign3": 90.36}  # fmt: skip
    assert {n: 100 - r.expected["top1_error"] for n, r in rows.items() if r.expected} == pytest.approx(printed)
    for name in printed:
        s = rows[name].settings
        assert (s.variant, s.epochs, s.batch_size, s.start_from) == (name, 10, 8, ("skeleton", "video"))


def test_the_table_of_zhu_on_coco_has_the_papers_numbers():
    printed = {"none": (37.13, 58.28, 40.29), "aw": (37.76, 59.17, 40.91), "se": (38.11, 59.41, 41.33),
               "aw+se": (38.45, 59.70, 41.86), "cbam": (37.74, 58.84, 40.77),
               "aw+cbam": (38.19, 59.52, 41.43)}  # fmt: skip
    rows = recipes.read("zhu2021/table2").rows
    found = {row.settings.variant: tuple(row.expected[key] for key in ("map", "map50", "map75")) for row in rows}
    assert found == printed
    first = rows[0].settings
    assert (first.model, first.pretrained, first.warmup) == ("fasterrcnn_resnet101_fpn", True, 1000)


def test_every_paper_with_recipes_is_among_those():
    assert {name.split("/")[0] for name in recipes.shipped()} == set(DISTINCT)


def settings_of(name):
    return [row.settings for row in recipes.read(name).rows]
