"""Tell images from k-space where the file does not say which an array is."""

from typing import Literal

import numpy as np

from hggdp_plugin._typing import Array

#: Fraction of the norm inside the central eighth of both axes: k-space has more than the first, images less than the
#: second. Between them the kind is open.
KSPACE_FRACTION, IMAGE_FRACTION = 0.7, 0.4


def guess_kind(array: Array) -> Literal["image", "kspace"] | None:
    """Guess whether an array is an image or k-space.

    Several coils along the second of four axes mean k-space, and real numbers an image. Otherwise the energy decides:
    k-space has nearly all of it around its center, an image only a few percent.

    Args:
        array (array): Array of 2 to 4 axes, the last two of them (y, x) or (ky, kx).

    Returns:
        str or None: ``"image"``, ``"kspace"``, or None if it can't be told.
    """
    if array.ndim == 4 and array.shape[1] > 1:
        return "kspace"
    if not np.iscomplexobj(array):
        return "image"
    ny, nx = array.shape[-2:]
    center = array[..., ny // 2 - ny // 16 : ny // 2 + ny // 16 + 1, nx // 2 - nx // 16 : nx // 2 + nx // 16 + 1]
    fraction = np.linalg.norm(center) / max(np.linalg.norm(array), 1e-30)
    return "kspace" if fraction > KSPACE_FRACTION else "image" if fraction < IMAGE_FRACTION else None
