"""hggdp recon: files in, images out, and what it says to input it cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hggdp_plugin import io
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps._cli import sole_writer
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.io import InputError
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.metrics import score_slices
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import head_phantom

FAST = ["-N", "4", "--float32", "-q"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """An untrained network: it gives back c_skip x, enough to see the data go through."""
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_model(path, UNet(widths=(8, 8), blocks=1), {})
    return str(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "phantom.npy"
    np.save(path, head_phantom((64, 60), num_slices=2))
    return path


@pytest.fixture(scope="module")
def raw(image):
    path = image.with_name("raw.h5")
    options = "--mask random -R 2 --calib 16 --coils 4 --snr 50 --noise-scan --oversampling 2"
    assert hggdp(["simulate", str(image), "-o", str(path), *options.split()]) == 0
    return path


def test_default_output_is_an_mrd_image_that_resembles_the_reference(raw, prior):
    assert main([str(raw), "--prior", prior, *FAST, "--overwrite"]) == 0
    image = io.read_images(raw.with_name("raw_hggdp.h5")).squeeze()
    with h5py.File(raw) as file:
        reference = file["reference/image"][()]
    assert image.shape == reference.shape
    assert min(s.psnr for s in score_slices(image, reference)) > 25


@pytest.mark.parametrize("suffix", [".h5", ".nii.gz", ".npy", ".cfl", ".png"])
def test_formats(raw, prior, tmp_path, suffix):
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel")
    output = tmp_path / f"out{suffix}"
    assert main([str(raw), "-o", str(output), "--prior", prior, *FAST]) == 0
    assert output.stat().st_size > 0


def test_same_seed_same_image_and_log_lines(raw, prior, tmp_path, capsys):
    outputs = [tmp_path / f"{i}.npy" for i in range(3)]
    for output, seed in zip(outputs, "112", strict=True):
        assert main([str(raw), "-o", str(output), "--prior", prior, "-N", "4", "-s", seed, "--complex"]) == 0
    said = capsys.readouterr().out
    assert "4 coils" in said
    assert "ESPIRiT from the central 16 x 24" in said
    assert "Wrote" in said
    a, b, c = (np.load(output) for output in outputs)
    assert a.dtype == np.complex64
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_radial(image, prior, tmp_path):
    raw, output = tmp_path / "radial.h5", tmp_path / "radial.npy"
    assert hggdp(["simulate", str(image), "-o", str(raw), "--mask", "radial", "--spokes", "80", "--coils", "4"]) == 0
    assert main([str(raw), "-o", str(output), "--prior", prior, *FAST]) == 0
    with h5py.File(raw) as file:
        reference = file["reference/image"][()]
    assert min(s.psnr for s in score_slices(np.load(output).squeeze(), reference)) > 22


def test_given_maps(raw, prior, tmp_path, capsys):
    maps = tmp_path / "maps.npy"
    np.save(maps, np.full((4, 64, 60), 0.5, np.complex64))
    assert main([str(raw), "-o", str(tmp_path / "out.npy"), "--mps", str(maps), "--prior", prior, *FAST]) == 0
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["maps"] = np.load(maps)
    given = ["--mps", str(tmp_path / "maps.h5"), "--prior", prior, *FAST]
    assert main([str(raw), "-o", str(tmp_path / "same.npy"), *given]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "same.npy"), np.load(tmp_path / "out.npy"))
    np.save(maps, np.ones((3, 64, 60), np.complex64))
    assert main([str(raw), "-o", str(tmp_path / "no.npy"), "--mps", str(maps), "--prior", prior, *FAST]) == 2
    assert "(4, 64, 60)" in capsys.readouterr().err


def test_numpy_kspace(prior, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("ksp.npy", rng.standard_normal((2, 3, 24, 20)) + 1j * rng.standard_normal((2, 3, 24, 20)))
    assert main(["ksp.npy", "--prior", prior, "-N", "4", "--float32"]) == 0
    assert "2 slices, 3 coils" in capsys.readouterr().out
    assert np.load("ksp_hggdp.npy").shape == (1, 1, 1, 1, 2, 24, 20)


@pytest.mark.parametrize(
    "options",
    [
        ["ksp.npy", "-o", "maps.npy", "--overwrite"],
        ["ksp.npy", "--group", "a"],
        ["ksp.npy", "-t", "k.npy"],
        ["raw.h5", "-t", "k.npy"],
    ],
    ids=["output is input", "group", "no trajectory", "trajectory of raw data"],
)
def test_array_options_that_do_not_fit(options, prior, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ksp.npy", "maps.npy"):
        np.save(name, np.ones((2, 8, 8), np.complex64))
    assert main([*options, "--mps", "maps.npy", "--prior", prior, *FAST]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ksp.npy", "maps.npy"]


def test_coil_compression(raw, prior, tmp_path, capsys):
    """With all coils the image is the same, but for the phase, which the coils give."""
    maps = tmp_path / "maps.npy"
    np.save(maps, np.random.default_rng(0).standard_normal((2, 4, 64, 60)).astype(np.complex64))
    images = {}
    for coils in (None, 4, 3):
        for given in ([], ["--mps", str(maps), "--complex"]):
            output = tmp_path / f"{coils}{len(given)}.npy"
            options = [] if coils is None else ["--coils", str(coils)]
            assert main([str(raw), "-o", str(output), "--prior", prior, "-N", "4", "--float32", *options, *given]) == 0
            images[coils, bool(given)] = np.load(output)
    said = capsys.readouterr().out
    assert "4 compressed to 4, 100.00 % of the energy kept" in said
    assert "4 compressed to 3, 9" in said
    for given, coils, bound in ((False, 4, 0.02), (True, 4, 1e-3), (False, 3, 0.2)):
        reference = images[None, given]
        assert np.linalg.norm(images[coils, given] - reference) < bound * np.linalg.norm(reference)
    assert main([str(raw), "-o", str(tmp_path / "no.npy"), "--coils", "5", "--prior", prior, *FAST]) == 2
    assert "1 to 4 virtual coils" in capsys.readouterr().err


def _missing(path):
    pass


def _text(path):
    path.write_text("not HDF5")


def _no_dataset(path):
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros(3)


def _samples(value, only_noise=False):
    def damage(path, raw):
        path.write_bytes(raw.read_bytes())
        with h5py.File(path, "r+") as file:
            lines = file["dataset/data"][()]
            for i in range(len(lines)):
                lines["data"][i] = lines["data"][i] * 0 + value
            if only_noise:
                lines["head"]["flags"] = 1 << 18
            file["dataset/data"][...] = lines

    return damage


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_missing, "no such file"),
        (_text, "HDF5"),
        (_no_dataset, "no group holds"),
        (_samples(np.nan), "NaN"),
        (_samples(1, only_noise=True), "noise"),
        (_samples(0), "zero"),
    ],
    ids=["missing", "text", "no dataset", "NaN", "only noise", "zeros"],
)
def test_bad_input_is_one_line_and_no_output(make, says, raw, prior, tmp_path, capsys):
    path, output = tmp_path / "bad.h5", tmp_path / "out.h5"
    make(path) if make.__code__.co_argcount == 1 else make(path, raw)
    assert main([str(path), "-o", str(output), "--prior", prior, *FAST]) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: "))
    assert error.startswith("hggdp recon: ")
    assert says.lower() in error.lower()
    assert not output.exists()
    assert path.exists() == (make is not _missing)


@pytest.mark.parametrize("options", [["--prior", "nonsense"], ["-K", "3"], ["-o", "out.jpg"], ["--group", "other"]])
def test_bad_options_are_one_line(options, raw, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(raw), "-o", "out.npy", *options, "-q"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert raw.name not in error or options[0] == "--group"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks")
def test_two_processes_do_not_write_the_same_output(raw, prior, tmp_path, capsys):
    output = tmp_path / "out.npy"
    command = [str(raw), "-o", str(output), "--prior", prior, *FAST]
    code = (
        "import pathlib, sys, time; from hggdp_plugin.apps._cli import sole_writer\n"
        "with sole_writer(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, output], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        assert main(command) == 2
        line = f"hggdp recon: {output}: another run is writing this file; wait until it ends, or choose another name"
        assert capsys.readouterr().err.splitlines()[-1] == line
        other.kill()  # its lock goes with it
    assert main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "out.npy.json"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks")
def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """A run ends between the moments at which another opens its lock file and locks it."""
    import fcntl

    flock, calls = fcntl.flock, []

    def late(file, mode):
        if not calls:
            (tmp_path / ".out.npy.lock").unlink()
        calls.append(mode)
        flock(file, mode)

    monkeypatch.setattr(fcntl, "flock", late)
    with sole_writer(tmp_path / "out.npy"):
        assert len(calls) == 2
        monkeypatch.undo()
        with pytest.raises(InputError, match="another run"), sole_writer(tmp_path / "out.npy"):
            pass


def test_bart_arrays_go_by_their_base_names_and_images_keep_their_phase(prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_cfl(Path("ksp.cfl"), rng.standard_normal((3, 1, 24, 20)) + 1j * rng.standard_normal((3, 1, 24, 20)))
    write_cfl(Path("sens.cfl"), np.ones((3, 1, 24, 20)) / 3**0.5)
    assert main(["ksp", "--mps", "sens", "--prior", prior, *FAST]) == 0
    assert main(["ksp", "--mps", "sens", "-o", "out", "--prior", prior, *FAST]) == 0
    image = read_cfl(Path("out.cfl"))
    assert image.shape == (24, 20)
    assert image.imag.any()
    np.testing.assert_array_equal(image, read_cfl(Path("ksp_hggdp.cfl")))


def test_the_report_stands_beside_the_image(raw, prior, tmp_path, capsys):
    command = [str(raw), "-o", str(tmp_path / "out.npy"), "--prior", prior, *FAST]
    assert main([*command, "--report", str(tmp_path / "out.html")]) == 0
    page = (tmp_path / "out.html").read_text()
    assert raw.name in page
    assert "% measured" in page
    assert "acquisitions" in page
    (tmp_path / "out.npy").unlink()
    assert main([*command, "--report", str(tmp_path / "out.pdf")]) == 2
    assert "give a .html file" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "kind"), [("a.npz", "NumPy archive"), ("a.nii.gz", "NIfTI"), ("a.mat", "MATLAB")])
def test_files_of_other_kinds_are_named(name, kind, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"content")
    assert main([str(tmp_path / name), "-o", str(tmp_path / "out.npy")]) == 2
    assert kind in capsys.readouterr().err


def test_siemens_raw_data_reach_their_reader(tmp_path, capsys):
    (tmp_path / "meas.dat").write_bytes(b"content")
    assert main([str(tmp_path / "meas.dat"), "-o", str(tmp_path / "out.npy")]) == 2
    assert "not raw data" not in capsys.readouterr().err
