"""Names for the types of arguments that are used across the package."""

import os
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    import torch

#: A NumPy array, or a CuPy array, which has the same interface.
Array: TypeAlias = np.ndarray
#: A random generator of NumPy, of CuPy, which has the same interface, or of PyTorch.
RandomGenerator: TypeAlias = Union[np.random.Generator, "torch.Generator"]
#: A file's path.
PathLike: TypeAlias = str | os.PathLike[str]
