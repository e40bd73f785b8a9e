import h5py
import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io
from hggdp_plugin.apps.simulate import main
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.simulation import REFERENCE, coil_maps, head_phantom


@pytest.fixture(scope="module")
def image():
    return head_phantom((48, 40), num_slices=2)


@pytest.fixture(scope="module")
def ksp(image):
    return sp.fft(coil_maps(4, (48, 40)) * image[:, None], axes=(-2, -1))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "raw.h5"


def save(path, array):
    if path.suffix == ".cfl":
        write_cfl(path, array)
    else:
        np.save(path, array)
    return str(path)


def attributes(path):
    with h5py.File(path) as file:
        return dict(file[REFERENCE].attrs)


def test_an_image_becomes_raw_data_with_its_reference(image, out, tmp_path, capsys):
    args = [save(tmp_path / "image.npy", 7 * image), "-o", str(out), "-m", "random", "-R", "2", "--calib", "12"]
    assert main([*args, "--coils", "3", "--snr", "25", "--noise-scan", "--oversampling", "2", "-s", "5"]) == 0
    raw = io.read_raw(out)
    assert raw.ksp.shape[4:] == (2, 3, 48, 40)
    assert raw.whitened
    with h5py.File(out) as file:
        np.testing.assert_allclose(file[REFERENCE][()], image, atol=1e-6)
    noted = attributes(out)
    assert {k: noted[k] for k in ("mask", "accel", "seed", "snr", "combination", "source")} == {
        "mask": "random",
        "accel": 2,
        "seed": 5,
        "snr": 25,
        "combination": "true maps",
        "source": "image",
    }
    assert noted["net_accel"] == pytest.approx(2)
    printed = capsys.readouterr()
    assert "image, slices 2, coils 3, matrix 48 x 40" in printed.out
    assert "net acceleration 2.00" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("name", ["ksp.npy", "ksp.cfl", "ksp"])
def test_kspace_is_recognized_and_undersampled(ksp, out, tmp_path, name):
    if name == "ksp":  # BART's base name
        save(tmp_path / "ksp.cfl", ksp[0][:, None])
        path = str(tmp_path / name)
    else:
        path = save(tmp_path / name, ksp[0] if name == "ksp.npy" else ksp[0][:, None])
    assert main([path, "-o", str(out), "-m", "poisson", "-R", "3", "--calib", "16"]) == 0
    raw = io.read_raw(out)
    measured = raw.ksp[0, 0, 0, 0, 0]
    where = measured != 0
    np.testing.assert_allclose(measured[where], ksp[0][where], atol=1e-5)
    assert raw.calib_width >= 16
    assert attributes(out)["combination"] == "espirit"


def test_a_written_image_file_is_an_input_too(image, out, tmp_path):
    io.write_image(tmp_path / "image.h5", image, complex_=True)
    assert main([str(tmp_path / "image.h5"), "-o", str(out), "-m", "full"]) == 0
    with h5py.File(out) as file:
        np.testing.assert_allclose(file[REFERENCE][()], image, atol=1e-6)


def test_bart_dimensions_become_slices_of_coils(ksp, out, tmp_path, capsys):
    arrays = {
        "READ and PHS1": ksp[0].reshape(4, 1, 48, 40),
        "PHS1 and PHS2": ksp[0].reshape(4, 48, 40, 1),
        "slices": ksp.reshape(2, *[1] * 9, 4, 1, 48, 40),
        "one coil": ksp[0, 0],
    }
    shapes = {}
    for name, array in arrays.items():
        path = save(tmp_path / "ksp.cfl", array)
        assert main([path, "-o", str(out), "-m", "full", "--kind", "kspace", "--overwrite"]) == 0
        shapes[name] = io.read_raw(out).ksp.shape[4:]
    assert shapes["READ and PHS1"] == shapes["PHS1 and PHS2"] == (1, 4, 48, 40)
    assert shapes["slices"] == (2, 4, 48, 40)
    assert shapes["one coil"] == (1, 1, 48, 40)
    save(tmp_path / "ksp.cfl", ksp[0].reshape(2, 2, 1, 48, 40))
    assert main([str(tmp_path / "ksp.cfl"), "-o", str(out), "--overwrite"]) == 2
    assert "MAPS" in capsys.readouterr().err


def test_radial_data_carry_their_trajectory(image, out, tmp_path):
    args = [save(tmp_path / "image.npy", image[0]), "-o", str(out), "-m", "radial", "--spokes", "14"]
    assert main([*args, "--angle", "uniform", "--trajectory-unit", "fov"]) == 0
    raw = io.read_raw(out)
    assert raw.coord.shape == (14, 48, 2)
    assert np.abs(raw.coord).max() == pytest.approx(24)


def test_kind_decides_where_the_array_does_not(image, out, tmp_path, capsys):
    point = np.zeros((48, 40), complex)
    point[24, 20], point[0, 0] = 0.5, 0.9
    args = [save(tmp_path / "odd.npy", point), "-o", str(out)]
    assert main(args) == 2
    assert "--kind" in capsys.readouterr().err
    assert main([*args, "--kind", "image"]) == 0
    assert main([*args, "--kind", "kspace", "--overwrite"]) == 0
    assert attributes(out)["source"] == "kspace"


def test_the_same_command_gives_the_same_file(image, tmp_path):
    path = save(tmp_path / "image.npy", image)
    for name in ("a.h5", "b.h5"):
        assert main([path, "-o", str(tmp_path / name), "-m", "random", "--calib", "8", "--snr", "20"]) == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--accel", "0.2"], "at least 1"),
        (["--calib", "60"], "do not fit"),
        (["--noise-scan"], "SNR"),
        (["--mask", "random", "--accel", "9"], "leaves 5 lines"),
        (["--spokes", "9"], "radial"),
        (["--mask", "poisson", "--oversampling", "2"], "Poisson"),
        (["--coils", "0"], "at least one coil"),
        (["--fov", "-3"], "positive"),
    ],
)
def test_impossible_requests_are_one_line_and_no_file(image, out, tmp_path, capsys, options, told):
    assert main([save(tmp_path / "image.npy", image), "-o", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hggdp simulate: ")
    assert error.count("\n") == 1
    assert told in error
    assert [path.name for path in tmp_path.iterdir()] == ["image.npy"]


@pytest.mark.parametrize(
    "array", [np.zeros((20, 20)), np.full((20, 20), np.nan), np.ones(20), np.ones((2, 2, 2, 20, 20)), np.ones((3, 3))]
)
def test_unusable_arrays_are_one_line_and_no_file(out, tmp_path, capsys, array):
    assert main([save(tmp_path / "bad.npy", array), "-o", str(out), "--calib", "4"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.npy" in error
    assert not out.exists()


def test_bad_files_are_one_line_and_no_file(image, ksp, out, tmp_path, capsys):
    save(tmp_path / "image.npy", image)
    save(tmp_path / "deep.cfl", np.ones((4, 3, 20, 20), np.complex64))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "old.h5").write_text("keep me")
    cases = [
        ("missing.npy", "raw.h5", "no such file"),
        ("text.npy", "raw.h5", "text.npy"),
        ("deep.cfl", "raw.h5", "not a 2D matrix"),
        ("image.npy", "raw.npy", ".h5"),
        ("image.npy", "nowhere/raw.h5", "folder"),
        ("image.npy", "old.h5", "--overwrite"),
    ]
    before = sorted(tmp_path.iterdir())
    for source, target, told in cases:
        assert main([str(tmp_path / source), "-o", str(tmp_path / target)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert told in error
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.h5").read_text() == "keep me"
