"""Functions that run compiled where they are called eagerly."""

import functools
from collections.abc import Callable, Hashable, Sequence

import keras

from lwmt_sionna.typing import Tensor

__all__ = ["call_compiled", "compile_function", "is_outermost"]


def call_compiled(function: Callable, tensors: list[Tensor], settings: Hashable) -> Tensor:
    """Calls a function of tensors, compiled where nothing around it is.

    What a loop of the graph does in one operation takes thousands in an eager call. Within a
    compiled function, and on PyTorch, this is a plain call.

    Args:
        function: Function of a module, of tensors and of the settings as a last argument.
        tensors: Its tensors.
        settings: What else it depends on: one program serves all calls with equal ones.

    Returns:
        What the function returns.
    """
    if not is_outermost(tensors):
        return function(*tensors, settings)
    return _compiled(function, settings)(*tensors)


def is_outermost(tensors: list[Tensor]) -> bool:
    """Whether a call with these tensors comes from Python, and the backend can compile it."""
    if any(keras.utils.is_keras_tensor(tensor) for tensor in tensors):
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly() and not tf.config.functions_run_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return not any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)
    return False


def compile_function(
    function: Callable[..., Tensor], variables: Sequence[keras.Variable] = ()
) -> Callable[..., Tensor]:
    """A function of tensors as a compiled program.

    Args:
        function: Function of tensors.
        variables: What it reads beside them, at their values of each call.

    Returns:
        Function of the same tensors.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    import jax

    @jax.jit
    def program(values, *tensors):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*tensors)

    return lambda *tensors: program([variable.value for variable in variables], *tensors)


@functools.lru_cache(maxsize=64)
def _compiled(function, settings):
    return compile_function(lambda *tensors: function(*tensors, settings))
