"""The command that converts published checkpoints."""

from pathlib import Path

import pytest
import torch

from hggdp_plugin.apps.convert import main
from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.refinenet import RefineNet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pth"
    network = RefineNet(views=1, width=4, sigmas=[1.0, 0.1])
    torch.save([torch.nn.DataParallel(network).state_dict(), {}], path)
    return path


def test_converts(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = checkpoint.with_name("prior.safetensors")
    count = sum(weights.numel() for weights in RefineNet(views=1, width=4, sigmas=[1.0, 0.1]).parameters())
    assert main([str(checkpoint), str(output), "--sigmas", "0.8", "0.08"]) == 0
    assert capsys.readouterr().out == f"{output}: 1 views, {count / 1e6:.2f} million parameters\n"
    network, description = load_model(output)
    assert description["source"] == "checkpoint.pth"
    assert network.config == {"views": 1, "width": 4, "sigmas": [0.8, 0.08]}
    state = torch.load(checkpoint, weights_only=True)[0]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, state["module." + name], rtol=0, atol=0)
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == ["checkpoint.pth", "prior.safetensors"]


def test_half_precision_is_half_the_size_and_nearly_the_same(make_network, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_model(whole, make_network(), {"training": {"steps": 3}})
    assert main([str(whole), str(half), "--half"]) == 0
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    (before, _), (after, description) = load_model(whole), load_model(half)
    assert description["training"] == {"steps": 3}
    for name, tensor in after.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, before.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_keeps_an_existing_output(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = checkpoint.with_name("prior.safetensors")
    output.write_text("precious")
    arguments = [str(checkpoint), str(output), "--sigmas", "1", "0.1"]
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err
        == f"hggdp convert: {output}: the file exists; choose another name, or allow it with --overwrite\n"
    )
    assert output.read_text() == "precious"
    assert main([*arguments, "--overwrite"]) == 0
    assert load_model(output)[0].sigma_max == 1.0


@pytest.mark.parametrize(
    ("source", "output", "sigmas", "message"),
    [
        ("checkpoint.pth", "prior.pth", ["1", "0.1"], "ends in .safetensors"),
        ("checkpoint.pth", "prior.safetensors", ["1"], "2 noise levels, but 1 sigmas"),
        ("checkpoint.pth", "prior.safetensors", ["1", "0"], "need positive"),
        ("absent.pth", "prior.safetensors", ["1", "0.1"], "absent.pth"),
        ("checkpoint.pth", "no/such/folder/prior.safetensors", ["1", "0.1"], "prior.safetensors"),
    ],
)
def test_errors_are_one_line(
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    output: str,
    sigmas: list[str],
    message: str,
) -> None:
    folder = checkpoint.parent
    assert main([str(folder / source), str(folder / output), "--sigmas", *sigmas]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("hggdp convert: ")
    assert error.count("\n") == 1
    assert not (folder / output).exists()
