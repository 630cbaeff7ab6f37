"""Imports run one way, in the order that DESIGN gives; and what is heavy is imported late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "heedful"
ORDER = [
    "errors", "files", "temporary", "gates", "layers", "surgery", "variant", "attachment", "models", "maps", "losses",
    "data", "evaluate", "train", "export", "statistics", "report", "experiment", "explain", "progress", "cli",
    "__main__",
]  # fmt: skip
"""A module imports only from those before it."""
HEAVY = {"timm", "lightning", "scipy", "matplotlib", "sklearn", "skimage", "torchvision", "pydantic"}
MODULES = sorted(path for path in SOURCE.rglob("*.py"))


def part_of(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    """Return the dotted names that a file imports anywhere, less those for type checking alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_part_stands_in_the_order():
    assert {part_of(path) for path in MODULES} - {"__init__"} == set(ORDER)
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "heedful" and rest:
            imported = rest.split(".")[0]
            assert ORDER.index(imported) <= ORDER.index(part), f"{path.name} imports {name}"
        if top in ("lightning", "pytorch_lightning"):
            assert part == "train", f"{path.name} imports {name}"
        if part in ("report", "statistics"):
            assert top not in ("torch", "timm"), f"{path.name} imports {name}: a report runs no model"
            assert not name.startswith(("heedful.train", "heedful.models", "heedful.evaluate")), name


@pytest.mark.parametrize(
    ("statement", "late"),
    [
        ("import heedful", {*HEAVY, "typer"}),
        ("import heedful.cli", {*HEAVY, "torch"}),
    ],
)
def test_what_is_heavy_is_imported_late(statement, late):
    script = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not late & set(loaded)


def test_every_public_name_is_there():
    import heedful

    for name in heedful.__all__:
        assert getattr(heedful, name) is not None
    assert set(heedful.__all__) <= set(dir(heedful))
    with pytest.raises(AttributeError, match="no attribute 'atend'"):
        _ = heedful.atend


def test_one_version():
    from importlib.metadata import version

    import heedful

    assert version("heedful") == heedful.__version__
