"""Functions that run compiled where they are called eagerly."""

import functools
from collections.abc import Callable, Hashable

import keras

from lwmt_sionna.typing import Tensor

__all__ = ["call_compiled"]


def call_compiled(function: Callable, tensors: list[Tensor], settings: Hashable) -> Tensor:
    """Calls a function of tensors, compiled where nothing around it is.

    What a loop of the graph does in one operation takes thousands in an eager call. Within a
    compiled function, and on PyTorch, this is a plain call.

    Args:
        function: Function of a module, of tensors and of the settings as a last argument.
        tensors: Its tensors.
        settings: What else it depends on: one compilation serves all calls with equal ones.

    Returns:
        What the function returns.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        eager = tf.executing_eagerly()
    elif backend == "jax":
        import jax

        eager = not any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)
    else:
        eager = False
    if not eager:
        return function(*tensors, settings)
    return _compiled(function, settings)(*tensors)


@functools.lru_cache(maxsize=64)
def _compiled(function, settings):
    def run(*tensors):
        return function(*tensors, settings)

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(run)
    import tensorflow as tf

    return tf.function(run, jit_compile=True)
