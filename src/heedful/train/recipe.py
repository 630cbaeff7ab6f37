"""A recipe: shared settings and named rows, read from one flat YAML file or written on the command line."""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from heedful import variant
from heedful.errors import InputError, unknown
from heedful.train.settings import SETTINGS, Settings, check, shrunk
from heedful.train.tasks import TASKS

Expected = Literal["top1_error", "top5_error", "map", "map50", "map75", "auc"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Row:
    """One row of a table: its settings under a name, and the paper's numbers for it.

    Args:
        name: unique in the recipe; it is also the folder of its runs, so it may hold `/`.
        settings: shared settings with the row's own put over them.
        expected: the paper's numbers, each a mean, or mean and deviation: `top1_error`, `top5_error` and `map`, mean
            average precision, in percent, of detection with `map50` and `map75`; `auc` in [0, 1].
    """

    name: Annotated[str, Field(pattern=r"^\w[\w().+@-]*(/\w[\w().+@-]*)*$")]
    settings: Settings
    expected: dict[Expected, float | tuple[float, float]] | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Rows, each of which is trained with every seed.

    Args:
        title: what the table shows.
        paper: short name of the paper whose table this is, or None.
        seeds: non-negative, different.
        rows: at least one, with different names.
        scale: less than 1 where epochs and images were shrunk; everything made from it says so.
        command: that which made the experiment, for its report; it decides nothing.
    """

    title: str
    paper: str | None = None
    seeds: tuple[Annotated[int, Field(ge=0)], ...]
    rows: tuple[Row, ...]
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    command: str | None = dataclasses.field(default=None, compare=False)


def compare_recipe(variants: Iterable[str], settings: Mapping[str, Any], *, num_seeds: int, first_seed: int) -> Recipe:
    """Return the recipe that compares variants under the same settings and seeds: what `heedful compare` runs.

    Args:
        variants: in the notation, each with its objective after an `@` where it has one, as in `se@icasc`; the first is
            what the others are compared to.
        settings: fields of `Settings`, less the variant.
        num_seeds: at least 1.
        first_seed: at least 0; the seeds follow on from it.

    Raises:
        InputError: for an unknown or repeated variant, a setting out of its range, or no seed.
    """
    if num_seeds < 1 or first_seed < 0:
        raise InputError(
            f"seeds={num_seeds}, first seed {first_seed}: give at least 1 seed, and a first seed from 0 on"
        )
    names = [_name(text) for text in variants]
    if not names:
        raise InputError("no variant to train: name at least one, for example none se se-ign3")
    rows = [{"name": name, "variant": name} for name in names]
    title = f"{', '.join(names)}: {settings.get('model', Settings.model)} on {settings.get('data', Settings.data)}"
    return _recipe({"title": title, "seeds": range(first_seed, first_seed + num_seeds), "rows": rows, **settings})


def shipped() -> dict[str, Path]:
    """Return the recipes that come with heedful: name, such as laakom2021/table1, -> file."""
    root = Path(str(resources.files("heedful") / "recipes"))
    return {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.glob("*/*.yaml"))}


def read(source: str) -> Recipe:
    """Return the recipe of a shipped name, such as laakom2021/table1, or of a YAML file.

    Raises:
        InputError: if there is none, it is no YAML, or a key or value is wrong: the message names it.
    """
    path = shipped().get(source, Path(source))
    if not path.is_file():
        raise unknown("recipe", source, shipped())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {source}: this is no YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise InputError(f"recipe {source}: it must hold settings and a list called rows, as the shipped ones do")
    return _recipe(content)


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """Return the recipe with epochs and images outside the test splits multiplied by the factor, in (0, 1].

    Raises:
        InputError: if the factor is outside (0, 1].
    """
    if not 0 < factor <= 1:
        raise InputError(f"scale is {factor}, but it must be in (0, 1], for example 0.1")
    rows = tuple(dataclasses.replace(row, settings=shrunk(row.settings, factor)) for row in recipe.rows)
    return dataclasses.replace(recipe, rows=rows, scale=recipe.scale * factor)


def only(recipe: Recipe, patterns: Iterable[str]) -> Recipe:
    """Return the recipe with those rows alone whose name is, or contains, one of the patterns.

    Raises:
        InputError: if a pattern fits no row.
    """
    kept: set[str] = set()
    for pattern in patterns:
        exact = {row.name for row in recipe.rows if row.name == pattern}
        found = exact or {row.name for row in recipe.rows if pattern in row.name}
        if not found:
            raise unknown("row", pattern, [row.name for row in recipe.rows])
        kept |= found
    return dataclasses.replace(recipe, rows=tuple(row for row in recipe.rows if row.name in kept))


def with_seeds(recipe: Recipe, num_seeds: int) -> Recipe:
    """Return the recipe with the seeds 0, 1, ... of that number.

    Raises:
        InputError: if the number is less than 1.
    """
    if num_seeds < 1:
        raise InputError(f"seeds is {num_seeds}, but at least 1 is needed")
    return dataclasses.replace(recipe, seeds=tuple(range(num_seeds)))


def with_data(recipe: Recipe, replacements: Iterable[str]) -> Recipe:
    """Return the recipe with data taken from elsewhere, each replacement written NAME=SOURCE, e.g. cifar100=my.npz.

    Raises:
        InputError: if a replacement is not so written, or no row uses the name.
    """
    for replacement in replacements:
        name, _, source = replacement.partition("=")
        names = sorted({row.settings.data for row in recipe.rows})
        if not source or name not in names:
            raise InputError(f"data {replacement!r}: write NAME=SOURCE, where NAME is one of {', '.join(names)}")
        settings = (
            dataclasses.replace(row.settings, data=source) if row.settings.data == name else row.settings
            for row in recipe.rows
        )
        rows = tuple(dataclasses.replace(row, settings=new) for row, new in zip(recipe.rows, settings, strict=True))
        recipe = dataclasses.replace(recipe, rows=rows)
    return recipe


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain lists, dicts and numbers: every row with all its settings."""
    plain: dict[str, Any] = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    for row in plain["rows"]:
        row |= row.pop("settings")
    return plain


def from_plain(content: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `to_plain` gave, without checking that its models and data still exist."""
    return _recipe(content, must_exist=False)


def _recipe(content: Mapping[str, Any], *, must_exist: bool = True) -> Recipe:
    head = ("title", "paper", "scale", "command", "seeds", "rows")
    shared = {key: value for key, value in content.items() if key not in head}
    rows = [_row(shared, row) for row in content["rows"]]
    seeds = content.get("seeds", 3)
    fields = {key: content[key] for key in head[:4] if key in content}
    fields |= {"rows": rows, "seeds": range(seeds) if isinstance(seeds, int) else seeds}
    recipe = _validated(Recipe, {"title": "untitled", **fields})
    _require_different([row.name for row in recipe.rows], "row")
    _require_different([str(seed) for seed in recipe.seeds], "seed")
    if must_exist:
        for row in recipe.rows:
            TASKS[row.settings.task].check_names(row.settings)
            check(row.settings)
        _check_sources(recipe.rows)
    return recipe


def _row(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    extra = ("name", "expected")
    if not isinstance(own, Mapping) or "name" not in own:
        raise InputError(f"recipe: row {own!r} has no name; write - {{name: ..., variant: ...}}")
    settings = {**shared, **{key: value for key, value in own.items() if key not in extra}}
    for key in settings:
        if key not in SETTINGS:
            raise unknown("setting", key, SETTINGS, where="recipe: ")
    if "@" in str(settings.get("variant")):
        if "objective" in own:
            raise InputError(f"recipe: row {own['name']} has its objective after @ and by name: give it once")
        settings["variant"], settings["objective"] = variant.split_objective(settings["variant"])
    return {"settings": settings, **{key: own[key] for key in extra if key in own}}


def _check_sources(rows: tuple[Row, ...]) -> None:
    """Raise an InputError unless the rows that others start from stand before them, and their networks fit."""
    for place, row in enumerate(rows):
        earlier = {each.name: each.settings for each in rows[:place]}
        where = f"row {row.name}, start_from: "
        for name in row.settings.start_from:
            if name not in earlier:
                raise unknown("row to start from", name, earlier, where=where)
            _check_source(row.settings, earlier[name], f"{where}{name}")
        if networks := [earlier[name].model for name in row.settings.start_from]:
            _require_different(networks, f"{where}model")


def _check_source(settings: Settings, source: Settings, where: str) -> None:
    """Raise an InputError unless a row can begin with the network of another, which has seen none of its test clips."""
    networks = settings.model.split("+")
    if source.model not in networks:
        raise InputError(f"{where} trains {source.model}, but must train one of {', '.join(networks)} alone")
    if source.start_from:
        raise InputError(f"{where} itself starts from {', '.join(source.start_from)}: name a row that starts anew")
    for key in ("data", "benchmark", "val_fraction"):
        here, there = getattr(settings, key), getattr(source, key)
        if here != there:
            raise InputError(
                f"{where} has {key} {there}, the row {here}: give both the same, or clips that it is chosen or tested "
                "by would have been trained on"
            )


def _name(text: str) -> str:
    layers, objective = variant.split_objective(text)
    name = str(variant.parse(layers))
    return name if objective is None else f"{name}@{objective}"


def _validated(kind: type[Recipe], fields: Mapping[str, Any]) -> Recipe:
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        known = (*SETTINGS, "name", "expected", "title", "paper", "scale", "command", "seeds")
        name = next((part for part in reversed(first["loc"]) if part in known), "recipe")
        raise InputError(f"{name} is {first['input']!r}: {first['msg']}") from None


def _require_different(names: list[str], what: str) -> None:
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InputError(f"{what} {', '.join(sorted(repeated))} is given twice: each may stand only once")
    if not names:
        raise InputError(f"no {what} is given: give at least one")
