"""The inline module under load: real processes and sockets, many clients, and clients that behave badly."""

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from mrd_server import Client
from mrd_server import __file__ as SERVER

from hggdp_plugin.apps import _inline
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.io import InputError
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import head_phantom

with warnings.catch_warnings():
    import ismrmrd

#: How the container starts the server: with PyTorch imported once for all processes.
SERVE = Path(__file__).parents[2] / "examples" / "inline" / "serve.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server of these tests forks")


@contextmanager
def server(folder, **environment):
    """A server in a process of its own: its port, and a function that returns its log."""
    path = folder / "log"
    shutil.copy(SERVER, folder / "main.py")
    with open(path, "w") as log:
        process = subprocess.Popen(
            [sys.executable, SERVE],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)} | environment,
        )
        try:
            yield int(process.stdout.readline()), path.read_text
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """The header of a scan, its acquisitions, and parameters of a quick reconstruction."""
    folder = tmp_path_factory.mktemp("scan")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    np.save(folder / "phantom.npy", head_phantom((64, 60), num_slices=2))
    options = "--mask random -R 2 --calib 16 --coils 8 --snr 50 --oversampling 2"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    with closing(ismrmrd.Dataset(str(folder / "raw.h5"), "dataset", mode="r")) as dataset:
        acquisitions = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
        header = dataset.read_xml_header().decode()
    return header, acquisitions, {"prior": str(folder / "tiny.safetensors"), "levels": "4"}


def send(port, scan, n_repetitions=1):
    header, acquisitions, parameters = scan
    client = Client(port, header, parameters)
    for _ in range(n_repetitions):  # are averaged
        for acquisition in acquisitions:
            client.send(acquisition)
    return client


def finish(client):
    client.close()
    return client.answers()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ten_clients_at_once_among_them_bad_ones(scan, tmp_path):
    header, acquisitions, parameters = scan
    with server(tmp_path) as (port, log), ThreadPoolExecutor(10) as pool:
        vanishing = [Client(port, header, parameters) for _ in range(2)]
        for client in vanishing:
            for acquisition in acquisitions[:20]:
                client.send(acquisition)
        good = [pool.submit(lambda: finish(send(port, scan))) for _ in range(8)]
        vanishing[0].vanish()  # between two messages
        vanishing[1].socket.sendall(b"\xf0\x03 half a mess")
        vanishing[1].vanish()
        first = good[0].result()
        for future in good:
            images, texts = future.result()
            assert [image.slice for image in images] == [0, 1]
            for image, expected in zip(images, first[0], strict=True):
                np.testing.assert_array_equal(image.data, expected.data)
            assert texts == [
                f"INFO     hggdp_plugin: {len(acquisitions)} acquisitions received",
                "INFO     hggdp_plugin: the reconstruction begins",
            ]
        wait_for(lambda: log().count("PEAK") == 10)
        assert log().count("each to reconstruct") == 8
        assert re.search(
            r"2 slices, \d+\.\d\d s each to reconstruct; seconds: "
            r"receive [\d.]+, wait [\d.]+, read [\d.]+, reconstruct [\d.]+, send [\d.]+",
            log(),
        )
        assert "ended without the closing message, after 20 acquisitions" in log()
        assert "ended early, after 20 acquisitions" in log()
        assert "Traceback" not in log()
        turns = re.findall(r"the stream: 2D|each to reconstruct", log())
        assert turns == ["the stream: 2D", "each to reconstruct"] * 8  # one after the other


def test_an_unfinished_scan_is_answered_after_a_while(scan, tmp_path):
    with server(tmp_path, HGGDP_IDLE_SECONDS="1") as (port, _):
        silent = send(port, scan)  # and never says that it is complete
        images, texts = silent.answers()
        assert images == []
        assert len(texts) == 1
        assert texts[0].startswith("ERROR")
        assert f"nothing came for 1 s, after {len(scan[1])} acquisitions" in texts[0]
        assert len(finish(send(port, scan))[0]) == 2


def test_a_client_that_leaves_while_it_waits_costs_no_reconstruction(scan, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with server(tmp_path) as (port, log):
        with _inline.turn("cpu"):
            leaving = send(port, scan)
            leaving.close()
            wait_for(lambda: b"received" in leaving.socket.recv(1 << 16))
            leaving.vanish()
            time.sleep(0.2)
        wait_for(lambda: "PEAK" in log())
        assert "the client has closed the connection" in log()
        assert "to reconstruct" not in log()


def test_a_stream_larger_than_the_memory_is_read_to_its_end_and_refused(scan, tmp_path):
    """Some megabytes; benchmarks/inline.py has the gigabyte."""
    size = sum(acquisition.data.nbytes for acquisition in scan[1])
    with server(tmp_path, HGGDP_MAX_STREAM_BYTES=str(2 * size)) as (port, log):
        images, texts = finish(send(port, scan, 30))
        assert images == []
        assert len(texts) == 1
        assert "MB do not fit into the memory that the server has left" in texts[0]
        wait_for(lambda: "PEAK" in log())
        refused = int(re.search(r"PEAK \d+ (\d+)", log())[1]) * 1024
        assert len(finish(send(port, scan, 2))[0]) == 2
        # The stream was not kept: all of it would be larger than what a small one takes.
        images, texts = finish(send(port, scan, 3))
        wait_for(lambda: log().count("PEAK") == 3)
        small = int(re.findall(r"PEAK \d+ (\d+)", log())[2]) * 1024
        assert texts
        assert refused < small + 5 * size


class Stream:
    """A connection that gives acquisitions of a size."""

    def __init__(self, count, size):
        data = np.zeros((1, size // 8), np.complex64)
        self.items = [ismrmrd.Acquisition.from_array(data) for _ in range(count)]

    def __iter__(self):
        yield from self.items
        yield None


def test_what_fits_depends_on_the_free_memory(monkeypatch):
    monkeypatch.setattr(_inline, "CHECK_BYTES", 1)
    monkeypatch.setattr(_inline, "free_host_memory", lambda: 2600 * 9)
    assert len(_inline.receive(Stream(9, 1000), "the stream")) == 9
    monkeypatch.setattr(_inline, "free_host_memory", lambda: 2400 * 9)
    with pytest.raises(InputError, match="do not fit into the memory"):
        _inline.receive(Stream(9, 1000), "the stream")
