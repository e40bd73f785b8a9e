"""Names for the types of arguments that are used across the package."""

import os
from typing import TypeAlias

import numpy as np

#: A NumPy array, or a CuPy array, which has the same interface.
Array: TypeAlias = np.ndarray
#: A NumPy random generator, or CuPy's, which has the same interface.
RandomGenerator: TypeAlias = np.random.Generator
#: A file's path.
PathLike: TypeAlias = str | os.PathLike[str]
