"""The angle-delay transform as Keras layers."""

from typing import Any

import keras

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.ops.angle_delay import (
    angle_delay_transform,
    check_array_shape,
    delay_bins,
    inverse_angle_delay_transform,
)
from lwmt_sionna.ops.complex import is_complex, to_complex, to_stacked
from lwmt_sionna.typing import Shape, Tensor

__all__ = ["AngleDelayTransform", "InverseAngleDelayTransform"]


class _Transform(PlainErrors, keras.layers.Layer):
    def __init__(
        self,
        array_shape: tuple[int, int, int] | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
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
            rows, columns, polarizations = (int(n) for n in array_shape)
            array_shape = rows, columns, polarizations
        self.array_shape = array_shape
        self.first_delay = int(first_delay)

    def _output_size(self, num_inputs):
        """Size of the last axis for an input of `num_inputs`."""
        raise NotImplementedError

    def _transform(self, x):
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        _check(inputs)
        if is_complex(inputs):
            return to_complex(self._transform(to_stacked(inputs)))
        return self._transform(inputs)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        # A shape does not tell complex [..., antennas, 2] from real [..., subcarriers, 2]; complex
        # inputs go through `compute_output_spec`.
        shape = list(inputs_shape)
        shape[-2] = self._output_size(shape[-2])
        return tuple(shape)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        _check(inputs)
        shape = list(inputs.shape)
        last = -1 if is_complex(inputs) else -2
        check_array_shape(self.array_shape, shape[last - 1])
        shape[last] = self._output_size(shape[last])
        return keras.KerasTensor(shape, dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["array_shape"] = None if self.array_shape is None else list(self.array_shape)
        config["first_delay"] = self.first_delay
        return config


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class AngleDelayTransform(_Transform):
    """Unitary transform from antennas and subcarriers to angles and delays.

    Args:
        array_shape: Number of rows, columns and polarisations of the array. Defaults to a linear
            array (one row, one polarisation).
        num_delay: Delay bins to keep; what lies in the others is dropped. Defaults to all.
        first_delay: First delay bin kept, below 0 for bins before delay 0. Only with `num_delay`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: complex `[..., num_ant, num_subcarriers]`, or real `[..., num_ant, num_subcarriers,
            2]` with (real, imaginary) last.

    Returns:
        Form and dtype as `inputs`: angle bins in place of antennas, delay bins in place of
        subcarriers.

    Example:

    >>> h = keras.random.normal((2, 16, 32, 32, 2))
    >>> AngleDelayTransform()(h).shape
    TensorShape([2, 16, 32, 32, 2])
    """

    def __init__(
        self,
        array_shape: tuple[int, int, int] | None = None,
        num_delay: int | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(array_shape, first_delay, **kwargs)
        if num_delay is not None and num_delay < 1:
            raise ValueError(f"`num_delay` must be positive. Received: num_delay={num_delay}")
        self.num_delay = num_delay

    def _output_size(self, num_inputs):
        return len(delay_bins(num_inputs, self.num_delay))

    def _transform(self, x):
        return angle_delay_transform(x, self.array_shape, self.num_delay, self.first_delay)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_delay": self.num_delay}


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class InverseAngleDelayTransform(_Transform):
    """Inverse of `AngleDelayTransform`.

    Args:
        array_shape: Number of rows, columns and polarisations of the array. Defaults to a linear
            array (one row, one polarisation).
        num_subcarriers: Number of subcarriers, where delay bins were dropped: those count as zero.
            Defaults to the number of delay bins.
        first_delay: As given to `AngleDelayTransform`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: complex `[..., num_ant, num_delay]`, or real `[..., num_ant, num_delay, 2]` with
            (real, imaginary) last.

    Returns:
        Form and dtype as `inputs`: antennas in place of angle bins, subcarriers in place of delay
        bins.
    """

    def __init__(
        self,
        array_shape: tuple[int, int, int] | None = None,
        num_subcarriers: int | None = None,
        first_delay: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(array_shape, first_delay, **kwargs)
        if num_subcarriers is not None and num_subcarriers < 1:
            raise ValueError(
                f"`num_subcarriers` must be positive. Received: num_subcarriers={num_subcarriers}"
            )
        self.num_subcarriers = num_subcarriers

    def _output_size(self, num_inputs):
        return num_inputs if self.num_subcarriers is None else self.num_subcarriers

    def _transform(self, x):
        return inverse_angle_delay_transform(
            x, self.array_shape, self.num_subcarriers, self.first_delay
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_subcarriers": self.num_subcarriers}


def _check(inputs):
    shape = tuple(inputs.shape)
    if len(shape) < 2 if is_complex(inputs) else len(shape) < 3 or shape[-1] != 2:
        raise ValueError(
            "Expected complex [..., num_ant, num_subcarriers] or real [..., num_ant, "
            f"num_subcarriers, 2]. Received: inputs.shape={shape}, inputs.dtype={inputs.dtype}"
        )
