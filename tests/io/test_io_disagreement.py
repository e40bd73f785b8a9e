"""Header and acquisitions that disagree: resolved where the data decide, else refused with both numbers."""

import logging

import numpy as np
import pytest
import sigpy as sp
from mrd_files import acquisition, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io
from hggdp_plugin.simulation import head_phantom

N, COILS = 48, 2


@pytest.fixture
def images():
    """An object that fills much of the field of view, with a smooth phase."""
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    phantom = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1) + 0.5 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.03)
    return (phantom * np.exp(1j * (x + 0.5 * y)) * np.array([1, 0.5j])[:, None, None]).astype(np.complex64)


def oversampled(images, factor=2):
    return kspace(sp.resize(images, (*images.shape[:-1], factor * images.shape[-1])))


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("factor", [2, 3])
def test_oversampling_that_the_header_leaves_out(tmp_path, images, factor, caplog):
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(oversampled(images, factor))))
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert raw.image_shape == (1, N, N)
    assert any(f"{factor * N} samples, the encoded matrix {N}" in message for message in caplog.messages)


def test_oversampling_that_the_header_leaves_out_of_asymmetric_echoes(tmp_path, images):
    ksp = oversampled(images)[..., 20:]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(ksp, center_sample=N - 20)))
    assert raw.mask[0, 0, 0, 0, 0, 0].sum() == N - 10
    image = sp.ifft(raw.ksp[0, 0, 0, 0, 0], axes=(-1, -2))
    assert np.linalg.norm(abs(image) - abs(images)) < 0.2 * np.linalg.norm(images)


def test_long_readouts_of_an_object_that_fills_them_are_refused(tmp_path, images):
    """Twice the samples, but of twice the resolution: nothing outside the field of view could be cropped."""
    fine = kspace(np.repeat(images, 2, axis=-1))
    with pytest.raises(io.InputError, match=r"96 samples, the encoded matrix 48.*%"):
        io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(fine)))


def test_readouts_that_are_no_multiple_of_the_matrix_are_refused(tmp_path, images):
    with pytest.raises(io.InputError, match="96 samples, the encoded matrix 64"):
        io.read_raw(write(tmp_path / "a.h5", header(encoding((64, N, 1))), image_acqs(oversampled(images))))


def test_oversampling_that_was_removed_before(tmp_path, images, caplog):
    xml = header(encoding((2 * N, N, 1), (N, N, 1), ef=(2 * N, N, 1), rf=(N, N, 1)))
    raw = io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(kspace(images))))
    close(raw.ksp[0, 0, 0, 0, 0], kspace(images))
    assert any("removed before" in message for message in caplog.messages)
    assert not warnings_of(caplog)
    small = sp.resize(images[..., 10:-10, 18:-18], images.shape)  # nothing in the outer half: it may be either
    io.read_raw(write(tmp_path / "b.h5", xml, image_acqs(kspace(small))))
    assert f"{N} samples, the encoded matrix {2 * N}" in warnings_of(caplog)[0]


def partial_fourier(ksp, skip, **fields):
    """Rows from ``skip`` on, counted from 0."""
    rows = [row for row in range(skip, N) if row % 2 == 0 or abs(row - N // 2) < 8]
    return [acquisition(ksp[:, row], idx={"kspace_encode_step_1": row - skip}, **fields) for row in rows]


@pytest.mark.parametrize("header_center", [18, None, 0, 35], ids=["middle of the rows", "missing", "zero", "beyond"])
def test_the_center_of_the_phase_encoding_is_where_kspace_peaks(tmp_path, images, header_center, caplog):
    ksp, skip = kspace(images), 12
    lines = partial_fourier(ksp, skip)
    right = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), ky_center=12)), lines))
    assert not warnings_of(caplog)
    raw = io.read_raw(write(tmp_path / "b.h5", header(encoding((N, N, 1), ky_center=header_center)), lines))
    close(raw.ksp, right.ksp)
    np.testing.assert_array_equal(raw.mask, right.mask)
    assert raw.calib_shape == right.calib_shape == (17, N)
    (warning,) = warnings_of(caplog)
    center = 24 if header_center is None else header_center
    assert f"k-space peaks at kspace_encode_step_1 12, where the center in the header is {center}" in warning


def test_a_peak_that_cannot_be_the_center(tmp_path, images, caplog):
    """An object with a strong linear phase: no other center leaves the rows in the matrix."""
    shifted = np.roll(kspace(images), 10, axis=1)
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), ky_center=24)), image_acqs(shifted)))
    close(raw.ksp[0, 0, 0, 0, 0], shifted)
    assert not warnings_of(caplog)  # all rows are there: the image only has another phase
    assert any("peaks at kspace_encode_step_1 34" in message for message in caplog.messages)
    xml = header(encoding((N, N, 1), ky_center=24))
    io.read_raw(write(tmp_path / "b.h5", xml, image_acqs(shifted, rows=range(6, N))))
    (warning,) = warnings_of(caplog)
    assert "the header is used" in warning


def test_the_center_of_the_partitions(tmp_path):
    z, y, x = np.mgrid[-1:1:16j, -1:1:24j, -1:1:24j]
    images = ((z**2 + y**2 + x**2 < 0.8) * np.exp(1j * z) * np.array([1, 2])[:, None, None, None]).astype(np.complex64)
    ksp = kspace(images)
    raws = []
    for center in (3, 7):
        lines = [
            acquisition(ksp[:, z, y], idx={"kspace_encode_step_1": y, "kspace_encode_step_2": z - 5})
            for z, y in np.ndindex(16, 24)
            if z >= 5
        ]
        xml = header(encoding((24, 24, 16), ky_center=12, kz_center=center))
        raws.append(io.read_raw(write(tmp_path / f"{center}.h5", xml, lines)))
    close(raws[1].ksp, raws[0].ksp)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_center_of_asymmetric_echoes(tmp_path, images, backwards, caplog):
    ksp = kspace(images)[..., 14:]
    raws = []
    for center in (10, 17):
        data = ksp[..., ::-1] if backwards else ksp
        stored = ksp.shape[-1] - 1 - center if backwards else center
        lines = image_acqs(data, center_sample=stored, flags=[22] if backwards else [])
        raws.append(io.read_raw(write(tmp_path / f"{center}.h5", header(encoding((N, N, 1))), lines)))
    close(raws[1].ksp, raws[0].ksp)
    (warning,) = warnings_of(caplog)
    assert "k-space peaks at readout sample 17" in warning


def test_noise_does_not_move_the_center(tmp_path, caplog):
    rng = np.random.default_rng(0)
    ksp = rng.standard_normal((COILS, N, N, 2)) @ [1, 1j]
    io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1), ky_center=24)), image_acqs(ksp)))
    assert not warnings_of(caplog)


def test_readouts_of_alternating_direction_that_are_not_marked(tmp_path, images, caplog):
    ksp = kspace(images).copy()
    io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(ksp)))
    assert not warnings_of(caplog)
    ksp[:, 1::2] = np.roll(ksp[:, 1::2], 2, axis=-1)  # the echo of every second readout comes later
    io.read_raw(write(tmp_path / "b.h5", header(encoding((N, N, 1))), image_acqs(ksp)))
    (warning,) = warnings_of(caplog)
    assert "2.0 samples apart" in warning
    assert "ghost" in warning


@pytest.mark.parametrize("every", [1, 3])
def test_lines_that_scatter_are_not_taken_for_alternating_readouts(tmp_path, every, caplog):
    """The spectrum of an object is not symmetric; in small matrices few lines have most of the energy."""
    rows = [row for row in range(N) if row % every == 0 or abs(row - N // 2) < 8]
    found = 0
    for seed in range(8, 18):
        ksp = kspace(head_phantom((N, N - 4), seed=seed))
        io.read_raw(write(tmp_path / f"{seed}.h5", header(encoding((N - 4, N, 1))), image_acqs(ksp, rows)))
        assert not warnings_of(caplog)
        ksp[:, 1::2] = np.roll(ksp[:, 1::2], 2, axis=-1)
        io.read_raw(write(tmp_path / f"{seed}_b.h5", header(encoding((N - 4, N, 1))), image_acqs(ksp, rows)))
        found += any("samples apart" in warning for warning in warnings_of(caplog))
        caplog.clear()
    assert found >= 9


@pytest.mark.parametrize("factor", [1, 2])
def test_asymmetric_echoes_are_not_taken_for_alternating_readouts(tmp_path, images, factor, caplog):
    ksp = oversampled(images, factor)[..., 16 * factor :]
    io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(ksp, center_sample=8 * factor)))
    assert not warnings_of(caplog)


def test_the_center_of_asymmetric_echoes_that_is_not_set(tmp_path, images, caplog):
    ksp = kspace(images)[..., 6:]
    raw = io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), image_acqs(ksp, center_sample=0)))
    close(raw.ksp[0, 0, 0, 0, 0, ..., 6:], ksp)
    (warning,) = warnings_of(
        caplog
    )  # of the peak; nothing is said to be lost, which would be so at the header's center
    assert "k-space peaks at readout sample 42, where center_sample is 24" in warning


def test_lines_without_counters_are_refused(tmp_path, images):
    lines = [acquisition(line) for line in kspace(images).swapaxes(0, 1)]
    with pytest.raises(io.InputError, match="all 48 image acquisitions have kspace_encode_step_1 0, the matrix has 48"):
        io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), lines))


def test_a_field_of_view_beyond_the_encoded_one_is_warned_of(tmp_path, images, caplog):
    xml = header(encoding((N, N, 1), ef=(N, N / 2, 1), rf=(N, N, 1)))
    io.read_raw(write(tmp_path / "a.h5", xml, image_acqs(kspace(images))))
    (warning,) = warnings_of(caplog)
    assert "along y is 48 mm in the header, beyond the encoded 24 mm" in warning


def test_a_frame_that_is_cut_off_is_warned_of(tmp_path, images, caplog):
    ksp = kspace(images)
    lines = image_acqs(ksp) + image_acqs(ksp, idx={"repetition": 1}) + image_acqs(ksp[:, :20], idx={"repetition": 2})
    io.read_raw(write(tmp_path / "a.h5", header(encoding((N, N, 1))), lines))
    (warning,) = warnings_of(caplog)
    assert "1 of 3 frames have less than half of the readouts of the others (20 to 48)" in warning
