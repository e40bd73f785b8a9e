"""Curves that remap the magnitude."""

import pytest
import torch

from hggdp_plugin.training.contrast import (
    CURVE_LENGTH,
    CURVE_ORDER,
    DARKEST,
    evaluate_curves,
    monotone_curves,
    nonmonotone_curves,
    remap,
)


@pytest.fixture
def uniform():
    return 2 * torch.rand(200, CURVE_ORDER, generator=torch.Generator().manual_seed(0)) - 1


def test_monotone_curves_increase_from_zero_to_one(uniform):
    curves = monotone_curves(uniform)
    assert (curves.diff(dim=1) > 0).all()
    torch.testing.assert_close(curves[:, [0, -1]], torch.tensor([0.0, 1.0]).expand(200, -1))
    assert curves[:, CURVE_LENGTH // 2].std() > 0.1


def test_nonmonotone_curves_go_down_too_and_stay_in_range(uniform):
    curves = nonmonotone_curves(uniform)
    assert (curves.diff(dim=1) < 0).any(dim=1).float().mean() > 0.9
    assert not curves[:, 0].any()
    torch.testing.assert_close(curves.amax(1), torch.ones(200))
    assert curves[:, CURVE_LENGTH // 2 :].min() > 0.5 * DARKEST


def test_a_curve_is_linear_between_its_values():
    curves = torch.linspace(0, 1, CURVE_LENGTH).expand(2, -1) * torch.tensor([[1.0], [3.0]])
    magnitude = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = magnitude * torch.tensor([1.0, 3.0])[:, None, None]
    torch.testing.assert_close(evaluate_curves(curves, magnitude), expected)
    torch.testing.assert_close(
        evaluate_curves(curves, magnitude + 2), torch.tensor([1.0, 3.0])[:, None, None].expand(2, 5, 6)
    )


def test_zero_stays_zero(uniform):
    batch = torch.zeros(200, 2, 3, 3)
    assert not remap(batch, nonmonotone_curves(uniform)).any()
