"""Kernels against the dense form on grids, windows and options drawn at random."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import ops

from lwmt_sionna.ops import Neighborhood, TopKRouting, sparse_attention
from tests.ops.test_attention import allowed_pairs, gradients, random_heads

SIZES = st.sampled_from([1, 2, 3, 5, 7])


@st.composite
def cases(draw, dilation=True):
    """A neighbourhood, a grid of odd and prime sizes, and a routing or None."""
    window = st.integers(0, 4)
    causal, class_token = draw(st.booleans()), draw(st.booleans())
    neighborhood = Neighborhood(
        window=(draw(window), draw(window)),
        time_offsets=tuple(draw(st.sets(st.integers(-3, 3).filter(bool), max_size=4))),
        corridor=(draw(window), draw(window)),
        drift=draw(st.sampled_from([0.0, 0.4, 1.0, 3.0])),
        leakage=draw(st.integers(0, 2)),
        causal=causal,
        class_token=class_token,
        dilation=(draw(st.integers(1, 2)), 1),
        corridor_dilation=(1, draw(st.integers(1, 2))) if dilation else (1, 1),
        edge=draw(st.sampled_from(["clamp", "drop"])),
    )
    grid = (draw(SIZES), draw(SIZES), draw(SIZES))
    if class_token and np.prod(grid) == 1:
        grid = (2, 1, 1)
    routing = draw(st.sampled_from([None, TopKRouting(0.3, 1, 6)]))
    return neighborhood, grid, routing


def check_gradients(kernel, neighborhood, grid, routing, compiled):
    heads = random_heads(neighborhood, grid, batch=1, num_heads=2, head_dim=3)
    run = gradients if compiled else eager_gradients
    expected, found = (
        run(
            lambda *t, k=k: sparse_attention(*t, neighborhood, grid, routing=routing, kernel=k),
            *heads,
        )
        for k in ("dense", kernel)
    )
    for name, ours, theirs in zip(
        ("output", "query", "key", "value"), found, expected, strict=True
    ):
        size = np.linalg.norm(theirs)
        assert np.linalg.norm(ours - theirs) <= 1e-5 * max(size, 1.0), name


def eager_gradients(function, *tensors):
    """As `gradients`, but not compiled, which many small cases would wait for."""
    tf = pytest.importorskip("tensorflow")
    tensors = [tf.constant(t) for t in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = function(*tensors)
        loss = tf.reduce_sum(tf.sin(output))
    return [t.numpy() for t in (output, *tape.gradient(loss, tensors))]


@hypothesis.given(case=cases(), kernel=st.just("gather"))
@hypothesis.settings(max_examples=40)
def test_gather_kernel_equals_dense(case, kernel):
    check_gradients(kernel, *case, compiled=False)


@hypothesis.given(case=cases(dilation=False))
@hypothesis.settings(max_examples=3)
def test_shift_kernel_equals_dense(case):
    check_shift(case)


@pytest.mark.slow
@hypothesis.given(case=cases(dilation=False))
@hypothesis.settings(max_examples=60)
def test_shift_kernel_equals_dense_often(case):
    check_shift(case)


def check_shift(case):
    neighborhood, grid, routing = case
    if neighborhood.class_token:  # which takes part in routing, and shifts have no place for it
        routing = None
    check_gradients("shift", neighborhood, grid, routing, compiled=True)


@hypothesis.given(case=cases(), kernel=st.sampled_from(["dense", "gather"]), data=st.data())
@hypothesis.settings(max_examples=30)
def test_a_token_outside_of_the_neighbourhood_moves_no_bit(case, kernel, data):
    neighborhood, grid, routing = case
    allowed = allowed_pairs(neighborhood, grid)
    outside = np.argwhere(~allowed)
    hypothesis.assume(len(outside))
    query_index, key_index = outside[data.draw(st.integers(0, len(outside) - 1))]
    query, key, value = random_heads(neighborhood, grid, batch=1, num_heads=2, head_dim=3)

    def run():
        return ops.convert_to_numpy(
            sparse_attention(query, key, value, neighborhood, grid, routing=routing, kernel=kernel)
        )[:, :, query_index]

    before = run()
    key[:, :, key_index] += 3.0
    value[:, :, key_index] *= -7.0
    np.testing.assert_array_equal(run(), before)
