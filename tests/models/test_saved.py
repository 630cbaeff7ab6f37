"""A network on disk and on the Hub: it comes back as it was, and what cannot be read is refused by name."""

import copy
import dataclasses
import json
import pickle
import re
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch import nn

from heedful import InputError, SqueezeExcitation, build, ign2, load
from heedful.models.cards import ModelCard
from heedful.models.cifar_resnet import CifarResNet
from heedful.models.saved import read_card, save, saveable

NAMES = ("a", "b", "ç")


def card_for(variant, model="cifar_resnet8", **changed):
    card = ModelCard(model, variant, 4, NAMES, 8, (0.1, 0.2, 0.3), (1.0, 0.5, 1.0))
    return dataclasses.replace(card, **changed)


def made(variant, model="cifar_resnet8", **changed):
    """Return a network whose batch norms have seen images, so that its buffers are not those of a new one."""
    card = card_for(variant, model, **changed)
    network = build(model, variant, num_classes=3, in_channels=card.in_channels, reduction=4)
    network(torch.randn(4, card.in_channels, 32, 32))
    saveable(network, card)
    return network.eval()


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        ("cifar_resnet8", "none"),
        ("cifar_resnet8", "cbam-ign1(0.5)"),
        ("cifar_resnet8", "se-ign1(learned)"),
        ("resnet18", "se-ign3"),
    ],
)
def test_a_saved_network_is_loaded_as_it_was(tmp_path, model, variant):
    network = made(variant, model)
    network.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "README.md"}
    twin = load(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(x), twin(x))
    assert not twin.training
    assert twin.card == network.card
    twin.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_what_save_writes_without_the_mixin_is_loaded_too(tmp_path):
    network = build("cifar_resnet8", "cbam-ign1(0.5)", num_classes=3, reduction=4).eval()
    save(network, card_for("cbam-ign1(0.5)"), tmp_path)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(x), load(tmp_path)(x))
    assert not list(tmp_path.glob("*.partial"))


def test_grey_images_come_back(tmp_path):
    network = made("se", in_channels=1)
    network.save_pretrained(tmp_path)
    assert load(tmp_path)(torch.randn(1, 1, 8, 8)).shape == (1, 3)


def test_a_card_of_an_earlier_version_is_read(tmp_path):
    network = made("se")
    network.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    for name in ("convention", "in_channels", "start"):
        del content[name]
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert read_card(tmp_path) == network.card


def test_a_saveable_network_is_what_it_was():
    plain = build("cifar_resnet8", "se", num_classes=3, reduction=4)
    keys, parameters = list(plain.state_dict()), list(plain.parameters())
    network = plain
    saveable(network, card_for("se"))
    assert isinstance(network, CifarResNet)
    assert network is plain
    assert list(network.state_dict()) == keys
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    kind = type(network)
    other = card_for("se", image_size=16)
    saveable(network, other)
    assert type(network) is kind
    assert network.card == other


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_saveable_and_independent(tmp_path, copied):
    network = made("se-ign2")
    twin = copied(network)
    assert type(twin) is type(network)
    assert twin.card == network.card
    x = torch.randn(2, 3, 8, 8)
    before = network(x)
    assert torch.equal(twin(x), before)
    nn.init.zeros_(twin.fc.weight)
    assert torch.equal(network(x), before)
    twin.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "README.md"}


def test_a_network_changed_after_it_was_built_is_not_saved_under_its_old_card(tmp_path):
    network = made("se")
    name, layer = next((name, m) for name, m in network.named_modules() if isinstance(m, SqueezeExcitation))
    layer.gate = ign2
    with pytest.raises(InputError, match=rf"its gates are not those .* first at '{re.escape(name)}'"):
        network.save_pretrained(tmp_path)
    network = made("se")
    network.fc = nn.Linear(64, 5)
    with pytest.raises(InputError, match=r"its parameters and buffers are not .* first at 'fc.weight'"):
        network.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    network.card = dataclasses.replace(network.card, classes=tuple("abcde"))
    network.save_pretrained(tmp_path)
    assert load(tmp_path).fc.out_features == 5


def test_the_hub_gets_the_three_files(monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, repo_id, **options):
            uploaded.update(options)
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path, commit_message, **options):
            uploaded["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            uploaded["message"] = commit_message
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    network = made("se")
    url = network.push_to_hub("someone/squares", private=True, commit_message="first", token="t")
    assert url == "https://huggingface.co/someone/squares/commit/1"
    assert set(uploaded["files"]) == {"model.safetensors", "model.json", "README.md"}
    assert (uploaded["private"], uploaded["message"], uploaded["token"]) == (True, "first", "t")
    page = uploaded["files"]["README.md"].decode()
    assert "# cifar_resnet8, se" in page
    assert "3 classes, images of 8 pixels" in page
    assert "library_name: heedful" in page
    assert "pipeline_tag: image-classification" in page


@pytest.fixture
def on_the_hub(monkeypatch, tmp_path):
    """Put a network on a Hub of one repository; return it and what was asked for."""
    asked = {}
    network = made("se-ign3")
    network.save_pretrained(tmp_path / "hub")

    def snapshot_download(repo_id, *, allow_patterns, **options):
        asked.update(options, allow_patterns=allow_patterns)
        if repo_id != "someone/squares":
            raise LocalEntryNotFoundError("cannot find the requested files in the disk cache")
        return str(shutil.copytree(tmp_path / "hub", tmp_path / "cache"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return network, asked


def test_a_network_is_loaded_from_the_hub(on_the_hub):
    network, asked = on_the_hub
    twin = load("someone/squares", revision="v1")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(twin(x), network(x))
    assert asked == {"revision": "v1", "allow_patterns": ["model.safetensors", "model.json"]}


def test_the_hubs_own_way_of_loading_gives_the_same(on_the_hub, tmp_path):
    network, _ = on_the_hub
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(type(network).from_pretrained(tmp_path / "hub")(x), network(x))


def test_what_is_neither_here_nor_on_the_hub_is_refused(on_the_hub):
    with pytest.raises(
        InputError, match=r"runs/no_such_folder: no such folder here, and no such network on the Hub \(cannot"
    ):
        load("runs/no_such_folder")
    with pytest.raises(InputError, match=r"no/such/place: no such folder; give a run's folder, or the id"):
        load("no/such/place")


@pytest.mark.parametrize("error", [OSError("404 Client Error\nmore"), HFValidationError("404 Client Error")])
def test_a_name_that_the_hub_refuses_is_refused(monkeypatch, error):
    def snapshot_download(*_arguments, **_options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(InputError, match=r"no such network on the Hub \(404 Client Error\)"):
        load("someone/nothing")


@pytest.fixture(scope="module")
def _saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    made("se").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, _saved):
    return shutil.copytree(_saved, tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no trained model"):
        load(tmp_path)


def test_missing_weights_are_refused_and_a_pickle_is_not_taken_in_their_place(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps({"conv1.weight": 1})])
def test_damaged_weights_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load(folder)


def test_cut_off_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load(folder)


@pytest.mark.parametrize(
    "change", [{"variant": "none"}, {"variant": "cbam"}, {"classes": ["a", "b"]}, {"reduction": 2}]
)
def test_weights_of_another_network_are_refused(folder, change):
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=r"model\.safetensors does not fit the network of model\.json"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "model.json is damaged"),
        ("[]", "model.json is damaged"),
        ("{}", "model: Field required"),
        (b"\xff\xfe", "model.json is damaged"),
        ({"colour": "red"}, "colour: Unexpected keyword argument"),
        ({"classes": "abc"}, "classes: Input should be a valid array"),
        ({"image_size": None}, "image_size: Input should be a valid integer"),
    ],
)
def test_a_damaged_card_is_refused(folder, content, message):
    path = folder / "model.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_card_of_an_unknown_network_is_refused(folder):
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | {"model": "cifar_resnet9"}))
    with pytest.raises(InputError, match="unknown model 'cifar_resnet9'"):
        load(folder)
