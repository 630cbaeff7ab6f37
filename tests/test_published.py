"""Numbers in the README come from committed result files."""

import json
import re
import statistics
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


def test_the_cost_of_maps_and_icasc_is_that_of_the_committed_benchmarks():
    maps = json.loads((RESULTS / "maps.json").read_text())["ratios"]
    page = (ROOT / "docs" / "maps.md").read_text()
    for name in maps["flops"].keys() - {"forward", "forward and backward"}:
        numbers = f"{maps['flops'][name]:.3f} | {maps['seconds'][name]:.3f} | {maps['memory_to_forward'][name]:.2f}"
        assert f"| {name} | {numbers} |" in page
        if "5 classes" in name:
            assert f"{maps['seconds'][name]:.3f}" in README
            assert f"{maps['memory_to_forward'][name]:.2f}" in README
    icasc = json.loads((RESULTS / "icasc.json").read_text())["ratios"]
    page = (ROOT / "docs" / "icasc.md").read_text()
    for name in icasc["resnet50 flops"].keys() - {"plain"}:
        keys = [f"{network} {kind}" for network in ("resnet18", "resnet50") for kind in ("flops", "seconds", "saved")]
        assert f"| {name} | {' | '.join(f'{icasc[key][name]:.3f}' for key in keys)} |" in page
    for name in ("heedful", "heedful first order", "captum"):
        assert f"{icasc['resnet50 seconds'][name]:.3f}" in README


def test_the_evidence_on_icasc_is_that_of_the_committed_results():
    page, folder = (ROOT / "docs" / "icasc.md").read_text(), ROOT / "results" / "icasc_tiny_imagenet"
    maps = json.loads((folder / "maps.json").read_text())
    for row in ("none", "none@icasc", "none@icasc-gradcam", "none@icasc-weight-0.1"):
        found = [maps[f"runs/{row}/seed-{seed}"] for seed in range(3)]
        results = [json.loads((folder / f"runs/{row}/seed-{seed}/result.json").read_text()) for seed in range(3)]
        cells = [told([result["metrics"]["test_error"] for result in results], 2)]
        cells += [
            told([n["overlap"] for n in found], 3),
            told([100 * n["zero_maps"] / n["num_images"] for n in found], 1),
        ]
        for name in ("pxap", "max_box_acc", "pointing_0px", "energy"):
            cells.append(told([n["localisation"][name] for n in found], 3))
        assert f"| {row} | {' | '.join(cells)} |" in page


def told(values, digits):
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def test_no_committed_result_names_a_path_of_a_machine():
    for path in [*(ROOT / "results").rglob("*.json"), *(ROOT / "benchmarks").rglob("*.json")]:
        assert not re.search(r'"/|/(home|root|work|tmp)/', path.read_text()), path


def test_the_cost_of_paying_attention_is_that_of_the_committed_benchmark():
    ratios = json.loads((RESULTS / "pay_attention.json").read_text())["ratios"]
    page = (ROOT / "docs" / "pay_attention.md").read_text()
    for name in ratios["training"].keys() - {"none"}:
        label = "the trunk again (control)" if name == "none again" else f"`{name}`"
        cells = [f"{ratios[phase][name]:.3f}" for phase in ("training", "inference", "saved")]
        assert f"| {label} | {' | '.join(cells)} |" in page
    assert f"`pay2-pc` takes {ratios['training']['pay2-pc']:.3f} of its trunk's time" in README


def test_what_attention_brought_is_that_of_the_committed_results():
    folder = ROOT / "results" / "jetley_cifar10_small"
    pages = {
        name: (ROOT / "docs" / f"{name}.md").read_text()
        for name in ("pay_attention", "robustness", "segmentation", "transfer")
    }
    for row, label in {
        "none": "none",
        "pay2-pc": "pay2-pc",
        "pay2-dp": "pay2-dp",
        "pay2-pc-ign1": "pay2-pc-ign1(0.5)",
    }.items():
        runs = [folder / f"runs/{row}/seed-{seed}" for seed in range(3)]
        result, attacks, figures, art = (
            [json.loads((run / f"{name}.json").read_text()) for run in runs]
            for name in ("result", "robustness", "segmentation-horses", "transfer-pacs")
        )
        jaccard = {
            name: told([100 * each["scores"][name]["jaccard"] for each in figures], 1) for name in figures[0]["scores"]
        }
        masks = jaccard.get("masks", "—")
        accuracy = told([each["accuracy"] for each in art], 1)
        corrupted = told([each["corruption_error"] for each in attacks], 1)
        fooled = [told([each[attack]["fooling_rates"][1] for each in attacks], 1) for attack in ("fgsm", "pgd")]
        errors = [told([each[a]["errors"][i] for each in attacks], 1) for a in ("fgsm", "pgd") for i in (1, 4)]
        clean = told([each["clean_error"] for each in attacks], 1)
        cells = [told([each["metrics"]["test_error"] for each in result], 2), accuracy, *fooled, corrupted, masks]
        assert f"| `{label}` | {' | '.join(cells)} | {jaccard['grad-cam']} |" in pages["pay_attention"]
        assert f"| `{label}` | 3 | {clean} | {' | '.join(errors)} | {corrupted} |" in pages["robustness"]
        assert f"| {masks} | {jaccard['grad-cam']} | {jaccard['centre_gaussian']} |" in pages["segmentation"]
        assert f"`{label}`, CIFAR-10, three seeds | PACS in small, new domain | {accuracy} (" in pages["transfer"]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("laakom2021_table4_utd_mhad", "streams"),
        ("zhu2021_table2_bccd", "detection"),
        ("zhu2021_table2_coco128", "detection"),
    ],
)
def test_the_tables_of_clips_and_boxes_are_those_of_the_committed_results(name, page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for group in read(ROOT / "results" / name).groups:
        assert as_markdown(compare(group)).strip() in text


def test_the_cost_of_attention_in_an_fpn_is_that_of_the_committed_benchmark():
    ratios = json.loads((RESULTS / "fpn_attention.json").read_text())["ratios"]
    text = (ROOT / "docs" / "detection.md").read_text()
    for name in ratios["saved"].keys() - {"plain"}:
        numbers = " | ".join(f"{ratios[phase][name]:.3f}" for phase in ("training", "inference", "saved"))
        assert f"| {name} | {numbers} |" in text
