"""The angle-delay transform as Keras layers."""

import keras

from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    check_array_shape,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked

__all__ = ["AngleDelayTransform", "InverseAngleDelayTransform"]


class _Transform(keras.layers.Layer):
    def __init__(self, array_shape=None, **kwargs):
        # The transform is a change of coordinates: it takes complex tensors as they are and stays
        # in the precision of its input.
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if array_shape is not None:
            if len(tuple(array_shape)) != 3 or min(array_shape) < 1:
                raise ValueError(
                    "`array_shape` must be three positive integers (rows, columns, "
                    f"polarisations). Received: array_shape={array_shape}"
                )
            array_shape = tuple(int(n) for n in array_shape)
        self.array_shape = array_shape

    def _apply(self, inputs, transform):
        if is_complex(inputs):
            return to_complex(transform(to_stacked(inputs), self.array_shape))
        return transform(inputs, self.array_shape)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        if is_complex(inputs):
            check_array_shape(self.array_shape, inputs.shape[-2])
        elif len(inputs.shape) < 3 or inputs.shape[-1] != 2:
            raise ValueError(
                "Expected complex [..., num_ant, num_subcarriers] or real [..., num_ant, "
                f"num_subcarriers, 2]. Received: inputs.shape={tuple(inputs.shape)}"
            )
        else:
            check_array_shape(self.array_shape, inputs.shape[-3])
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self):
        config = super().get_config()
        config["array_shape"] = None if self.array_shape is None else list(self.array_shape)
        return config


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class AngleDelayTransform(_Transform):
    """Unitary transform from antennas and subcarriers to angles and delays.

    Args:
        array_shape: Number of rows, columns and polarisations of the array. Defaults to a linear
            array (one row, one polarisation).
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: complex `[..., num_ant, num_subcarriers]`, or real `[..., num_ant, num_subcarriers,
            2]` with (real, imaginary) last.

    Returns:
        Shape and dtype as `inputs`: angle bins in place of antennas, delay bins in place of
        subcarriers.

    Example:

    >>> h = keras.random.normal((2, 16, 32, 32, 2))
    >>> AngleDelayTransform()(h).shape
    TensorShape([2, 16, 32, 32, 2])
    """

    def call(self, inputs):
        return self._apply(inputs, angle_delay_transform)


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class InverseAngleDelayTransform(_Transform):
    """Inverse of `AngleDelayTransform`.

    Args:
        array_shape: Number of rows, columns and polarisations of the array. Defaults to a linear
            array (one row, one polarisation).
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: complex `[..., num_ant, num_subcarriers]`, or real `[..., num_ant, num_subcarriers,
            2]` with (real, imaginary) last.

    Returns:
        Shape and dtype as `inputs`: antennas in place of angle bins, subcarriers in place of delay
        bins.
    """

    def call(self, inputs):
        return self._apply(inputs, inverse_angle_delay_transform)
