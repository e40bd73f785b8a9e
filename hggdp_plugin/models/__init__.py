"""Score networks.

Every network is a ``torch.nn.Module`` with the attributes ``views`` (K), ``stride`` (height and width must be multiples
of it), ``sigma_min``, ``sigma_max`` and ``config`` (its constructor's arguments, so that ``type(net)(**config)`` builds
it again). ``forward(x, sigma)`` maps noisy views, real (B, 2K, H, W) as [re1, im1, re2, im2, ...] with noise of
standard deviation sigma (B,) per real channel, to the denoised views D(x, sigma) = x + sigma^2 s(x, sigma) of the same
shape.
"""
