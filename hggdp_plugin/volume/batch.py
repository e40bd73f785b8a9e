"""Reconstruct one batch of frames: the mean of its samples, their standard error, and what was estimated."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import sigpy as sp

from hggdp_plugin._typing import Array
from hggdp_plugin.app import HGGDPRecon
from hggdp_plugin.coil_maps import combine_sets
from hggdp_plugin.io.raw import RawData
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.problem import SenseProblem
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.uncertainty import QUICK
from hggdp_plugin.validation import sets_axis
from hggdp_plugin.volume.progress import Progress, ReportingApp
from hggdp_plugin.volume.uncertainty import batch_std

_logger = logging.getLogger(__name__)

#: What was estimated of each frame of a batch, in values that JSON can hold; see :func:`frame_estimates`.
Estimates: TypeAlias = list[dict[str, object]]


@dataclass(frozen=True)
class SamplingOptions:
    """How every batch is reconstructed.

    See :func:`hggdp_plugin.volume.reconstruct.reconstruct` for the meaning of the fields.
    """

    prior: ScorePrior
    schedule: NoiseSchedule
    noise_var: float | None
    samples: int
    seed: int
    max_cg_iter: int | None
    device: sp.Device
    copies: int = 0
    true_noise_var: float | None = None
    maps: int = 1


class BatchRecon(ReportingApp, HGGDPRecon):
    """:class:`HGGDPRecon` of one batch, which reports its updates to the progress of the volume."""

    _doubts_y = False  # the reader has


def reconstruct_batch(
    raw: RawData,
    index: tuple[Array, ...],
    slice_maps: Callable[[int], Array],
    options: SamplingOptions,
    coil_batch_size: int,
    progress: Progress,
) -> tuple[Array, Estimates]:
    """Reconstruct one batch: the mean of its samples.

    Args:
        raw (RawData): The measurement.
        index (tuple of arrays): Index of each frame of the batch, along the five frame axes of ``raw.ksp``.
        slice_maps (function): Gives the coil sensitivity maps of a slice.
        options (SamplingOptions): How to reconstruct.
        coil_batch_size (int): Coils at a time.
        progress (Progress): Progress of the volume.

    Returns:
        tuple: Images, complex64 (1, frames, *grid), or two layers with their standard error, and the estimates of each
        frame. Those of several sets of maps are combined.
    """
    n_frames = len(index[0])
    recon_work = options.samples * options.schedule.evaluations
    recon_share = recon_work / (recon_work + options.copies * QUICK.evaluations)
    ksp = raw.ksp[index]
    mps = np.stack([slice_maps(slice_) for slice_ in index[4]])
    if not mps.any():
        _logger.warning("The coil maps of slices %s are zero, and so is their image.", sorted(set(index[4].tolist())))
        return np.zeros((2 if options.copies else 1, n_frames, *raw.grid), np.complex64), []
    weights = None if raw.mask is None else raw.mask[index][:, None].astype(np.float32)
    coord = raw.coord if raw.coord is None or raw.coord.ndim == 3 else raw.coord[tuple(axis[0] for axis in index)]
    image, estimates = np.zeros((n_frames, *sets_axis(options.maps), *raw.grid), np.complex64), []
    for sample in range(options.samples):
        app = (HGGDPRecon if progress.show_app_bar else BatchRecon)(
            ksp,
            mps,
            noise_var=options.noise_var,
            weights=weights,
            coord=coord,
            device=options.device,
            coil_batch_size=coil_batch_size,
            prior=options.prior,
            schedule=options.schedule,
            seed=options.seed + sample,
            max_cg_iter=options.max_cg_iter,
            show_pbar=progress.show_app_bar,
            ndim=len(raw.grid),
            maps=options.maps,
        )
        if isinstance(app, BatchRecon):
            app.progress = progress
            app.slices_per_update = recon_share * n_frames / options.samples / app.alg.max_iter
        image += sp.to_device(app.run()) / options.samples
        if sample == 0:
            estimates = frame_estimates(list(zip(*index, strict=True)), app.problem)
    if options.maps > 1:
        image = combine_sets(image, len(raw.grid))
    if not options.copies:
        return image[None], estimates
    slices = (1 - recon_share) * n_frames
    std = batch_std(app, image, options.copies, options.true_noise_var, progress, slices)
    return np.stack([image, std]), estimates


def frame_estimates(frames: Sequence[tuple[int, ...]], problem: SenseProblem) -> Estimates:
    """Return what was estimated of each frame of a batch.

    Args:
        frames (sequence of tuple): Index of each frame (repetition, contrast, phase, set, slice).
        problem (SenseProblem): The problem that was solved for them.

    Returns:
        list of dict: Per frame its index, its scale in the units of the data, and the standard deviation of the noise
        of a complex sample.
    """
    scale = np.abs(sp.to_device(problem.scale)).reshape(-1)
    noise_var = np.asarray(sp.to_device(problem.noise_var)).reshape(-1)
    noise_std = np.sqrt(np.broadcast_to(noise_var, scale.shape)) * scale
    return [
        {"frame": list(map(int, frame)), "scale": float(one_scale), "noise_std": float(one_std)}
        for frame, one_scale, one_std in zip(frames, scale, noise_std, strict=True)
    ]
