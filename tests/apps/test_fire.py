"""The module for python-ismrmrd-server, over a loopback socket with the ismrmrd package's own protocol."""

import json
import socket
import threading
import warnings
from contextlib import closing, suppress

import numpy as np
import pytest

from hggdp_plugin import io
from hggdp_plugin.apps import fire
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import head_phantom

with warnings.catch_warnings():  # the package resets the interpreter's warning filters when it is imported
    import ismrmrd

    serialization = pytest.importorskip("ismrmrd.serialization", reason="needs ismrmrd 1.15")


class Connection:
    """What python-ismrmrd-server hands to its modules, on the package's protocol."""

    def __init__(self, stream):
        self.items = serialization.ProtocolDeserializer(stream).deserialize()
        self.out = serialization.ProtocolSerializer(stream)

    def __iter__(self):
        yield from self.items
        yield None

    def send_image(self, images):
        for image in images:
            self.out.serialize(image)

    def send_logging(self, level, text):
        self.out.serialize(f"{level} {text}")

    def send_close(self):
        self.out.close()


def serve(listener):
    """Handles one connection after the other, in this very thread: an exception would end it."""
    while True:
        try:
            client, __ = listener.accept()
        except OSError:
            return
        with client, client.makefile("rwb") as stream:
            connection = Connection(stream)
            config, metadata = json.loads(next(connection.items)), next(connection.items)
            with suppress(Exception):  # passed on as text, as the server does
                metadata = ismrmrd.xsd.CreateFromDocument(metadata)
            fire.process(connection, config, metadata)


@pytest.fixture
def server():
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    yield listener.getsockname()
    assert thread.is_alive()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fire")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    np.save(folder / "phantom.npy", head_phantom((48, 44), num_slices=2))
    options = "--mask random -R 2 --calib 16 --coils 4 --snr 50 --noise-scan --oversampling 2"
    assert hggdp(["simulate", str(folder / "phantom.npy"), "-o", str(folder / "raw.h5"), *options.split()]) == 0
    return folder


@pytest.fixture(scope="module")
def measurement(folder):
    """The XML header and the acquisitions of a file."""
    with closing(ismrmrd.Dataset(str(folder / "raw.h5"), "dataset", mode="r")) as dataset:
        acquisitions = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
        return dataset.read_xml_header().decode(), acquisitions


@pytest.fixture
def send(server, folder):
    def send(xml, acquisitions, cut=0, **parameters):
        """Returns images and warnings or errors that come back; ``cut`` bytes are missing at the end."""
        parameters = {"prior": str(folder / "tiny.safetensors"), "levels": "4", **parameters}
        with socket.create_connection(server, timeout=60) as client, client.makefile("rwb") as stream:
            out = serialization.ProtocolSerializer(stream)
            out.serialize(serialization.ConfigText(json.dumps({"parameters": parameters})))
            out.serialize(xml)
            for acquisition in acquisitions:
                out.serialize(acquisition)
            if cut:
                stream.write(b"\xf0\x03" + bytes(acquisitions[0].getHead())[:-cut])
                stream.flush()
            else:
                out.close()
            client.shutdown(socket.SHUT_WR)
            answers = list(serialization.ProtocolDeserializer(stream).deserialize())
        text = [answer for answer in answers if isinstance(answer, str) and not answer.startswith("INFO")]
        return [answer for answer in answers if not isinstance(answer, str)], text

    return send


def test_a_stream_gives_the_images_of_the_file(send, measurement, folder):
    images, text = send(*measurement)
    assert text == []
    output = folder / "image.h5"
    options = ["--prior", str(folder / "tiny.safetensors"), "-N", "4", "-q", "--overwrite"]
    assert main([str(folder / "raw.h5"), "-o", str(output), *options]) == 0
    expected = io.read_images(output)[0, 0, 0, 0]
    assert [image.slice for image in images] == [0, 1]
    assert [image.image_index for image in images] == [1, 2]
    stack = np.concatenate([image.data[0] for image in images])
    assert (stack.dtype, stack.max()) == (np.int16, 4095)
    np.testing.assert_allclose(stack, expected * (4095 / expected.max()), atol=8)
    assert images[0].meta["DataRole"] == "Image"
    assert 0 < float(images[0].meta["WindowWidth"]) <= 4095


def test_the_server_keeps_running_after_unusable_input(send, measurement):
    xml, acquisitions = measurement
    bad = [
        (("<ismrmrdHeader", acquisitions), {}, "cannot be parsed"),
        (("no header", acquisitions), {}, "cannot be parsed"),
        ((xml, acquisitions[:20]), {"cut": 5}, "ended early, after 20 acquisitions"),
        ((xml, []), {}, "no acquisitions"),
        ((xml, acquisitions[:1]), {}, "no image acquisitions"),
        ((xml, acquisitions), {"levels": "many"}, "levels is 'many'"),
        ((xml, acquisitions), {"coils": 9}, "1 to 4 virtual coils"),
        ((xml, acquisitions), {"prior": "nonsense"}, "nonsense"),
    ]
    for sent, options, says in bad:
        images, text = send(*sent, **options)
        assert images == []
        assert len(text) == 1
        assert text[0].startswith("ERROR")
        assert "\n" not in text[0]
        assert says in text[0]
    assert len(send(xml, acquisitions, coils="3")[0]) == 2


def test_a_header_that_only_the_server_cannot_parse_is_used(send, measurement):
    """The server wants more of a header than a reconstruction does."""
    xml, acquisitions = measurement
    images, text = send(xml.replace("</ismrmrdHeader>", "<unknown/></ismrmrdHeader>"), acquisitions)
    assert (len(images), text) == (2, [])


def test_a_bug_or_a_closed_connection_does_not_raise(measurement, monkeypatch, caplog):
    class Gone:
        def __iter__(self):
            return iter([*measurement[1], None])

        def __getattr__(self, name):
            raise BrokenPipeError(name) if name.startswith("send") else AttributeError(name)

    fire.process(Gone(), "hggdp_plugin.apps.fire", None)
    assert "see the server's log" in caplog.text
    assert "The client has closed the connection" in caplog.text
