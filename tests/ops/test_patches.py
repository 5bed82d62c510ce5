"""Patches on grids that they tile, and on those that they do not."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import ops

from lwmt_sionna.ops.patches import patchify, token_grid, unpatchify

SIZES = st.tuples(*(st.sampled_from([1, 2, 3, 5, 8]) for _ in range(3)))
PATCHES = st.tuples(*(st.integers(1, 4) for _ in range(2)))


@hypothesis.given(shape=SIZES, patch=PATCHES)
@hypothesis.settings(max_examples=30)
def test_any_grid_comes_back_and_what_hangs_over_is_zero(shape, patch):
    x = np.random.default_rng(0).standard_normal((2, *shape, 2)).astype("float32")
    tokens = ops.convert_to_numpy(patchify(x, patch))
    grid = token_grid(shape, patch)
    assert tokens.shape == (2, np.prod(grid), patch[0] * patch[1] * 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(unpatchify(tokens, shape, patch)), x)
    np.testing.assert_allclose(np.sum(tokens**2), np.sum(x**2), rtol=1e-5)


def test_order_of_tokens_and_of_the_bins_of_a_patch():
    x = np.arange(2 * 4 * 6 * 2, dtype="float32").reshape(1, 2, 4, 6, 2)
    tokens = ops.convert_to_numpy(patchify(x, (2, 3)))
    # time-major, then angle, then delay: the third token is the second row of angles
    np.testing.assert_array_equal(tokens[0, 2], x[0, 0, 2:4, 0:3].reshape(-1))
    np.testing.assert_array_equal(tokens[0, 4], x[0, 1, 0:2, 0:3].reshape(-1))


@pytest.mark.parametrize(
    "x", [np.ones((2, 3, 4, 2), "float32"), np.ones((1, 2, 3, 4, 1), "complex64")]
)
def test_other_tensors_are_refused(x):
    with pytest.raises(ValueError, match=r"Expected real \[batch, time.*Received: x.shape="):
        patchify(x, (1, 1))
