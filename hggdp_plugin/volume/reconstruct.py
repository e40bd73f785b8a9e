"""Reconstruct a whole measurement: coil maps, slices in batches, samples."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from typing import TypeAlias

import numpy as np
import sigpy as sp
import torch

from hggdp_plugin._typing import Array
from hggdp_plugin.checkpoint import DEFAULT_PRIOR
from hggdp_plugin.interop import torch_device
from hggdp_plugin.io.files import InputError
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.log import collected_log
from hggdp_plugin.memory import coils_at_a_time
from hggdp_plugin.prior import ScorePrior, load_prior
from hggdp_plugin.sampling import check_rule_for_volumes
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.validation import sets_axis
from hggdp_plugin.volume.batch import Estimates, SamplingOptions, reconstruct_batch
from hggdp_plugin.volume.batching import BatchSize, batches_at_a_time, choose_batch_size
from hggdp_plugin.volume.calibration import CoilMapEstimator
from hggdp_plugin.volume.progress import Progress
from hggdp_plugin.volume.resume import BatchNotes, ResumeStore, fingerprint
from hggdp_plugin.volume.uncertainty import VolumeUncertainty
from hggdp_plugin.volume.workers import side_by_side

_logger = logging.getLogger(__name__)

#: Noise variance assumed for prewhitened data, whose variance is 1. On validation data half of it gives a higher PSNR
#: than all of it (benchmarks/noise.py).
WHITENED_NOISE_VAR = 0.5


#: Callback that receives the estimates of each batch.
BatchObserver: TypeAlias = Callable[[Estimates], None]


def reconstruct(
    raw: RawData,
    mps: Array | None = None,
    noise_var: float | None = None,
    *,
    prior: ScorePrior | None = None,
    schedule: NoiseSchedule | None = None,
    samples: int = 1,
    seed: int = 0,
    max_cg_iter: int | None = None,
    calib_width: int | None = None,
    batch_size: int | None = None,
    coil_batch_size: int | None = None,
    device: sp.Device = sp.cpu_device,
    resume: ResumeStore | None = None,
    show_pbar: bool = True,
    on_batch: BatchObserver | None = None,
    uncertainty: VolumeUncertainty | None = None,
    maps: int = 1,
) -> Array:
    """Reconstruct all slices and frames of a measurement.

    Args:
        raw (RawData): The measurement.
        mps (array or None): Coil sensitivity maps (slices, coils, *grid) or (coils, *grid), where the grid is (y, x),
            or (z, y, x) for slabs; None: estimated, see :class:`CoilMapEstimator`.
        noise_var (float or None): Noise variance E|n|^2 of a complex k-space sample; None:
            :data:`WHITENED_NOISE_VAR` for prewhitened data of several coils, else as :class:`HGGDPRecon` estimates it.
        prior (ScorePrior or None): The prior; None: the bundled default.
        schedule (NoiseSchedule or None): Noise levels and step rule; None: :meth:`NoiseSchedule.fast`.
        samples (int): Number of samples, with different seeds, that are averaged.
        seed (int): Seed of the first sample.
        max_cg_iter (int or None): Conjugate gradient iterations per step; None: as :class:`HGGDPRecon` chooses.
        calib_width (int or None): Width of the calibration region; None: that of the fully sampled region.
        batch_size (int or None): Slices at a time; None: what fits into the free memory.
        coil_batch_size (int or None): Coils at a time; None: what fits into the free memory.
        device (Device): Where to reconstruct.
        resume (ResumeStore or None): Store of finished batches. With it, the same call after an interruption continues
            and gives the same image bit for bit.
        show_pbar (bool): Show a progress bar, or log the progress where there is no terminal.
        on_batch (function or None): Called with the estimates of each batch, those found in ``resume`` included.
        uncertainty (VolumeUncertainty or None): Gets the standard error of the image; None: it is not estimated.
        maps (int): Sets of maps; of several, ``mps`` has an axis before the coils, and the images are combined.

    Returns:
        array: complex64 image (repetition, contrast, phase, set, slice, y, x) with the matrix that the header asks for.

    Raises:
        InputError: The folder of ``resume`` holds something else; a measurement that needs 3D data consistency has no
            calibration data, or a schedule that is for slices; or several sets of maps are asked for with non-Cartesian
            samples or the uncertainty.
    """
    volume = VolumeRecon(
        raw,
        mps,
        noise_var,
        prior=prior,
        schedule=schedule,
        samples=samples,
        seed=seed,
        max_cg_iter=max_cg_iter,
        calib_width=calib_width,
        batch_size=batch_size,
        coil_batch_size=coil_batch_size,
        device=device,
        resume=resume,
        uncertainty=uncertainty,
        maps=maps,
    )
    return volume.run(show_pbar, on_batch)


class VolumeRecon:
    """A measurement whose slices and frames are sorted into batches: :func:`reconstruct` in two steps.

    Processes that share the folder of ``resume`` can each reconstruct some of the batches with :meth:`run_batch`.
    :meth:`run` then gives the image that one process makes, bit for bit.

    Args:
        raw (RawData): The measurement.
        mps (array or None): See :func:`reconstruct`, as for the others.
        noise_var (float or None): Noise variance.
        prior (ScorePrior or None): The prior.
        schedule (NoiseSchedule or None): Noise levels and step rule.
        samples (int): Number of samples.
        seed (int): Seed.
        max_cg_iter (int or None): Conjugate gradient iterations.
        calib_width (int or None): Width of the calibration region.
        batch_size (int or None): Slices at a time.
        coil_batch_size (int or None): Coils at a time.
        device (Device): Where to reconstruct.
        resume (ResumeStore or None): Store of finished batches; one batch alone is not stored.
        uncertainty (VolumeUncertainty or None): Gets the standard error of the image.
        maps (int): Sets of maps.

    Attributes:
        frames (array): Numbers of the measured frames.
        size (BatchSize): Frames and coils of a batch.
        resume (ResumeStore or None): Store of finished batches, if there are several.

    Raises:
        InputError: As in :func:`reconstruct`.
    """

    def __init__(
        self,
        raw: RawData,
        mps: Array | None = None,
        noise_var: float | None = None,
        *,
        prior: ScorePrior | None = None,
        schedule: NoiseSchedule | None = None,
        samples: int = 1,
        seed: int = 0,
        max_cg_iter: int | None = None,
        calib_width: int | None = None,
        batch_size: int | None = None,
        coil_batch_size: int | None = None,
        device: sp.Device = sp.cpu_device,
        resume: ResumeStore | None = None,
        uncertainty: VolumeUncertainty | None = None,
        maps: int = 1,
    ) -> None:
        true_noise_var = 1.0 if raw.whitened else noise_var or None
        if noise_var is None and raw.whitened and raw.n_coils > 1:
            noise_var = WHITENED_NOISE_VAR
        prior, schedule = prior or load_prior(DEFAULT_PRIOR), schedule or NoiseSchedule.fast()
        self.raw, self.uncertainty = raw, uncertainty
        copies = uncertainty.copies if uncertainty else 0
        sampling = (prior, schedule, noise_var, samples, seed, max_cg_iter, device)
        self.options = SamplingOptions(*sampling, copies, true_noise_var, maps)
        if maps > 1:
            _check_sets(raw, copies)
        if len(raw.grid) == 3:
            _check_volumes(raw, self.options)
        _logger.info("Network: %s.", _network(self.options))
        self.frames = np.flatnonzero(raw.measured_frames)
        self.size = _batch_size(raw, len(self.frames), batch_size, coil_batch_size, device, maps)
        self.resume: ResumeStore | None = None
        if resume and len(self.frames) > self.size.slices:
            data = (raw.ksp, raw.mask, raw.calib, raw.coord, mps)
            settings = [getattr(self.options, field.name) for field in fields(self.options)]
            run = fingerprint(data, settings, calib_width, batch_size, coil_batch_size)
            self.size = resume.begin(run, self.size)
            self.resume = resume
        self._maps: Callable[[int], Array]
        if mps is None:
            self._maps = CoilMapEstimator(raw, calib_width, device=device, maps=maps)
        else:
            self._maps = np.broadcast_to(mps, (raw.n_slices, *sets_axis(maps), raw.n_coils, *raw.grid)).__getitem__

    @property
    def starts(self) -> range:
        """Position in ``frames`` of the first frame of each batch."""
        return range(0, len(self.frames), self.size.slices)

    def run(self, show_pbar: bool = True, on_batch: BatchObserver | None = None) -> Array:
        """Reconstruct the batches that are not in the store, and return the image.

        Args:
            show_pbar (bool): Show a progress bar, or log the progress where there is no terminal.
            on_batch (function or None): Called with the estimates of each batch, in their order.

        Returns:
            array: complex64 image (repetition, contrast, phase, set, slice, y, x).
        """
        raw, resume = self.raw, self.resume
        if resume:
            _announce(resume, len(self.frames), self.size)
        missing = [start for start in self.starts if not (resume and start in resume)]
        n_workers = self._n_workers(len(missing))
        progress = Progress(len(self.frames), self.size.slices, show_pbar, n_workers)
        layers = np.zeros((2 if self.uncertainty else 1, *raw.frame_shape, *raw.grid), np.complex64)
        flat = layers.reshape(len(layers), -1, *raw.grid)
        results = side_by_side(lambda start: self._reconstruct(start, progress), missing, n_workers, progress.stop)
        try:
            with closing(results):
                for start in self.starts:
                    batch = self.frames[start : start + self.size.slices]
                    if resume and start not in missing:
                        flat[:, batch], estimates = resume.load(start), self._recall(resume.notes(start))
                        progress.skip(len(batch))
                    else:
                        flat[:, batch], estimates = next(results)
                        progress.finish_batch()
                    if on_batch is not None:
                        on_batch(estimates)
            return self._finish(layers)
        except KeyboardInterrupt:
            if resume:
                _logger.info("Interrupted: %s keeps the finished slices; the same command continues.", resume.folder)
            raise
        finally:
            progress.close()

    def run_batch(self, start: int) -> int:
        """Reconstruct one batch into the store, unless it is there.

        Args:
            start (int): One of ``starts``.

        Returns:
            int: Number of frames in the batch.

        Raises:
            ValueError: There is no store, or only one batch.
        """
        if self.resume is None:
            raise ValueError("a batch alone needs a store of finished batches, and a measurement of several batches")
        n_frames = min(self.size.slices, len(self.frames) - start)
        if start not in self.resume:
            self._reconstruct(start, Progress(n_frames, n_frames, show_pbar=False))
        return n_frames

    def _finish(self, layers: Array) -> Array:
        """Return the image of all frames, and hand over its standard error."""
        image = self.raw.to_image(layers[0])
        if self.uncertainty:
            std = abs(self.raw.to_image(layers[1]))  # interpolation can leave small negative values
            self.uncertainty.finish(self.raw, image, std, self.options.prior, self.options.schedule)
        return image

    def _n_workers(self, n_batches: int) -> int:
        """Choose how many batches are reconstructed at a time. One fills a GPU, and a volume the memory."""
        raw, device = self.raw, self.options.device
        if device != sp.cpu_device or len(raw.grid) == 3:
            return 1
        self.options.prior.denoiser(torch_device(device))  # made once, before threads ask for it
        threads, cartesian, shape = torch.get_num_threads(), raw.coord is None, (self.options.maps, *raw.grid)
        return batches_at_a_time(shape, self.size, n_batches, raw.n_coils, cartesian=cartesian, threads=threads)

    def _reconstruct(self, start: int, progress: Progress) -> tuple[Array, Estimates]:
        """Reconstruct one batch and store it."""
        index = np.unravel_index(self.frames[start : start + self.size.slices], self.raw.frame_shape)
        with collected_log(of_this_thread=True) as messages:
            images, estimates = reconstruct_batch(self.raw, index, self._maps, self.options, self.size.coils, progress)
        if self.resume:
            warnings = [text for level, text in messages if level == "WARNING"]
            self.resume.save(start, images, {"estimates": estimates, "warnings": warnings})
        return images, estimates

    def _recall(self, notes: BatchNotes) -> Estimates:
        """Repeat the warnings of a batch that was finished elsewhere or earlier, and return its estimates."""
        for text in notes.get("warnings", ()):
            _logger.warning("%s", text)
        return notes.get("estimates", [])


def _check_sets(raw: RawData, copies: int) -> None:
    if raw.coord is not None:
        problem = "it is not Cartesian: nothing folds over, and a second set of maps does not help"
        raise InputError(raw.source, problem, "leave out --maps")
    if copies:
        raise InputError(raw.source, "the uncertainty is for one set of maps", "leave out --uncertainty or --maps")


def _check_volumes(raw: RawData, options: SamplingOptions) -> None:
    try:
        check_rule_for_volumes(options.schedule.rule, options.prior)
    except ValueError as error:
        raise InputError(raw.source, f"a volume: {error}", "leave out --schedule") from None
    if options.copies:
        raise InputError(raw.source, "the uncertainty of volumes is not implemented", "leave out --uncertainty")
    _logger.info("Volume of %s: 3D data consistency, the prior on slices across alternating axes.", _by(raw.grid))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _network(options: SamplingOptions) -> str:
    """Describe where and in which precision the network runs."""
    device = torch_device(options.device)
    if device.type == "cpu":
        n = torch.get_num_threads()
        return f"{options.prior.precision(device)}, {n} thread{'' if n == 1 else 's'}"
    return f"{options.prior.precision(device)} on {torch.cuda.get_device_name(device)}"


def _batch_size(
    raw: RawData, n_frames: int, batch_size: int | None, coil_batch_size: int | None, device: sp.Device, maps: int
) -> BatchSize:
    """Choose the batch size; one at a time of volumes, and of slices that have trajectories of their own."""
    if len(raw.grid) == 3:
        coils = coils_at_a_time((maps, *raw.grid), raw.n_coils, raw.coord is None, device, ndim=3)
        return BatchSize(1, coil_batch_size or coils)
    slices = 1 if raw.coord is not None and raw.coord.ndim > 3 else batch_size
    return choose_batch_size(
        (maps, *raw.grid),
        n_frames,
        raw.n_coils,
        cartesian=raw.coord is None,
        device=device,
        slices=slices,
        coils=coil_batch_size,
        threads=torch.get_num_threads() if device == sp.cpu_device else 1,
    )


def _announce(resume: ResumeStore, n_frames: int, size: BatchSize) -> None:
    """Log that an interrupted run continues."""
    finished = sum(min(size.slices, n_frames - start) for start in range(0, n_frames, size.slices) if start in resume)
    if finished:
        _logger.info("Resuming: %d of %d slices are finished already, in %s.", finished, n_frames, resume.folder)
