"""The score network as a prior on SigPy arrays."""

import copy
import platform
from pathlib import Path

import numpy as np
import sigpy as sp
import torch
from torch import Tensor, nn

from hggdp_plugin import interop
from hggdp_plugin._typing import Array, PathLike, RandomGenerator
from hggdp_plugin.checkpoint import DEFAULT_PRIOR, load_model, prior_file
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.network import ScoreNetwork
from hggdp_plugin.random import complex_normal


class ScorePrior(sp.prox.Prox):
    r"""A learned prior p(x) of complex images whose maximum magnitude is about 1.

    The network is a denoiser :math:`D(x, \sigma) = E[\text{image} \,|\, x]` for images with complex Gaussian noise of
    standard deviation sigma per real channel, which gives the score (Tweedie)

    .. math:: \nabla \log p_\sigma(x) = (D(x, \sigma) - x) / \sigma^2

    Called as ``prior(alpha, x)`` it is the proximal operator of :math:`-\lambda \log p` in the plug-and-play sense, the
    denoiser at :math:`\sigma^2 = \lambda \alpha`. So ``sigpy.app.LinearLeastSquares(A, y, proxg=ScorePrior(...))`` uses
    it like any other regularizer.

    Any image size and any leading batch axes; NumPy and CuPy arrays, without a copy between host and device.

    A network of K views sees K copies of the image with independent noise. An image with noise sigma becomes such views
    by adding centered noise: :math:`X_k = x + \sqrt{K} \sigma (n_k - \bar n)` has mean x and independent noise
    :math:`\sqrt{K} \sigma` in each view, exactly the distribution it was trained on.

    Args:
        model (ScoreNetwork): The network. It is copied at the first use, and is not changed.
        description (None or dict): The description in its file, see :func:`hggdp_plugin.checkpoint.load_model`.
        shape (tuple of int): Shape of the arrays it is called on, -1 for any; SigPy's Prox asks for it.
        lamda (float): Weight of the prior as a proximal operator.
        autocast (bool): Run the network in bfloat16 where the processor supports it.
        chunk (int): Slices that go through the network at a time; bounds the memory.
        seed (int): Seed of the noise that makes views, where no generator is given.

    Attributes:
        path (None or Path): The file that it was loaded from.

    References:
        Venkatakrishnan, S. V., Bouman, C. A., & Wohlberg, B. (2013). Plug-and-play priors for model based
        reconstruction. IEEE GlobalSIP.
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(
        self,
        model: ScoreNetwork,
        description: dict[str, object] | None = None,
        shape: tuple[int, ...] = (-1, -1),
        lamda: float = 1.0,
        autocast: bool = True,
        chunk: int = 32,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.views: int = model.views
        self.description = description or {}
        self.path: Path | None = None
        self.lamda, self.autocast, self.chunk, self.seed = lamda, autocast, chunk, seed
        self._denoisers: dict[tuple[torch.device, bool], Denoiser] = {}
        super().__init__(shape)

    def denoise(self, x: Array, sigma: float, rng: RandomGenerator | None = None) -> Array:
        """Return the denoised image D(x, sigma).

        Outside the levels the network was trained for: above the highest, the image is treated as having the noise of
        the highest; below the lowest, the score is that of the lowest, so that D(x, sigma) goes to x as sigma
        goes to 0.

        Args:
            x (array): Complex images (..., H, W).
            sigma (float): Noise standard deviation per real channel.
            rng (None or Generator): NumPy or CuPy random generator, matching ``x``, of the noise that makes views,
                which all images share. None: the same noise at every call.

        Returns:
            array: complex64, of the shape and on the device of ``x``.
        """
        device = sp.get_device(x)
        with interop.current_stream(device):
            views = _as_tensor(x)[:, None]
            if self.views == 1:
                return interop.to_array(self._run(views, sigma).reshape(x.shape))
            level = sigma * self.views**0.5
            rng = device.xp.random.default_rng(self.seed) if rng is None else rng
            noise = interop.to_torch(complex_normal(rng, (self.views, *x.shape[-2:])))
            views = views + level * (noise - noise.mean(0))
            return interop.to_array(self._run(views, level).mean(1).reshape(x.shape))

    def denoise_views(self, x: Array, sigma: float) -> Array:
        """Denoise views that have independent noise, as the network was trained.

        Args:
            x (array): Complex views (..., K, H, W).
            sigma (float): Noise standard deviation per real channel of each view.

        Returns:
            array: The denoised views, complex64, of the shape and on the device of ``x``.

        Raises:
            ValueError: The number of views is not the network's.
        """
        if x.ndim < 3 or x.shape[-3] != self.views:
            raise ValueError(f"x: expected {self.views} views (..., {self.views}, H, W), got shape {x.shape}")
        device = sp.get_device(x)
        with interop.current_stream(device):
            views = _as_tensor(x).unflatten(0, (-1, self.views))
            return interop.to_array(self._run(views, sigma).reshape(x.shape))

    def score(self, x: Array, sigma: float, rng: RandomGenerator | None = None) -> Array:
        """Return the score (D(x, sigma) - x) / sigma^2; arguments and result as in :meth:`denoise`."""
        # Below the lowest level the score does not change, but the difference would vanish in rounding error.
        sigma = max(sigma, self.model.sigma_min / self.views**0.5)
        with sp.get_device(x):
            return ((self.denoise(x, sigma, rng) - x) / np.float32(sigma**2)).astype(np.complex64)

    def denoiser(self, device: torch.device) -> Denoiser:
        """Return the denoiser as it runs on a device, with a copy of the network that is made at the first use.

        In bfloat16 the weights of its layers are cast once. Autocast would repeat the same cast at every call, costing
        a few per cent of the time.

        Args:
            device (torch.device): Where to run it.
        """
        in_bfloat16 = self._uses_bfloat16(device)
        if (device, in_bfloat16) not in self._denoisers:
            network = copy.deepcopy(self.model).to(device)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its stubs
            for module in network.modules() if in_bfloat16 else ():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    module.bfloat16()
            self._denoisers[device, in_bfloat16] = Denoiser(network)
        return self._denoisers[device, in_bfloat16]

    def precision(self, device: torch.device) -> str:
        """Return the precision in which the network runs on a device: ``"bfloat16"`` or ``"float32"``."""
        return "bfloat16" if self._uses_bfloat16(device) else "float32"

    def weights_as_bytes(self) -> bytes:
        """Return the weights of the network as bytes, to see whether two priors are the same."""
        return b"".join(weight.float().cpu().numpy().tobytes() for weight in self.model.state_dict().values())

    def __getstate__(self) -> dict[str, object]:
        """Leave out the copies of the network, which another process makes again."""
        return {**self.__dict__, "_denoisers": {}}

    def _prox(self, alpha: float, input: Array) -> Array:
        return self.denoise(input, float(self.lamda * alpha) ** 0.5)

    def _uses_bfloat16(self, device: torch.device) -> bool:
        return self.autocast and has_bfloat16(device)

    @torch.no_grad()
    def _run(self, views: Tensor, sigma: float) -> Tensor:
        """Denoise complex views (B, K, H, W), chunk by chunk."""
        denoiser = self.denoiser(views.device)
        level = min(max(sigma, denoiser.sigma_min), denoiser.sigma_max)
        step = min(1.0, sigma / level) ** 2  # D - x is proportional to sigma^2 where the score does not change
        out = []
        for part in views.split(self.chunk):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=self._uses_bfloat16(part.device)):
                y = denoise_padded(denoiser, part, level)
            out.append(y if step == 1 else part + step * (y - part))
        return torch.cat(out)  # a copy, even of a single chunk: a network might return its input


def denoise_padded(denoiser: Denoiser, views: Tensor, sigma: float) -> Tensor:
    """Denoise complex views of any size.

    Args:
        denoiser (Denoiser): The denoiser, which pads them to the network's stride.
        views (Tensor): Complex (B, K, H, W).
        sigma (float): Noise standard deviation per real channel of each view.

    Returns:
        Tensor: The denoised views, complex64 (B, K, H, W).
    """
    return interop.channels_to_views(denoiser(interop.views_to_channels(views), sigma))


def load_prior(
    name_or_path: PathLike = DEFAULT_PRIOR,
    *,
    lamda: float = 1.0,
    autocast: bool = True,
    chunk: int = 32,
    seed: int = 0,
) -> ScorePrior:
    """Load a prior by the name of a bundled one or from a file.

    Args:
        name_or_path (str or Path): Name (see :func:`hggdp_plugin.checkpoint.bundled_priors`) or file.
        lamda (float): As in :class:`ScorePrior`.
        autocast (bool): As in :class:`ScorePrior`.
        chunk (int): As in :class:`ScorePrior`.
        seed (int): As in :class:`ScorePrior`.

    Returns:
        ScorePrior: The prior.

    Raises:
        ValueError: There is no such prior, or the file does not contain one.
    """
    model, description = load_model(name_or_path)
    prior = ScorePrior(model, description, lamda=lamda, autocast=autocast, chunk=chunk, seed=seed)
    prior.path = prior_file(name_or_path)
    return prior


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively.

    PyTorch says yes for every CPU with AVX-512. Without the instructions for bfloat16 it takes four times as long as
    float32 (benchmarks/precision.py).

    Args:
        device (torch.device): CPU or GPU.

    Returns:
        bool: Whether bfloat16 is faster than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not is_x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _as_tensor(x: Array) -> Tensor:
    """Return images (..., H, W) as a complex64 tensor (B, H, W)."""
    tensor = interop.to_torch(x)
    return tensor.to(torch.complex64).reshape(-1, *tensor.shape[-2:])
