"""Every unusable raw file gets one clear line, quickly and without asking for much memory."""

import os
import subprocess
import sys
import time

import h5py
import ismrmrd
import numpy as np
import pytest
from mrd_files import acquisition, coil_images, encoding, header, image_acqs, kspace, write

from hggdp_plugin import io

SHAPE = (24, 16)
XML = header(encoding((16, 24, 1), ky_center=12))
KSP = kspace(coil_images(SHAPE))
BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "ha">{}]><ismrmrdHeader>&a30;</ismrmrdHeader>""".format(
    "".join(f'<!ENTITY a{i} "&a{i - 1};&a{i - 1};">' for i in range(1, 31))
)
OUTSIDE = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><ismrmrdHeader>&e;</ismrmrdHeader>'
)


def valid(path, **fields):
    return write(path, XML, image_acqs(KSP, **fields))


def with_xml(text):
    return lambda path: write(path, text, image_acqs(KSP))


def with_line(data=KSP[:, 0], **fields):
    """A valid file with one more line."""
    return lambda path: write(path, XML, [*image_acqs(KSP), acquisition(data, **fields)])


def with_lines(*lines, xml=XML):
    return lambda path: write(path, xml, lines)


def edited(change):
    """A valid file, of which ``change(file)`` edits the HDF5 content."""

    def make(path):
        valid(path)
        with h5py.File(path, "a") as file:
            change(file)

    return make


def truncated(path):
    valid(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def without(*names):
    def change(file):
        for name in names:
            del file[name]

    return edited(change)


def foreign_array(path):
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((2, 3, 4, 4), np.complex64)
        file["ismrmrd_header"] = "<ismrmrdHeader/>"


def group_is_array(file):
    del file["dataset"]
    file["dataset"] = np.ones(3)


def billion_rows(file):
    dtype = file["dataset/data"].dtype
    del file["dataset/data"]
    file["dataset"].create_dataset("data", (10**9,), dtype, chunks=(100,))


def no_rows(file):
    dtype = file["dataset/data"].dtype
    del file["dataset/data"]
    file["dataset"].create_dataset("data", (0,), dtype, maxshape=(None,))


def short_payload(file):
    row = file["dataset/data"][5]
    row["data"] = row["data"][:-3]
    file["dataset/data"][5] = row


def long_header(file):
    row = file["dataset/data"][5]
    row["head"]["number_of_samples"] = 65535
    row["head"]["active_channels"] = 65535
    file["dataset/data"][5] = row


def long_noise(file):
    table = file["dataset/data"]
    rows = table[:]
    rows["head"]["active_channels"] = 65535
    rows = np.append(rows, rows[:1])
    rows["head"]["flags"][-1] = 1 << 18
    table.resize(25, axis=0)
    table[:] = rows


def dangling(file):
    del file["dataset"]
    file["dataset"] = h5py.ExternalLink("nowhere.h5", "/dataset")


def dangling_data(file):
    del file["dataset/data"]
    file["dataset/data"] = h5py.ExternalLink("nowhere.h5", "/data")


def plain_table(file):
    del file["dataset/data"]
    file["dataset/data"] = np.ones((4, 4))


def huge_text(file):
    del file["dataset/xml"]
    file["dataset"].create_dataset("xml", (1,), "S1000000000", chunks=(1,))


def poisoned(value):
    data = KSP[:, 0].copy()
    data[1, 3] = value
    return with_line(data)


def matrix(x, y, **more):
    return with_xml(header(encoding((x, y, 1), **more)))


RADIAL = header(encoding((16, 16, 1), trajectory="radial"))
TRAJ = np.stack([np.linspace(-8, 8, 16)] * 4, axis=1).astype(np.float32)

CASES = {
    "no file": (lambda path: None, "no such file"),
    "a folder": (lambda path: path.mkdir(), "not a file"),
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "text file": (lambda path: path.write_text("hello"), "not an HDF5 file"),
    "truncated file": (truncated, "damaged"),
    "no group": (without("dataset"), "no group holds"),
    "fastMRI layout": (foreign_array, "fastMRI"),
    "group is an array": (edited(group_is_array), "array"),
    "no xml": (without("dataset/xml"), "xml"),
    "broken xml": (with_xml(XML[:200]), "cannot be parsed"),
    "empty xml": (with_xml(""), "cannot be parsed"),
    "binary xml": (with_xml(b"\xff\xfe\x01garbage"), "cannot be parsed"),
    "other xml": (with_xml("<html/>"), "<html>"),
    "entity bomb": (with_xml(BOMB), "DOCTYPE"),
    "external entity": (with_xml(OUTSIDE), "DOCTYPE"),
    "huge xml": (edited(huge_text), "more text than the file holds"),
    "no encoding": (with_xml(XML.replace("encoding>", "encodink>")), "no <encoding>"),
    "images instead of data": (without("dataset/data"), "no 'data'"),
    "no acquisitions": (edited(no_rows), "no acquisitions"),
    "a billion rows": (edited(billion_rows), "declares 1000000000 acquisitions"),
    "not a table": (edited(plain_table), "not a table"),
    "dangling link": (edited(dangling), "link"),
    "dangling link to the data": (edited(dangling_data), "could not read"),
    "NaN": (poisoned(np.nan), "not finite"),
    "infinity": (poisoned(np.inf), "not finite"),
    "overflow": (poisoned(1e30), "not finite"),
    "NaN in the noise": (
        with_line(KSP[:, 0] * np.nan, flags=[19]),
        "acquisition 24: it holds",
    ),
    "channels change": (with_line(KSP[:2, 0]), "2 channels, acquisition 0 has 3"),
    "readout lengths change": (with_line(KSP[:, 0, 1:]), "15 samples, acquisition 0 has 16"),
    "encoding step outside": (with_line(idx={"kspace_encode_step_1": 24}), "outside the matrix"),
    "center outside": (matrix(16, 24, ky_center=40), "outside the matrix"),
    "center far outside": (matrix(16, 24, ky_center=10**300), "center of kspace_encoding_step_1"),
    "noise of 65535 channels": (edited(long_noise), "acquisition 24: its header announces"),
    "partition outside": (with_line(idx={"kspace_encode_step_2": 3}), "outside the matrix"),
    "encoding missing": (with_lines(acquisition(KSP[:, 0], encoding_space_ref=3)), "encoding 3"),
    "payload too short": (edited(short_payload), "acquisition 5: its header announces 96"),
    "header too large": (edited(long_header), "acquisition 5"),
    "lines longer than the matrix": (matrix(8, 24), "16 samples, the encoded matrix 8"),
    "nothing left of a line": (with_lines(acquisition(KSP[:, 0], discard_pre=9, discard_post=9)), "discard_pre"),
    "center outside the line": (with_lines(acquisition(KSP[:, 0], center_sample=500)), "center_sample"),
    "no samples": (with_lines(acquisition(np.zeros((3, 0)))), "no samples"),
    "matrix 0": (matrix(0, 24), "matrix"),
    "matrix negative": (matrix(16, -256), "matrix"),
    "matrix 1e6": (matrix(10**6, 10**6), "matrix"),
    "matrix 65535": (matrix(65535, 65535), "MiB"),
    "matrix text": (matrix("many", 24), "not a number"),
    "matrix fraction": (matrix(16.5, 24), "matrix"),
    "recon matrix 50000": (matrix(16, 24, rm=(50000, 24, 1)), "recon matrix"),
    "field of view 0": (matrix(16, 24, rf=(0, 24, 1)), "field of view"),
    "field of view NaN": (matrix(16, 24, rf=("nan", 24, 1)), "not a number"),
    "spiral without trajectory": (with_xml(header(encoding((16, 24, 1), trajectory="spiral"))), "no trajectory"),
    "trajectory of one dimension": (with_lines(acquisition(KSP[:, 0], traj=TRAJ[:, :1]), xml=RADIAL), "1 dimensions"),
    "trajectory of four dimensions": (with_lines(acquisition(KSP[:, 0], traj=TRAJ), xml=RADIAL), "4 dimensions"),
    "trajectory of unknown unit": (with_lines(acquisition(KSP[:, 0], traj=TRAJ[:, :2] * 100), xml=RADIAL), "neither"),
    "trajectory NaN": (with_lines(acquisition(KSP[:, 0], traj=TRAJ[:, :2] * np.nan), xml=RADIAL), "not finite"),
    "only noise": (with_lines(acquisition(KSP[:, 0], flags=[19])), "only noise"),
    "only calibration": (with_lines(acquisition(KSP[:, 0], flags=[20])), "only calibration"),
    "all zero": (with_lines(*image_acqs(0 * KSP)), "zero"),
}


@pytest.mark.parametrize("name", CASES)
def test_answer(tmp_path, name):
    make, expected = CASES[name]
    path = tmp_path / "raw.h5"
    make(path)
    start = time.monotonic()
    with pytest.raises(io.InputError) as caught:
        io.read_raw(path)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(path))
    assert "\n" not in message
    assert message.count(";") >= 1, "what to do"
    assert time.monotonic() - start < 10
    assert path.exists() == (name != "no file")


def test_group_asked_for_is_missing(tmp_path):
    with pytest.raises(io.InputError, match="no such group"):
        io.read_raw(valid(tmp_path / "raw.h5"), "other")


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space, which Linux does")
def test_little_space(tmp_path):
    """All bad files are answered within 1 GiB more address space than the interpreter needs."""
    paths = []
    for i, (make, _) in enumerate(CASES.values()):
        paths.append(tmp_path / f"{i}.h5")
        make(paths[-1])
    program = """
import resource, sys
from hggdp_plugin import io
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        io.read_raw(path)
    except io.InputError as error:
        assert "MemoryError" not in str(error) and "not fit" not in str(error), error
        continue
    sys.exit(f"{path} was read")
"""
    env = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_the_valid_file_is_valid(tmp_path):
    """The cases above differ from a file that is read."""
    path = valid(tmp_path / "raw.h5")
    assert io.read_raw(path).ksp.any()
    with ismrmrd.Dataset(str(path), mode="r") as file:
        assert file.number_of_acquisitions() == 24
