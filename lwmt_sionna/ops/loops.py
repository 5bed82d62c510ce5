"""Loops of the graph through which gradients pass."""

from collections.abc import Callable

import keras
from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = ["apply_repeatedly"]


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
