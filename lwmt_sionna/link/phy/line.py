"""What differs between the two lines of Sionna: 1.2 computes with TensorFlow, 2.2 with PyTorch.

Blocks have the same names and shapes in both, and all else here is written in `keras.ops`.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal

import keras
from sionna.phy import config

from lwmt_sionna.typing import Array, Tensor

Compile = Literal["xla", "graph", "eager"]

#: Whether this is Sionna 2, on PyTorch.
IS_SIONNA_2 = hasattr(config, "torch_rng")
_BACKEND = "torch" if IS_SIONNA_2 else "tensorflow"

if keras.backend.backend() != _BACKEND:
    raise ImportError(
        f"The installed Sionna computes with {_BACKEND}, and so must Keras: export "
        f"KERAS_BACKEND={_BACKEND}. Received: backend={keras.backend.backend()}"
    )

# Keras's own makes complex64 of complex128, as its `matmul` does; the operator @ does not.
einsum = importlib.import_module(_BACKEND).einsum


def compiled(function: Callable, mode: Compile) -> Callable:
    """The function compiled by XLA ("xla"), as a graph ("graph"), or as it is ("eager").

    On PyTorch it always runs as it is: `torch.compile` generates no code for complex numbers, fails
    on some of the link and takes minutes for a decoder (PyTorch 2.13).
    """
    if mode == "eager" or IS_SIONNA_2:
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "xla")


def draw_indices(size: int, bound: int) -> Tensor:
    """int32 `[size]`, uniform from 0 to below `bound`, from Sionna's generator."""
    if IS_SIONNA_2:
        import torch

        generator = config.torch_rng()
        return torch.randint(
            bound, [size], generator=generator, device=generator.device, dtype=torch.int32
        )
    return config.tf_rng.uniform([size], 0, bound, dtype="int32")


def cdl_speeds(speed: Array) -> dict[str, Any]:
    """Settings by which a `CDL` gives every sequence its own speed, float `[batch_size]` [m/s].

    Sionna draws between two bounds, here equal. Those of 2.2 are 0 unless they are given; 1.2 takes
    one that is missing for the other, and two arrays not at all.
    """
    if IS_SIONNA_2:
        column = keras.ops.convert_to_tensor(speed[:, None])
        return {"min_speed": column, "max_speed": column}
    return {"min_speed": speed[:, None]}


def real_dtype(x: Any) -> str:
    """Name of the real type of a complex tensor: "float32" or "float64"."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return {"complex64": "float32", "complex128": "float64"}[dtype]


def dtypes(precision: str) -> tuple[str, str]:
    """Names of the real and the complex type of a precision of Sionna's."""
    return ("float64", "complex128") if precision == "double" else ("float32", "complex64")
