"""Random draws that follow from one seed, eagerly and in compiled graphs."""

import math
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from lwmt_sionna.typing import Tensor

__all__ = ["Draws", "Range", "Seed", "check_integers", "check_range"]

Seed: TypeAlias = int | keras.random.SeedGenerator
Range = tuple[float, float]  # from the mild end to the severe one


class Draws:
    """Successive draws, per sample of a batch.

    Every draw takes one random key from Keras and hashes the places of its elements with it: the
    backends' own generators take 0.4 microseconds a number under XLA on a CPU, which would cost as
    much as a training step; the hash takes a few nanoseconds.

    Args:
        seed: An integer, which gives the same draws at every call, also inside a compiled graph; or
            a `keras.random.SeedGenerator`, whose state moves on with every draw.
    """

    def __init__(self, seed: Seed) -> None:
        is_integer = isinstance(seed, int) and not isinstance(seed, bool)
        if not is_integer and not isinstance(seed, keras.random.SeedGenerator):
            raise ValueError(
                f"seed must be an integer or a keras.random.SeedGenerator. Received: seed={seed!r}"
            )
        self._seed = seed
        self._count = 0

    def child(self) -> Seed:
        """A seed for a function that makes draws of its own."""
        if not isinstance(self._seed, int):
            return self._seed
        self._count += 1
        # Neighbouring seeds must not share draws: spread both numbers over 31 bits.
        return (self._seed * 1_000_003 + self._count * 7_919_873) % 2**31

    def uniform(self, shape: tuple) -> Tensor:
        """Real in [0, 1), float32 of `shape`; its first size may be a scalar tensor."""
        return _to_unit(_bits(shape, self._key()))

    def normal(self, shape: tuple) -> Tensor:
        """Standard normal, float32 of `shape`; its first size may be a scalar tensor."""
        key = self._key()
        # Box and Muller (1958); 1 - u is never zero.
        radius = ops.sqrt(-2.0 * ops.log(1.0 - _to_unit(_bits(shape, key))))
        return radius * ops.cos(2.0 * math.pi * _to_unit(_bits(shape, ops.flip(key))))

    def strength(
        self, batch_size: Tensor, mild: float, severe: float, severity: Tensor = 1.0
    ) -> Tensor:
        """Uniform between the mild end of a range and `severity` of the way to its severe end."""
        return mild + severity * (severe - mild) * self.uniform((batch_size,))

    def integers(
        self, batch_size: Tensor, mild: int, severe: int, severity: Tensor = 1.0
    ) -> Tensor:
        """Uniform among the integers from `mild` to `severity` of the way to `severe`, float32."""
        sign = 1 if severe >= mild else -1
        reach = ops.floor(severity * abs(severe - mild) + 1e-3)
        steps = ops.floor(self.uniform((batch_size,)) * (reach + 1))
        return mild + sign * ops.minimum(steps, reach)

    def index(self, size: Tensor) -> Tensor:
        """Uniform among 0 to `size - 1` per sample; `size` is float32 `[batch]`."""
        return ops.minimum(ops.floor(self.uniform(ops.shape(size)) * size), size - 1)

    def _key(self):
        return keras.random.randint((2,), 0, 2**31 - 1, dtype="int32", seed=self.child())


def check_range(name: str, value: Range, lowest: float, highest: float) -> Range:
    """Returns a pair (mild, severe) of real numbers within bounds."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(lowest <= v <= highest for v in pair):
        raise ValueError(
            f"{name} must be two numbers from {lowest} to {highest}. Received: {name}={value}"
        )
    return float(pair[0]), float(pair[1])


def check_integers(name: str, value: Range, lowest: int, highest: int) -> tuple[int, int]:
    """Returns a pair (mild, severe) of integers within bounds."""
    pair = check_range(name, value, lowest, highest)
    if any(v != int(v) for v in pair):
        raise ValueError(f"{name} must be two integers. Received: {name}={value}")
    return int(pair[0]), int(pair[1])


def _bits(shape, key):
    """32 random bits per element of `shape`, int32, from a key of two int32."""
    sample, *rest = shape
    size = math.prod(rest)
    inner = np.arange(size, dtype=np.int64) * -1640531527  # the golden ratio's fraction of 2^32
    inner = ((inner + 2**31) % 2**32 - 2**31).astype(np.int32).reshape((1, *rest))
    # Two rounds: the rows get keys of their own, their elements are hashed with them.
    row = ops.reshape(ops.arange(sample, dtype="int32"), (-1, *(1,) * len(rest)))
    row = _mix(row * -1640531527 + key[0])
    return _mix(_mix(ops.convert_to_tensor(inner) + row) + key[1])


def _mix(x):
    """Finaliser of MurmurHash3 (Appleby 2011): every bit of int32 depends on every other."""
    for shift, factor in ((16, -2048144789), (13, -1028477387)):
        x = ops.bitwise_xor(x, _shift_right(x, shift)) * factor
    return ops.bitwise_xor(x, _shift_right(x, 16))


def _shift_right(x, count):
    """Shift that fills with zeros, of int32."""
    return ops.bitwise_and(ops.right_shift(x, count), 2 ** (32 - count) - 1)


def _to_unit(bits):
    return ops.cast(_shift_right(bits, 8), "float32") * 2.0**-24
