import itertools
import time

import numpy as np
import pytest

from lwmt_sionna.ops.neighborhood import Neighborhood

PUBLISHED = Neighborhood.published()


def naive_neighbors(neighborhood, grid, token):
    """The definition, spelled out for one token."""
    seen = set()
    for dt in (0, *neighborhood.time_offsets):
        if (neighborhood.causal and dt > 0) or not 0 <= token[0] + dt < grid[0]:
            continue
        axes = []
        for axis in (0, 1):
            size, own, step = grid[axis + 1], token[axis + 1], neighborhood.dilation[axis]
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


def test_table_is_fast_cached_and_read_only():
    neighborhood = Neighborhood(corridor=(2, 2), drift=(0.9, 0.9))
    start = time.perf_counter()
    first = neighborhood.table((20, 32, 32))
    assert time.perf_counter() - start < 5.0  # 0.3 s on an idle machine
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
    footprint = Neighborhood(causal=True).footprint((9, 5, 5), (4, 2, 2))
    assert footprint[:5].any(axis=(1, 2)).all() and not footprint[5:].any()


def test_from_physics_follows_the_paths():
    # 120 km/h at 2.5 ms: 83 mm per snapshot against delay bins of 17.3 m and 32 antennas at 50 m.
    still = Neighborhood.from_physics(
        speed=120 / 3.6,
        sampling_period=2.5e-3,
        bandwidth=17.28e6,
        num_antennas=32,
        distance=50.0,
        leakage=1,
    )
    assert still.window == still.corridor == (1, 1)
    assert still.drift == pytest.approx((0.02667, 0.0048), rel=1e-2)
    fast = Neighborhood.from_physics(
        speed=30.0,
        sampling_period=0.1,
        bandwidth=100e6,
        num_antennas=64,
        distance=96.0,
        leakage=(0, 1),
        time_offsets=(-2, -1),
    )
    assert fast.drift == pytest.approx((1.0, 1.0), rel=1e-3)
    assert fast.half_widths(-1) == (1, 2) and fast.half_widths(-2) == (2, 3)
    assert fast.effective_time_offsets == (-2, -1)


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
    with pytest.raises(ValueError, match="token"):
        PUBLISHED.footprint((2, 2, 2), (2, 0, 0))
    with pytest.raises(ValueError, match="distance"):
        Neighborhood.from_physics(
            speed=1, sampling_period=1, bandwidth=1, num_antennas=1, distance=0
        )
