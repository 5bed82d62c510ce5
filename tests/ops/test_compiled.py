"""Loops over the rows of a batch."""

import keras
import numpy as np
import pytest

from lwmt_sionna.ops.compiled import map_rows


@pytest.mark.parametrize("count", [0, 1, 5])
def test_rows_are_mapped_one_after_the_other(rng, count):
    x = rng.standard_normal((count, 3, 2)).astype("float32")
    some = rng.uniform(size=(count, 4)) < 0.5
    calls = []

    def function(row, flags):
        calls.append((row.shape, flags.shape))
        chosen = keras.ops.sum(keras.ops.cast(flags, row.dtype), axis=1)
        return row * chosen[:, None, None], keras.ops.max(row, axis=(1, 2), initial=-np.inf)

    tensors = tuple(map(keras.ops.convert_to_tensor, (x, some)))
    scaled, largest = map_rows(function, tensors, [(3, 2), ()])
    expected = x * some.sum(axis=1)[:, None, None]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(largest), x.max(axis=(1, 2), initial=-np.inf)
    )
    rows = count if keras.backend.backend() == "torch" else 1
    assert {tuple(map(tuple, shapes)) for shapes in calls} <= {((rows, 3, 2), (rows, 4))}


def test_one_program_serves_batches_of_any_size(rng):
    tf = pytest.importorskip("tensorflow")
    traced = []

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], jit_compile=True)
    def doubled(x):
        def function(row):
            traced.append(row.shape)
            return (2.0 * row,)

        return map_rows(function, (x,), [(3,)])[0]

    for count in (2, 4):
        x = rng.standard_normal((count, 3)).astype("float32")
        np.testing.assert_array_equal(doubled(x), 2.0 * x)
    assert len(traced) == 1
