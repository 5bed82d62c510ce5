"""Masks: documented statistics over 1,000 draws, seeds, and what no mask may do."""

import keras
import numpy as np
import pytest
from keras import ops

from lwmt_sionna import masking
from lwmt_sionna.masking import MASKS

GRID = (12, 16, 16)
DRAWS = 1000


def draw(name, seed=7, batch_size=DRAWS, grid=GRID, **options):
    return np.asarray(MASKS[name](seed, batch_size, grid, **options))


@pytest.mark.parametrize("name", MASKS)
def test_same_seed_same_mask(name):
    mask = draw(name, batch_size=64)
    assert mask.shape == (64, *GRID) and mask.dtype == bool
    np.testing.assert_array_equal(mask, draw(name, batch_size=64))
    other = draw(name, seed=8, batch_size=64)
    assert (mask != other).reshape(64, -1).any(axis=1).mean() > 0.5
    generator = keras.random.SeedGenerator(3)
    first, second = (draw(name, generator, 64) for _ in range(2))
    assert (first != second).reshape(64, -1).any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(first, draw(name, keras.random.SeedGenerator(3), 64))


EXTREMES = {
    "random": ({"share": (0.0, 0.0)}, {"share": (1.0, 1.0)}),
    "tube": ({"share": (0.0, 0.0)}, {"share": (1.0, 1.0)}),
    "occlusion": (
        {"width": (0.0, 0.0), "span": (0.0, 0.0), "regions": (1, 1)},
        {"width": (1.0, 1.0), "span": (1.0, 1.0), "regions": (9, 9)},
    ),
    "time_comb": ({"period": (2, 2)}, {"period": (99, 99)}),
    "subcarrier_comb": ({"period": (2, 2)}, {"period": (99, 99)}),
    "antenna_comb": ({"period": (2, 2)}, {"period": (99, 99)}),
    "tail": ({"horizon": (1, 1)}, {"horizon": (2, 2)}),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("grid", [GRID, (3, 2, 2), (3, 5, 2)], ids=str)
def test_never_all_or_nothing(name, grid):
    if grid == GRID:
        samples = [draw(name)]
    else:
        samples = [draw(name, grid=grid, **options) for options in EXTREMES[name]]
    for mask in samples:
        flat = mask.reshape(DRAWS, -1)
        assert flat.any(axis=1).all() and not flat.all(axis=1).any()


@pytest.mark.parametrize("name", ["random", "tube"])
def test_share_of_hidden_tokens(name):
    low, high = 0.2, 0.6
    share = draw(name, share=(low, high)).mean(axis=(1, 2, 3))
    num = np.prod(GRID) if name == "random" else GRID[1] * GRID[2]
    # Uniform with a binomial spread on top; bounds of five standard errors.
    spread = np.sqrt((high - low) ** 2 / 12 + 0.24 / num)
    assert abs(share.mean() - (low + high) / 2) < 5 * spread / np.sqrt(DRAWS)
    assert abs(share.std() - spread) < 5 * spread / np.sqrt(2 * DRAWS)
    mild = draw(name, share=(low, high), severity=0.0).mean(axis=(1, 2, 3))
    assert abs(mild.mean() - low) < 0.01


def test_random_tokens_are_independent():
    mask = draw("random", share=(0.5, 0.5)).astype(float) - 0.5
    for axis in (1, 2, 3):
        shifted = np.roll(mask, 1, axis=axis)
        assert abs(np.mean(mask * shifted)) < 0.25 * 5 / np.sqrt(mask.size)


def test_tubes_last_all_the_time():
    mask = draw("tube")
    assert (mask == mask[:, :1]).all()


def test_occlusions_are_short_compact_and_drift():
    mask = draw("occlusion", regions=(1, 1), width=(0.2, 0.3), span=(0.25, 0.5))
    active = mask.any(axis=(2, 3))
    duration = active.sum(axis=1)
    assert duration.min() == 3 and duration.max() == 6
    # uniform over 3.0 to 6.0, rounded
    assert abs(duration.mean() - 4.5) < 5 * duration.std() / np.sqrt(DRAWS)
    # one span without a gap
    assert (np.abs(np.diff(active, axis=1, prepend=0, append=0)).sum(axis=1) == 2).all()
    starts = active.argmax(axis=1)
    assert starts.min() == 0 and (starts + duration).max() == GRID[0]
    # an ellipse of diameters 3.2 to 4.8 bins
    area = mask.sum(axis=(2, 3))[active]
    assert 5 <= np.percentile(area, 1) and np.percentile(area, 99) <= 21
    index = np.arange(GRID[1])
    turns = np.exp(2j * np.pi * index / GRID[1])
    centre = np.angle((mask.any(axis=3) * turns).sum(axis=2)) * GRID[1] / (2 * np.pi)
    step = np.diff(centre, axis=1)[active[:, 1:] & active[:, :-1]]
    step = (step + GRID[1] / 2) % GRID[1] - GRID[1] / 2
    # at most a quarter of a bin per snapshot, told in steps of half a bin or one; and it does move
    assert np.abs(step).max() <= 1.0 + 1e-4 and 0.05 < np.abs(step).mean() < 0.25


def test_number_of_occlusions():
    mask = draw("occlusion", regions=(3, 3), width=(0.0, 0.0), span=(1.0, 1.0))
    count = mask[:, 0].sum(axis=(1, 2))
    assert set(count) <= {1, 2, 3} and (count == 3).mean() > 0.95


def test_occlusions_follow_the_energy():
    energy = np.zeros((DRAWS, 16, 16), np.float32)
    energy[:, 3, 5], energy[:, 8, 1] = 3.0, 1.0
    options = {"regions": (1, 1), "width": (0.0, 0.0), "span": (0.0, 0.0)}
    hit = draw("occlusion", energy=energy, **options).any(axis=1).mean(axis=0)
    assert abs(hit[3, 5] - 0.75) < 5 * np.sqrt(0.75 * 0.25 / DRAWS)
    assert hit[3, 5] + hit[8, 1] == pytest.approx(1.0)
    spread = draw("occlusion", **options).any(axis=1).mean(axis=0)
    assert spread.max() < 0.02


@pytest.mark.parametrize(
    ("name", "axis"), [("time_comb", 1), ("antenna_comb", 2), ("subcarrier_comb", 3)]
)
def test_combs(name, axis):
    options = {} if name == "time_comb" else {"hop": False}
    mask = draw(name, period=(2, 4), **options)
    other = tuple({1, 2, 3} - {axis})
    line = mask.all(axis=other)
    assert (mask.any(axis=other) == line).all()
    visible = [np.flatnonzero(~row) for row in line]
    periods = np.array([np.diff(v)[0] for v in visible])
    assert all((np.diff(v) == p).all() for v, p in zip(visible, periods))
    for period in (2, 3, 4):
        assert abs((periods == period).mean() - 1 / 3) < 5 * np.sqrt(2 / 9 / DRAWS)
        first = np.array([v[0] for v, p in zip(visible, periods) if p == period])
        assert set(first) == set(range(period))
    assert (draw(name, period=(2, 4), severity=0.0, **options).mean() - 0.5) < 1e-6


@pytest.mark.parametrize(("name", "axis"), [("antenna_comb", 2), ("subcarrier_comb", 3)])
def test_combs_hop_in_half_of_the_samples(name, axis):
    mask = draw(name, period=(4, 4))
    line = mask.all(axis=5 - axis)
    hops = (line[:, 0] != line[:, 1]).any(axis=1)
    assert abs(hops.mean() - 0.5) < 5 * 0.5 / np.sqrt(DRAWS)
    # four snapshots of a hopping comb see everything
    assert not line[hops][:, :4].all(axis=1).any()


def test_tails():
    mask = draw("tail", horizon=(1, 5))
    count = mask.all(axis=(2, 3)).sum(axis=1)
    assert set(count) == {1, 2, 3, 4, 5}
    assert abs(count.mean() - 3) < 5 * np.sqrt(2 / DRAWS)
    expected = np.arange(GRID[0])[None] >= GRID[0] - count[:, None]
    assert (mask == expected[:, :, None, None]).all()
    assert (draw("tail", severity=0.0).sum(axis=(1, 2, 3)) == 256).all()
    gentle = draw("tail", severity=0.25).all(axis=(2, 3)).sum(axis=1)
    assert set(gentle) == {1, 2}


@pytest.mark.parametrize("name", MASKS)
def test_masks_compile_with_the_graph(name):
    """A model that draws its mask inside a compiled step, where shapes must be static."""

    class Masking(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(5)

        def call(self, x):
            mask = MASKS[name](self.generator, ops.shape(x)[0], (6, 4, 4))
            return x * ops.cast(mask, x.dtype)

    model = Masking()
    model.compile(jit_compile=keras.backend.backend() != "torch")
    x = np.ones((8, 6, 4, 4), np.float32)
    first, second = model.predict_on_batch(x), model.predict_on_batch(x)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert (first != second).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masking.random_mask(1, 2, GRID, share=(0.2, 1.2)), "share=.*1.2"),
        (lambda: masking.random_mask(None, 2, GRID), "seed=None"),
        (lambda: masking.tube_mask(1, 2, (4, 1, 1)), r"grid=\(4, 1, 1\)"),
        (lambda: masking.time_comb_mask(1, 2, (1, 4, 4)), r"grid=\(1, 4, 4\)"),
        (lambda: masking.time_comb_mask(1, 2, GRID, period=(1, 4)), "period"),
        (lambda: masking.tail_mask(1, 2, (5, 4, 4)), r"horizon=\(1, 5\)"),
        (lambda: masking.tail_mask(1, 2, GRID, horizon=(1.5, 2)), "integers"),
        (lambda: masking.antenna_comb_mask(1, 2, (4, 1, 4)), "axis 1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
