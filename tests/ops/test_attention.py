import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna.ops.attention import sparse_attention
from lwmt_sionna.ops.attention_routing import TopKRouting
from lwmt_sionna.ops.neighborhood import Neighborhood

SPARSE_KERNELS = ("gather", "tile")

NEIGHBORHOODS = {
    "published": Neighborhood(),
    "causal": Neighborhood(causal=True),
    "class_token": Neighborhood(class_token=True),
    "whole_snapshot": Neighborhood(window=-1, time_offsets=(-1,)),
    "own_only": Neighborhood(window=1, time_offsets=()),
    "larger_than_grid": Neighborhood(window=40, corridor=40, drift=9.0),
    "dilated": Neighborhood(window=(4, 2), corridor=4, drift=2.0, dilation=(2, 1)),
}
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
    """One query at a time, in float64."""
    allowed = allowed_pairs(neighborhood, grid)
    output = np.zeros_like(value, dtype=np.float64)
    width = allowed.sum(axis=1).max()
    for b, h, n in np.ndindex(query.shape[:3]):
        keys = np.flatnonzero(allowed[n])
        scores = key[b, h, keys].astype(np.float64) @ query[b, h, n] / np.sqrt(query.shape[-1])
        if routing is not None:
            kept = np.argsort(-scores)[: routing.num_keys(width)]
            keys, scores = keys[kept], scores[kept]
        weights = np.exp(scores - scores.max())
        output[b, h, n] = weights @ value[b, h, keys] / weights.sum()
    return output


def random_heads(neighborhood, grid, batch=2, num_heads=3, head_dim=5, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    num_tokens = int(np.prod(grid)) + int(neighborhood.class_token)
    return rng.standard_normal((3, batch, num_heads, num_tokens, head_dim)).astype(dtype)


@pytest.mark.parametrize("kernel", ["dense", *SPARSE_KERNELS])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NEIGHBORHOODS)
@pytest.mark.parametrize("routing", [None, TopKRouting(0.3, 2, 9)], ids=["all", "topk"])
def test_equals_the_definition(kernel, grid, name, routing):
    neighborhood = NEIGHBORHOODS[name]
    query, key, value = random_heads(neighborhood, grid)
    expected = naive_attention(query, key, value, neighborhood, grid, routing)
    found = sparse_attention(query, key, value, neighborhood, grid, routing=routing, kernel=kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-5)


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
    with pytest.raises(ValueError, match="min_keys"):
        TopKRouting(min_keys=9, max_keys=8)
