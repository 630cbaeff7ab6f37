"""Numbers in the README come from committed result files."""

import json
import re
from pathlib import Path

import pytest

from heedful.report import read
from heedful.report.formats import as_markdown
from heedful.report.tables import compare

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_that_of_the_committed_results():
    (group,) = read(ROOT / "results" / "digits").groups
    assert as_markdown(compare(group)).strip() in README


@pytest.mark.parametrize("name", ["attention_layers", "augmentation", "training_loop"])
def test_speeds_are_those_of_the_committed_benchmarks(name):
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert result["versions"]
    assert result["hardware"]
    for ratio in result["ratios"].values():
        assert re.search(rf"(?<![\d.]){ratio:.2f}(?!\d)", README), ratio


def test_overheads_are_those_of_the_committed_benchmark():
    ratios = json.loads((ROOT / "benchmarks" / "results" / "attention_overhead.json").read_text())["ratios"]
    for name in ratios["training"]:
        if name != "plain":
            row = " | ".join(f"{ratios[phase][name]:.3f}" for phase in ("training", "inference", "saved"))
            assert f"| {name} | {row} |" in README


def test_no_committed_result_names_a_path_of_a_machine():
    for path in [*(ROOT / "results").rglob("*.json"), *(ROOT / "benchmarks").rglob("*.json")]:
        assert not re.search(r'"/|/(home|root|work|tmp)/', path.read_text()), path
