"""Images out, and back in, in every format."""

import logging
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import h5py
import ismrmrd
import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

SHAPE = (24, 16)
FORMATS = ("h5", "nii", "nii.gz", "npy", "cfl")


def rotation():
    """An oblique set of read, phase and slice directions, as columns."""
    matrix, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


@pytest.fixture
def stack(tmp_path):
    """Three oblique slices, 4 mm apart, twice repeated, voxels of 2 x 1.5 x 3 mm."""
    axes = rotation()
    lines = []
    for repetition, s in np.ndindex(2, 3):
        fields = {"position": tuple(np.array([10, -20, 30]) + 4 * s * axes[:, 2]), "acquisition_time_stamp": 100 + s}
        fields |= dict(zip(("read_dir", "phase_dir", "slice_dir"), map(tuple, axes.T), strict=True))
        idx = {"slice": s, "repetition": repetition}
        lines += image_acqs(kspace(coil_images(SHAPE, coils=1, seed=s)), idx=idx, **fields)
    xml = header(encoding((16, 24, 1), ef=(32, 36, 3), rf=(32, 36, 3)))
    return io.read_raw(write(tmp_path / "raw.h5", xml, lines))


@pytest.fixture
def volume(tmp_path):
    ksp = kspace(coil_images((4, 6, 8), coils=1))
    lines = [
        acquisition(ksp[:, z, y], idx={"kspace_encode_step_1": y, "kspace_encode_step_2": z}, position=(1, 2, 3))
        for z, y in np.ndindex(4, 6)
    ]
    return io.read_raw(
        write(tmp_path / "volume.h5", header(encoding((8, 6, 4), ef=(16, 12, 20), rf=(16, 12, 20))), lines)
    )


def reconstruct(raw):
    return raw.to_image(sp.ifft(raw.ksp, axes=(-1, -2))[..., 0, :, :])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("kind", ["stack", "volume"])
def test_round_trip(tmp_path, suffix, complex_, kind, request):
    raw = request.getfixturevalue(kind)
    image = reconstruct(raw)
    path = tmp_path / f"image.{suffix}"
    io.write_image(path, image, raw=raw, complex_=complex_)
    back = io.read_images(path)
    assert np.iscomplexobj(back) == (complex_ or suffix == "cfl")
    np.testing.assert_array_equal(back, image if complex_ else np.abs(image))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (2, 1, 1, 2, 3, 5, 4)])
def test_without_raw_data(tmp_path, suffix, shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    path = tmp_path / f"image.{suffix}"
    io.write_image(path, image)
    np.testing.assert_array_equal(io.read_images(path), image.reshape((1,) * (7 - len(shape)) + shape))


def test_mrd_images_read_by_the_ismrmrd_package(tmp_path, stack):
    image = reconstruct(stack)
    path = tmp_path / "image.h5"
    io.write_image(path, image, raw=stack, complex_=True, history="a test")
    axes = rotation()
    with ismrmrd.Dataset(str(path), mode="r") as file:
        assert file.number_of_images("image_0") == 6
        for n, (repetition, s) in enumerate(np.ndindex(2, 3)):
            found = file.read_image("image_0", n)
            np.testing.assert_array_equal(found.data, image[repetition, 0, 0, 0, s][None, None])
            assert (found.slice, found.repetition, found.image_index) == (s, repetition, n + 1)
            assert (found.image_type, found.data_type) == (ismrmrd.IMTYPE_COMPLEX, ismrmrd.DATATYPE_CXFLOAT)
            assert found.matrix_size == (16, 24, 1)
            assert tuple(found.field_of_view) == (32, 36, 3)
            assert found.acquisition_time_stamp == 100 + s
            np.testing.assert_allclose(found.position, np.array([10, -20, 30]) + 4 * s * axes[:, 2], rtol=1e-6)
            np.testing.assert_allclose([found.read_dir, found.phase_dir, found.slice_dir], axes.T, rtol=1e-6)
            assert found.meta["DataRole"] == "Image"
            assert found.meta["ImageProcessingHistory"] == "a test"
            assert float(found.meta["WindowWidth"]) == pytest.approx(np.percentile(np.abs(image), 99.8), rel=1e-4)
            np.testing.assert_allclose([float(v) for v in found.meta["ImageRowDir"]], axes[:, 0], rtol=1e-6)
    with h5py.File(path) as file:
        assert file["dataset/image_0/data"].shape == (6, 1, 1, 24, 16)
        assert ET.fromstring(file["dataset/image_0/attributes"][0]).tag == "ismrmrdMeta"


def test_mrd_volume_is_one_image(tmp_path, volume):
    path = tmp_path / "image.h5"
    image = reconstruct(volume)
    io.write_image(path, image, raw=volume)
    found = ismrmrd.File(str(path), "r")["dataset/image_0"].images[0]
    assert found.matrix_size == (8, 6, 4)
    assert tuple(found.field_of_view) == (16, 12, 20)
    np.testing.assert_array_equal(found.data[0], np.abs(image[0, 0, 0, 0]))
    assert found.image_type == ismrmrd.IMTYPE_MAGNITUDE


def test_nifti_affine_of_an_oblique_stack(tmp_path, stack):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "image.nii.gz"
    io.write_image(path, reconstruct(stack), raw=stack)
    file = nibabel.load(path)
    assert file.shape == (16, 24, 3, 2)
    axes = rotation()
    for x, y, z in [(8, 12, 0), (0, 0, 0), (15, 23, 2), (3, 20, 1)]:
        lps = np.array([10, -20, 30]) + axes @ [2 * (x - 8), 1.5 * (y - 12), 4 * z]
        found = nibabel.affines.apply_affine(file.affine, [x, y, z])
        np.testing.assert_allclose(found, lps * [-1, -1, 1], atol=1e-4)
    np.testing.assert_allclose(file.header.get_zooms()[:3], (2, 1.5, 4), rtol=1e-5)
    assert file.header.get_xyzt_units()[0] == "mm"


def test_nifti_affine_of_a_volume(tmp_path, volume):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "image.nii"
    io.write_image(path, reconstruct(volume), raw=volume)
    affine = nibabel.load(path).affine
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, [4, 3, 2]), [-1, -2, 3], atol=1e-5)
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, [5, 4, 3]), [-3, -4, 8], atol=1e-5)


@pytest.mark.parametrize("order", [(0, 2, 4, 1, 3), (4, 3, 2, 1, 0)])
def test_nifti_slices_are_in_the_order_of_their_positions(tmp_path, order, caplog):
    nibabel = pytest.importorskip("nibabel")
    lines, images = [], [coil_images(SHAPE, coils=1, seed=s) for s in range(5)]
    for counter, place in enumerate(order):
        fields = {"position": (0, 0, 10 * place - 20), "idx": {"slice": counter}}
        lines += image_acqs(kspace(images[place]), **fields)
    raw = io.read_raw(write(tmp_path / "raw.h5", header(encoding((16, 24, 1), ef=(32, 36, 3), rf=(32, 36, 3))), lines))
    io.write_image(tmp_path / "image.nii", reconstruct(raw), raw=raw)
    file = nibabel.load(tmp_path / "image.nii")
    np.testing.assert_allclose(file.affine[:3, 2:], [[0, 16], [0, 18], [10, -20]], atol=1e-4)
    np.testing.assert_allclose(file.dataobj, np.abs(np.stack(images)[:, 0]).transpose(2, 1, 0), atol=1e-5)
    assert "not those of a stack" not in caplog.text


@pytest.mark.parametrize("damage", [{"read_dir": (0, 0, 0)}, {"slice_dir": (0, 0, 2)}, {"position": (np.nan, 0, 0)}])
def test_nifti_affine_without_geometry(tmp_path, damage, caplog):
    nibabel = pytest.importorskip("nibabel")
    fields = {"phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1), "read_dir": (1, 0, 0)} | damage
    xml = header(encoding((16, 24, 1), ef=(32, 36, 3), rf=(32, 36, 3)))
    raw = io.read_raw(write(tmp_path / "raw.h5", xml, image_acqs(kspace(coil_images(SHAPE, 1)), **fields)))
    with caplog.at_level(logging.WARNING):
        io.write_image(tmp_path / "image.nii", reconstruct(raw), raw=raw)
    assert "affine" in caplog.text
    expected = np.diag([2, 1.5, 3, 1.0])
    expected[:3, 3] = -16, -18, 0
    np.testing.assert_allclose(nibabel.load(tmp_path / "image.nii").affine, expected)


def test_png(tmp_path, stack):
    pytest.importorskip("matplotlib")
    from matplotlib import image as mpl

    image = np.zeros((3, 40, 50), np.float32)
    image[1, 2, 3] = 2.0
    image[2] = 1.0
    io.write_image(tmp_path / "image.png", image)
    pixels = mpl.imread(tmp_path / "image.png")
    assert pixels.shape == (80, 100, 4)
    assert pixels[0, 0, 0] == 0
    assert pixels[40, 0, 0] == 1
    assert pixels[2, 50 + 3, 0] == 1
    io.write_image(tmp_path / "zero.png", np.zeros((4, 4)))
    with pytest.raises(io.InputError, match="complex"):
        io.write_image(tmp_path / "complex.png", image, complex_=True)


@pytest.mark.parametrize(
    ("shape", "plane"),
    [((24, 30, 1), (24, 30)), ((24, 1, 30), (24, 30)), ((1, 24, 30), (24, 30)), ((1, 24, 1), (24, 1))],
)
def test_png_of_a_volume_of_lines_is_their_plane(tmp_path, shape, plane):
    pytest.importorskip("matplotlib")
    from matplotlib import image as mpl

    image = np.random.default_rng(0).random(shape, np.float32)
    io.write_image(tmp_path / "image.png", image)
    pixels = mpl.imread(tmp_path / "image.png")[..., 0]
    assert pixels.shape == plane
    assert np.corrcoef(pixels.ravel(), image.ravel())[0, 1] > 0.99


class TestTargets:
    """Where an image may be written, and what happens to what is there."""

    image = np.ones((4, 4), np.float32)

    @pytest.mark.parametrize("suffix", [*FORMATS, "png"])
    def test_overwriting_must_be_allowed(self, tmp_path, suffix):
        path = tmp_path / f"image.{suffix}"
        io.write_image(path, self.image)
        before = path.read_bytes()
        with pytest.raises(io.InputError, match="exists already"):
            io.write_image(path, 2 * self.image)
        assert path.read_bytes() == before
        io.write_image(path, np.pad(self.image, 1), overwrite=True)
        assert path.read_bytes() != before

    def test_existing_header_counts(self, tmp_path):
        (tmp_path / "image.hdr").write_text("mine")
        with pytest.raises(io.InputError, match="exists already"):
            io.write_image(tmp_path / "image.cfl", self.image)

    def test_output_is_an_input(self, tmp_path):
        path = tmp_path / "raw.h5"
        path.write_bytes(b"data")
        (tmp_path / "link.h5").symlink_to(path)
        for target in (path, tmp_path / "link.h5"):
            with pytest.raises(io.InputError, match="also an input"):
                io.check_output(target, [path], overwrite=True)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("image.jpg", "suffix"),
            ("image", "suffix"),
            ("missing/image.h5", "folder does not exist"),
            ("d.h5", "folder"),
        ],
    )
    def test_impossible_targets(self, tmp_path, name, expected):
        (tmp_path / "d.h5").mkdir()
        with pytest.raises(io.InputError, match=expected):
            io.check_output(tmp_path / name, overwrite=True)
        with pytest.raises(io.InputError, match=expected):
            io.write_image(tmp_path / name, self.image, overwrite=True)

    def test_nibabel_is_optional(self, tmp_path, monkeypatch):
        monkeypatch.setattr("hggdp_plugin.io.files.find_spec", lambda name: None)
        with pytest.raises(io.InputError, match=r"pip install 'hggdp_plugin\[nifti\]'"):
            io.check_output(tmp_path / "image.nii")

    @pytest.mark.parametrize("suffix", [*FORMATS, "png"])
    def test_failure_leaves_nothing_behind(self, tmp_path, suffix, monkeypatch):
        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(io.InputError, match="No space left"):
            io.write_image(tmp_path / f"image.{suffix}", self.image)
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files, which Linux does")
    def test_full_disk(self, tmp_path):
        """Files that may not grow, in a process of its own, stand for a full disk."""
        paths = [tmp_path / f"image.{suffix}" for suffix in (*FORMATS, "png")]
        for path in paths:
            path.write_text("precious")
        program = """
import resource, signal, sys
import numpy as np
from hggdp_plugin import io
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for path in sys.argv[1:]:
    try:
        io.write_image(path, np.random.default_rng(0).random((100, 100)), overwrite=True)
    except io.InputError as error:
        assert "could not be written" in str(error), error
    else:
        sys.exit(f"{path} was written")
"""
        done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        assert sorted(tmp_path.iterdir()) == sorted(paths)
        assert all(path.read_text() == "precious" for path in paths)

    def test_shapes(self, tmp_path, stack):
        with pytest.raises(ValueError, match="2 to 7 axes"):
            io.write_image(tmp_path / "image.npy", np.ones(3))
        with pytest.raises(ValueError, match="to go with raw"):
            io.write_image(tmp_path / "image.npy", self.image, raw=stack)
        with pytest.raises(ValueError, match="recon must have shape"):
            stack.to_image(self.image)


class TestArrays:
    """Plain arrays: .npy and BART's .cfl."""

    def test_npy(self, tmp_path):
        array = np.arange(6.0).reshape(2, 3)
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(io.read_array(tmp_path / "a.npy"), array)

    def test_cfl_order(self, tmp_path):
        (tmp_path / "a.hdr").write_text("# Dimensions\n2 3 1 4 1 1\n# Command\nx\n")
        np.arange(24, dtype="<c8").tofile(tmp_path / "a.cfl")
        for name in ("a.cfl", "a.hdr"):
            array = io.read_array(tmp_path / name)
            assert array.shape == (4, 1, 3, 2)  # COIL, PHS2, PHS1, READ
            assert array[3, 0, 2, 1] == 23
            assert array[0, 0, 0, 1] == 1

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("a.npy", None, "no such file"),
            ("a.npy", b"", "readable"),
            (
                "a.npy",
                b"\x93NUMPY\x01\x00v\x00{'descr': '<c8', 'fortran_order': False, 'shape': (99999, 99999)}",
                "readable",
            ),
            ("a.txt", b"1 2 3", "suffix"),
            ("a.cfl", None, "no such file"),
            ("a.cfl", b"1234", "no such file"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, expected):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(io.InputError, match=expected):
            io.read_array(tmp_path / name)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("# Dimensions\n2 2\n", "16 bytes"), ("# Dimensions\n-2 -1\n", "dimensions"), ("", "dimensions"),
         ("# Dimensions\n999999 999999 999999\n", "16 bytes"), ("# Dimensions\nmany\n", "dimensions")],
    )  # fmt: skip
    def test_bad_cfl(self, tmp_path, text, expected):
        (tmp_path / "a.hdr").write_text(text)
        (tmp_path / "a.cfl").write_bytes(bytes(16))
        with pytest.raises(io.InputError, match=expected):
            io.read_array(tmp_path / "a.cfl")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, tmp_path, value):
        np.save(tmp_path / "a.npy", np.array([1, value]))
        with pytest.raises(io.InputError, match="finite"):
            io.read_array(tmp_path / "a.npy")

    @pytest.mark.parametrize("suffix", [*FORMATS])
    def test_bad_images(self, tmp_path, suffix):
        with pytest.raises(io.InputError):
            io.read_images(tmp_path / f"missing.{suffix}")
        (tmp_path / f"a.{suffix}").write_bytes(b"garbage" * 100)
        with pytest.raises(io.InputError):
            io.read_images(tmp_path / f"a.{suffix}")


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART's command line tool is not on the PATH")
class TestBart:
    """BART's own tools read what we write, and we read what they write."""

    @staticmethod
    def bart(*arguments):
        done = subprocess.run(["bart", *map(str, arguments)], capture_output=True, text=True, check=True)
        return done.stdout

    def test_bart_reads_images(self, tmp_path, stack):
        image = reconstruct(stack)
        io.write_image(tmp_path / "image.cfl", image, raw=stack, complex_=True)
        name = tmp_path / "image"
        sizes = [int(self.bart("show", "-d", d, name)) for d in range(16)]
        assert sizes == [16, 24, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 3, 1, 1]
        self.bart("slice", 13, 2, 10, 1, name, tmp_path / "one")
        np.testing.assert_array_equal(io.read_array(tmp_path / "one.cfl"), image[1, 0, 0, 0, 2])

    def test_volumes_are_phs2(self, tmp_path, volume):
        io.write_image(tmp_path / "image.cfl", reconstruct(volume), raw=volume)
        assert [int(self.bart("show", "-d", d, tmp_path / "image")) for d in range(3)] == [8, 6, 4]

    def test_we_read_coil_data(self, tmp_path):
        self.bart("phantom", "-s3", "-k", "-x32", tmp_path / "ksp")
        self.bart("fft", "-u", "-i", 3, tmp_path / "ksp", tmp_path / "img")
        ksp, image = (io.read_array(tmp_path / f"{name}.cfl") for name in ("ksp", "img"))
        assert ksp.shape == (3, 1, 32, 32)
        np.testing.assert_allclose(sp.ifft(ksp, axes=(-1, -2)), image, atol=1e-4 * np.abs(image).max())
