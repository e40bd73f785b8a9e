"""A small server with the interface that python-ismrmrd-server gives to its modules, and clients for it.

The server itself is not on PyPI. Run as a script it prints its port and serves each client in a process of its own, as
``main.py -m`` of the real one does: python mrd_server.py [FIXED_PORT]
"""

import ctypes
import importlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import warnings
from pathlib import Path

with warnings.catch_warnings():  # the package resets the interpreter's warning filters when it is imported
    import ismrmrd

CONFIG_FILE, CONFIG_TEXT, HEADER, CLOSE, TEXT, ACQUISITION, IMAGE = 1, 2, 3, 4, 5, 1008, 1022


class Connection:
    """Messages of a client, parsed. Iterating gives None at the closing message and at the end of the stream."""

    def __init__(self, client: socket.socket) -> None:
        self.socket, self.is_exhausted, self.lock = client, False, threading.Lock()
        self.handlers = {
            CONFIG_FILE: lambda: self.read(1024).decode().split("\0")[0],
            CONFIG_TEXT: self.read_text,
            HEADER: self.read_text,
            CLOSE: self.read_close,
            TEXT: self.read_text,
            ACQUISITION: lambda: ismrmrd.Acquisition.deserialize_from(self.read),
            IMAGE: lambda: ismrmrd.Image.deserialize_from(self.read),
        }

    def __iter__(self):
        while not self.is_exhausted:
            yield next(self)

    def __next__(self):
        with self.lock:
            try:
                identifier = self.read(2)
            except ConnectionResetError:
                identifier = b""
            if not identifier:
                self.is_exhausted = True
                return None
            return self.handlers[struct.unpack("<H", identifier)[0]]()

    def read(self, size):
        return self.socket.recv(size, socket.MSG_WAITALL)  # fewer bytes at the end of the stream

    def read_text(self):
        return self.read(struct.unpack("<I", self.read(4))[0]).decode().split("\0")[0]

    def read_close(self):
        self.is_exhausted = True

    def send_text(self, text):
        with self.lock:
            data = f"{text}\0".encode()
            self.socket.send(struct.pack("<HI", TEXT, len(data)))
            self.socket.send(data)

    def send_logging(self, level, text):
        self.send_text(f"{level} {text}")

    def send_image(self, images):
        with self.lock:
            for image in images if isinstance(images, list) else [images]:
                self.socket.send(struct.pack("<H", IMAGE))
                image.serialize_into(self.socket.send)

    def send_close(self):
        with self.lock:
            self.socket.send(struct.pack("<H", CLOSE))


def handle(client: socket.socket) -> None:
    """Serve one client: its configuration, the header, parameters as JSON, then the module."""
    connection = Connection(client)
    try:
        config, header = next(connection), next(connection)
        try:
            header = ismrmrd.xsd.CreateFromDocument(header)
        except Exception:
            logging.warning("The header is passed on as text")
        parameters: object = config
        if struct.unpack("<H", client.recv(2, socket.MSG_PEEK))[0] == TEXT:
            parameters = json.loads(next(connection))
        importlib.import_module(config).process(connection, parameters, header)
    except Exception:
        logging.exception("The module failed")
    finally:
        client.close()
        usage = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        logging.info("PEAK %d %s KiB", os.getpid(), usage)


def serve() -> None:
    importlib.import_module("hggdp_plugin.volume.reconstruct")  # once for all processes, as in examples/inline/serve.py
    logging.basicConfig(level=logging.INFO, format="%(process)d %(levelname)s %(message)s", stream=sys.stderr)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0))
    print(listener.getsockname()[1], flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    fork = multiprocessing.get_context("fork")
    while True:
        client, _ = listener.accept()
        fork.Process(target=handle, args=[client], daemon=True).start()
        client.close()


class Client:
    """What a scanner does: sends a scan, then reads what comes back."""

    def __init__(self, port: int, header: str, parameters: dict | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.sendall(struct.pack("<H1024s", CONFIG_FILE, b"hggdp_plugin.apps.fire"))
        for identifier, text in ((HEADER, header), (TEXT, json.dumps({"parameters": parameters or {}}))):
            data = f"{text}\0".encode()
            self.socket.sendall(struct.pack("<HI", identifier, len(data)) + data)

    def send(self, acquisition: ismrmrd.Acquisition) -> None:
        self.socket.sendall(struct.pack("<H", ACQUISITION))
        acquisition.serialize_into(self.socket.sendall)

    def close(self) -> None:
        self.socket.sendall(struct.pack("<H", CLOSE))

    def answers(self) -> tuple[list[ismrmrd.Image], list[str]]:
        """Images and texts, to the server's closing message."""
        images, texts = [], []
        with self.socket, self.socket.makefile("rb") as stream:
            while (identifier := struct.unpack("<H", stream.read(2))[0]) != CLOSE:
                if identifier == IMAGE:
                    images.append(ismrmrd.Image.deserialize_from(stream.read))
                else:
                    texts.append(stream.read(struct.unpack("<I", stream.read(4))[0]).decode().rstrip("\0"))
        return images, texts

    def vanish(self) -> None:
        """Close at once, as a process that is killed."""
        self.socket.close()


def acquisition_bytes(acquisition: ismrmrd.Acquisition) -> int:
    return ctypes.sizeof(ismrmrd.AcquisitionHeader) + acquisition.data.nbytes + acquisition.traj.nbytes


if __name__ == "__main__":
    serve()
