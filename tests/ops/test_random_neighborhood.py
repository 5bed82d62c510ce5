"""The control without physics: as many neighbours, drawn at random."""

import numpy as np
import pytest

from lwmt_sionna.ops import Neighborhood, RandomNeighborhood, sparse_attention
from lwmt_sionna.ops.attention import select_kernel

GRID = (5, 12, 10)
SHAPE = {"window": (1, 2), "time_offsets": (-2, -1, 1), "corridor": (2, 1), "leakage": (1, 1)}


@pytest.mark.parametrize("causal", [False, True])
def test_as_many_neighbours_as_the_original(causal):
    indices, mask = RandomNeighborhood(**SHAPE, causal=causal).table(GRID)
    _, expected = Neighborhood(**SHAPE, causal=causal).table(GRID)
    np.testing.assert_array_equal(mask.sum(axis=1), expected.sum(axis=1))
    assert indices.dtype == np.int32 and indices.min() >= 0 and indices.max() < np.prod(GRID)
    for token, row in enumerate(indices):
        seen = row[mask[token]]
        assert token in seen and len(set(seen)) == len(seen)
        if causal:
            assert (seen // 120 <= token // 120).all()
    with pytest.raises(ValueError, match="read-only"):
        indices[0, 0] = 1


def test_neighbours_are_drawn_evenly():
    """No bias to near bins or own snapshots: each of the others is as likely."""
    drawn = np.zeros(np.prod(GRID))
    num_draws = 40
    for seed in range(num_draws):
        indices, mask = RandomNeighborhood(**SHAPE, seed=seed).table(GRID)
        own = np.arange(len(indices))[:, None]
        offset = (indices - own) % len(indices)
        drawn += np.bincount(offset[mask], minlength=len(indices))
    assert drawn[0] == num_draws * np.prod(GRID)
    others = drawn[1:]
    deviation = (others - others.mean()) / np.sqrt(others.mean())
    assert np.abs(deviation).max() < 5
    assert 0.8 < deviation.std() < 1.2


def test_seeds_decide():
    first, again, other = (RandomNeighborhood(**SHAPE, seed=s).table(GRID)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_survives_its_configuration():
    neighborhood = RandomNeighborhood(**SHAPE, seed=3)
    assert Neighborhood.from_config(neighborhood.get_config()) == neighborhood
    assert Neighborhood.from_config(Neighborhood(**SHAPE).get_config()) != neighborhood


def test_kernels_agree_and_shifts_are_refused(rng):
    neighborhood = RandomNeighborhood(**SHAPE, class_token=True)
    query, key, value = rng.standard_normal((3, 2, 2, np.prod(GRID) + 1, 4)).astype("float32")
    dense, gather = (
        np.asarray(sparse_attention(query, key, value, neighborhood, GRID, kernel=kernel))
        for kernel in ("dense", "gather")
    )
    np.testing.assert_allclose(gather, dense, atol=1e-5)
    assert select_kernel(neighborhood, GRID, 4) == "gather"
    with pytest.raises(ValueError, match="shift kernel"):
        sparse_attention(query, key, value, neighborhood, GRID, kernel="shift")
