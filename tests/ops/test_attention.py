import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna.ops.attention import (
    EnergyRouting,
    Neighborhood,
    TopKRouting,
    select_kernel,
    shift,
    sparse_attention,
)

SPARSE_KERNELS = ("gather", "shift")
# Dilated corridors clamped to edges cannot be shifted; whole planes of offsets compile too slowly.
NOT_SHIFTED = ("dilated", "larger_than_grid", "whole_snapshot")

NEIGHBORHOODS = {
    "published": Neighborhood(),
    "causal": Neighborhood(causal=True),
    "class_token": Neighborhood(class_token=True),
    "whole_snapshot": Neighborhood(window=-1, time_offsets=(-1,)),
    "own_only": Neighborhood(window=1, time_offsets=()),
    "larger_than_grid": Neighborhood(window=40, corridor=40, drift=9.0),
    "dilated": Neighborhood(window=(4, 2), corridor=4, drift=2.0, dilation=(2, 1)),
    "dilated_window": Neighborhood(window=(4, 2), dilation=(2, 1), corridor_dilation=1),
    "dilated_drop": Neighborhood(window=(4, 2), corridor=2, dilation=(2, 1), edge="drop"),
    "narrow": Neighborhood(window=(1, 0), corridor=(0, 1), time_offsets=(-3, 1)),
}
SMALL = Neighborhood(window=1, corridor=1, time_offsets=(-1, 1))  # compiles in seconds
GRIDS = [(1, 1, 1), (1, 5, 7), (3, 2, 11), (6, 5, 3), (5, 7, 9)]


def allowed_pairs(neighborhood, grid):
    """Bool `[num_tokens, num_tokens]`, class token included."""
    indices, mask = neighborhood.table(grid)
    extra = int(neighborhood.class_token)
    allowed = np.zeros((len(indices) + extra,) * 2, dtype=bool)
    for row, (neighbors, valid) in enumerate(zip(indices, mask, strict=True)):
        allowed[row, neighbors[valid]] = True
    if extra:
        allowed[-1, :-1] = allowed[:-1, -1] = True
    return allowed


def naive_attention(query, key, value, neighborhood, grid, routing=None):
    """One query at a time, in float64; scores that tie for the last kept places share them."""
    allowed = allowed_pairs(neighborhood, grid)
    output = np.zeros_like(value, dtype=np.float64)
    width = allowed.sum(axis=1).max()
    for b, h, n in np.ndindex(query.shape[:3]):
        keys = np.flatnonzero(allowed[n])
        scores = key[b, h, keys].astype(np.float64) @ query[b, h, n] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        if routing is not None and routing.num_keys(width) < len(keys):
            num_keys = routing.num_keys(width)
            last = np.sort(scores)[-num_keys]
            above, tied = scores > last + 1e-6, np.abs(scores - last) <= 1e-6
            weights = weights * (above + tied * (num_keys - above.sum()) / tied.sum())
        output[b, h, n] = weights @ value[b, h, keys] / weights.sum()
    return output


def random_heads(neighborhood, grid, batch=2, num_heads=3, head_dim=5, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    num_tokens = int(np.prod(grid)) + int(neighborhood.class_token)
    return rng.standard_normal((3, batch, num_heads, num_tokens, head_dim)).astype(dtype)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NEIGHBORHOODS)
@pytest.mark.parametrize("routing", [None, TopKRouting(0.3, 2, 9)])
@pytest.mark.parametrize("kernel", ["dense", "gather"])
def test_equals_the_definition(kernel, routing, name, grid):
    neighborhood = NEIGHBORHOODS[name]
    query, key, value = random_heads(neighborhood, grid)
    expected = naive_attention(query, key, value, neighborhood, grid, routing)
    found = sparse_attention(query, key, value, neighborhood, grid, routing=routing, kernel=kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [name for name in NEIGHBORHOODS if name not in NOT_SHIFTED])
def test_shift_equals_the_definition(name, grid):
    neighborhood = NEIGHBORHOODS[name]
    query, key, value = random_heads(neighborhood, grid)
    expected = naive_attention(query, key, value, neighborhood, grid)
    found = sparse_attention(query, key, value, neighborhood, grid, kernel="shift")
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-5)


def gradients(function, *tensors):
    """Output and gradients of `sum(sin(function))`, compiled where the backend compiles."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def run(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                output = function(*tensors)
                loss = tf.reduce_sum(tf.sin(output))
            return output, *tape.gradient(loss, tensors)

        found = run(*(tf.convert_to_tensor(t) for t in tensors))
    elif backend == "jax":
        import jax
        import jax.numpy as jnp

        def loss(*tensors):
            output = function(*tensors)
            return jnp.sum(jnp.sin(output)), output

        run = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(tensors))), has_aux=True))
        (_, output), grads = run(*tensors)
        found = (output, *grads)
    else:
        import torch

        tensors = [torch.tensor(t, requires_grad=True) for t in tensors]
        output = function(*tensors)
        torch.sum(torch.sin(output)).backward()
        found = (output, *(t.grad for t in tensors))
    return [ops.convert_to_numpy(tensor) for tensor in found]


@pytest.mark.parametrize(
    ("name", "grid", "block", "by_row", "dtype", "routing"),
    [
        ("narrow", (5, 7, 9), 70_000, False, "float32", None),
        ("published", (6, 5, 3), 200, True, "float64", None),
        ("class_token", (3, 2, 11), 400, True, "float32", None),
        ("dilated_drop", (4, 11, 5), 500, True, "float32", None),
        ("causal", (5, 5, 7), 500, True, "float32", TopKRouting(0.3, 2, 9)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("published", (5, 7, 9), 70_000, False, "float32", None),
                ("published", (1, 1, 1), 70_000, False, "float32", None),
                ("causal", (7, 3, 5), 500, True, "float32", None),
                ("narrow", (5, 1, 13), 100, False, "float32", None),
                ("own_only", (3, 13, 1), 70_000, False, "float32", None),
                ("published", (1, 4, 3), 500, True, "float64", TopKRouting(0.5, 2, 9)),
            )
        ),
    ],
)
def test_shift_has_the_gradients_of_dense(name, grid, block, by_row, dtype, routing, monkeypatch):
    """In blocks of all sizes: whole, several snapshots, one head of one snapshot."""
    monkeypatch.setattr(shift, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(shift, "BY_ROW_HEAD_DIM", 1 if by_row else 100)
    neighborhood = NEIGHBORHOODS[name]
    heads = random_heads(neighborhood, grid, num_heads=4, head_dim=3, dtype=dtype)
    expected, found = (
        gradients(
            lambda *h, k=k: sparse_attention(*h, neighborhood, grid, routing=routing, kernel=k),
            *heads,
        )
        for k in ("dense", "shift")
    )
    # Keras on JAX, and in places on PyTorch, computes in float32 whatever the inputs.
    exact = dtype == "float64" and keras.backend.backend() == "tensorflow"
    tolerance = 1e-12 if exact else 1e-5
    for left, right in zip(expected, found, strict=True):
        scale = max(np.abs(left).max(), 0.1)  # one token: its query has no gradient
        np.testing.assert_allclose(right / scale, left / scale, atol=tolerance)


def tied_heads(grid, share=0.5, dtype="float32", seed=0):
    """Heads in which a share of the tokens has one key and one value, as hidden tokens have."""
    query, key, value = random_heads(Neighborhood(), grid, 1, 2, 4, dtype, seed)
    hidden = np.random.default_rng(seed).random(key.shape[2]) < share
    key[:, :, hidden], value[:, :, hidden] = key[:, :, :1], value[:, :, :1]
    return query, key, value


@pytest.mark.parametrize(
    ("kernel", "grid", "share"),
    [(k, g, s) for k in ("dense", "gather") for g in ((1, 5, 7), (3, 6, 5)) for s in (0.2, 0.6, 1)]
    + [("shift", (3, 6, 5), 0.5)],
)
def test_routing_keeps_as_many_scores_as_it_says_where_they_tie(kernel, share, grid):
    """Which of the equal keys are kept does not matter; how many does."""
    neighborhood, routing = SMALL, TopKRouting(0.2, 3, 5)
    exact = keras.backend.backend() == "tensorflow"  # others compute in float32
    query, key, value = tied_heads(grid, share, "float64" if exact else "float32")
    expected = naive_attention(query, key, value, neighborhood, grid, routing)

    def attend(*heads, kernel=kernel):
        return sparse_attention(*heads, neighborhood, grid, routing=routing, kernel=kernel)

    output, d_query, *rest = gradients(attend, query, key, value)
    np.testing.assert_allclose(output, expected, atol=1e-10 if exact else 1e-5)
    if kernel != "dense":
        dense = gradients(lambda *heads: attend(*heads, kernel="dense"), query, key, value)
        for left, right in zip(dense[1:], (d_query, *rest), strict=True):
            np.testing.assert_allclose(right, left, atol=1e-5 * max(np.abs(left).max(), 1.0))
    # Keys stay equal whatever the queries: the derivative is that of the definition.
    step = 1e-6 * np.random.default_rng(1).standard_normal(query.shape)
    ahead, behind = (
        np.sin(naive_attention(q, key, value, neighborhood, grid, routing)).sum()
        for q in (query + step, query - step)
    )
    slope = np.sum(np.asarray(d_query, np.float64) * step)
    assert abs(slope - (ahead - behind) / 2) < 1e-9 * max(np.linalg.norm(d_query), 1.0)


def test_the_default_kernel_at_the_published_setting_is_exact_where_scores_tie():
    """Published neighbourhood and routing on a grid beyond the dense kernel, half of it hidden."""
    neighborhood, grid, routing = Neighborhood.published(), (5, 16, 17), TopKRouting()
    assert select_kernel(neighborhood, grid, 4, routing) != "dense"
    query, key, value = tied_heads(grid)
    expected = naive_attention(query, key, value, neighborhood, grid, routing)
    found = sparse_attention(query, key, value, neighborhood, grid, routing="topk")
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=2e-5)


def test_shift_survives_extreme_scores():
    """Scores of thousands neither overflow nor let a masked key in."""
    neighborhood, grid = Neighborhood(), (3, 4, 5)
    query, key, value = 100 * random_heads(neighborhood, grid)
    key = np.abs(key)
    query = -np.abs(query)  # all scores far below the 0 of a masked key
    expected = naive_attention(query, key, value, neighborhood, grid)
    found = sparse_attention(query, key, value, neighborhood, grid, kernel="shift")
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-3, atol=1e-2)


def test_auto_picks_what_serves_the_grid():
    published = Neighborhood()
    # Shifts are fast where they are compiled.
    shift = "gather" if keras.backend.backend() == "torch" else "shift"
    assert select_kernel(published, (1, 16, 16), 4) == "dense"
    assert select_kernel(published, (2, 16, 16), 4) == shift
    assert select_kernel(published, (8, 16, 16), 4, TopKRouting()) == shift
    assert select_kernel(NEIGHBORHOODS["class_token"], (8, 16, 16), 4) == shift
    assert select_kernel(NEIGHBORHOODS["class_token"], (8, 16, 16), 4, TopKRouting()) == "gather"
    assert select_kernel(NEIGHBORHOODS["dilated"], (20, 16, 16), 4) == "gather"
    everything = Neighborhood(window=-1, corridor=99, time_offsets=tuple({*range(-15, 16)} - {0}))
    assert select_kernel(everything, (16, 8, 8), 16) == "dense"
    assert select_kernel(NEIGHBORHOODS["dilated_window"], (20, 16, 16), 4) == shift
    # As in the preset `base`: 124 of 1,024 tokens.
    most = Neighborhood(
        window=2, corridor=1, time_offsets=(-8, -6, -4, -3, -2, -1, 1, 2, 3, 4, 6, 8)
    )
    assert select_kernel(most, (16, 8, 8), 32) == "dense"
    assert select_kernel(Neighborhood(window=-1), (20, 16, 16), 4) == "gather"
    assert select_kernel(Neighborhood(window=-1), (8, 16, 16), 4) == "dense"


def test_accelerators_do_not_spell_out_shifts(monkeypatch):
    monkeypatch.setattr("lwmt_sionna.ops.attention.sparse.on_accelerator", lambda: True)
    published = Neighborhood()
    assert select_kernel(published, (8, 16, 16), 4) == "dense"
    assert select_kernel(published, (20, 32, 32), 4) == "gather"


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="does not compile")
@pytest.mark.parametrize("kernel", ["auto", "gather"])
def test_an_eager_call_runs_compiled(kernel, monkeypatch):
    """The second call does not go through the kernel, which takes thousands of operations."""
    neighborhood, grid = SMALL, (3, 16, 16)
    query, key, value = random_heads(neighborhood, grid)
    lookups, take = [], ops.take

    def counted(*args, **kwargs):
        lookups.append(args)
        return take(*args, **kwargs)

    monkeypatch.setattr(ops, "take", counted)
    first = sparse_attention(query, key, value, neighborhood, grid, kernel=kernel)
    assert lookups
    lookups.clear()
    second = sparse_attention(query, key, value, neighborhood, grid, kernel=kernel)
    assert not lookups
    expected = sparse_attention(query, key, value, neighborhood, grid, kernel="dense")
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a tape of TensorFlow")
def test_gradients_pass_through_an_eager_call():
    import tensorflow as tf

    neighborhood, grid = SMALL, (3, 16, 16)
    heads = [tf.constant(h) for h in random_heads(neighborhood, grid, batch=1)]
    found = []
    for kernel in ("auto", "dense"):
        with tf.GradientTape() as tape:
            tape.watch(heads)
            loss = tf.reduce_sum(
                tf.sin(sparse_attention(*heads, neighborhood, grid, kernel=kernel))
            )
        found.append(tape.gradient(loss, heads))
    for left, right in zip(*found, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_bfloat16_keeps_its_type_and_value():
    neighborhood, grid = Neighborhood(), (5, 7, 9)
    query, key, value = random_heads(neighborhood, grid)
    expected = naive_attention(query, key, value, neighborhood, grid)
    for kernel in ("dense", *SPARSE_KERNELS):
        heads = (ops.cast(tensor, "bfloat16") for tensor in (query, key, value))
        found = sparse_attention(*heads, neighborhood, grid, kernel=kernel)
        assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
        # bfloat16 has 8 bits: inputs of order one are off by up to 2 ** -8 each.
        np.testing.assert_allclose(
            ops.convert_to_numpy(ops.cast(found, "float32")), expected, atol=0.05
        )


@pytest.mark.parametrize("kernel", SPARSE_KERNELS)
def test_tokens_outside_the_neighborhood_do_not_reach_the_output(kernel):
    neighborhood, grid = Neighborhood(), (7, 9, 8)
    query, key, value = random_heads(neighborhood, grid)
    before = ops.convert_to_numpy(
        sparse_attention(query, key, value, neighborhood, grid, kernel=kernel)
    )
    changed = np.ravel_multi_index((3, 4, 4), grid)
    key[:, :, changed] += 1.0
    value[:, :, changed] -= 1.0
    after = ops.convert_to_numpy(
        sparse_attention(query, key, value, neighborhood, grid, kernel=kernel)
    )
    sees = allowed_pairs(neighborhood, grid)[:, changed]
    assert sees.any() and not sees.all()
    assert np.array_equal(before[:, :, ~sees], after[:, :, ~sees])
    assert (before[:, :, sees] != after[:, :, sees]).any(axis=-1).all()


def test_energy_routing_that_keeps_everything_changes_nothing():
    neighborhood, grid = Neighborhood(class_token=True), (5, 6, 7)
    heads = random_heads(neighborhood, grid)
    energy = np.random.default_rng(1).random((2, 210), dtype=np.float32)
    plain = sparse_attention(*heads, neighborhood, grid)
    routed = sparse_attention(
        *heads, neighborhood, grid, routing=EnergyRouting(6, 9), energy=energy
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(routed), ops.convert_to_numpy(plain), rtol=1e-5, atol=1e-6
    )


def test_energy_routing_attends_where_the_energy_is():
    """A blob in a corner of the grid: the same as attention over the corner alone."""
    neighborhood, grid, corner = Neighborhood(), (4, 8, 9), (4, 3, 5)
    heads = random_heads(neighborhood, grid)
    energy = np.full((2, *grid), 1e-3, np.float32)
    energy[:, 1, 2:5, 1:6] = 1.0
    found = sparse_attention(
        *heads,
        neighborhood,
        grid,
        routing=EnergyRouting(3, 5),
        energy=energy.reshape(2, -1),
    )
    found = ops.convert_to_numpy(found).reshape(2, 3, *grid, 5)
    cut = [
        tensor.reshape(2, 3, *grid, 5)[..., 2:5, 1:6, :].reshape(2, 3, 60, 5) for tensor in heads
    ]
    expected = ops.convert_to_numpy(sparse_attention(*cut, neighborhood, corner))
    np.testing.assert_allclose(
        found[..., 2:5, 1:6, :].reshape(2, 3, 60, 5), expected, rtol=1e-5, atol=1e-6
    )
    found[..., 2:5, 1:6, :] = 0
    assert not found.any(), "a token without energy received something"


def test_published_routing_rule():
    routing = TopKRouting()
    assert [routing.num_keys(k) for k in (5, 26, 100, 168, 20480)] == [5, 8, 20, 32, 32]
    assert TopKRouting.from_config(routing.get_config()) == routing


def test_wrong_arguments_are_named():
    heads = random_heads(Neighborhood(), (1, 3, 3))
    with pytest.raises(ValueError, match=r"query.*\[batch"):
        sparse_attention(*heads, Neighborhood(), (1, 3, 4))
    with pytest.raises(ValueError, match="kernel"):
        sparse_attention(*heads, Neighborhood(), (1, 3, 3), kernel="fast")
    with pytest.raises(ValueError, match="routing"):
        sparse_attention(*heads, Neighborhood(), (1, 3, 3), routing="random")
    with pytest.raises(ValueError, match="shift kernel needs"):
        sparse_attention(*heads, NEIGHBORHOODS["dilated"], (1, 3, 3), kernel="shift")
    with pytest.raises(ValueError, match="energy=None"):
        sparse_attention(*heads, Neighborhood(), (1, 3, 3), routing="energy")
    with pytest.raises(ValueError, match="num_angle=0"):
        EnergyRouting(num_angle=0)
    with pytest.raises(ValueError, match="min_keys"):
        TopKRouting(min_keys=9, max_keys=8)
