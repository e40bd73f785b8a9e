"""A measurement on its way from acquisitions to k-space."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hggdp_plugin.io.mrd.acquisitions import Acquisitions
from hggdp_plugin.io.mrd.classify import Classes, classify
from hggdp_plugin.io.mrd.frames import Frames, find_frames
from hggdp_plugin.io.mrd.header import Encoding, Header
from hggdp_plugin.io.mrd.noise import Prewhitening, find_prewhitening
from hggdp_plugin.io.raw import Shape3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """Acquisitions that are classified, numbered by frame, and ready to be prewhitened.

    Attributes:
        header (Header): The XML header.
        acquisitions (Acquisitions): All acquisitions.
        classes (Classes): Their purposes.
        frames (Frames): Their frames.
        prewhitening (Prewhitening): What the noise scan gives.
    """

    header: Header
    acquisitions: Acquisitions
    classes: Classes
    frames: Frames
    prewhitening: Prewhitening

    @classmethod
    def prepare(cls, header: Header, acquisitions: Acquisitions, encoding: int | None = None) -> "Measurement":
        """Classify acquisitions, find the frames and read the noise scan.

        Args:
            header (Header): The XML header.
            acquisitions (Acquisitions): All acquisitions.
            encoding (int or None): Number of the encoding to reconstruct; None: the one that covers the
                largest part of k-space.

        Returns:
            Measurement: Ready to be read.

        Raises:
            InputError: If header and acquisitions do not make up a measurement.
        """
        classes = classify(acquisitions, header, encoding)
        frames = find_frames(acquisitions.headers, classes.image)
        calibration = classes.calibration | classes.reference
        counts = (int(kind.sum()) for kind in (classes.image, calibration, classes.noise))
        _logger.info("%d acquisitions: %d image, %d calibration, %d noise.", len(acquisitions), *counts)
        prewhitening = find_prewhitening(acquisitions, classes, header.noise_bandwidth)
        return cls(header, acquisitions, classes, frames, prewhitening)

    @property
    def headers(self) -> np.ndarray:
        """The acquisition headers."""
        return self.acquisitions.headers

    @property
    def encoding(self) -> Encoding:
        """The encoding of the image."""
        return self.classes.encoding

    @property
    def n_coils(self) -> int:
        """Number of coils."""
        return int(self.headers["active_channels"][self.classes.image][0])

    @property
    def whitened(self) -> bool:
        """Whether samples are prewhitened."""
        return self.prewhitening.matrix is not None

    @property
    def is_cartesian(self) -> bool:
        """Whether the image acquisitions lie on a Cartesian grid."""
        name = self.encoding.trajectory
        return name in ("cartesian", "epi") or (
            not name and not self.headers["trajectory_dimensions"][self.classes.image].any()
        )

    def image_shape(self, is_3d: bool) -> Shape3:
        """Return slices, rows and columns of the final image; every slab of a 3D measurement has its partitions."""
        matrix, slices = self.encoding.recon.matrix, self.frames.shape[-1]
        return matrix._replace(z=matrix.z * slices if is_3d else slices)

    def samples(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Read and prewhiten the samples of acquisitions, see :meth:`Acquisitions.samples`."""
        for numbers, samples in self.acquisitions.samples(wanted):
            yield numbers, self._whiten(samples)

    def trajectories(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read samples, prewhitened, and their k-space coordinates, see :meth:`Acquisitions.trajectories`."""
        for numbers, samples, coord in self.acquisitions.trajectories(wanted):
            yield numbers, self._whiten(samples), coord

    def _whiten(self, samples: np.ndarray) -> np.ndarray:
        if self.prewhitening.matrix is None:
            return samples
        with np.errstate(over="ignore", invalid="ignore"):  # check_finite refuses the result
            return self.prewhitening.matrix @ samples
