"""2D Cartesian raw data: placing, cropping, averaging, flags."""

import h5py
import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

SHAPE = (24, 16)


def oversampled(images):
    """K-space of images with twice the field of view along x."""
    return kspace(sp.resize(images, (*images.shape[:-1], 2 * images.shape[-1])))


@pytest.fixture
def xml():
    return header(encoding((32, 24, 1), (16, 24, 1), ky_center=12))


def close(a, b):
    np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


def test_fully_sampled(tmp_path, xml):
    images = coil_images(SHAPE)
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(oversampled(images))))
    assert raw.ksp.shape == (1, 1, 1, 1, 1, 3, 24, 16)
    assert raw.ksp.dtype == raw.calib.dtype == np.complex64
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert raw.calib_shape == SHAPE
    assert (raw.coord, raw.whitened, raw.noise_cov, raw.is_3d) == (None, False, None, False)
    assert raw.image_shape == (1, 24, 16)
    assert raw.fov == (1, 24, 16)
    close(raw.to_image(sp.ifft(raw.ksp[..., 0, :, :], axes=(-1, -2)))[0, 0, 0, 0, 0], images[0])
    assert "3 coils" in raw.summary()


def test_counters_span_the_axes(tmp_path, xml):
    axes = ("repetition", "contrast", "phase", "set", "slice")
    lines, images = [], {}
    for place in np.ndindex(2, 1, 2, 1, 3):
        images[place] = coil_images(SHAPE, seed=hash(place) % 1000)
        idx = dict(zip(axes, place, strict=True))
        lines += image_acqs(oversampled(images[place]), idx=idx, rows=range(0, 24, 2), position=(0, 0, place[4]))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.ksp.shape == (2, 1, 2, 1, 3, 3, 24, 16)
    for place, image in images.items():
        close(raw.ksp[place][:, ::2], kspace(image)[:, ::2])
    assert not raw.ksp[..., 1::2, :].any()
    np.testing.assert_array_equal(raw.geometry.position, [[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    np.testing.assert_array_equal(raw.acq_headers["idx"]["slice"][1, 0, 1, 0], [0, 1, 2])
    np.testing.assert_array_equal(raw.acq_headers["idx"]["kspace_encode_step_1"], 12)  # the line nearest to the center
    assert raw.image_shape == (3, 24, 16)


def test_counters_need_not_be_dense_and_frames_may_be_missing(tmp_path, xml, caplog):
    images = coil_images(SHAPE)
    lines = [
        *image_acqs(oversampled(images), idx={"slice": 3, "repetition": 7}),
        *image_acqs(oversampled(images), idx={"slice": 9, "repetition": 60000}, position=(1, 2, 3)),
    ]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.ksp.shape[:5] == (2, 1, 1, 1, 2)
    close(raw.ksp[1, 0, 0, 0, 1], kspace(images))
    assert not raw.ksp[0, 0, 0, 0, 1].any()
    assert any("2 of 4 frames have no acquisitions" in message for message in caplog.messages)
    np.testing.assert_array_equal(raw.acq_headers["idx"]["slice"][0, 0, 0, 0], [3, 9])
    np.testing.assert_array_equal(raw.acq_headers["idx"]["repetition"][:, 0, 0, 0, 0], [7, 60000])
    np.testing.assert_array_equal(raw.geometry.position[1], [1, 2, 3])


def test_lines_of_no_image_are_left_out(tmp_path, xml, caplog):
    images = coil_images(SHAPE)
    ksp = oversampled(images)
    lines = image_acqs(ksp)
    for bit in (23, 24, 26, 27, 28, 29, 30, 31):
        lines += image_acqs(100 * ksp, flags=[bit])
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert sum("24" in message and "left out" in message for message in caplog.messages) == 8


def test_surface_coil_flag_on_every_line(tmp_path, xml):
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(oversampled(coil_images(SHAPE)), flags=[29])))
    assert raw.ksp.any()


def test_averages(tmp_path, xml, caplog):
    images = coil_images(SHAPE)
    ksp = oversampled(images)
    noise = np.random.default_rng(1).standard_normal((4, *ksp.shape)).astype(np.float32)
    lines = [acq for i in range(4) for acq in image_acqs(ksp + noise[i], idx={"average": i})]
    lines += image_acqs(ksp + noise[0], rows=[3], idx={"average": 4})
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    single = io.read_raw(write(tmp_path / "b.h5", xml, image_acqs(ksp + noise.mean(0))))
    keep = np.arange(24) != 3
    close(raw.ksp[..., keep, :], single.ksp[..., keep, :])
    assert any("4 to 5 times" in message for message in caplog.messages)


def test_calibration_lines(tmp_path, xml):
    images = coil_images(SHAPE)
    ksp = oversampled(images)
    rows = set(range(0, 24, 4))
    center = set(range(8, 16))
    lines = image_acqs(ksp, rows=sorted(rows - center))
    lines += image_acqs(ksp, rows=sorted(rows & center), flags=[21])
    lines += image_acqs(ksp, rows=sorted(center - rows), flags=[20])
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    expected = np.zeros((3, 24, 16), np.complex64)
    expected[:, sorted(rows)] = kspace(images)[:, sorted(rows)]
    close(raw.ksp[0, 0, 0, 0, 0], expected)
    expected[:, sorted(center)] = kspace(images)[:, sorted(center)]
    close(raw.calib[0], expected)
    assert raw.calib_shape == (8 + 1, 16)  # row 16 was measured too
    assert raw.calib_width == 9


@pytest.mark.parametrize("gain", [20, 0.05j])
def test_calibration_lines_with_a_receiver_gain_of_their_own(tmp_path, xml, gain, caplog):
    """Image lines at the edge of the calibration region are brought to its gain."""
    ksp = oversampled(coil_images(SHAPE))
    lines = image_acqs(gain * ksp, rows=range(8, 16), flags=[20]) + image_acqs(ksp, rows=range(0, 24, 4))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.calib_shape == (9, 16)
    close(raw.calib[0, :, 8:17], gain * kspace(coil_images(SHAPE))[:, 8:17])
    close(raw.ksp[0, 0, 0, 0, 0, :, ::4], kspace(coil_images(SHAPE))[:, ::4])
    assert any(f"{abs(gain):.3g} times the gain" in message for message in caplog.messages)


def test_calibration_lines_of_another_contrast_stay_alone(tmp_path, xml):
    ksp, other = (oversampled(coil_images(SHAPE, seed=seed)) for seed in (0, 1))
    lines = image_acqs(other, rows=range(8, 16), flags=[20]) + image_acqs(ksp, rows=range(0, 24, 4))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert raw.calib_shape == (8, 16)
    assert not raw.calib[0, :, 16:].any()


def test_calibration_gathers_interleaved_repetitions(tmp_path, xml):
    images = coil_images(SHAPE)
    lines = []
    for i in range(2):
        lines += image_acqs(oversampled(images), rows=range(i, 24, 2), idx={"repetition": i})
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    close(raw.calib[0], kspace(images))
    assert raw.calib_shape == SHAPE


def test_partial_fourier(tmp_path):
    ksp = kspace(coil_images(SHAPE))
    lines = [acquisition(ksp[:, row], idx={"kspace_encode_step_1": row - 7}) for row in range(7, 24)]
    xml = header(encoding((16, 24, 1), ky_center=5))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    close(raw.ksp[0, 0, 0, 0, 0, :, 7:], ksp[:, 7:])
    assert not raw.ksp[..., :7, :].any()
    assert raw.calib_shape == (11, 16)


def test_missing_limits_and_recon_space(tmp_path, caplog):
    ksp = kspace(coil_images(SHAPE))
    xml = header(encoding((16, 24, 1)))
    xml = xml[: xml.index("<reconSpace>")] + xml[xml.index("</reconSpace>") + len("</reconSpace>") :]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(ksp)))
    close(raw.ksp[0, 0, 0, 0, 0], ksp)
    assert any("reconSpace" in message for message in caplog.messages)


@pytest.mark.parametrize("stored_center", [8, 7])
def test_reversed_lines(tmp_path, stored_center):
    ksp = kspace(coil_images(SHAPE))
    lines = image_acqs(ksp, rows=range(0, 24, 2))
    for row in range(1, 24, 2):
        idx = {"kspace_encode_step_1": row}
        lines.append(acquisition(ksp[:, row, ::-1], flags=[22], center_sample=stored_center, idx=idx))
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((16, 24, 1))), lines))
    close(raw.ksp[0, 0, 0, 0, 0], ksp)


@pytest.mark.parametrize("backwards", [False, True])
def test_asymmetric_echo_with_discarded_samples(tmp_path, backwards):
    ksp = kspace(coil_images(SHAPE))
    lines = []
    for row in range(24):
        kept = ksp[:, row, 5:]
        data = np.full((3, 11 + 2 + 1), 1e3 + 0j)  # what lies in the discarded samples must not matter
        data[:, 2:-1] = kept[:, ::-1] if backwards else kept
        center = 2 + (10 - 3 if backwards else 3)
        fields = {"discard_pre": 2, "discard_post": 1, "center_sample": center, "flags": [22] if backwards else []}
        lines.append(acquisition(data, idx={"kspace_encode_step_1": row}, **fields))
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((16, 24, 1))), lines))
    close(raw.ksp[0, 0, 0, 0, 0, :, :, 5:], ksp[:, :, 5:])
    assert not raw.ksp[..., :5].any()


def test_asymmetric_echo_with_oversampling(tmp_path, xml):
    images = coil_images(SHAPE)
    ksp = oversampled(images)
    lines = [acquisition(ksp[:, r, 9:], center_sample=7, idx={"kspace_encode_step_1": r}) for r in range(24)]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines))
    assert not raw.ksp[..., :5].any()  # position 5 of 16 is position 10 of 32
    error = np.abs(raw.ksp[0, 0, 0, 0, 0] - kspace(images)).max(axis=(0, 1)) / np.abs(kspace(images)).max()
    assert error[5:].max() < 0.15  # the sharp end of the data smears over a few samples when cropped
    assert error[8:].max() < 0.06


def test_center_sample_not_set(tmp_path, xml, caplog):
    images = coil_images(SHAPE)
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(oversampled(images), center_sample=0)))
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert any("center_sample" in message for message in caplog.messages)


def test_recon_matrix_larger_than_encoded_and_phase_oversampling(tmp_path):
    images = coil_images(SHAPE)
    big = sp.resize(images, (3, 36, 32))
    xml = header(encoding((32, 36, 1), (20, 30, 1), ef=(32, 36, 1), rf=(16, 24, 1)))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(kspace(big))))
    assert raw.grid == (36, 16)
    assert raw.image_shape == (1, 30, 20)
    image = raw.to_image(sp.ifft(raw.ksp, axes=(-1, -2))[..., 0, :, :])
    expected = sp.ifft(sp.resize(kspace(images), (3, 30, 20)), axes=(-1, -2))[0] * np.sqrt(600 / 384)
    close(image[0, 0, 0, 0, 0], expected)


def test_odd_sizes(tmp_path):
    images = coil_images((21, 15))
    big = sp.resize(images, (3, 21, 27))
    xml = header(encoding((27, 21, 1), (15, 21, 1), ky_center=10))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(kspace(big))))
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))


def test_single_coil(tmp_path, xml):
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(oversampled(coil_images(SHAPE, coils=1)))))
    assert raw.ksp.shape[5] == 1


def test_encoding_of_the_image_is_chosen(tmp_path, caplog):
    ksp = kspace(coil_images(SHAPE))
    xml = header(encoding((16, 24, 1)), encoding((64, 8, 1)))
    reference = np.ones((3, 64), np.complex64)
    lines = [acquisition(reference, encoding_space_ref=1, idx={"kspace_encode_step_1": i}) for i in range(5)]
    raw = io.read_raw(write(tmp_path / "a.h5", xml, lines + image_acqs(ksp)))
    close(raw.ksp[0, 0, 0, 0, 0], ksp)
    assert any("Encoding 0 (24 x 16, 24 image acquisitions)" in message for message in caplog.messages)


def test_groups(tmp_path, xml):
    images = coil_images(SHAPE)
    path = write(tmp_path / "a.h5", xml, image_acqs(oversampled(images)), group="scan")
    close(io.read_raw(path).ksp[0, 0, 0, 0, 0], kspace(images))
    write(path, xml, image_acqs(2 * oversampled(images)), group="other")
    with pytest.raises(io.InputError, match="--group"):
        io.read_raw(path)
    close(io.read_raw(path, "other").ksp[0, 0, 0, 0, 0], 2 * kspace(images))


def test_aligned_headers(tmp_path, xml):
    """Some writers store headers with the compiler's padding: 352 bytes instead of 340."""
    images = coil_images(SHAPE)
    path = write(tmp_path / "a.h5", xml, image_acqs(oversampled(images)))
    with h5py.File(path, "a") as file:
        rows = file["dataset/data"][:]
        packed = rows.dtype["head"]
        aligned = np.dtype([(name, packed[name]) for name in packed.names], align=True)
        table = np.zeros(len(rows), [("head", aligned), ("traj", rows.dtype["traj"]), ("data", rows.dtype["data"])])
        for name in packed.names:
            table["head"][name] = rows["head"][name]
        table["traj"], table["data"] = rows["traj"], rows["data"]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=table)
        assert file["dataset/data"].dtype["head"].itemsize != packed.itemsize
    close(io.read_raw(path).ksp[0, 0, 0, 0, 0], kspace(images))


def test_compressed_table(tmp_path, xml):
    images = coil_images(SHAPE)
    path = write(tmp_path / "a.h5", xml, image_acqs(oversampled(images)))
    with h5py.File(path, "a") as file:
        rows = file["dataset/data"][:]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=rows, compression="gzip", chunks=(7,))
    close(io.read_raw(path).ksp[0, 0, 0, 0, 0], kspace(images))


def test_latest_file_format(tmp_path, xml):
    images = coil_images(SHAPE)
    path = write(tmp_path / "a.h5", xml, image_acqs(oversampled(images)))
    with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w", libver="latest") as latest:
        latest.create_dataset("dataset/xml", data=[file["dataset/xml"][0]], dtype=h5py.string_dtype("utf-8"))
        latest.create_dataset("dataset/data", data=file["dataset/data"][:], maxshape=(None,), chunks=(7,))
    close(io.read_raw(tmp_path / "b.h5").ksp[0, 0, 0, 0, 0], kspace(images))


def test_reading_changes_nothing(tmp_path, xml):
    path = write(tmp_path / "a.h5", xml, image_acqs(oversampled(coil_images(SHAPE))))
    before = path.read_bytes()
    io.read_raw(path)
    assert path.read_bytes() == before
    with pytest.raises(io.InputError):
        io.read_raw(tmp_path / "missing.h5")
    assert not (tmp_path / "missing.h5").exists()
