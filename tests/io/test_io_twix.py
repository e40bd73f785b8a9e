"""Siemens raw files: written here block by block, and the real ones against images computed by hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import io

twixtools = pytest.importorskip("twixtools")
N = 32
FOLDER = Path(os.environ.get("HGGDP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "twix"


def buffers(**values):
    """The protocol of a measurement, as twixtools parses it: one buffer of assignments."""
    text = "".join(f"{name} = {value}\n" for name, value in values.items())
    patient = '<ParamString."tPatientName">  { "Doe, J & Co"  }'
    names = {
        "MeasYaps": f"### ASCCONV BEGIN ###\n{text}\n### ASCCONV END ###",
        "Meas": patient,
        "Dicom": "",
        "Config": "",
    }
    body = b"".join(
        n.encode() + b"\0" + (len(t) + 1).to_bytes(4, "little") + t.encode() + b"\0" for n, t in names.items()
    )
    length = 8 + len(body)
    pad = -length % 32
    return np.frombuffer(
        (length + pad).to_bytes(4, "little") + len(names).to_bytes(4, "little") + body + bytes(pad), "S1"
    )


def protocol(**more):
    values = {
        "tProtocolName": '"scan"',
        "sKSpace.lBaseResolution": N,
        "sKSpace.ucTrajectory": 1,
        "sSliceArray.asSlice[0].dThickness": 5.0,
        "sSliceArray.asSlice[0].dPhaseFOV": 200.0,
        "sSliceArray.asSlice[0].dReadoutFOV": 200.0,
        "sRXSPEC.alDwellTime[0]": 5000,
        "iPEFTLength": N,
    }
    names = {name.replace("__", "."): value for name, value in more.items()}
    return buffers(**(values | names))


def block(
    data, flags=(), *, lin=0, par=0, center=(N // 2, 0), counters=None, position=(0, 0, 0), multi_raid=True, **fields
):
    mdb = twixtools.mdb.Mdb_local(np.asarray(data, np.complex64), multi_raid)
    mdb.mdh.Counter.Lin, mdb.mdh.Counter.Par = lin, par
    for name, value in (counters or {}).items():
        setattr(mdb.mdh.Counter, name, value)
    mdb.mdh.CenterLin, mdb.mdh.CenterPar = center
    mdb.mdh.CenterCol = data.shape[-1] // 2
    for name, value in fields.items():
        setattr(mdb.mdh, name, value)
    mdb.mdh.SliceData.SlicePos.Sag, mdb.mdh.SliceData.SlicePos.Cor, mdb.mdh.SliceData.SlicePos.Tra = position
    mdb.mdh.SliceData.Quaternion[:] = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]  # transversal, phase encoding A-P
    mdb.add_flag("ONLINE")
    for flag in flags:
        mdb.add_flag(flag)
    return mdb


def write(path, *scans):
    """Writes measurements, each of them a protocol and its blocks."""
    twixtools.write_twix([{"hdr_str": hdr, "mdb": list(blocks)} for hdr, blocks in scans], str(path))
    return path


def write_vb(path, hdr, blocks):
    """Writes a measurement as software VB does: no index of measurements, the header before the data of each coil."""
    end = twixtools.mdb.Mdb_local(np.zeros((1, 16), np.complex64), False)
    end.add_flag("ACQEND")
    content = b"".join(bytes(mdb.mdh) + coil.tobytes() for mdb in [*blocks, end] for coil in mdb.data)
    header_bytes = 12288  # real protocols are longer still; twixtools takes short ones for an index
    path.write_bytes(header_bytes.to_bytes(4, "little") + hdr.tobytes()[4:].ljust(header_bytes - 4, b"\0") + content)
    return path


def images(shape=(N, N), coils=3, seed=0):
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = sum((g / 0.8) ** 2 for g in grids)
    smooth = [
        np.exp(1j * sum(c * g for c, g in zip(rng.standard_normal(len(shape)), grids, strict=True)))
        for _ in range(coils)
    ]
    return ((radius < 1) * np.stack(smooth)).astype(np.complex64)


def oversampled(coil_images):
    wide = sp.resize(coil_images, (*coil_images.shape[:-1], 2 * coil_images.shape[-1]))
    return sp.fft(wide, axes=tuple(range(1, wide.ndim))).astype(np.complex64)


def lines(ksp, rows=range(N), **fields):
    return [block(ksp[:, row], lin=row, **fields) for row in rows]


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def test_oversampling_averages_and_slices(tmp_path):
    stack = [images(seed=s) for s in range(3)]
    blocks = []
    for counter, place in enumerate((0, 2, 1)):
        for average in range(2):
            ksp = oversampled(stack[place]) * (1 + 0.5 * (2 * average - 1))
            where = {"counters": {"Sli": counter, "Ave": average}, "position": (1.0, 2.0, 6.0 * place)}
            blocks += lines(ksp, **where)
    raw = io.read_twix(write(tmp_path / "meas.dat", (protocol(), blocks)))
    assert (raw.frame_shape, raw.n_coils, raw.image_shape) == ((1, 1, 1, 1, 3), 3, (3, N, N))
    assert raw.fov == (5, 200, 200)
    for counter, place in enumerate((0, 2, 1)):
        close(raw.ksp[0, 0, 0, 0, counter], sp.fft(stack[place], axes=(-2, -1)))
    np.testing.assert_allclose(raw.geometry.position, [[1, 2, 0], [1, 2, 12], [1, 2, 6]])
    assert "Doe, J &amp; Co" in raw.header


def test_software_vb(tmp_path, caplog):
    coil_images = images()
    blocks = lines(oversampled(coil_images), multi_raid=False)
    noise = np.random.default_rng(0).standard_normal((20, 3, 256, 2)) @ [1, 1j]
    adjustment = [block(n, ["NOISEADJSCAN"], multi_raid=False) for n in noise]
    raw = io.read_twix(write_vb(tmp_path / "meas.dat", protocol(), adjustment + blocks))
    assert raw.whitened
    assert (raw.n_coils, raw.image_shape) == (3, (1, N, N))
    close(raw.noise_cov, np.eye(3) * raw.noise_cov[0, 0], 0.2)
    raw = io.read_twix(write_vb(tmp_path / "meas.dat", protocol(), blocks))
    close(raw.ksp[0, 0, 0, 0, 0], sp.fft(coil_images, axes=(-2, -1)))
    assert all(record.levelname == "INFO" for record in caplog.records)


def test_noise_and_reference_scans_of_a_multi_raid_file(tmp_path):
    rng = np.random.default_rng(0)
    mixing = np.eye(3) + 0.3 * rng.standard_normal((3, 3))
    noise = [(mixing @ (rng.standard_normal((3, 256, 2)) @ [1, 1j])) for _ in range(20)]
    adjustment = protocol(tProtocolName='"AdjCoilSens"'), [block(n, ["NOISEADJSCAN"]) for n in noise]
    ksp = oversampled(images())
    center = set(range(N // 2 - 4, N // 2 + 4))
    scan = lines(ksp, sorted(set(range(0, N, 2)) - center))
    scan += lines(ksp, sorted(center - set(range(0, N, 2))), flags=["PATREFSCAN"])
    scan += lines(ksp, sorted(center & set(range(0, N, 2))), flags=["PATREFSCAN", "PATREFANDIMASCAN"])
    raw = io.read_twix(write(tmp_path / "meas.dat", adjustment, (protocol(), scan)))
    assert raw.whitened
    np.testing.assert_allclose(raw.noise_cov, 2 * mixing @ mixing.T, atol=0.2)
    assert raw.mask[0, 0, 0, 0, 0, :, 0].sum() == N // 2
    assert raw.calib_shape == (9, N)


def test_partial_fourier_and_reversed_and_asymmetric_readouts(tmp_path):
    ksp = oversampled(images())
    blocks = []
    for row in range(8, N):
        fields = {"lin": row - 8, "center": (N // 2 - 8, 0)}
        if row % 2:
            blocks.append(block(ksp[:, row, ::-1], ["REFLECT"], **fields))
        else:
            blocks.append(block(ksp[:, row], **fields))
    raw = io.read_twix(write(tmp_path / "meas.dat", (protocol(), blocks)))
    assert raw.grid == (N, N)
    close(raw.ksp[0, 0, 0, 0, 0, :, 8:], sp.fft(images(), axes=(-2, -1))[:, 8:])
    assert not raw.mask[0, 0, 0, 0, 0, :8].any()
    echo = lines(ksp[..., 16:], CenterCol=N - 16)
    raw = io.read_twix(write(tmp_path / "echo.dat", (protocol(), echo)))
    assert raw.grid == (N, N)
    assert raw.mask[0, 0, 0, 0, 0, 0].sum() == N - 8


def test_volume(tmp_path):
    volume = images((8, N, N), coils=2)
    ksp = oversampled(volume)
    blocks = [block(ksp[:, z, y], lin=y, par=z, center=(N // 2, 4)) for z in range(8) for y in range(N)]
    values = {"i3DFTLength": 8, "sSliceArray__asSlice[0]__dThickness": 40.0}
    raw = io.read_twix(write(tmp_path / "meas.dat", (protocol(**values), blocks)))
    assert (raw.slice_axis, raw.grid, raw.image_shape, raw.fov) == ("x", (8, N), (8, N, N), (40, 200, 200))
    recon = sp.ifft(raw.ksp[:, :, :, :, :, 0], axes=(-2, -1))
    close(raw.to_image(recon)[0, 0, 0, 0], volume[0])


def test_a_protocol_that_the_sequence_did_not_fill_in(tmp_path):
    """As sequences of one's own do: more lines than the protocol says, no center, no oversampling."""
    ksp = sp.fft(images(), axes=(-2, -1)).astype(np.complex64)
    hdr = protocol(iPEFTLength=8, flReadoutOSFactor=1.0)
    raw = io.read_twix(write(tmp_path / "meas.dat", (hdr, lines(ksp, center=(0, 0)))))
    assert raw.image_shape == (1, N, N)
    close(raw.ksp[0, 0, 0, 0, 0], ksp)


def test_directions(tmp_path):
    """Siemens' directions are those of a forward transform: with an inverse one the image runs against them."""
    nibabel = pytest.importorskip("nibabel")
    spot = np.zeros((1, N, N), np.complex64)
    spot[0, 20, 9] = 1
    # k-space by the sign of the exponent that makes a forward transform the reconstruction.
    ksp = np.conj(oversampled(np.conj(spot)))
    raw = io.read_twix(write(tmp_path / "meas.dat", (protocol(), lines(ksp, position=(10.0, 20.0, 30.0)))))
    assert raw.against_directions
    image = np.abs(raw.to_image(sp.ifft(raw.ksp[..., 0, :, :], axes=(-2, -1))))
    io.write_image(tmp_path / "image.nii", image, raw=raw)
    file = nibabel.load(tmp_path / "image.nii")
    found = np.unravel_index(np.argmax(file.dataobj), file.shape)
    # Columns of the rotation about z by 90 degrees: phase encoding towards posterior, readout towards the right.
    pixel = 200 / N
    expected = np.array([10, 20, 30]) + pixel * (
        (20 - N // 2) * np.array([0, 1, 0]) + (9 - N // 2) * np.array([-1, 0, 0])
    )
    np.testing.assert_allclose(file.affine @ [*found, 1], [*(expected * [-1, -1, 1]), 1], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sKSpace__ucTrajectory": 2}, "trajectory is radial"),
        ({"sSliceAcceleration__lMultiBandFactor": 2}, "simultaneously"),
        ({"sSliceArray__asSlice[0]__dReadoutFOV": 0.0}, "field of view"),
    ],
)
def test_measurements_that_are_refused(tmp_path, change, says):
    path = write(tmp_path / "meas.dat", (protocol(**change), lines(oversampled(images()))))
    with pytest.raises(io.InputError, match=says):
        io.read_twix(path)


def test_files_that_are_refused(tmp_path, caplog):
    path = write(tmp_path / "meas.dat", (protocol(), lines(oversampled(images()))))
    content = path.read_bytes()
    (tmp_path / "text.dat").write_text("hello " * 1000)
    (tmp_path / "empty.dat").write_bytes(b"")
    (tmp_path / "head.dat").write_bytes(content[:12000])
    only_noise = (protocol(), [block(np.ones((3, 64)), ["NOISEADJSCAN"])])
    write(tmp_path / "noise.dat", only_noise)
    for name in ("text", "empty", "head", "noise", "missing"):
        with pytest.raises(io.InputError) as caught:
            io.read_twix(tmp_path / f"{name}.dat")
        assert "\n" not in str(caught.value)
    (tmp_path / "short.dat").write_bytes(content[: len(content) * 3 // 4])
    assert io.read_twix(tmp_path / "short.dat").ksp.any()
    assert "cut short" in caplog.text


def test_damaged_files(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "meas.dat", (protocol(), lines(oversampled(images()))))
    whole, read = path.read_bytes(), 0
    for _ in range(int(os.environ.get("HGGDP_FUZZ_CASES", "300")) // 10):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(10240, len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            raw = io.read_twix(path)
        except io.InputError:
            continue
        assert np.isfinite(raw.ksp).all()
        read += 1
    assert read > 0


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the Siemens files of HGGDP_DATA")
@pytest.mark.parametrize("name", ["brain_2ch_flash", "phantom_2ch_flash"])
def test_real_files_against_images_computed_by_hand(name, caplog):
    path = FOLDER / f"{name}.dat"
    raw = io.read_twix(path)
    content = path.read_bytes()
    size = 2 * (32 + 128 * 8)  # two channels: channel header and 128 samples
    start = len(content) - 128 * (192 + size)  # 128 readouts at the end of the file, after whatever is padding
    for offset in range(start, start - 4096, -4):
        samples = [content[offset + i * (192 + size) + 192 :][:size] for i in range(128)]
        if np.frombuffer(content[offset + 48 : offset + 52], "<u2").tolist() == [128, 2]:
            break
    ksp = np.stack([np.frombuffer(s, np.uint8).reshape(2, -1)[:, 32:].copy().view(np.complex64) for s in samples])
    by_hand = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(ksp, axes=(0, 2)), axes=(0, 2), norm="ortho"), axes=(0, 2))
    close(sp.ifft(raw.ksp[0, 0, 0, 0, 0], axes=(-2, -1)), by_hand.transpose(1, 0, 2))
    assert raw.image_shape == (1, 128, 128)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "a Pulseq sequence" in warning


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the Siemens files of HGGDP_DATA")
def test_the_air_in_a_real_phantom_is_at_the_top_of_the_picture():
    """A bubble cuts the disk off on top. In this Pulseq sequence the rows run along the header's phase encoding."""
    raw = io.read_twix(FOLDER / "phantom_2ch_flash.dat")
    image = np.sqrt((np.abs(sp.ifft(raw.ksp[0, 0, 0, 0, 0], axes=(-2, -1))) ** 2).sum(axis=0))
    widths = (image > 0.25 * np.percentile(image, 95)).sum(axis=1)
    disk = np.flatnonzero(widths > 40)  # pixels of 2 mm
    above, below = widths[: disk[0]], widths[disk[-1] + 1 :]
    assert (above > 4).sum() < (below > 4).sum()
    np.testing.assert_allclose(raw.acq_headers["phase_dir"].ravel(), [0, 1, 0], atol=1e-6)  # towards posterior


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the Siemens files of HGGDP_DATA")
def test_a_real_epi_file_is_warned_of(caplog):
    io.read_twix(FOLDER / "phantom_epi_96.dat")
    assert "alternating direction" in caplog.text
