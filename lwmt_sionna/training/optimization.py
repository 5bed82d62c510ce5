"""The optimiser of all trainings: AdamW with a guard against gradients that are not finite."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from lwmt_sionna.training.configuration import OptimizationConfig

__all__ = ["averaged_weights", "build_optimizer"]

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

    Args:
        optimizer: What `build_optimizer` returns. Without moving averages nothing happens.

    Returns:
        A context manager.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not inner.use_ema or int(ops.convert_to_numpy(inner.iterations)) == 0:
        yield
        return
    variables = inner._trainable_variables
    kept = [ops.convert_to_numpy(v) for v in variables]
    try:
        # Keras' own: the averages overwrite the weights.
        inner.finalize_variable_values(variables)
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
