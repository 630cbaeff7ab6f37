"""A made-up experiment, written as training and evaluation write it: numbers, curves and pictures that look real."""

import csv
import json

import numpy as np
import yaml

CLASSES = ["aeroplane", "bird", "cat", "deer", "dog", "frog"]
ENVIRONMENT = {
    "heedful": "0.1.0",
    "commit": "0123abc",
    "python": "3.11.9",
    "torch": "2.9.1",
    "timm": "1.0.22",
    "lightning": "2.5.6",
    "device": "cpu, Made-up 9000",
    "threads": 2,
    "platform": "Linux",
}


def recipe_row(variant, *, name=None, model="cifar_resnet8", data="digits", expected=None, **settings):
    """One row of recipe.yaml."""
    return {
        "name": name or f"{model}/{data}/{variant}",
        "variant": variant,
        "model": model,
        "data": data,
        "epochs": 20,
        "batch_size": 128,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "steps",
        "augment": ["shift-zero"],
        "image_size": None,
        "limit": None,
        "expected": expected,
        **settings,
    }


def write_recipe(folder, rows, seeds, **others):
    """Write recipe.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"title": "Made-up comparison", "paper": None, "scale": 1.0, "seeds": seeds, "rows": rows, **others}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), encoding="utf-8")


def run_folder(folder, row, seed):
    """Where a run of a row leaves its files."""
    return folder / "runs" / row["name"] / f"seed-{seed}"


def write_run(folder, row, seed, error, *, classes=CLASSES, pictures=True, environment=ENVIRONMENT):
    """Write everything that a finished run leaves."""
    run = run_folder(folder, row, seed)
    run.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, len(row["variant"])])
    write_curves(run, row["epochs"], error, generator)
    if pictures:
        write_pictures(run, row["variant"], seed, len(classes), generator)
    slower = 1.0 if row["variant"] == "none" else 1.13 if row["variant"].startswith("se") else 1.41
    result = {
        "row": row["name"],
        "seed": seed,
        "settings": {key: value for key, value in row.items() if key not in ("name", "expected")},
        "scale": 1.0,
        "metrics": {
            "test_error": error,
            "test_top5_error": error / 7 if len(classes) > 5 else None,
            "test_loss": error / 30,
            "val_error": error * 1.02,
            "val_loss": error / 29,
            "best_epoch": row["epochs"] - 1,
        },
        "cost": {
            "parameters": 75_290 + 688 * (row["variant"] != "none"),
            "flops": 24_600_000 + 12_345 * (row["variant"] != "none"),
            "train_seconds": 31.25 * slower,
            "epoch_seconds": 1.5 * slower * generator.uniform(0.98, 1.02),
            "inference_seconds": 0.0004 * (0.3 + 0.7 * slower),
        },
        "data": {
            "name": row["data"],
            "classes": classes,
            "train_images": 1437,
            "val_images": 180,
            "test_images": 180,
            "skipped_images": [],
            "fingerprint": "f00d",
        },
        "environment": environment,
    }
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")


def write_failure(folder, row, seed):
    """Write what a run leaves whose loss became NaN."""
    run = run_folder(folder, row, seed)
    run.mkdir(parents=True, exist_ok=True)
    failure = {"row": row["name"], "seed": seed, "settings": {}, "message": "the loss became nan at epoch 3, step 41"}
    (run / "failure.json").write_text(json.dumps(failure), encoding="utf-8")


def write_curves(run, epochs, error, generator):
    """Write metrics.csv: falling curves with steps of the learning rate."""
    header = ["epoch", "learning_rate", "train_loss", "train_error", "val_loss", "val_error", "seconds"]
    with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for epoch in range(1, epochs + 1):
            rate = 0.1 * 0.2 ** sum(epoch > epochs * part for part in (0.3, 0.6, 0.8))
            rest = np.exp(-4 * epoch / epochs) + rate * generator.uniform(0, 0.6)
            val_error = error + (89 - error) * rest
            train_error = 0.6 * error + (85 - error) * rest
            losses = [train_error / 35, val_error / 30 + 0.05 * generator.random()]
            writer.writerow([epoch, rate, losses[0], train_error, losses[1], val_error, 1.5])


def write_pictures(run, variant, seed, num_classes, generator, num_images=6, size=32):
    """Write evidence.npz: bright discs on a slanted background, maps about the discs, masks about them for cbam."""
    shared = np.random.default_rng(seed)
    centres = shared.uniform(0.25, 0.75, (num_images, 2))
    labels = shared.integers(0, num_classes, num_images)
    y, x = np.mgrid[0:size, 0:size] / size
    distance = np.hypot(y - centres[:, 0, None, None], x - centres[:, 1, None, None])
    background = shared.uniform(30, 150, (num_images, 1, 1, 3)) * (0.5 + x * y)[None, :, :, None]
    disc = (distance < 0.2)[..., None] * shared.uniform(80, 200, (num_images, 1, 1, 3))
    images = np.clip(background + disc + shared.normal(0, 4, disc.shape), 0, 255).astype(np.uint8)
    coarse = distance[:, 2::4, 2::4] + generator.normal(0, 0.03, (num_images, 8, 8))
    wrong = generator.random(num_images) < 0.25
    layer, _, gate = variant.partition("-")
    gates, kinds, histograms, spatial = [], [], [], {}
    low = {"ign2": 0.731, "ign1(0.5)": 0.5}.get(gate, 0.0)
    for depth in range(3 if layer in ("se", "cbam") else 0):
        name = f"layer{depth + 1}.0.attention"
        for kind in ["channel", "spatial"] if layer == "cbam" else ["channel"]:
            gates.append(f"{name}.{kind}" if layer == "cbam" else name)
            kinds.append(kind)
            weights = low + (1 - low) * generator.beta(6 - depth, 5 + depth, 4000)
            histograms.append(np.histogram(weights, 100, (0, 1))[0])
            if kind == "spatial":
                mask = 0.5 + 0.04 * (depth + 1) * np.exp(-6 * distance[:, :: 2**depth, :: 2**depth])
                spatial[f"spatial/{gates[-1]}"] = mask.astype(np.float16)
    np.savez_compressed(
        run / "evidence.npz",
        images=images,
        labels=labels,
        predictions=np.where(wrong, (labels + 1) % num_classes, labels),
        probabilities=np.where(wrong, 0.2, generator.uniform(0.6, 1, num_images)).astype(np.float32),
        layer=np.array("layer3"),
        maps=np.maximum(3 * np.exp(-8 * coarse) - 0.2, 0).astype(np.float16),
        gates=np.array(gates, dtype=str),
        kinds=np.array(kinds, dtype=str),
        histograms=np.array(histograms, dtype=np.int64).reshape(-1, 100),
        **spatial,
    )


def write_experiment(folder, **others):
    """Two groups, five seeds: se-ign3 is better, cbam-ign1 worse; one run failed, and two are not done."""
    variants = {"none": 0.0, "se": -0.2, "se-ign3": -1.1, "cbam": 0.1, "cbam-ign1(0.5)": 0.9}
    rows = [recipe_row(variant, expected={"top1_error": [6.1, 0.2]}) for variant in variants]
    rows += [recipe_row("none", model="cifar_densenet40"), recipe_row("se-ign2", model="cifar_densenet40")]
    write_recipe(folder, rows, [0, 1, 2, 3, 4], **others)
    noise = np.random.default_rng(7).normal(0, 0.2, (len(rows), 5))
    for i, row in enumerate(rows):
        shift = list(variants.values())[i] if i < 5 else -0.05 * i
        for seed in range(5):
            if (i, seed) == (3, 3):
                write_failure(folder, row, seed)
            elif (i, seed) not in ((1, 4), (5, 0)):
                write_run(folder, row, seed, round(6.0 + 0.3 * np.sin(seed) + shift + noise[i, seed], 2))
    return folder


def write_evaluation(folder, row, seed, headlines, *, protocol="robustness", data="digits", source="", **others):
    """Write what `heedful evaluate` leaves in a run's folder: headlines are (name, value, unit, better)."""
    stem = f"{protocol}-{source}" if source else protocol
    content = {
        "run": f"{row['name']}/seed-{seed}", "data": data, "num_images": 179, "protocol": protocol, "source": None,
        "options": {"limit": None, "epsilons": [0.0, 8 / 255], "steps": 20, "corruptions": False},
        "headlines": [dict(zip(("name", "value", "unit", "better"), each, strict=True)) for each in headlines],
        "curves": [], "pictures": {}, "heedful": "0.1.0", **others,
    }  # fmt: skip
    path = run_folder(folder, row, seed) / f"{stem}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def made_up_curves(*values, title="Error under attack"):
    """Curves over ε of two attacks, the second twice the first."""
    lines = {"FGSM": list(values), "PGD-20": [2 * value for value in values]}
    return [{"title": title, "x_name": "ε, in 255ths", "y_name": "error, %", "x": list(range(len(values))),
             "lines": lines}]  # fmt: skip
