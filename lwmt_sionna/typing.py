"""Names of types that signatures share."""

import os
from typing import TYPE_CHECKING, Any, TypeAlias

# Names for who checks types: what runs needs no NumPy for them.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    # A NumPy array; its dtype and shape stand in the docstring.
    Array: TypeAlias = NDArray[Any]
    Random: TypeAlias = np.random.Generator
else:
    Array = ArrayLike = Random = Any

# A tensor of the Keras backend in use, or what it converts to one: shapes stand in the docstrings.
Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]
PathLike: TypeAlias = str | os.PathLike[str]
