"""Functions that run compiled where they are called eagerly, and loops that gradients pass."""

import contextlib
import contextvars
import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = [
    "apply_repeatedly",
    "call_compiled",
    "call_untraced",
    "compile_function",
    "is_outermost",
    "is_traced",
    "map_rows",
    "on_accelerator",
    "piece",
    "repeat_rows",
    "runs_by_row",
    "where_rows",
]

# On PyTorch: the pieces of the program that runs, and whether the call comes from `torch.compile`.
_PIECES: contextvars.ContextVar[dict | None] = contextvars.ContextVar("pieces", default=None)
_FROM_TRACED: contextvars.ContextVar[bool] = contextvars.ContextVar("from_traced", default=False)


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
    mapped within it four times. In eager calls of PyTorch, where every operation has a price of its
    own, and on accelerators, all rows are done at once.

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
    count = ops.shape(elements[0])[0]
    if on_accelerator():
        if together:
            return function(*elements)
        import jax

        columns = jax.vmap(function)(*(x[:, None] for x in elements))
        return tuple(
            ops.reshape(values, (-1, *shape)) for values, shape in zip(columns, shapes, strict=True)
        )
    if keras.backend.backend() == "torch":
        if count == 0 or (together and _PIECES.get() is None):
            return function(*elements)
        rows = [function(*(x[i : i + 1] for x in elements)) for i in range(count)]
        columns = zip(shapes, *rows, strict=True)
        return tuple(ops.reshape(ops.stack(values), (-1, *shape)) for shape, *values in columns)

    def visit(row, done):
        values = function(*(_row(x, row) for x in elements))
        return tuple(
            ops.slice_update(whole, (row, *(0,) * len(shape)), ops.reshape(value, (1, *shape)))
            for whole, value, shape in zip(done, values, shapes, strict=True)
        )

    empty = tuple(ops.zeros((count, *shape), dtype=elements[0].dtype) for shape in shapes)
    # On TensorFlow the update of a slice has no gradient, not even none.
    return tuple(ops.stop_gradient(x) for x in ops.fori_loop(0, count, visit, empty))


def repeat_rows(
    step: Callable[..., tuple[Tensor, ...]],
    working: Callable[..., Tensor],
    given: tuple[Tensor, ...],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """Repeats a step for the rows of a batch that are working.

    Those that are done stay as they are. XLA computes them along with the others; PyTorch, whose
    shapes may change, leaves them out.

    Args:
        step: Takes `given` and, each an argument, a state of as many rows; returns the next state.
        working: Takes a state and returns which of its rows go on, bool `[batch]`.
        given: Tensors `[batch, ...]` that all steps read.
        state: Tensors `[batch, ...]`.

    Returns:
        The last state.
    """
    if keras.backend.backend() == "torch":
        return _repeat_left(step, working, given, state)

    def repeat(*old):
        new = step(given, *old)
        return tuple(where_rows(working(*old), *both) for both in zip(new, old, strict=True))

    return ops.while_loop(lambda *state: ops.any(working(*state)), repeat, state)


def _repeat_left(step, working, given, state):
    while True:
        going = working(*state)
        rows = ops.nonzero(going)[0]
        if len(rows) == 0:
            return state
        if len(rows) == len(going):
            state = step(given, *state)
            continue
        few, own = (tuple(ops.take(x, rows, axis=0) for x in each) for each in (given, state))
        new = step(few, *own)
        state = tuple(
            ops.scatter_update(x, rows[:, None], values)
            for x, values in zip(state, new, strict=True)
        )


def where_rows(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new for the rows that are chosen, bool `[batch]`, and the old for the others."""
    return ops.where(ops.reshape(chosen, (-1, *(1,) * (len(old.shape) - 1))), new, old)


def _row(x, row):
    sizes = x.shape[1:]
    return ops.slice(x, (row, *(0,) * len(sizes)), (1, *sizes))


def is_outermost(tensors: list[Tensor], asked: bool = False) -> bool:
    """Whether a call with these tensors comes from Python, and is to be compiled.

    On PyTorch, which takes minutes for that where XLA takes half of one, only if `asked`, or from
    within `torch.compile`.
    """
    if any(keras.utils.is_keras_tensor(tensor) for tensor in tensors):
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly() and not tf.config.functions_run_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return not any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)
    return (asked or _FROM_TRACED.get()) and _PIECES.get() is None


def runs_by_row(x: Tensor) -> bool:
    """Whether a program is for one row of a batch: see `map_rows`; it then serves any batch."""
    return keras.backend.backend() == "torch" and x.device.type == "cpu"


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

    `variables` are what it reads beside them, at their values of each call. PyTorch has no loop
    that ends by what it computes: there, what stands in and between loops is compiled, each `piece`
    by itself.
    """
    if keras.backend.backend() == "torch":
        pieces: dict = {}

        def in_pieces(*tensors):
            with _set(_PIECES, pieces):
                return function(*tensors)

        return in_pieces
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    import jax

    @jax.jit
    def program(values, *tensors):
        scope = keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))
        # Accelerators would round the factors of products to 10 bits, and paths are told by phases.
        with scope, jax.default_matmul_precision("highest"):
            return function(*tensors)

    return lambda *tensors: program([variable.value for variable in variables], *tensors)


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar, value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def piece(function: Callable) -> Callable:
    """Marks a function, without loops that end by what they compute, that PyTorch compiles whole.

    Only within programs of `compile_function`, and where no gradient is asked for; once per shapes
    of its arguments and values of those that are no tensors, which must be hashable. Layers among
    the arguments are read at the values that their variables have.
    """

    @functools.wraps(function)
    def call(*args):
        pieces = _PIECES.get()
        return function(*args) if pieces is None else _run_piece(pieces, function, args)

    return call


def _run_piece(pieces, function, args):
    import torch

    leaves = _leaves(args)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    layers = [leaf for leaf in leaves if isinstance(leaf, keras.layers.Layer)]
    variables = [variable for layer in layers for variable in layer.variables]
    tensors = [leaves[place] for place in places] + [variable.value for variable in variables]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return function(*args)
    # Compiled code takes for granted how numbers lie in memory.
    tensors = [tensor.detach().contiguous() for tensor in tensors]
    rest = [None if place in places else leaf for place, leaf in enumerate(leaves)]
    key = (function, *rest, *((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
    if key not in pieces:

        def run(*tensors):
            given = iter(tensors)
            filled = [next(given) if i in places else leaf for i, leaf in enumerate(rest)]
            with keras.StatelessScope(state_mapping=list(zip(variables, given, strict=True))):
                return function(*_packed(args, iter(filled)))

        pieces[key] = _compile_piece(run, tensors)
    program, structure = pieces[key]
    return _packed(structure, iter(program(*tensors)))


def _leaves(tree):
    """What tuples, lists and dictionaries hold: `keras.tree` takes as long as a piece runs."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for branch in tree for leaf in _leaves(branch)]
    return [tree]


def _packed(structure, leaves):
    """Leaves, an iterator, in the place of those of a structure."""
    if isinstance(structure, dict):
        return {key: _packed(branch, leaves) for key, branch in structure.items()}
    if not isinstance(structure, (tuple, list)):
        return next(leaves)
    branches = [_packed(branch, leaves) for branch in structure]
    if hasattr(structure, "_fields"):
        return type(structure)(*branches)
    return type(structure)(branches)


def _compile_piece(function, tensors):
    """A program of tensors that returns a list of tensors, and the structure that these have."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    structures = []

    def flat(*tensors):
        results = function(*tensors)
        structures.append(_packed(results, itertools.repeat(None)))
        return _leaves(results)

    with torch.no_grad(), _set(_PIECES, None):
        # Not `torch.compile`, which reads Python, and takes the NumPy of constants for computation.
        graph = make_fx(flat, tracing_mode="fake")(*tensors)
        return torch._inductor.compile(graph, tensors), structures[0]


def is_traced() -> bool:
    """Whether `torch.compile` reads this call."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


def call_untraced(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls a function outside of what `torch.compile` reads, compiled in its own way."""
    with _set(_FROM_TRACED, True):
        return function(*args, **kwargs)


if keras.backend.backend() == "torch":
    from torch import compiler

    call_untraced = compiler.disable(call_untraced)


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
