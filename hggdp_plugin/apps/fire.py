"""Inline reconstruction at the scanner: a module for python-ismrmrd-server, which Siemens FIRE can run.

The server calls :func:`process` when a client asks for the configuration ``hggdp_plugin.apps.fire``.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hggdp_plugin import io
from hggdp_plugin.apps._cli import find_device
from hggdp_plugin.apps._inline import Stopwatch, bound_waiting, is_gone, receive, turn
from hggdp_plugin.io.mrd import read_stream
from hggdp_plugin.io.mrd.images import mrd_images
from hggdp_plugin.threads import configure_threads

if TYPE_CHECKING:
    import ismrmrd

_STREAM = "the stream"
_logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What the server gives to its modules. Iterating over it gives acquisitions and other items, None at the end."""

    def __iter__(self) -> Iterator[object]: ...

    def send_image(self, images: "list[ismrmrd.Image]") -> None:
        """Send images to the client."""

    def send_close(self) -> None:
        """Tell the client that nothing follows."""


class ParsedHeader(Protocol):
    """An MRD header that the server has parsed."""

    def toXML(self) -> str:
        """Return the header as text."""


@dataclass(frozen=True)
class Parameters:
    """Parameters that a client may set in the JSON configuration. All others are left to the server.

    Attributes:
        prior (str or None): Name or file of the prior.
        levels (int or None): Number of noise levels.
        seed (int): Seed of the noise.
        coils (int or None): Number of virtual coils.
        gpu (int or None): Number of the GPU.
    """

    prior: str | None = None
    levels: int | None = None
    seed: int = 0
    coils: int | None = None
    gpu: int | None = None

    @classmethod
    def parse(cls, config: object) -> "Parameters":
        """Take the parameters out of a configuration.

        Args:
            config (str or dict): The configuration; ``{"parameters": {...}}`` may contain some.

        Returns:
            Parameters: Those that are there.

        Raises:
            InputError: A parameter is not a whole number.
        """
        given = config.get("parameters") if isinstance(config, Mapping) else None
        given = given if isinstance(given, Mapping) else {}

        def number(name: str) -> int | None:
            if (value := given.get(name)) in (None, ""):
                return None
            try:
                return int(value)
            except (TypeError, ValueError):
                problem = f"parameter {name} is {value!r}"
                raise io.InputError("the configuration", problem, "give a whole number") from None

        prior = given.get("prior") or None
        return cls(prior and str(prior), number("levels"), number("seed") or 0, number("coils"), number("gpu"))


def process(connection: Connection, config: object, metadata: "ParsedHeader | str | bytes") -> None:
    """Reconstruct a stream of acquisitions and send magnitude images back.

    Never raises, so that the server keeps running. Errors are sent to the client as one line, and logged. The log has
    the seconds of each stage. Scans that arrive at the same time, in several processes of the server, are reconstructed
    one after the other.

    Args:
        connection (Connection): The server's connection.
        config (str or dict): Configuration, see :meth:`Parameters.parse`.
        metadata (ismrmrdHeader, str or bytes): The MRD header, as text if the server could not parse it.
    """
    configure_threads()
    watch = Stopwatch()
    try:
        bound_waiting(connection)
        acquisitions = receive(connection, _STREAM)
        watch.lap("receive")
        parameters = Parameters.parse(config)
        _say(connection, logging.INFO, f"{len(acquisitions)} acquisitions received")
        with turn("cpu" if parameters.gpu is None else f"gpu{parameters.gpu}"):
            watch.lap("wait")
            _say(connection, logging.INFO, "the reconstruction begins")
            raw = read_stream(_xml(metadata), acquisitions, _STREAM)
            acquisitions.clear()  # the reconstruction needs the memory
            _logger.info(raw.summary())
            watch.lap("read")
            if is_gone(connection):
                raise io.InputError(_STREAM, "the client has closed the connection", "send the measurement again")
            images = _reconstruct(raw, parameters)
            watch.lap("reconstruct")
        connection.send_image(images)
        watch.lap("send")
        slices = int(raw.measured_frames.sum())
        each = watch.seconds["reconstruct"] / slices
        _logger.info("%d slices, %.2f s each to reconstruct; seconds: %s", slices, each, watch)
    except (ConnectionError, BlockingIOError) as gone:
        _logger.warning("The client does not take its images any more: %s", gone)
    except Exception as error:
        _report(connection, error)
    finally:
        try:
            connection.send_close()
        except Exception as error:
            _logger.warning("The client has closed the connection: %s", error)


def _xml(metadata: "ParsedHeader | str | bytes") -> bytes:
    if isinstance(metadata, bytes):
        return metadata.rstrip(b"\0")
    text = metadata if isinstance(metadata, str) else metadata.toXML()
    return text.rstrip("\0").encode()


def _reconstruct(raw: io.RawData, parameters: Parameters) -> "list[ismrmrd.Image]":
    """Reconstruct the images to send."""
    from hggdp_plugin.checkpoint import DEFAULT_PRIOR
    from hggdp_plugin.prior import load_prior
    from hggdp_plugin.schedule import NoiseSchedule
    from hggdp_plugin.volume.calibration import to_virtual_coils
    from hggdp_plugin.volume.reconstruct import reconstruct

    levels, seed = parameters.levels, parameters.seed
    schedule = NoiseSchedule.fast() if levels is None else NoiseSchedule.fast(levels=levels)
    if parameters.coils is not None:
        raw, _ = to_virtual_coils(raw, parameters.coils)
    image = reconstruct(
        raw,
        prior=load_prior(parameters.prior or DEFAULT_PRIOR),
        schedule=schedule,
        seed=seed,
        device=find_device(parameters.gpu),
        show_pbar=False,
    )
    return mrd_images(image, raw, f"hggdp_plugin fire, {schedule.evaluations} evaluations, seed {seed}")


def _report(connection: Connection, error: Exception) -> None:
    """Send an error to the client in one line, and log it."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}, see the server's log"
    line = " ".join(text.split())
    _logger.error("hggdp_plugin: %s", line, exc_info=None if isinstance(error, io.InputError) else error)
    _say(connection, logging.ERROR, line)


def _say(connection: Connection, level: int, line: str) -> None:
    """Send a line of text to the client, where the server supports it."""
    try:
        if hasattr(connection, "send_logging"):
            connection.send_logging(f"{logging.getLevelName(level):8}", f"hggdp_plugin: {line}")
    except Exception as gone:
        _logger.warning("A message could not be sent to the client: %s", gone)
