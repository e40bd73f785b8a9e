"""hggdp recon --samples-out: the samples, and how they differ."""

import json
from pathlib import Path

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.volume.samples import spread


def test_the_spread_of_known_samples() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((1, 24, 20)) < 0.4
    mean = np.ones((1, 24, 20))
    noise = rng.standard_normal((400, 2, 1, 24, 20)) / 2**0.5
    k = mean + np.where(mask, 0.1, 0.5) * (noise[:, 0] + 1j * noise[:, 1])
    found = spread(sp.ifft(k, axes=(-2, -1)), mask)
    assert found.measured == pytest.approx(0.1, rel=0.03)
    assert found.unmeasured == pytest.approx(0.5, rel=0.03)
    assert found.image == pytest.approx(np.sqrt(0.01 * mask.mean() + 0.25 * (1 - mask.mean())), rel=0.03)
    off_grid = spread(sp.ifft(k, axes=(-2, -1)), None)
    assert off_grid.measured is None
    assert off_grid.unmeasured is None
    assert off_grid.image == pytest.approx(found.image)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    rng = np.random.default_rng(0)
    ksp = rng.standard_normal((2, 1, 32, 28)) + 1j * rng.standard_normal((2, 1, 32, 28))
    np.save("ksp.npy", ksp * (rng.random((32, 28)) < 0.5))
    return ["ksp.npy", "-o", "out.npy", "--complex", "--prior", "tiny.safetensors", "--float32"]


def test_the_mean_of_the_samples_is_the_image(command, capsys) -> None:
    options = ["--schedule", "posterior", "-N", "12", "-S", "3", "--samples-out", "samples.npy"]
    assert main([*command, *options]) == 0
    samples = np.load("samples.npy")
    assert samples.shape == (3, 1, 1, 1, 1, 2, 32, 28)
    np.testing.assert_allclose(io.read_images("out.npy"), samples.mean(axis=0), rtol=1e-5, atol=1e-6)
    record = json.loads(Path("out.npy.json").read_text())
    assert record["samples"]["file"] == "samples.npy"
    measured, unmeasured = (record["samples"]["spread"][name] for name in ("measured", "unmeasured"))
    assert measured < 0.01 * unmeasured  # one coil agrees with its data
    assert len(record["estimates"]) == 2
    assert "Spread of 3 samples" in capsys.readouterr().out
    assert not list(Path().glob("*.part*"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples-out", "a.npy"], "there is one sample"),
        (["--samples-out", "a.h5", "-S", "2"], "give a .npy file"),
        (["--samples-out", "ksp.npy", "-S", "2"], "ksp.npy"),
    ],
)
def test_what_does_not_fit(command, capsys, options, says) -> None:
    assert main([*command, *options]) == 2
    assert says in capsys.readouterr().err
    assert not Path("out.npy").exists()
