"""The Lightning module that trains a score network."""

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.network import ScoreNetwork
from hggdp_plugin.training.batches import BatchSource, at_least
from hggdp_plugin.training.loss import denoising_loss, draw_sigma
from hggdp_plugin.training.muon import muon
from hggdp_plugin.training.rollouts import DEFAULT_LEVELS, Rollout, RolloutPool, State

VALIDATION_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: One of this many validation images is reconstructed, which takes five times as long as denoising at those levels.
RECONSTRUCTED = 4


class ScoreTraining(lightning.LightningModule):
    """Trains a score network on images held in memory.

    All random numbers of step n follow from (seed, rank, n), so that a run that was killed and resumed takes the same
    course as an uninterrupted one.

    Args:
        model (ScoreNetwork): The network.
        source (BatchSource): Training images.
        validation (list of Tensor): Images to validate on, real (2, H, W).
        batch_size (int): Crops per step and device.
        steps (int): Length of the learning rate's cosine.
        learning_rate (float): Its peak, after ``warmup`` steps.
        optimizer (str): ``"muon"`` (see :mod:`hggdp_plugin.training.muon`) or ``"adamw"``.
        warmup (int): Steps of linear warm-up.
        seed (int): Seed of all randomness.
        rollouts (int): Steps of rollouts per training step and device, see
            :class:`hggdp_plugin.training.rollouts.RolloutPool`.
        rollout_batch (int): Images of a rollout. With 1 they are whole, with more they are crops.
        rollout_crop (None or int): Height and width of these crops; None: those of ``source``.
        rollout_levels (tuple of int): Numbers of levels of the schedules of rollouts, all equally likely.
        crops_first (float): Fraction of ``steps`` trained on crops only; rollouts of an untrained network are useless.
        store_rollouts (bool): Whether checkpoints contain the images of rollouts, some megabytes for each image of a
            batch. Without them, rollouts start again when a run is resumed.
    """

    def __init__(
        self,
        model: ScoreNetwork,
        source: BatchSource,
        validation: Sequence[Tensor] = (),
        *,
        batch_size: int = 8,
        steps: int = 10_000,
        learning_rate: float = 2e-3,
        optimizer: str = "muon",
        warmup: int = 200,
        seed: int = 0,
        rollouts: int = 0,
        rollout_batch: int = 1,
        rollout_crop: int | None = None,
        rollout_levels: tuple[int, ...] = (DEFAULT_LEVELS,),
        crops_first: float = 0.0,
        store_rollouts: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.denoiser = Denoiser(model)
        # Not the compiled network: images may be of many sizes.
        self.eager_denoiser = Denoiser(model, eager=True)
        self.source, self.validation = source, [at_least(image, model.stride) for image in validation]
        self.batch_size, self.steps, self.learning_rate, self.warmup = batch_size, steps, learning_rate, warmup
        self.optimizer, self.seed = optimizer, seed
        self.rollouts, self.crops_first, self.store_rollouts = rollouts, crops_first, store_rollouts
        self.rollout_batch, self.rollout_crop, self.rollout_levels = rollout_batch, rollout_crop, rollout_levels
        self.stored_rollouts: dict[int, State] = {}
        self.validation_psnr: dict[float, float] = {}
        self.rollout_psnr: float | None = None

    def train_dataloader(self) -> Any:
        """Return the numbers of the steps: the images are in memory, and each step draws its own batch."""
        numbers: Any = range(self.steps)
        return torch.utils.data.DataLoader(numbers, batch_size=None)

    def val_dataloader(self) -> Any:
        """Return the numbers of the validation images."""
        numbers: Any = range(len(self.validation))
        return torch.utils.data.DataLoader(numbers, batch_size=None)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with linear warm-up and cosine decay to zero over ``steps``."""
        if self.optimizer == "muon":
            optimizer: torch.optim.Optimizer = muon(self.model, self.learning_rate)
        else:
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate, weight_decay=1e-3)

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Move the images to the network's device, and continue the stored rollouts."""
        self.source.to(self.device)
        self.pool = self.make_pool()
        if self.global_rank == 0:  # a checkpoint has the rollouts of this process
            self.pool.stored = self.stored_rollouts

    def make_pool(self) -> RolloutPool:
        """Make the pool of rollouts."""
        return RolloutPool(
            self.eager_denoiser if self.rollout_batch == 1 else self.denoiser,
            self.source,
            (self.seed % 2**64, self.global_rank),
            levels=self.rollout_levels,
            batch=self.rollout_batch,
            crop=self.rollout_crop,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the rollouts."""
        if self.store_rollouts:
            checkpoint["rollouts"] = self.pool.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the stored rollouts, if any."""
        self.stored_rollouts = checkpoint.get("rollouts", {})

    def draw_sigma(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n noise levels of crops (n,)."""
        return draw_sigma(self.model, n, generator)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draw a batch and return its denoising loss, plus that of the rollouts."""
        step_seed = ((self.seed * 1_000_003 + self.global_rank) * 10_000_019 + self.global_step) % 2**62
        draw = torch.Generator().manual_seed(2 * step_seed)
        noise = torch.Generator(self.device).manual_seed(2 * step_seed + 1)
        x = self.source.draw(self.batch_size, draw)
        sigma = self.draw_sigma(len(x), noise)
        loss = denoising_loss(self.denoiser, self.denoiser.remove_phase(x), sigma, noise)
        self.log("loss", loss, prog_bar=True)
        if (n := self.rollouts) and self.global_step >= self.crops_first * self.steps:
            rollout_loss = sum(self.pool.training_step(n * self.global_step + i) for i in range(n)) / n
            self.log("loss_reconstruction", rollout_loss, prog_bar=True)
            loss = loss + rollout_loss
        return loss

    def denoise(self, number: int, sigma: float, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return a validation image, the same with noise, and denoised; all real (1, 2K, H, W).

        Args:
            number (int): Number of the image.
            sigma (float): Noise standard deviation per real channel.
            noise (Generator): Source of the noise, on the module's device.
        """
        image = self.validation[number].to(self.device)[None]
        stride = self.model.stride
        h, w = (s // stride * stride for s in image.shape[2:])
        clean = image[..., :h, :w].repeat(1, self.model.views, 1, 1)
        noisy = clean + sigma * torch.randn(clean.shape, generator=noise, device=self.device)
        return clean, noisy, self.eager_denoiser(noisy, sigma)

    def validation_step(self, index: Any, batch_idx: int) -> None:
        """Measure the error of one image, denoised at each level and perhaps reconstructed, the same way every time."""
        noise = torch.Generator(self.device).manual_seed(int(index))
        for sigma in VALIDATION_SIGMAS:
            clean, _, denoised = self.denoise(int(index), sigma, noise)
            error = (denoised - clean).unflatten(1, (self.model.views, 2)).mean(1)
            self.log(f"mse_{sigma:g}", error.square().sum(1).mean(), on_epoch=True, batch_size=1, sync_dist=True)
        if self.rollouts and int(index) % RECONSTRUCTED == 0:
            image = self.validation[int(index)].to(self.device)
            psnr = Rollout(self.eager_denoiser, image[None], (int(index),)).psnr()
            if math.isfinite(psnr):
                self.log("psnr_reconstruction", psnr, on_epoch=True, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the PSNR (complex, peak 1) of each noise level."""
        for sigma in VALIDATION_SIGMAS:
            mse = self.trainer.callback_metrics.get(f"mse_{sigma:g}")
            if mse is not None:
                self.validation_psnr[sigma] = -10 * math.log10(float(mse))
                self.log(f"psnr_{sigma:g}", self.validation_psnr[sigma])
        if (psnr := self.trainer.callback_metrics.get("psnr_reconstruction")) is not None:
            self.rollout_psnr = float(psnr)
