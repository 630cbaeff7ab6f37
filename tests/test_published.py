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
METHODS = (ROOT / "docs" / "methods.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def test_the_table_is_that_of_the_committed_results():
    (group,) = read(ROOT / "results" / "digits").groups
    assert as_markdown(compare(group)).strip() in README


@pytest.mark.parametrize("name", ["attention_layers", "augmentation", "training_loop"])
def test_speeds_are_those_of_the_committed_benchmarks(name):
    result = json.loads((RESULTS / f"{name}.json").read_text())
    assert result["versions"]
    assert result["hardware"]
    for ratio in result["ratios"].values():
        assert re.search(rf"(?<![\d.]){ratio:.2f}(?!\d)", README), ratio


def test_cbams_worst_shape_is_told():
    by_shape = json.loads((RESULTS / "attention_layers.json").read_text())["ratios_by_shape"]
    assert f"CBAM's worst shape is at {max(by_shape['CBAM / timm CbamModule'].values()):.2f}" in README


def test_overheads_are_those_of_the_committed_benchmark():
    eager, compiled = (
        json.loads((RESULTS / f"attention_overhead{name}.json").read_text())["ratios"] for name in ("", "_compiled")
    )
    for name in eager["training"].keys() - {"plain"}:
        row = f"| {name} | " + " | ".join(f"{eager[phase][name]:.3f}" for phase in ("training", "inference", "saved"))
        of_compiled = [f"{compiled[p][name]:.3f}" if name in compiled[p] else "–" for p in ("training", "inference")]
        assert " | ".join([row, *of_compiled]) in METHODS
    told = re.findall(r"^\| ((?:heedful|timm|naive) .+?) \| ([\d.]+ \| [\d.]+ \| [\d.]+) \|$", README, re.MULTILINE)
    assert len(told) > 5
    for name, numbers in told:
        assert numbers == " | ".join(f"{eager[phase][name]:.3f}" for phase in ("training", "inference", "saved"))


def test_no_committed_result_names_a_path_of_a_machine():
    for path in [*(ROOT / "results").rglob("*.json"), *(ROOT / "benchmarks").rglob("*.json")]:
        assert not re.search(r'"/|/(home|root|work|tmp)/', path.read_text()), path
