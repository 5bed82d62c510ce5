"""Complex exponentials, which have a series of their own where XLA has none that is fast."""

import keras
import numpy as np
from keras import ops

from lwmt_sionna.ops.complex import phasor


def test_phasors_are_those_of_double_precision():
    """So they are far from zero as well, where a turn in single precision is a rounded number."""
    phase = np.linspace(-3000.0, 3000.0, 100_001).astype("float32")
    exact = np.exp(1j * phase.astype("float64"))
    for part, truth in zip(
        phasor(ops.convert_to_tensor(phase)), (exact.real, exact.imag), strict=True
    ):
        np.testing.assert_allclose(ops.convert_to_numpy(part), truth, atol=1e-6)


def test_phasors_of_double_precision_stay_so():
    phase = ops.convert_to_tensor(np.linspace(-10.0, 10.0, 101), dtype="float64")
    # JAX has no double precision unless it is asked to.
    atol = 1e-14 if keras.backend.standardize_dtype(phase.dtype) == "float64" else 1e-6
    re, im = phasor(phase)
    exact = ops.convert_to_numpy(phase).astype("float64")
    np.testing.assert_allclose(ops.convert_to_numpy(re), np.cos(exact), atol=atol)
    np.testing.assert_allclose(ops.convert_to_numpy(im), np.sin(exact), atol=atol)
