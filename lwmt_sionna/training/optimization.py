"""The optimiser of all trainings: AdamW with a guard against gradients that are not finite."""

import contextlib
import dataclasses

import keras
from keras import ops

__all__ = ["OptimizationConfig", "averaged_weights", "build_optimizer"]

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """How long and by which steps a model is trained.

    Attributes:
        steps: Number of steps.
        batch_size: Sequences per step, over all devices.
        learning_rate: Peak of the learning rate; cosine decay to zero after a linear warm-up.
        warmup_share: Share of the steps spent on the warm-up.
        weight_decay: Decoupled weight decay.
        clip_norm: Largest norm of the whole gradient.
        ema_momentum: Momentum of the moving average of the weights, which is what is evaluated and
            saved; 0 keeps the last weights.
        precision: Policy of the network: "float32", "mixed_bfloat16" or "mixed_float16". Physics,
            masks and losses are computed in float32.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between rows of the log.
        patience: Steps in a row whose loss is not finite after which the training stops.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup_share: float = 0.05
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_momentum: float = 0.99
    precision: str = "float32"
    checkpoint_every: int = 200
    log_every: int = 20
    patience: int = 10

    def __post_init__(self):
        for name in ("steps", "batch_size", "checkpoint_every", "log_every", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {name}={value}")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} must be positive. Received: {name}={value}")
        for name in ("warmup_share", "ema_momentum"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1). Received: {name}={value}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {PRECISIONS}. Received: precision={self.precision}"
            )


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class GuardedAdamW(keras.optimizers.AdamW):
    """AdamW that takes a gradient with NaN or infinity for zero.

    One such gradient would otherwise spoil the moments, and with them all steps that follow.
    """

    def apply(self, grads, trainable_variables=None):
        """Applies gradients: see `keras.optimizers.Optimizer`."""
        grads = [None if g is None else ops.convert_to_tensor(g) for g in grads]
        finite = True
        for gradient in grads:
            if gradient is not None:
                finite = ops.logical_and(finite, ops.all(ops.isfinite(gradient)))
        # Not a product: zero times NaN is NaN.
        grads = [None if g is None else ops.where(finite, g, ops.zeros_like(g)) for g in grads]
        return super().apply(grads, trainable_variables)


def build_optimizer(config, variables):
    """Builds the optimiser of a training.

    Args:
        config: `OptimizationConfig`.
        variables: Trainable variables of the model.

    Returns:
        Keras optimiser, built.
    """
    warmup = max(1, int(config.warmup_share * config.steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, config.steps - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = GuardedAdamW(
        schedule,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema_momentum > 0,
        ema_momentum=config.ema_momentum if config.ema_momentum > 0 else 0.99,
    )
    # Norms, biases and the mask embedding have no direction to decay in.
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


@contextlib.contextmanager
def averaged_weights(optimizer):
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
