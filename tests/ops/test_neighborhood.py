import itertools

import numpy as np
import pytest

from lwmt_sionna.ops.attention import Neighborhood

PUBLISHED = Neighborhood.published()


def naive_neighbors(neighborhood, grid, token):
    """The definition, spelled out for one token."""
    seen = set()
    for dt in (0, *neighborhood.time_offsets):
        if (neighborhood.causal and dt > 0) or not 0 <= token[0] + dt < grid[0]:
            continue
        axes = []
        for axis in (0, 1):
            size, own = grid[axis + 1], token[axis + 1]
            step = (neighborhood.corridor_dilation if dt else neighborhood.dilation)[axis]
            if dt == 0:
                width = neighborhood.window[axis]
                width = size if width < 0 else width
            else:
                reach = round(abs(dt) * neighborhood.drift[axis])
                width = min(neighborhood.corridor[axis], neighborhood.leakage[axis] + reach)
            bins = [own + i for i in range(-width, width + 1) if i % step == 0]
            if dt != 0 and neighborhood.edge == "clamp":
                bins = [min(max(b, 0), size - 1) for b in bins]
            axes.append({b for b in bins if 0 <= b < size})
        seen |= {(token[0] + dt, a, d) for a, d in itertools.product(*axes)}
    return seen


NEIGHBORHOODS = {
    "published": PUBLISHED,
    "causal": Neighborhood(causal=True),
    "whole_snapshot": Neighborhood(window=(-1, -1)),
    "whole_angle": Neighborhood(window=(-1, 1), corridor=(1, 3), time_offsets=(-2, 1)),
    "own_bin_only": Neighborhood(window=(0, 0), time_offsets=()),
    "larger_than_grid": Neighborhood(window=(40, 40), corridor=(40, 40), drift=(9.0, 9.0)),
    "dilated_clamp": Neighborhood(
        window=(4, 2), corridor=(4, 3), drift=(2.0, 3.0), dilation=(2, 3)
    ),
    "dilated_drop": Neighborhood(window=4, corridor=4, drift=2.0, dilation=2, edge="drop"),
    "dilated_apart": Neighborhood(
        window=4, corridor=4, drift=2.0, dilation=(2, 1), corridor_dilation=(1, 3)
    ),
    "leakage": Neighborhood(leakage=(1, 2), corridor=(3, 4), drift=(0.3, 0.7)),
}


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 7, 5), (3, 2, 11), (5, 6, 5), (11, 1, 3)])
@pytest.mark.parametrize("name", NEIGHBORHOODS)
def test_table_is_the_definition(name, grid):
    neighborhood = NEIGHBORHOODS[name]
    indices, mask = neighborhood.table(grid)
    assert indices.dtype == np.int32 and mask.dtype == bool
    assert mask.sum(axis=1).max() == indices.shape[1]
    for row, token in enumerate(np.ndindex(*grid)):
        expected = naive_neighbors(neighborhood, grid, token)
        found = list(zip(*np.unravel_index(indices[row][mask[row]], grid), strict=True))
        assert len(found) == len(expected), "a neighbour is missing or repeated"
        assert {tuple(int(i) for i in t) for t in found} == expected


def test_published_has_168_neighbors():
    indices, mask = PUBLISHED.table((20, 32, 32))
    assert indices.shape == (20480, 25 + 2 * 9 + 5 * 25)
    centre = np.ravel_multi_index((10, 16, 16), (20, 32, 32))
    assert mask[centre].all() and len(set(indices[centre])) == 168


def test_table_is_computed_once_and_read_only():
    neighborhood = Neighborhood(corridor=(2, 2), drift=(0.9, 0.9))
    first = neighborhood.table((20, 32, 32))
    assert neighborhood.table([20, 32, 32])[0] is first[0]
    with pytest.raises(ValueError, match="read-only"):
        first[0][0, 0] = 1


def test_edges_do_not_differ_without_dilation():
    clamped = Neighborhood(edge="clamp").table((4, 5, 7))
    dropped = Neighborhood(edge="drop").table((4, 5, 7))
    for clamp_row, clamp_mask, drop_row, drop_mask in zip(*clamped, *dropped, strict=True):
        assert set(clamp_row[clamp_mask]) == set(drop_row[drop_mask])


def test_neighborhood_without_causality_and_with_even_offsets_is_symmetric():
    neighborhood = Neighborhood(time_offsets=(-2, -1, 1, 2))
    grid = (4, 6, 5)
    indices, mask = neighborhood.table(grid)
    sees = np.zeros((len(indices), len(indices)), dtype=bool)
    sees[np.nonzero(mask)[0], indices[mask]] = True
    assert (sees == sees.T).all()


def test_causal_never_looks_ahead():
    indices, mask = Neighborhood(causal=True).table((9, 5, 5))
    own = np.arange(len(indices))[:, None] // 25
    assert (indices // 25 <= own)[mask].all() and (indices // 25 < own)[mask].any()


def test_one_dilation_stands_for_both():
    assert Neighborhood(dilation=2).corridor_dilation == (2, 2)
    old = {"window": [2, 2], "dilation": [1, 3]}
    assert Neighborhood.from_config(old).corridor_dilation == (1, 3)


@pytest.mark.parametrize("name", NEIGHBORHOODS)
def test_config_round_trip(name):
    neighborhood = NEIGHBORHOODS[name]
    assert Neighborhood.from_config(neighborhood.get_config()) == neighborhood


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_offsets": (-1, 0)}, "must not hold 0"),
        ({"time_offsets": (1, 1)}, "repeat"),
        ({"time_offsets": 3}, "sequence of integers"),
        ({"window": (1, 2, 3)}, "window"),
        ({"window": 1.5}, "window"),
        ({"corridor": -1}, "corridor"),
        ({"drift": (float("nan"), 1.0)}, "drift"),
        ({"dilation": 0}, "dilation"),
        ({"corridor_dilation": (1, 0)}, "corridor_dilation"),
        ({"edge": "wrap"}, "edge"),
    ],
)
def test_wrong_arguments_name_themselves(arguments, message):
    with pytest.raises(ValueError, match=message):
        Neighborhood(**arguments)


def test_wrong_grids_and_keys_are_refused():
    for grid in [(1, 2), (0, 2, 2), (1.5, 2, 2), 7]:
        with pytest.raises(ValueError, match="grid"):
            PUBLISHED.table(grid)
    with pytest.raises(ValueError, match="radius"):
        Neighborhood.from_config({"radius": 2})
