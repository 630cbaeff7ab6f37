"""What a network's features are worth on other data: a linear machine on top of them, after [J].

[J] is Jetley et al., "Learn to pay attention", ICLR 2018: it takes the attended vectors of networks trained on CIFAR to
other data sets. Its splits and its C are not known; docs/transfer.md says what is done here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from heedful import data
from heedful.data.class_folders import entries
from heedful.data.dataset import ImageArray, ImageFiles
from heedful.data.folder import LAYOUTS
from heedful.data.listing import SPLIT_NAMES
from heedful.data.pool import TRAIN, Pool
from heedful.errors import InputError
from heedful.evaluate.features import features
from heedful.evaluate.found import Found, Headline, Numbers
from heedful.evaluate.linear_probe import Featured, Right, accuracies, check_draws, probe
from heedful.evaluate.linear_svm import Machine, linear_svm
from heedful.evaluate.maps import batches_of
from heedful.evaluate.object_data import is_beside_objects
from heedful.evaluate.runs import statistics_of
from heedful.models.cards import ModelCard

SHOWN = ("accuracy", "accuracy_per_class_mean")


def transfer(
    model: nn.Module,
    card: ModelCard,
    source: str,
    *,
    train_per_class: int | None = None,
    num_seeds: int = 5,
    device: torch.device | str = "cpu",
    read: Callable[..., Pool] = data.read,
) -> Found:
    """Return how well a linear SVM on a network's features tells the classes of other data apart.

    Images are brought to the size of the images that the network was trained on, and normalised as those were. The
    features are the input of the network's last linear map, see `heedful.evaluate.features.features`.

    Args:
        model: on the device.
        card: of the network.
        source: data, as for `heedful.data.load`, that have one class an image and took no part in the training; or a
            folder of domains, each with the same class folders, as PACS has them.
        train_per_class: images of each class to learn from, see `heedful.evaluate.linear_probe.probe`; of domains, in
            `within` alone.
        num_seeds: likewise.
        device: where to compute the features.
        read: `heedful.data.read`, or one that remembers what it read.

    Returns:
        Of data without domains, what `probe` returns. Of domains: `held_out`, for each domain the accuracies of the
        machine that learnt from all images of the others, whose means are `accuracy` and `accuracy_per_class_mean`;
        `from_to`, the accuracy of each domain's machine on each other domain; and `within`, for each domain what
        `probe` returns of it alone.

    Raises:
        InputError: if the data cannot be used, or an argument is out of range.
    """
    check_draws(train_per_class, num_seeds)
    root = data.folder_of(source)
    if root is not None and is_beside_objects(root / "images"):
        return transfer(
            model, card, str(root / "images"), train_per_class=train_per_class, num_seeds=num_seeds, device=device,
            read=read,
        )  # fmt: skip
    sources = {folder.name: str(folder) for folder in domains_of(source)} or {"": source}
    seen = {
        name: _featured(model, card, read(each, card.image_size), torch.device(device))
        for name, each in sources.items()
    }
    probed = {name: probe(each, train_per_class=train_per_class, num_seeds=num_seeds) for name, each in seen.items()}
    if "" in seen:
        numbers = {"data": seen[""].name, "num_images": len(seen[""].labels), **probed[""]}
        return Found(numbers, (Headline("accuracy", numbers["accuracy"], "%", "higher"),))
    assert root is not None
    numbers = {"data": root.resolve().name, **_across(seen), "within": probed}
    return Found(numbers, (Headline("accuracy on a new domain", numbers["accuracy"], "%", "higher"),))


def domains_of(source: str) -> tuple[Path, ...]:
    """Return the folders of a source that are domains: all that lie in it, if they hold the same class folders.

    Raises:
        InputError: if two of them have a folder in common, but not all, or have splits of their own.
    """
    root = data.folder_of(source)
    if root is None or any(recognises(root) for recognises, _ in LAYOUTS):
        return ()
    below = {path: _folders(path) for path in entries(root) if path.is_dir()}
    names = [name for folders in below.values() for name in folders]
    if len(names) == len(set(names)) or {path.name for path in below} & SPLIT_NAMES.keys():
        return ()  # class folders, or train/ and test/ of them
    first = next(iter(below.values()))
    for path, folders in below.items():
        if folders != first or folders & SPLIT_NAMES.keys():
            raise InputError(
                f"{root}: its folders seem to be domains, as some hold folders of one name, but {path.name} holds "
                f"{_listed(folders)} and {next(iter(below)).name} {_listed(first)}: domains hold the same class "
                "folders, and no train/ or test/; give one domain, or put a class's images right into its folder"
            )
    return tuple(below)


def _folders(path: Path) -> set[str]:
    return {below.name for below in entries(path) if below.is_dir()}


def _listed(names: set[str]) -> str:
    return ", ".join(f"{name}/" for name in sorted(names)) or "none"


def _featured(model: nn.Module, card: ModelCard, pool: Pool, device: torch.device) -> Featured:
    if pool.labels.ndim != 1:
        raise InputError(f"{pool.name} has images with several classes, but an SVM learns from one class an image")
    split = (
        ImageArray(pool.images, pool.labels)
        if isinstance(pool.images, Tensor)
        else ImageFiles(pool.images, pool.labels, pool.image_size)
    )
    batches = batches_of(split, *statistics_of(card), device)
    return Featured(pool.name, pool.classes, features(model, batches), pool.labels, pool.given)


def _across(domains: Mapping[str, Featured]) -> Numbers:
    """Return how well machines do on domains that they have not seen."""
    first = next(iter(domains.values()))
    for name, each in domains.items():
        if each.classes != first.classes:
            raise InputError(
                f"domain {name} has the classes {each.classes}, but another {first.classes}: make them equal"
            )
    held_out = {}
    for name, tested in domains.items():
        others = _joined([each for other, each in domains.items() if other != name])
        machine = _fitted(others)
        found = {**_on(machine, tested), "num_train": len(others.labels), "num_test": len(tested.labels)}
        held_out[name] = {**found, "c": machine.c, "converged": machine.converged, "num_folds": machine.num_folds}
    machines = {name: _fitted(each) for name, each in domains.items()}
    return {
        "num_images": sum(len(each.labels) for each in domains.values()),
        "domains": {name: len(each.labels) for name, each in domains.items()},
        "classes": list(first.classes),
        "num_classes": len(first.classes),
        "dimension": first.features.shape[1],
        **{key: fmean(found[key] for found in held_out.values()) for key in SHOWN},
        "held_out": held_out,
        "from_to": {
            name: {to: _on(machine, each)["accuracy"] for to, each in domains.items() if to != name}
            for name, machine in machines.items()
        },
    }


def _joined(domains: list[Featured]) -> Featured:
    """Return the images of several domains as one data set, all of them for training."""
    rows, labels = (torch.cat([getattr(each, key) for each in domains]) for key in ("features", "labels"))
    return Featured("", domains[0].classes, rows, labels, torch.full_like(labels, TRAIN))


def _fitted(domain: Featured) -> Machine:
    return linear_svm(*domain.rows(torch.ones_like(domain.labels, dtype=torch.bool)), domain.classes, seed=0)


def _on(machine: Machine, domain: Featured) -> Numbers:
    """Return the accuracies of a machine on all images of a domain."""
    rows, labels = domain.rows(torch.ones_like(domain.labels, dtype=torch.bool))
    found = accuracies([Right(machine.predicted(rows) == labels, labels)], domain.classes)
    return {key: found[key] for key in (*SHOWN, "class_accuracies", "most_common_class")}
