"""One device or several: `keras.distribution` on JAX, `tf.distribute` on TensorFlow."""

import contextlib
from typing import Any

import keras

__all__ = ["DataParallel"]


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
        """Builds what Keras builds at a model's first batch, which it cannot do from shared ones.

        Args:
            model: Compiled Keras model.
            x: Inputs, as they are before `share`.
            y: Targets.
        """
        if self._strategy is not None:
            model._maybe_symbolic_build(data_batch=(x, y, None))

    def share(self, tree: Any) -> Any:
        """Gives every device its part of a batch, where Keras does not do so by itself.

        Args:
            tree: Dictionary of arrays or array, first axes `[batch_size]`.

        Returns:
            The same, distributed over the devices.

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
