"""The Lightning module that trains a score network."""

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor

from hggdp_plugin.models.unet import rotated, smooth_phase
from hggdp_plugin.training.batches import BatchSource, at_least
from hggdp_plugin.training.loss import denoising_loss, draw_sigma
from hggdp_plugin.training.muon import muon
from hggdp_plugin.training.rollouts import Reconstruction, Reconstructions

VALIDATION_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)
#: One of so many validation images is reconstructed, which takes five times as long as to denoise it at those levels.
RECONSTRUCTED = 4


class ScoreTraining(lightning.LightningModule):
    """Trains a score network on images held in memory.

    Every random number of step n follows from (seed, rank, n), so that a run that was killed and resumed takes the
    same course as one that was not.

    Args:
        model (Module): A network as described in :mod:`hggdp_plugin.models`.
        source (BatchSource): Training images.
        validation (list of Tensor): Images to measure on, real (2, H, W).
        batch_size (int): Crops per step and device.
        steps (int): Length of the learning rate's cosine.
        learning_rate (float): Its peak, after ``warmup`` steps.
        optimizer (str): ``"muon"`` (see :mod:`hggdp_plugin.training.muon`) or ``"adamw"``.
        warmup (int): Steps of linear warm-up.
        seed (int): Seed of all randomness.
        reconstructions (int): Reconstructions, a step and device, whose images it is trained on too.
        crops_first (float): Part of ``steps`` that come before them: what a new network makes of images is no help.
    """

    def __init__(
        self,
        model: Any,
        source: BatchSource,
        validation: Sequence[Tensor] = (),
        batch_size: int = 8,
        steps: int = 10_000,
        learning_rate: float = 2e-3,
        optimizer: str = "muon",
        warmup: int = 200,
        seed: int = 0,
        reconstructions: int = 0,
        crops_first: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.source, self.validation = source, [at_least(image, model.stride) for image in validation]
        self.batch_size, self.steps, self.learning_rate, self.warmup = batch_size, steps, learning_rate, warmup
        self.optimizer, self.seed = optimizer, seed
        self.reconstructions, self.crops_first = reconstructions, crops_first
        self.stored: dict[int, tuple[Tensor | None, ...]] = {}
        self.validation_psnr: dict[float, float] = {}
        self.reconstruction_psnr: float | None = None

    def train_dataloader(self) -> Any:
        """Step numbers: the images are in memory already and each step draws its own batch."""
        numbers: Any = range(self.steps)
        return torch.utils.data.DataLoader(numbers, batch_size=None)

    def val_dataloader(self) -> Any:
        """Numbers of the validation images."""
        numbers: Any = range(len(self.validation))
        return torch.utils.data.DataLoader(numbers, batch_size=None)

    def configure_optimizers(self) -> Any:
        """The optimizer, with linear warm-up and cosine decay to zero over ``steps``."""
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
        """Keep the images where the network is, and take up the reconstructions under way."""
        self.source.to(self.device)
        self.under_way = Reconstructions(self.model, self.source, (self.seed % 2**64, self.global_rank))
        if self.global_rank == 0:  # whose images a checkpoint has
            self.under_way.stored = self.stored

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the reconstructions under way."""
        checkpoint["reconstructions"] = self.under_way.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the stored reconstructions, if any."""
        self.stored = checkpoint.get("reconstructions", {})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draw a batch and return its denoising loss, plus that of reconstructions under way."""
        step_seed = ((self.seed * 1_000_003 + self.global_rank) * 10_000_019 + self.global_step) % 2**62
        draw = torch.Generator().manual_seed(2 * step_seed)
        noise = torch.Generator(self.device).manual_seed(2 * step_seed + 1)
        x = self.source.draw(self.batch_size, draw)
        sigma = draw_sigma(self.model, len(x), noise)
        if pixels := self.model.config.get("phase_pixels"):
            cos, sin = smooth_phase(x, pixels)
            x = rotated(x, cos, -sin)
        loss = denoising_loss(self.model, x, sigma, noise)
        self.log("loss", loss, prog_bar=True)
        if (n := self.reconstructions) and self.global_step >= self.crops_first * self.steps:
            inside = sum(self.under_way.loss(n * self.global_step + i) for i in range(n)) / n
            self.log("loss_reconstruction", inside, prog_bar=True)
            loss = loss + inside
        return loss

    def denoise(self, number: int, sigma: float, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A validation image, the same with noise, and denoised; all real (1, 2K, H, W)."""
        image = self.validation[number].to(self.device)[None]
        stride = self.model.stride
        h, w = (s // stride * stride for s in image.shape[2:])
        clean = image[..., :h, :w].repeat(1, self.model.views, 1, 1)
        noisy = clean + sigma * torch.randn(clean.shape, generator=noise, device=self.device)
        # Not compiled, if the network is: images may be of many sizes.
        return clean, noisy, self.model.forward(noisy, torch.full((1,), sigma, device=self.device)).float()

    def validation_step(self, index: Any, batch_idx: int) -> None:
        """Measure the error of one image, denoised at each level and perhaps reconstructed, the same way every time."""
        noise = torch.Generator(self.device).manual_seed(int(index))
        for sigma in VALIDATION_SIGMAS:
            clean, _, denoised = self.denoise(int(index), sigma, noise)
            error = (denoised - clean).unflatten(1, (self.model.views, 2)).mean(1)
            self.log(f"mse_{sigma:g}", error.square().sum(1).mean(), on_epoch=True, batch_size=1, sync_dist=True)
        if self.reconstructions and int(index) % RECONSTRUCTED == 0:
            image = self.validation[int(index)].to(self.device)
            psnr = Reconstruction(self.model, image, (int(index),)).psnr()
            if math.isfinite(psnr):
                self.log("psnr_reconstruction", psnr, on_epoch=True, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log PSNR (complex, peak 1) per noise level."""
        for sigma in VALIDATION_SIGMAS:
            mse = self.trainer.callback_metrics.get(f"mse_{sigma:g}")
            if mse is not None:
                self.validation_psnr[sigma] = -10 * math.log10(float(mse))
                self.log(f"psnr_{sigma:g}", self.validation_psnr[sigma])
        if (psnr := self.trainer.callback_metrics.get("psnr_reconstruction")) is not None:
            self.reconstruction_psnr = float(psnr)
