"""The test that every linear operator has to pass: linear, with the right adjoint and normal operators."""

from collections.abc import Callable

import numpy as np
import pytest
import sigpy as sp


def _random(shape, device, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return sp.to_device(x.astype(np.complex64), device)


@pytest.fixture
def check_linop() -> Callable[..., None]:
    def check(A: sp.linop.Linop, ishape, oshape, device=sp.cpu_device, tolerance: float = 1e-5) -> None:
        assert tuple(A.ishape) == tuple(ishape)
        assert tuple(A.oshape) == tuple(oshape)
        x, u, v = (_random(s, device, i) for i, s in enumerate((ishape, ishape, oshape)))
        xp = device.xp
        with device:
            Ax = A(x)
            assert Ax.shape == tuple(oshape)
            assert Ax.dtype == np.complex64
            assert sp.get_device(Ax) == device
            size = float(xp.linalg.norm(Ax))
            assert size > 0
            linear = A(2j * x + u) - 2j * Ax - A(u)
            assert float(xp.linalg.norm(linear)) < tolerance * size
            assert abs(complex(xp.vdot(v, Ax) - xp.vdot(A.H(v), x))) < tolerance * size * float(xp.linalg.norm(v))
            normal = A.H(Ax)
            assert normal.shape == tuple(ishape)
            assert float(xp.linalg.norm(A.N(x) - normal)) < tolerance * float(xp.linalg.norm(normal))
            assert float(xp.linalg.norm(A.H.H(x) - Ax)) < tolerance * size

    return check
