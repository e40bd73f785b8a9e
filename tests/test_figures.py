import numpy as np

from hggdp_plugin.figures import comparison
from hggdp_plugin.simulation import head_phantom


def test_a_figure_has_images_an_enlarged_part_and_errors():
    reference = head_phantom((40, 32))[0]
    zoom = slice(10, 20), slice(8, 16)
    figure = comparison({"half": reference / 2, "blank": 0 * reference + 1}, reference, gain=3, zoom=zoom)
    shown = [[image.get_array() for image in axis.get_images()] for axis in figure.axes]
    assert [[image.shape for image in images] for images in shown] == [
        [(40, 32)], [(40, 32)], [(40, 32)],
        [(10, 8)], [(10, 8)], [(10, 8)],
        [], [(40, 32)], [(40, 32)],
    ]  # fmt: skip
    target = abs(reference) / abs(reference).max()
    np.testing.assert_allclose(shown[4][0], target[zoom], atol=1e-6)  # scaled to the reference
    np.testing.assert_allclose(shown[7][0], 0, atol=1e-5)
    assert shown[8][0].max() > 1
