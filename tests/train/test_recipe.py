import dataclasses

import pytest
import torch
import yaml

import heedful
from heedful import InputError, parse
from heedful.train import recipe as recipes
from heedful.train.recipe import Settings, compare_recipe


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
        ({"schedule": "step"}, "schedule is 'step': .*'steps' or 'cosine'"),
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


def test_every_shipped_recipe_is_read_and_opens_with_what_a_reader_needs():
    shipped = recipes.shipped()
    assert {"laakom2021/table1", "laakom2021/table2"} <= set(shipped)
    for name, path in shipped.items():
        recipe = recipes.read(name)
        head = path.read_text().split("\ntitle:")[0].lower()
        assert all(word in head for word in ("paper", "table", "command", "cost", "expected", "departures")), name
        assert recipe.paper == name.split("/")[0]
        for row in recipe.rows:
            parse(row.settings.variant)
            assert row.expected is not None


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


def test_data_from_elsewhere_replaces_the_name():
    recipe = recipes.with_data(recipes.read("laakom2021/table1"), ["cifar100=mine.npz"])
    assert {row.settings.data for row in recipe.rows} == {"cifar10", "mine.npz"}
    assert [row.settings.data for row in recipe.rows if "cifar100" in row.name] == 14 * ["mine.npz"]
    for wrong in ("cifar100", "cifar=x.npz", "=x"):
        with pytest.raises(InputError, match="write NAME=SOURCE, where NAME is one of cifar10"):
            recipes.with_data(recipes.read("laakom2021/table1"), [wrong])


def test_every_row_of_every_shipped_recipe_takes_a_step():
    distinct = {
        (s.model, s.variant, s.reduction, s.convention) for name in recipes.shipped() for s in settings_of(name)
    }
    assert len(distinct) >= 26
    for model, variant, reduction, convention in sorted(distinct):
        network = heedful.build(model, variant, num_classes=100, reduction=reduction, convention=convention)
        loss = torch.nn.functional.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([3, 99]))
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def settings_of(name):
    return [row.settings for row in recipes.read(name).rows]
