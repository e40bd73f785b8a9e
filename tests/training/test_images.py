"""Training images: what is read of which file, and what is refused."""

import h5py
import numpy as np
import pytest
import sigpy as sp
import torch
from scipy.io import savemat

from hggdp_plugin.apps.simulate import main as simulate
from hggdp_plugin.io import InputError, read_raw
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.metrics import score
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.training import readers
from hggdp_plugin.training.images import load_domains, load_images


def complex_array(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def as_complex(x: torch.Tensor) -> np.ndarray:
    return (x[..., 0, :, :] + 1j * x[..., 1, :, :]).numpy()


@pytest.mark.parametrize("suffix", [".npy", ".cfl", ".h5"])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_images_of_every_format_have_maximum_one(suffix, dtype, tmp_path):
    array, path = complex_array(2, 3, 8, 9).astype(dtype), tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".cfl":
        write_cfl(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["image"] = array
    images = load_images([path])
    assert len(images) == 6
    assert all(image.dtype == torch.float32 for image in images)
    for image, expected in zip(images, array.reshape(6, 8, 9), strict=True):
        np.testing.assert_allclose(as_complex(image), expected / abs(expected).max(), rtol=1e-5, atol=1e-6)


def test_integers_with_a_step(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["image"] = np.random.default_rng(0).integers(-99, 99, (3, 2, 8, 8), dtype=np.int16)
        file["image"].attrs["step"] = 0.01
        integers = file["image"][()]
    images = load_images([tmp_path])
    expected = integers[1, 0] + 1j * integers[1, 1]
    np.testing.assert_allclose(as_complex(images[1]), expected / abs(expected).max(), rtol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_real_images_are_magnitudes(suffix, tmp_path):
    array, path = np.random.default_rng(0).random((3, 8, 9)), tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["image"] = array
    for image, expected in zip(load_images([path]), array, strict=True):
        np.testing.assert_allclose(image[0], expected / expected.max(), rtol=1e-6)
        assert not image[1].any()


def write_domains(path):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, shapes in (("knee", [(8, 9), (10, 7)]), ("heart", [(6, 6)])):
            group = file.create_group(name)
            group.attrs["step"] = 1e-3
            for number, shape in enumerate(shapes):
                group[str(number)] = rng.integers(1, 1000, shape, dtype=np.uint16)
    return path


def test_groups_of_a_file_are_domains(tmp_path):
    path = write_domains(tmp_path / "domains.h5")
    np.save(tmp_path / "more.npy", complex_array(2, 8, 8))
    domains = load_domains([tmp_path], {"knee": 0.5})
    assert {d.name: (len(d.images), d.weight) for d in domains} == {
        "heart": (1, 1.0),
        "knee": (2, 0.5),
        "images": (2, 1.0),
    }
    with h5py.File(path) as file:
        first = file["knee/0"][()]
    np.testing.assert_allclose(domains[1].images[0][0], first / first.max(), rtol=1e-5)
    assert len(load_images([path])) == 3


def test_the_weight_of_an_unknown_domain_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"elbow: .*choose from heart, knee"):
        load_domains([write_domains(tmp_path / "domains.h5")], {"elbow": 2.0})


@pytest.mark.parametrize("name", ["seven.mat", "EARLIER.MAT"])
def test_matlab_images_have_their_slices_last(name, tmp_path):
    array = complex_array(8, 9, 3)
    if name == "seven.mat":  # 7.3: HDF5 with the axes reversed and complex numbers as pairs
        pairs = np.zeros(array.T.shape, [("real", "f4"), ("imag", "f4")])
        pairs["real"], pairs["imag"] = array.T.real, array.T.imag
        with h5py.File(tmp_path / name, "w") as file:
            file["slices"], file["weights"] = pairs, np.ones(3)
    else:
        savemat(tmp_path / name, {"slices": array, "weights": np.ones(3)}, appendmat=False)
    images = load_images([tmp_path])
    for image, expected in zip(images, np.moveaxis(array, -1, 0), strict=True):
        np.testing.assert_allclose(as_complex(image), expected / abs(expected).max(), rtol=1e-5, atol=1e-6)


def simulated(folder, *options):
    phantom = head_phantom((48, 40), num_slices=2)
    np.save(folder / "phantom.npy", phantom)
    command = [str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), "--coils", "4", *options]
    assert simulate(command) == 0
    return folder / "raw.h5", phantom


def test_fully_sampled_raw_data_are_combined_by_their_maps(tmp_path):
    path, phantom = simulated(tmp_path, "--mask", "full", "--snr", "100", "--noise-scan", "--oversampling", "2")
    images = load_images([path])
    assert len(images) == 2
    for image, expected in zip(images, phantom, strict=True):
        assert score(as_complex(image), expected).psnr > 33


def test_a_slice_of_raw_data_beside_the_object_is_left_out(tmp_path, monkeypatch):
    path, _ = simulated(tmp_path, "--mask", "full")
    raw = read_raw(path)
    raw.ksp[:, :, :, :, 1] *= 1e-3
    monkeypatch.setattr(readers, "read_raw", lambda path: raw)
    (image,) = load_images([path])
    assert image.shape == (2, 48, 40)


def volume():
    """A volume (z, y, x) whose last slice shows nothing but noise."""
    array = np.random.default_rng(0).random((3, 8, 9))
    array[2] *= 0.01
    return array


def test_slices_of_nifti_are_along_its_third_axis(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(volume().T.astype(np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    images = load_images([tmp_path])
    assert len(images) == 2
    for image, expected in zip(images, volume(), strict=False):
        np.testing.assert_allclose(image[0], expected / expected.max(), rtol=1e-5)


def write_dicom(path, pixels, **attributes):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_files_of_a_series_are_one_scan(tmp_path):
    slices = np.round(4000 * volume())
    for number, one in enumerate(slices):
        write_dicom(tmp_path / f"{number}.dcm", one, SeriesInstanceUID="1.2.3", RescaleSlope=0.5, RescaleIntercept=0)
    images = load_images([tmp_path])
    assert len(images) == 2
    np.testing.assert_allclose(images[1][0], slices[1] / slices[1].max(), rtol=1e-5)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_png_images_are_gray(bits, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, np.iinfo(bits).max, (8, 9)).astype(bits)
    eight = pixels.astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    image.fromarray(np.repeat(eight[..., None], 3, axis=2)).save(tmp_path / "b.png")
    first, second = load_images([tmp_path])
    np.testing.assert_allclose(first[0], pixels / pixels.max(), rtol=1e-5)
    np.testing.assert_allclose(second[0], eight / eight.max(), rtol=1e-5)
    assert not first[1].any()


def test_colors_are_refused(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: a color image"):
        load_images([tmp_path])
    write_dicom(tmp_path / "b.dcm", pixels[..., 0], PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(InputError, match=r"b.dcm: .*PALETTE COLOR"):
        load_images([tmp_path / "b.dcm"])


@pytest.mark.parametrize(
    ("options", "said"), [(("--mask", "uniform", "-R", "2"), "% of its k-space"), (("--mask", "radial"), "radial")]
)
def test_other_raw_data_are_refused(options, said, tmp_path):
    path, _ = simulated(tmp_path, *options)
    with pytest.raises(ValueError, match=f"raw.h5.*{said}"):
        load_images([path])


def test_kspace_is_no_image(tmp_path):
    path = tmp_path / "ksp.npy"
    np.save(path, sp.fft(head_phantom((48, 40), num_slices=2), axes=(-2, -1)))
    with pytest.raises(ValueError, match=r"ksp.npy.*k-space"):
        load_images([path])


def test_a_folder_is_all_its_files_and_empty_slices_are_left_out(tmp_path):
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "b.npy", complex_array(2, 8, 8))
    np.save(tmp_path / "deep" / "a.npy", np.stack([0 * complex_array(8, 8), complex_array(8, 8)]))
    (tmp_path / "notes.txt").write_text("nothing to see")
    assert len(load_images([tmp_path])) == 3


def write_bad(path, kind):
    if kind == "missing":
        return
    if kind == "text":
        path.write_text("hello\nworld")
    elif kind == "empty folder":
        path.mkdir()
    elif path.suffix == ".mat":
        savemat(path, {"a": complex_array(8, 8), "b": complex_array(8, 8)} if kind == "two" else {"a": np.ones(3)})
    elif path.suffix == ".npy":
        np.save(
            path,
            {
                "nan": np.full((8, 8), np.nan + 0j),
                "zeros": np.zeros((8, 8), complex),
                "line": np.ones((8, 1), complex),
            }[kind],
        )
    else:
        with h5py.File(path, "w") as file:
            if kind == "group":
                file.create_group("image")
            elif kind == "integers without a step":
                file["image"] = np.ones((2, 2, 8, 8), np.int16)
            else:
                file["other"] = np.ones(3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.npy", "missing"),
        ("a.h5", "missing"),
        ("a.npy", "text"),
        ("a.h5", "text"),
        ("a.txt", "text"),
        ("a", "empty folder"),
        ("a.nii", "text"),
        ("a.nii.gz", "missing"),
        ("a.dcm", "text"),
        ("a.dcm", "missing"),
        ("a.png", "text"),
        ("a.png", "missing"),
        ("a.npy", "nan"),
        ("a.npy", "zeros"),
        ("a.npy", "line"),
        ("a.mat", "text"),
        ("a.mat", "two"),
        ("a.mat", "real"),
        ("a.h5", "no image"),
        ("a.h5", "group"),
        ("a.h5", "integers without a step"),
    ],
)
def test_unusable_data_are_refused_in_one_line(name, kind, tmp_path):
    write_bad(tmp_path / name, kind)
    with pytest.raises(ValueError, match=name) as error:
        load_images([tmp_path / name])
    assert "\n" not in str(error.value)
