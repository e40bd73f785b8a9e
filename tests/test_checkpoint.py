"""Networks in and out of files."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hggdp_plugin.checkpoint import build_model, bundled_priors, load_model, save_model
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.models.unet import UNet


@pytest.mark.parametrize(
    "network", [UNet(views=2, widths=(4, 8), blocks=1), RefineNet(views=1, width=4)], ids=["unet", "refinenet"]
)
def test_a_network_comes_back_as_it_was(network, tmp_path):
    path = tmp_path / "p.safetensors"
    save_model(path, network.to(memory_format=torch.channels_last), {"training": {"steps": 3}, "note": "ü"})
    loaded, description = load_model(path)
    assert type(loaded) is type(network)
    assert not loaded.training
    assert description["config"] == loaded.config == network.config
    assert description["training"] == {"steps": 3}
    assert description["note"] == "ü"
    for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_description_is_json_in_the_header(tmp_path):
    save_model(tmp_path / "p.safetensors", UNet(widths=(4,)), {})
    with safe_open(tmp_path / "p.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["hggdp"])["architecture"] == "unet"


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "p.safetensors"
    save_model(path, UNet(widths=(4,)), {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_model(path, UNet(widths=(8,)), {"not json": object()})
    with pytest.raises(ValueError, match=r"^model: Linear"):
        save_model(path, torch.nn.Linear(1, 1), {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def write(path, metadata, tensors=None):
    save_file(tensors or {"a": torch.zeros(1)}, path, metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"hggdp": "not json"},
        {"hggdp": "[]"},
        {"hggdp": "{}"},
        {"hggdp": json.dumps({"architecture": "transformer", "config": {}})},
        {"hggdp": json.dumps({"architecture": "unet", "config": {"depth": 3}})},
        {"hggdp": json.dumps({"architecture": "unet", "config": []})},
        {"hggdp": json.dumps({"architecture": "unet", "config": {"widths": [4]}})},  # without its weights
    ],
)
def test_other_files_are_refused_in_one_line(metadata, tmp_path):
    write(tmp_path / "p.safetensors", metadata)
    with pytest.raises(ValueError, match=r"p\.safetensors: not a network saved by this package") as error:
        load_model(tmp_path / "p.safetensors")
    assert "\n" not in str(error.value)


def test_old_names_of_arguments_are_read(tmp_path):
    network = UNet(widths=(4,), phase_resolution=8)
    save_model(tmp_path / "new.safetensors", network, {})
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["hggdp"])
    description["config"]["phase_pixels"] = description["config"].pop("phase_resolution")
    write(tmp_path / "old.safetensors", {"hggdp": json.dumps(description)}, network.state_dict())
    assert load_model(tmp_path / "old.safetensors")[0].config == network.config


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    save_model(path, UNet(widths=(4,)), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a network saved by this package"):
        load_model(path)


def test_names_of_bundled_priors_are_those_of_files():
    assert all(load_model(name)[1]["config"] for name in bundled_priors())


def test_networks_are_built_by_name():
    assert isinstance(build_model("unet", widths=[4]), UNet)
    assert isinstance(build_model("refinenet", width=4), RefineNet)
