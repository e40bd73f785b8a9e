"""Everything that needs an NVIDIA GPU, in one script: its tests, the figures, and training.

Each part runs in a process of its own with a time limit and writes its results when it is done (training: every
minute), so that an interrupted session keeps what it had. The parts run in the order they are named:

- tests: ``pytest -m cuda``.
- figures: seconds a slice of 256 x 256 for several batches, coils and trajectories; the loop over the network's own
  time; copies between host and GPU and waits in the loop, counted by the profiler; coil maps; peak memory; a compiled
  network; SigPy's L1WaveletRecon on the same GPU.
- train: the recipe of a prior for any scan for ``--minutes``, with ``hggdp_plugin.training``, or, with ``--ablation``,
  short trainings of the same length in which one domain or augmentation is left out. The prior so far is written every
  minute. The images are those of benchmarks/pack_images.py.

    python benchmarks/gpu.py --out results -- tests figures
    python benchmarks/gpu.py --out results --images packed --minutes 6 -- train
    python benchmarks/gpu.py --out results --images packed --minutes 4 --ablation -- train
    python benchmarks/gpu.py --out results --gpu -1 --size 64 --batches 2 -- figures      # rehearsal on a CPU
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
import sigpy.mri as mr
import torch
from common import machine

from hggdp_plugin import HGGDPRecon, NoiseSchedule, ScorePrior, load_prior
from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.coil_maps import espirit_maps
from hggdp_plugin.interop import torch_device
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.prior import has_bfloat16
from hggdp_plugin.simulation.coils import coil_maps
from hggdp_plugin.simulation.masks import radial_trajectory
from hggdp_plugin.training.budget import fit_to_budget
from hggdp_plugin.training.config import Augmentation, TrainConfig
from hggdp_plugin.training.images import load_domains
from hggdp_plugin.training.run import train as run_training

HERE = Path(__file__).parent
#: Time limits of the parts, in seconds.
LIMITS = {"tests": 90, "figures": 120, "train": 540}
ITERATIONS, WAVELET_WEIGHT, SPOKES = 100, 1e-3, 64
#: CUDA runtime calls that make the host wait for the GPU.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize")


def wait(device: sp.Device) -> None:
    """Wait for a GPU's work."""
    if device.id >= 0:
        torch.cuda.synchronize(device.id)


def median_seconds(function: Callable[[], Any], device: sp.Device, repeats: int = 5) -> float:
    """Median time of a call, after one call to warm up."""
    times = []
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class Problem:
    """Simulated k-space of a phantom, on the device."""

    def __init__(self, size: int, coils: int, slices: int, radial: bool, device: sp.Device) -> None:
        rng = np.random.default_rng(0)
        image = np.broadcast_to(np.abs(sp.shepp_logan((size, size))), (slices, 1, size, size))
        self.mps = coil_maps(coils, (size, size)) if coils > 1 else np.ones((1, size, size), np.complex64)
        images = (image * self.mps).astype(np.complex64)
        self.coord = size * radial_trajectory(SPOKES, 2 * size)[..., ::-1] if radial else None
        if self.coord is None:
            mask = mr.poisson((size, size), 6, calib=(24, 24), seed=0, dtype=np.float32)
            y = sp.fft(images, axes=(-2, -1))
        else:
            mask = np.float32(1)
            y = np.stack([sp.nufft(item, self.coord, oversamp=2, width=6) for item in images])
        y = y + 0.01 * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))
        self.y = sp.to_device((y * mask).astype(np.complex64), device)
        self.mps = sp.to_device(self.mps, device)
        self.device, self.slices = device, slices

    def app(self, prior: ScorePrior, schedule: NoiseSchedule) -> HGGDPRecon:
        return HGGDPRecon(
            self.y, self.mps, coord=self.coord, prior=prior, schedule=schedule, device=self.device, show_pbar=False
        )


def network_call(prior: ScorePrior, slices: int, size: int, device: sp.Device) -> Callable[[], Any]:
    """One evaluation of the denoiser alone, on fixed input."""
    where = torch_device(device)
    x = torch.randn(slices, 2 * prior.views, size, size, device=where).contiguous(memory_format=torch.channels_last)
    denoiser = prior.denoiser(where)

    @torch.no_grad()
    def evaluate() -> None:
        with torch.autocast(where.type, torch.bfloat16, enabled=prior.autocast and has_bfloat16(where)):
            denoiser(x, 0.1)

    return evaluate


def reconstruction(prior: ScorePrior, problem: Problem, size: int, schedule: NoiseSchedule) -> dict[str, float]:
    """Seconds a slice, and the loop's time over that of its network evaluations alone."""
    device = problem.device
    if device.id >= 0:
        torch.cuda.reset_peak_memory_stats(device.id)
        device.xp.get_default_memory_pool().free_all_blocks()
    total, loop, alone = [], [], []
    evaluate = network_call(prior, problem.slices, size, device)
    for _ in range(4):
        wait(device)
        start = time.perf_counter()
        app = problem.app(prior, schedule)
        wait(device)
        middle = time.perf_counter()
        app.run()
        wait(device)
        end = time.perf_counter()
        for _ in range(schedule.evaluations):
            evaluate()
        wait(device)
        total.append(end - start)
        loop.append(end - middle)
        alone.append(time.perf_counter() - end)
    row = {
        "seconds a slice": statistics.median(total[1:]) / problem.slices,
        "set-up (s)": statistics.median(np.subtract(total, loop)[1:]),
        "loop / network": statistics.median(loop[1:]) / statistics.median(alone[1:]),
        "network (ms a slice)": 1e3 * statistics.median(alone[1:]) / problem.slices / schedule.evaluations,
    }
    if device.id >= 0:
        pool = device.xp.get_default_memory_pool().total_bytes()
        row["peak memory (GB)"] = (torch.cuda.max_memory_allocated(device.id) + pool) / 1e9
    return row


def transfers(prior: ScorePrior, problem: Problem, schedule: NoiseSchedule, steps: int = 10) -> dict[str, Any]:
    """Copies between host and GPU, and calls that wait for the GPU, per step of the loop."""
    app = problem.app(prior, schedule)
    app.alg.update()
    wait(problem.device)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(steps):
            app.alg.update()
    names = [event.name for event in profile.events()]
    copies = sum("HtoD" in name or "DtoH" in name for name in names) / steps
    waits = sum(any(call in name for call in WAITS) for name in names) / steps
    top = sorted(((e.self_device_time_total, e.key) for e in profile.key_averages()), reverse=True)[:12]
    return {
        "host copies a step": copies,
        "waits a step": waits,
        "copies": sorted({n for n in names if "HtoD" in n or "DtoH" in n}),
        "GPU time (us a step)": {key: round(micros / steps, 1) for micros, key in top},
    }


def figures(args: argparse.Namespace) -> None:
    device, size, fast = sp.Device(args.gpu), args.size, NoiseSchedule.fast()
    prior = load_prior(*([args.prior] if args.prior else []))
    rows: dict[str, Any] = {"machine": machine(torch_device(device)), "size": size, "evaluations": fast.evaluations}

    def note(name: str, function: Callable[[], Any]) -> None:
        try:
            rows[name] = function()
        except Exception as e:  # the figures after it are worth as much
            rows[name] = f"failed: {type(e).__name__}: {e}"
        print(name, rows[name], flush=True)
        write(args.out / "figures.json", rows)

    wanted = [(c, r, b) for b in (8, 1, *args.batches) for c in (8, 1) for r in (False, True) if not (r and b > 8)]
    for coils, radial, batch in dict.fromkeys(wanted):
        name = f"{coils} coils, {'radial' if radial else 'Cartesian'}, batch {batch}"
        note(
            name,
            lambda c=coils, r=radial, b=batch: reconstruction(prior, Problem(size, c, b, r, device), size, fast),
        )
    if device.id >= 0:
        for radial in (False, True):
            kind = "radial" if radial else "Cartesian"
            note(f"transfers, {kind}", lambda r=radial: transfers(prior, Problem(size, 8, 8, r, device), fast))
    for coils in (8, 16, 32):
        full = sp.fft(coil_maps(coils, (size, size)) * sp.shepp_logan((size, size)), axes=(-2, -1))
        calib = sp.to_device(full.astype(np.complex64), device)
        note(
            f"maps, {coils} coils (s a slice)",
            lambda k=calib: median_seconds(lambda: espirit_maps(k, 24, device), device, 2),
        )
    one = Problem(size, 8, 1, False, device)

    def wavelet() -> None:
        mr.app.L1WaveletRecon(
            one.y[0], one.mps, WAVELET_WEIGHT, max_iter=ITERATIONS, device=device, show_pbar=False
        ).run()

    note(
        f"L1WaveletRecon (SigPy), 8 coils, {ITERATIONS} iterations (s a slice)",
        lambda: median_seconds(wavelet, device, 2),
    )
    if device.id >= 0:

        def compiled() -> dict[str, float]:
            start = time.perf_counter()
            prior.denoiser(torch_device(device)).network.compile()
            network_call(prior, 8, size, device)()
            wait(device)
            spent = time.perf_counter() - start
            return {
                "compilation (s)": spent,
                **reconstruction(prior, Problem(size, 8, 8, False, device), size, fast),
            }

        note("compiled: 8 coils, Cartesian, batch 8", compiled)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, default=float) + "\n")


def tests(args: argparse.Namespace) -> None:
    """Run the tests that need a GPU; the log and the closing line are kept."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-ra", "-p", "no:cacheprovider", "--tb=short"]
    if find_spec("xdist"):
        command += ["-n", "8", "-p", "no:benchmark"]
    with (args.out / "tests.log").open("w") as log:
        code = subprocess.run(command, cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT).returncode
    lines = (args.out / "tests.log").read_text().splitlines()
    print("\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1:], flush=True)
    write(args.out / "tests.json", {"exit code": code, "summary": lines[-1:]})


def recipe(args: argparse.Namespace, name: str, **changes: Any) -> TrainConfig:
    """The training of a prior for any scan, small for a rehearsal on a CPU."""
    size: dict[str, Any] = {"batch_size": 512, "rollout_batch": 12, "rollout_crop": 192, "synthetic": 400}
    if args.gpu < 0:
        size = {"batch_size": 2, "rollout_batch": 2, "rollout_crop": 64, "synthetic": 2}
    options: dict[str, Any] = {
        "data": sorted(args.images.glob("train_*.h5")),
        "output": args.out / f"{name}.safetensors",
        "domain_weights": {"images": 4.0},  # the T2 brains, the one domain with a measured phase
        "augmentation": Augmentation.broad(),
        "rollout_levels": (8, 12, 25),
        "learning_rate": 3e-3,
        "validate_every": 1_000_000,
        "devices": 1,
    }
    return TrainConfig(**{**options, **size, **changes})


def train(args: argparse.Namespace) -> None:
    """Train the recipe minute by minute, so that an interruption costs a minute at most; or the ablation."""
    end = time.monotonic() + 60 * args.minutes
    if args.ablation:
        ablation(args, end)
        return
    config = recipe(args, "any", init=args.prior, crops_first=0.0 if args.prior else 0.25, steps=args.steps)
    if args.gpu >= 0:
        config = fit_to_budget(config, 0.85 * 60 * args.minutes, given=("batch_size", "widths"))
    steps = 0
    while steps < config.steps and (left := end - time.monotonic()) > 15:
        description = run_training(replace(config, max_time=min(left - 10, 60.0)))
        steps = description["training"]["steps"]
        save_model(args.out / "any_half.safetensors", load_model(config.output)[0].half(), description)
        crops = steps * config.batch_size
        psnr = validation_psnr(config.output, args)
        write(args.out / "train.json", {**description, "crops": crops, "validation": psnr})
        print(f"{steps} of {config.steps} steps, {crops} crops", flush=True)


def ablation(args: argparse.Namespace, end: float) -> None:
    """Train a small network for the same number of steps with a domain or an augmentation left out each time."""
    broad = Augmentation.broad()
    variants: dict[str, dict[str, Any]] = {
        "all domains": {},
        "all domains, another seed": {"seed": 1},
        "without knees": {"domain_weights": {"knee_pd": 0.0}},
        "without hearts": {"domain_weights": {"heart_bssfp": 0.0, "heart_cine": 0.0}},
        "without T1": {"domain_weights": dict.fromkeys(("brain_t1_stripped", "head_t1", "head_t1_gd"), 0.0)},
        "no contrast remaps": {"augmentation": broad.without(("monotone_remap", "nonmonotone_remap"))},
        "no textures": {"synthetic": 0},
        "default network": {"widths": None, "blocks": None},
    }
    rows: dict[str, Any] = {"steps": args.steps}
    for name, changes in variants.items():
        if time.monotonic() > end:
            break
        small = {"widths": (96,), "blocks": 4, "steps": args.steps, "rollouts": 0, "warmup": args.steps // 8}
        config = recipe(args, name.replace(" ", "_").replace(",", ""), **{**small, **changes})
        run_training(config)
        rows[name] = validation_psnr(config.output, args)
        write(args.out / "ablation.json", rows)
        print(name, rows[name], flush=True)


@torch.no_grad()
def validation_psnr(prior: Any, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """PSNR (dB) of validation images denoised at three noise levels, by domain."""
    device = torch_device(sp.Device(args.gpu))
    denoiser = Denoiser(load_model(prior)[0].to(device))
    noise = torch.Generator(device).manual_seed(0)
    table = {}
    for domain in load_domains(sorted(args.images.glob("val_*.h5"))):
        values: dict[str, list[float]] = {}
        for image in domain.images:
            clean = image.to(device)[None]
            for sigma in (0.03, 0.1, 0.3):
                noisy = clean + sigma * torch.randn(clean.shape, generator=noise, device=device)
                error = (denoiser(noisy, sigma) - clean).square().sum(1).mean()
                values.setdefault(f"{sigma:g}", []).append(-10 * float(error.log10()))
        table[domain.name] = {sigma: round(statistics.mean(psnr), 2) for sigma, psnr in values.items()}
    return table


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("parts", nargs="+", choices=LIMITS, help="what to do, in this order")
    p.add_argument("--out", type=Path, required=True, help="folder for the results")
    p.add_argument("--gpu", type=int, default=0, help="GPU (default 0; -1: the CPU, for a rehearsal)")
    p.add_argument("--prior", help="prior to measure (default: the bundled one), or to start from (default: none)")
    p.add_argument("--size", type=int, default=256, help="matrix of the figures (default 256)")
    p.add_argument("--batches", type=int, nargs="*", default=[32], help="batches beside 1 and 8")
    p.add_argument("--images", type=Path, help="folder of packed training images, for train")
    p.add_argument("--minutes", type=float, default=8.0, help="time for train")
    p.add_argument("--ablation", action="store_true", help="train the short trainings of the ablation")
    p.add_argument("--steps", type=int, default=600, help="steps of each of them, and of a rehearsal (default 600)")
    args, options = p.parse_args(), sys.argv[1:]
    args.out.mkdir(parents=True, exist_ok=True)
    if len(args.parts) > 1:
        options = [option for option in options[: len(options) - len(args.parts)] if option != "--"]
        for part in args.parts:
            start = time.perf_counter()
            try:
                subprocess.run([sys.executable, __file__, *options, "--", part], timeout=LIMITS[part], check=False)
            except subprocess.TimeoutExpired:
                print(f"{part}: stopped at its limit of {LIMITS[part]} s", flush=True)
            print(f"== {part}: {time.perf_counter() - start:.0f} s", flush=True)
        return
    {"tests": tests, "figures": figures, "train": train}[args.parts[0]](args)


if __name__ == "__main__":
    main()
