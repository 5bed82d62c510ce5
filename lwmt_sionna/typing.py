"""Names of types that signatures share."""

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "ArrayLike", "PathLike", "Random", "Shape", "Tensor"]

# A tensor of the Keras backend in use, or what it converts to one: shapes stand in the docstrings.
Tensor: TypeAlias = Any
# A NumPy array; its dtype and shape stand in the docstring.
Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int | None, ...]
PathLike: TypeAlias = str | os.PathLike[str]
Random: TypeAlias = np.random.Generator
