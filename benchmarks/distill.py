"""A network of half the operations, distilled from a prior: is it better than the prior with half the steps?

The student is the prior's network with one residual block a level in place of two, and starts with the weights of the
first of them. It learns to give what the prior gives for the same noisy crop, and steps of simulated reconstructions,
on the training images of a prior for any scan. A training that was stopped continues. ``quick.py --prior`` measures it
beside the others.

    python benchmarks/distill.py --prior mri-any --runs runs --steps 2000
"""

from pathlib import Path
from typing import Any

import torch
from ablation import WEIGHTS, training_data
from common import parser
from torch import Tensor

from hggdp_plugin.checkpoint import load_model, save_model
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.training.batches import BatchSource
from hggdp_plugin.training.config import Augmentation, TrainConfig
from hggdp_plugin.training.module import ScoreTraining
from hggdp_plugin.training.run import fit, load_training_domains


class Distillation(ScoreTraining):
    """Training whose targets are what a teacher makes of the same noisy crops."""

    def __init__(self, teacher: UNet, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.teacher = [Denoiser(teacher)]  # in a list: its weights are none of this module's

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        draw, noise = (torch.Generator().manual_seed(2 * self.global_step + i) for i in range(2))
        x = self.source.draw(self.batch_size, draw)
        clean, sigma = self.denoiser.remove_phase(x), self.draw_sigma(len(x), noise)
        s = sigma[:, None, None, None]
        noisy = clean + s * torch.randn(clean.shape, generator=noise)
        with torch.no_grad():
            target = self.teacher[0](noisy, sigma, phase=1)
        weight = 1 / s**2 + 1 / self.model.sigma_data**2
        loss = (weight * (self.denoiser(noisy, sigma, phase=1) - target) ** 2).mean()
        self.log("loss", loss, prog_bar=True)
        rollout_loss = self.pool.training_step(self.global_step)
        self.log("loss_reconstruction", rollout_loss, prog_bar=True)
        return loss + rollout_loss


def student_of(teacher: UNet) -> UNet:
    """The network with one block a level, and the weights of the first of the teacher's."""
    student = UNet(**{**teacher.config, "blocks": 1})
    weights = teacher.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    return student


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--runs", type=Path, required=True, help="folder for the training and the network")
    p.add_argument("--steps", type=int, default=2000, help="steps (default 2000)")
    args = p.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    teacher: Any = load_model(args.prior or "mri-any")[0]
    student = student_of(teacher).to(memory_format=torch.channels_last)
    data, output = training_data(args.data, args.runs), args.runs / "student.safetensors"
    config = TrainConfig(
        data=data,
        output=output,
        steps=args.steps,
        crops_first=0.0,
        rollout_levels=(8, 12, 25),
        synthetic=400,
        domain_weights=WEIGHTS,
        augmentation=Augmentation.broad(),
        validate_every=1_000_000,
        devices=1,
    )
    module = Distillation(
        teacher.to(memory_format=torch.channels_last),
        student,
        BatchSource(load_training_domains(config), config.crop, config.augmentation),
        batch_size=config.batch_size,
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        rollouts=1,
        rollout_levels=tuple(config.rollout_levels),
    )
    trainer, _ = fit(module, config)
    description = {"teacher": args.prior or "mri-any", "steps": trainer.global_step}
    save_model(output, student, {"training": description, "scale": "maximum magnitude of an image is 1"})
    print(f"{output}: after {trainer.global_step} of {config.steps} steps")


if __name__ == "__main__":
    main()
