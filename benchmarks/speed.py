"""Time of a slice by each method, what the loop costs beside the network, and memory: one run on one machine.

A phantom of 256 x 256 pixels with 1 and 8 coils, Poisson disc R = 6, complete maps: the times do not depend on the
image, so no measured data are needed. Run it on an idle machine.

    python benchmarks/speed.py --json speed.json
    python benchmarks/speed.py --json speed_gpu.json --gpu 0
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
import sigpy.mri as mr
import torch
from common import has_bart, print_table, report
from cost import cost
from multicoil import bart_wavelet
from torch.utils.flop_counter import FlopCounterMode

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.interop import torch_device
from hggdp_plugin.models.refinenet import RefineNet
from hggdp_plugin.prior import ScorePrior, has_bfloat16
from hggdp_plugin.simulation.coils import coil_maps

SIZE, ITERATIONS, LAMDA = 256, 100, 1e-3


def problem(coils: int, slices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """k-space (slices, coils, H, W) and maps (coils, H, W)."""
    image = np.abs(sp.shepp_logan((SIZE, SIZE)))
    mps = coil_maps(coils, (SIZE, SIZE))
    mask = mr.poisson((SIZE, SIZE), 6, calib=(24, 24), seed=0, dtype=np.float32)
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, slices, coils, SIZE, SIZE))
    y = (sp.fft(mps * image, axes=(-2, -1)) + noise[0] + 1j * noise[1]) * mask
    return y.astype(np.complex64), mps


def wait(device: sp.Device) -> None:
    """Wait for a GPU's work."""
    if device.id >= 0:
        torch.cuda.synchronize(device.id)


def timed(function: Callable[[], Any], device: sp.Device = sp.cpu_device) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


class Peak:
    """Largest memory, in GB, that the process (on a GPU: torch and CuPy) has taken since this was made."""

    def __init__(self, device: sp.Device) -> None:
        self.device = device
        if device.id < 0:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        else:
            torch.cuda.reset_peak_memory_stats(device.id)

    def read(self) -> float:
        if self.device.id >= 0:
            import cupy

            return (
                torch.cuda.max_memory_allocated(self.device.id) + cupy.get_default_memory_pool().total_bytes()
            ) / 1e9
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e6 for line in status if line.startswith("VmHWM"))


def network_seconds(prior: ScorePrior, slices: int, device: sp.Device, evaluations: int) -> float:
    """Time of the denoiser alone, evaluated one time after the other on one input as the loop's."""
    where = torch_device(device)
    x = torch.randn(slices, 2 * prior.views, SIZE, SIZE, device=where).contiguous(memory_format=torch.channels_last)
    denoiser = prior.denoiser(where)

    @torch.no_grad()
    def evaluate() -> None:
        with torch.autocast(where.type, torch.bfloat16, enabled=prior.autocast and has_bfloat16(where)):
            for _ in range(evaluations):
                denoiser(x, 0.1)

    return timed(evaluate, device)


def loop(prior: ScorePrior, coils: int, slices: int, schedule: NoiseSchedule, device: sp.Device) -> dict[str, float]:
    """A reconstruction from k-space to image: its time, the loop's, and the network's alone, in turns; medians of 7."""
    y, mps = problem(coils, slices)
    total, inside, alone, peak = [], [], [], Peak(device)
    for repeat in range(8):
        start = time.perf_counter()
        app = HGGDPRecon(y, mps, prior=prior, device=device, schedule=schedule, show_pbar=False)
        wait(device)
        inside.append(timed(app.run, device))
        total.append(time.perf_counter() - start)
        memory = peak.read()
        alone.append(network_seconds(prior, slices, device, schedule.evaluations))
        if not repeat:  # the first is to warm up
            for times in (total, inside, alone):
                times.clear()
    seconds, in_loop, network = (statistics.median(times) for times in (total, inside, alone))
    return {
        "seconds": seconds / slices,
        "slices per second": slices / seconds,
        "loop / network": in_loop / network,
        "peak memory (GB)": memory,
    }


def host_copies(prior: ScorePrior, device: sp.Device, schedule: NoiseSchedule) -> float:
    """Copies between host and GPU per step of the loop, counted by torch's profiler."""
    y, mps = problem(8)
    app = HGGDPRecon(y, mps, prior=prior, device=device, schedule=schedule, show_pbar=False)
    app.alg.update()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(10):
            app.alg.update()
        wait(device)
    return sum("HtoD" in event.name or "DtoH" in event.name for event in profile.events()) / 10


def gflop(prior: ScorePrior, device: sp.Device) -> float:
    """GFLOP of one evaluation for one image."""
    with FlopCounterMode(display=False) as counter:
        network_seconds(prior, 1, device, 1)
    return counter.get_total_flops() / 1e9


def methods(coils: int, prior: ScorePrior, device: sp.Device) -> dict[str, list[Any]]:
    """Seconds and GFLOP of the network for each method, one slice."""
    y, mps = problem(coils)
    one = gflop(prior, device)
    rows: dict[str, list[Any]] = {}
    published = cost(RefineNet(), SIZE, 1, torch_device(device))
    seconds, work = published["seconds_bfloat16"], published["gflop"]
    rows["published network x 800 (one evaluation x 800)"] = [800 * seconds, 800 * work]
    for name, schedule in {"hggdp": NoiseSchedule.hggdp(), "fast": NoiseSchedule.fast()}.items():

        def ours(schedule: NoiseSchedule = schedule) -> None:
            HGGDPRecon(y, mps, prior=prior, device=device, schedule=schedule, show_pbar=False).run()

        if name == "fast":
            ours()
        rows[f"HGGDPRecon, {name}"] = [timed(ours, device), schedule.evaluations * one]

    def sigpy() -> None:
        k, maps = sp.to_device(y[0], device), sp.to_device(mps, device)
        mr.app.L1WaveletRecon(k, maps, LAMDA, max_iter=ITERATIONS, device=device, show_pbar=False).run()

    rows[f"L1-wavelet (SigPy), {ITERATIONS} iterations"] = [timed(sigpy, device), "-"]
    if has_bart() and device.id < 0:
        with tempfile.TemporaryDirectory() as folder:
            bart = timed(lambda: bart_wavelet(y[0], mps, None, Path(folder), LAMDA))
        rows[f"L1-wavelet (BART), {ITERATIONS} iterations"] = [bart, "-"]
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prior", help="prior to measure (default: the bundled one)")
    p.add_argument("--gpu", type=int, default=-1, help="GPU to measure on (default: the CPU)")
    p.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="slices at a time")
    p.add_argument("--json", type=Path, help="file to write the figures to")
    args = p.parse_args()
    device = sp.Device(args.gpu)
    prior = load_prior(*([args.prior] if args.prior else []))
    fast = NoiseSchedule.fast()
    figures: dict[str, Any] = {"size": SIZE, "evaluations": fast.evaluations}
    loops = {
        f"{coils} coils, {slices} slices": loop(prior, coils, slices, fast, device)
        for coils in (1, 8)
        for slices in args.batches
    }
    figures["loop"] = loops
    print(f"HGGDPRecon, fast: {fast.evaluations} evaluations, seconds a slice\n")
    print_table(list(next(iter(loops.values()))), {name: list(row.values()) for name, row in loops.items()})
    if device.id >= 0:
        figures["host copies per step"] = host_copies(prior, device, fast)
        print(f"\nCopies between host and GPU per step: {figures['host copies per step']}")
    for coils in (1, 8):
        print(f"\n{coils} coils, one slice\n")
        figures[f"{coils} coils"] = rows = methods(coils, prior, device)
        print_table(["seconds", "GFLOP of the network"], rows)
    report(args, figures, torch_device(device))


if __name__ == "__main__":
    main()
