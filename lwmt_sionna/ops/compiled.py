"""Functions that run compiled where they are called eagerly, and loops that gradients pass."""

import functools
from collections.abc import Callable, Hashable, Sequence

import keras
from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = [
    "apply_repeatedly",
    "call_compiled",
    "compile_function",
    "is_outermost",
    "map_rows",
    "on_accelerator",
]


def call_compiled(function: Callable, tensors: list[Tensor], settings: Hashable) -> Tensor:
    """Calls a function of tensors and settings, compiled where nothing around it is.

    What a loop of the graph does in one operation takes thousands in an eager call. Within a
    compiled function, and on PyTorch, this is a plain call. The function is one of a module; one
    program serves all calls with equal settings, its last argument.
    """
    if not is_outermost(tensors):
        return function(*tensors, settings)
    return _compiled(function, settings)(*tensors)


def map_rows(
    function: Callable,
    elements: tuple[Tensor, ...],
    shapes: Sequence[tuple[int, ...]],
    together: bool = True,
) -> tuple[Tensor, ...]:
    """Applies a function to one row of a batch after the other, without gradient.

    A row that is done soon then does not wait for the others, and its arrays fit the cache of a
    core. `keras.ops.map` does the same, but traces the function twice on TensorFlow, and what is
    mapped within it four times. On PyTorch, where every operation has a price of its own, all rows
    are done at once.

    Args:
        function: Takes a row of every element, `[1, ...]`, and returns a tuple of rows.
        elements: Tensors `[batch, ...]`.
        shapes: Shapes of what it returns, without the batch; all of the type of the first element.
        together: Whether the function takes several rows as well, and does with each of them what
            it does with one.

    Returns:
        Tuple of tensors `[batch, *shape]`.
    """
    elements = tuple(ops.stop_gradient(ops.convert_to_tensor(x)) for x in elements)
    if together and keras.backend.backend() == "torch":
        return function(*elements)
    count = ops.shape(elements[0])[0]

    def visit(row, done):
        values = function(*(_row(x, row) for x in elements))
        return tuple(
            ops.slice_update(whole, (row, *(0,) * len(shape)), ops.reshape(value, (1, *shape)))
            for whole, value, shape in zip(done, values, shapes, strict=True)
        )

    empty = tuple(ops.zeros((count, *shape), dtype=elements[0].dtype) for shape in shapes)
    return ops.fori_loop(0, count, visit, empty)


def _row(x, row):
    sizes = x.shape[1:]
    return ops.slice(x, (row, *(0,) * len(sizes)), (1, *sizes))


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


def on_accelerator() -> bool:
    """Whether JAX computes on something else than processor cores."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu"


def compile_function(
    function: Callable[..., Tensor], variables: Sequence[keras.Variable] = ()
) -> Callable[..., Tensor]:
    """A function of tensors as a compiled program, a function of the same tensors.

    `variables` are what it reads beside them, at their values of each call.
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


def apply_repeatedly(
    step: Callable[..., Tensor], state: Tensor, parameters: list[Tensor]
) -> Tensor:
    """Applies one function again and again, with other parameters each time.

    The function is traced and compiled once. Gradients flow to the state and to the parameters; the
    backward pass computes each step again, so that memory grows by one state per repetition.

    Args:
        step: Function of the state and one tensor per entry of `parameters`; returns the next
            state, of the same shape and type.
        state: A tensor.
        parameters: List of tensors `[repetitions, ...]`.

    Returns:
        The last state.
    """
    step = keras.remat(step)
    repetitions = parameters[0].shape[0]
    backend = keras.backend.backend()
    if backend == "jax":
        return ops.scan(lambda state, slices: (step(state, *slices), None), state, parameters)[0]
    if backend == "tensorflow":
        # `ops.scan` does not tell XLA the number of steps, which the gradient needs.
        def body(index, state):
            return index + 1, step(state, *(ops.take(p, index, axis=0) for p in parameters))

        return ops.while_loop(
            lambda index, state: index < repetitions,
            body,
            (ops.convert_to_tensor(0, dtype="int32"), state),
            maximum_iterations=repetitions,
        )[1]
    for index in range(repetitions):
        state = step(state, *(parameter[index] for parameter in parameters))
    return state
