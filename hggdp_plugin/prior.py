"""The score network as a prior on SigPy arrays."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import sigpy as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from hggdp_plugin import interop
from hggdp_plugin.checkpoint import DEFAULT_PRIOR, load_model
from hggdp_plugin.random import complex_normal


class ScorePrior(sp.prox.Prox):
    r"""A learned prior p(x) of complex images whose maximum magnitude is about 1.

    The network is a denoiser :math:`D(x, \sigma) = E[\text{image} \,|\, x]` for images with complex Gaussian noise of
    standard deviation sigma per real channel, which gives the score (Tweedie)

    .. math:: \nabla \log p_\sigma(x) = (D(x, \sigma) - x) / \sigma^2

    Called as ``prior(alpha, x)`` it is the proximal operator of :math:`-\lambda \log p` in the plug-and-play sense, the
    denoiser at :math:`\sigma^2 = \lambda \alpha`, so that
    ``sigpy.app.LinearLeastSquares(A, y, proxg=ScorePrior(...))`` uses it as any other regulariser.

    Any image size and any leading batch axes; NumPy and CuPy arrays, without a copy between host and device.

    A network of K views sees K copies of the image with independent noise. An image with noise sigma becomes such views
    by adding centred noise: :math:`X_k = x + \sqrt{K} \sigma (n_k - \bar n)` has mean x and independent noise
    :math:`\sqrt{K} \sigma` in each view, exactly the distribution it was trained on.

    Args:
        model (Module): Network as described in :mod:`hggdp_plugin.models`.
        description (None or dict): What its file says of it (see :func:`hggdp_plugin.checkpoint.load_model`).
        shape (tuple of ints): Shape of the arrays it is called on, -1 for any; what SigPy's Prox asks for.
        lamda (float): Weight of the prior as a proximal operator.
        autocast (bool): Run the network in bfloat16 where the processor has it.
        chunk (int): Slices that go through the network at a time; bounds the memory.
        seed (int): Seed of the noise that makes views, where no generator is given.

    References:
        Venkatakrishnan, S. V., Bouman, C. A., & Wohlberg, B. (2013). Plug-and-play priors for model based
        reconstruction. IEEE GlobalSIP.
        Quan, C., et al. (2021). Homotopic gradients of generative density priors for MR image reconstruction.
        IEEE TMI, 40(12), 3265-3278.
    """

    def __init__(
        self,
        model: Any,
        description: dict[str, Any] | None = None,
        shape: tuple[int, ...] = (-1, -1),
        lamda: float = 1.0,
        autocast: bool = True,
        chunk: int = 32,
        seed: int = 0,
    ) -> None:
        self.model = model.eval().to(memory_format=torch.channels_last)
        self.views: int = model.views
        self.description = description or {}
        self.lamda, self.autocast, self.chunk, self.seed = lamda, autocast, chunk, seed
        self._rounded: dict[torch.device, Any] = {}
        super().__init__(shape)

    def denoise(self, x: Any, sigma: float, rng: Any = None) -> Any:
        """The denoised image D(x, sigma).

        Outside the levels the network was trained for: above the highest, the image is taken to have the noise of the
        highest; below the lowest, the score is that of the lowest, so that D(x, sigma) goes to x as sigma goes to 0.

        Args:
            x (array): Complex images (..., H, W).
            sigma (float): Noise standard deviation per real channel.
            rng (None or Generator): NumPy or CuPy random generator, of the kind of ``x``, of the noise that makes
                views, which all images share. None: the same noise at every call.

        Returns:
            array: complex64, of the shape and on the device of ``x``.
        """
        device = sp.get_device(x)
        with interop.current_stream(device):
            views = self._as_tensor(x)[:, None]
            if self.views == 1:
                return interop.to_array(self._run(views, sigma).reshape(x.shape))
            level = sigma * self.views**0.5
            rng = device.xp.random.default_rng(self.seed) if rng is None else rng
            noise = interop.to_torch(complex_normal(rng, (self.views, *x.shape[-2:])))
            views = views + level * (noise - noise.mean(0))
            return interop.to_array(self._run(views, level).mean(1).reshape(x.shape))

    def denoise_views(self, x: Any, sigma: float) -> Any:
        """Denoise views that carry independent noise, as the network was trained.

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
            views = self._as_tensor(x).unflatten(0, (-1, self.views))
            return interop.to_array(self._run(views, sigma).reshape(x.shape))

    def score(self, x: Any, sigma: float, rng: Any = None) -> Any:
        """The score (D(x, sigma) - x) / sigma^2; arguments and result as :meth:`denoise`."""
        # Below the lowest level the score does not change, but the difference would drown in rounding.
        sigma = max(sigma, self.model.sigma_min / self.views**0.5)
        with sp.get_device(x):
            return ((self.denoise(x, sigma, rng) - x) / np.float32(sigma**2)).astype(np.complex64)

    def network(self, device: torch.device) -> Any:
        """The network as it runs on a device: in bfloat16 a copy of ``model`` that is made at the first use.

        The weights of its layers are rounded once. Autocast would round them to the same values at every evaluation, in
        some per cent of its time.
        """
        if not (self.autocast and has_bfloat16(device)):
            return self.model.to(device)
        if device not in self._rounded:
            network = self._rounded[device] = copy.deepcopy(self.model).to(device)
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    module.bfloat16()
        return self._rounded[device]

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies of the network, which another process makes anew."""
        return {**self.__dict__, "_rounded": {}}

    def _prox(self, alpha: float, input: Any) -> Any:
        return self.denoise(input, float(self.lamda * alpha) ** 0.5)

    @staticmethod
    def _as_tensor(x: Any) -> Tensor:
        """Images (..., H, W) as a complex64 tensor (B, H, W)."""
        tensor = interop.to_torch(x)
        return tensor.to(torch.complex64).reshape(-1, *tensor.shape[-2:])

    @torch.no_grad()
    def _run(self, views: Tensor, sigma: float) -> Tensor:
        """Network on complex views (B, K, H, W), chunk by chunk."""
        network = self.network(views.device)
        level = min(max(sigma, self.model.sigma_min), self.model.sigma_max)
        step = min(1.0, sigma / level) ** 2  # D - x is proportional to sigma^2 where the score does not change
        autocast = self.autocast and has_bfloat16(views.device)
        out = []
        for part in views.split(self.chunk):
            with torch.autocast(part.device.type, torch.bfloat16, enabled=autocast):
                y = denoised(network, self.model.stride, part, level)
            out.append(y if step == 1 else part + step * (y - part))
        return torch.cat(out)


def denoised(network: Any, stride: int, views: Tensor, sigma: float) -> Tensor:
    """Denoise complex views (B, K, H, W) of any size; the network sees them reflected up to multiples of its stride."""
    height, width = views.shape[-2:]
    pad = [-size % stride for size in (height, width)]
    x = interop.views_to_channels(views)
    if any(pad):
        # Reflection keeps edges natural, but needs an image larger than the padding.
        mode = "reflect" if pad[0] < height and pad[1] < width else "replicate"
        x = functional.pad(x, (0, pad[1], 0, pad[0]), mode=mode)
    x = x.contiguous(memory_format=torch.channels_last)
    y = network(x, torch.full((len(x),), sigma, device=x.device)).float()
    return interop.channels_to_views(y[..., :height, :width])


def load_prior(name_or_path: str | Path = DEFAULT_PRIOR, **options: Any) -> ScorePrior:
    """Load a prior by the name of a bundled one or from a file.

    Args:
        name_or_path: Name (see :func:`hggdp_plugin.checkpoint.bundled_priors`) or file.
        **options: Passed to :class:`ScorePrior`: ``lamda``, ``autocast``, ``chunk``, ``seed``.

    Returns:
        ScorePrior: The prior.

    Raises:
        ValueError: No such prior, or the file is not one.
    """
    model, description = load_model(name_or_path)
    return ScorePrior(model, description, **options)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
