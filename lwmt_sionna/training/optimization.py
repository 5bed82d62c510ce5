"""The optimiser of all trainings, and the devices that share their batches."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.training.configuration import OptimizationConfig

__all__ = ["DataParallel", "averaged_weights", "build_optimizer"]

# Largest norm of the whole gradient.
_CLIP_NORM = 1.0


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class GuardedAdamW(keras.optimizers.AdamW):
    """AdamW that takes a gradient with NaN or infinity for zero.

    One such gradient would otherwise spoil the moments, and with them all steps that follow.
    """

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Applies gradients: see `keras.optimizers.Optimizer`."""
        grads = [None if g is None else ops.convert_to_tensor(g) for g in grads]
        finite = True
        for gradient in grads:
            if gradient is not None:
                finite = ops.logical_and(finite, ops.all(ops.isfinite(gradient)))
        # Not a product: zero times NaN is NaN.
        grads = [None if g is None else ops.where(finite, g, ops.zeros_like(g)) for g in grads]
        super().apply(grads, trainable_variables)


def build_optimizer(
    config: OptimizationConfig, variables: list[Any], num_steps: int
) -> keras.optimizers.Optimizer:
    """Builds the optimiser of a training.

    Args:
        config: `OptimizationConfig`.
        variables: Trainable variables of the model.
        num_steps: Number of steps of the whole training.

    Returns:
        Keras optimiser, built.
    """
    warmup = max(1, int(config.warmup_share * num_steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, num_steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    averaged = {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum else {}
    optimizer = GuardedAdamW(
        schedule, weight_decay=config.weight_decay, global_clipnorm=_CLIP_NORM, **averaged
    )
    if not config.decay_vectors:
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


@contextlib.contextmanager
def averaged_weights(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Puts the moving averages of the weights in place of the weights, for as long as it is open.

    Without moving averages nothing happens.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not inner.use_ema or int(ops.convert_to_numpy(inner.iterations)) == 0:
        yield
        return
    variables = inner._trainable_variables
    kept = [ops.convert_to_numpy(v) for v in variables]
    try:
        # Keras' own: the averages overwrite the weights. On JAX both then are one array, which the
        # next program would take for its own and delete.
        inner.finalize_variable_values(variables)
        for variable in variables:
            variable.assign(np.array(ops.convert_to_numpy(variable)))
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


class DataParallel:
    """Spreads the batches of a training over devices; weights are the same on all of them.

    Args:
        num_devices: Number of devices. One device (the default) changes nothing.

    Raises:
        ValueError: If there are fewer devices, or the backend knows no such distribution.
    """

    def __init__(self, num_devices: int = 1) -> None:
        if not isinstance(num_devices, int) or num_devices < 1:
            raise ValueError(
                f"num_devices must be a positive integer. Received: num_devices={num_devices}"
            )
        self.num_devices = num_devices
        self._strategy = None
        if num_devices == 1:
            return
        backend = keras.backend.backend()
        if backend == "jax":
            devices = keras.distribution.list_devices()
            self._check(len(devices))
            keras.distribution.set_distribution(
                keras.distribution.DataParallel(devices=devices[:num_devices])
            )
        elif backend == "tensorflow":
            import tensorflow as tf

            kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
            names = [device.name for device in tf.config.list_logical_devices(kind)]
            self._check(len(names))
            self._strategy = tf.distribute.MirroredStrategy(names[:num_devices])
        else:
            raise ValueError(
                "Several devices need the backend JAX or TensorFlow. Received: "
                f"backend={backend}, num_devices={num_devices}"
            )

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which models and optimisers are made and compiled."""
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    @property
    def jit_compile(self) -> bool:
        """Whether a step can be one XLA program: not in PyTorch, nor over TensorFlow's devices."""
        return keras.backend.backend() != "torch" and self._strategy is None

    def prepare(self, model: keras.Model, x: Any, y: Any) -> None:
        """Builds what Keras builds at a model's first batch, and cannot build from a shared one."""
        if self._strategy is not None:
            model._maybe_symbolic_build(data_batch=(x, y, None))

    def share(self, tree: Any) -> Any:
        """Gives every device its part of a batch, where Keras does not do so by itself.

        Raises:
            ValueError: If the batch cannot be split evenly.
        """
        if self.num_devices > 1:
            for value in keras.tree.flatten(tree):
                if len(value) % self.num_devices:
                    raise ValueError(
                        "The batch must be a multiple of the number of devices. Received: "
                        f"batch_size={len(value)}, num_devices={self.num_devices}"
                    )
        if self._strategy is None:
            return tree
        import tensorflow as tf

        def split(value):
            parts = tf.split(tf.convert_to_tensor(value), self.num_devices)
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        return keras.tree.map_structure(split, tree)

    def _check(self, available):
        if available < self.num_devices:
            raise ValueError(
                f"There are {available} devices. Received: num_devices={self.num_devices}"
            )
