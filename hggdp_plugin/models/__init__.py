"""Score networks, and the denoiser they stand for.

:class:`hggdp_plugin.models.network.ScoreNetwork` says what a network has to be;
:class:`hggdp_plugin.models.denoiser.Denoiser` turns it into the denoiser D(x, sigma) = x + sigma^2 s(x, sigma).
"""
