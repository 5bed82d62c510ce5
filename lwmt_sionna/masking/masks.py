"""What is not known of a channel sequence: masks, true where something is hidden.

Two kinds of grid appear. Token masks hide angle-delay-time tokens: what a path does. Comb masks
over subcarriers and antennas hide measurements before the transform: what a pilot pattern leaves
out; in the angle-delay domain the loss shows as aliases, not as holes. Both are bool `[batch,
num_snapshots, num_rows, num_columns]`: (angle, delay) tokens or (antenna, subcarrier).

All functions draw per sample, from static shapes, and compile. None hides everything or nothing.
`severity` in [0, 1] narrows a range from its mild end (the first number): 0 draws the mild end
alone, 1 from the whole range.
"""

from keras import ops

from lwmt_sionna.masking.draws import Draws, Range, Seed, check_integers, check_range
from lwmt_sionna.ops.attention import check_grid
from lwmt_sionna.typing import Tensor

__all__ = [
    "antenna_comb_mask",
    "occlusion_mask",
    "random_mask",
    "subcarrier_comb_mask",
    "tail_mask",
    "time_comb_mask",
    "tube_mask",
]

Grid = tuple[int, int, int]
# Largest speed of an occluded region in tokens per snapshot along each axis.
_DRIFT = 0.25


def random_mask(
    seed: Seed, batch_size: Tensor, grid: Grid, share: Range = (0.3, 0.75), severity: Tensor = 1.0
) -> Tensor:
    """Hides tokens independently of each other.

    Imitates nothing that a link does, except isolated estimates that are discarded; it is the
    control that physical masks are held against.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots, angle tokens and delay tokens.
        share: Mild and severe share of hidden tokens; uniform between both for each sample.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_angle, num_delay]`.
    """
    grid = _check(grid)
    draws = Draws(seed)
    level = draws.strength(batch_size, *check_range("share", share, 0.0, 1.0), severity)
    hidden = draws.uniform((batch_size, *grid)) < _column(level, 4)
    return _keep_some(hidden, draws)


def tube_mask(
    seed: Seed, batch_size: Tensor, grid: Grid, share: Range = (0.1, 0.5), severity: Tensor = 1.0
) -> Tensor:
    """Hides angle-delay tokens in all snapshots.

    Imitates directions and delays that are never measured: a sector swamped by a steady interferer,
    a beam missing from the codebook, a delay behind the guard interval. Only neighbouring bins
    tell of them.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots, angle tokens and delay tokens.
        share: Mild and severe share of hidden tokens; uniform between both for each sample.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_angle, num_delay]`, the same in all snapshots.
    """
    num_snapshots, *plane = _check(grid)
    draws = Draws(seed)
    level = draws.strength(batch_size, *check_range("share", share, 0.0, 1.0), severity)
    hidden = draws.uniform((batch_size, *plane)) < _column(level, 3)
    return _over_time(_keep_some(hidden, draws), num_snapshots)


def occlusion_mask(
    seed: Seed,
    batch_size: Tensor,
    grid: Grid,
    regions: Range = (1, 3),
    width: Range = (0.1, 0.4),
    span: Range = (0.25, 0.75),
    energy: Tensor | None = None,
    severity: Tensor = 1.0,
) -> Tensor:
    """Hides elliptic angle-delay regions for a span of snapshots, drifting with it.

    Imitates paths that a passing bus, a corner or a hand blocks: a cluster of neighbouring angles
    and delays is gone for some time and comes back where its motion has led meanwhile.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots, angle tokens and delay tokens; both plane axes are cyclic.
        regions: Mild and severe number of regions, uniform among the integers.
        width: Mild and severe diameter of a region over each axis of the plane, drawn for each.
        span: Mild and severe duration over the number of snapshots; at least one snapshot.
        energy: Energy of the bins, real `[batch, num_angle, num_delay]`. Where given, centres are
            drawn in proportion to it: most bins of a channel hold no path, and hiding those
            teaches nothing. Uniform if `None`.
        severity: Part of the ranges that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_angle, num_delay]`.
    """
    num_snapshots, num_angle, num_delay = _check(grid)
    regions = check_integers("regions", regions, 1, 16)
    width = check_range("width", width, 0.0, 1.0)
    span = check_range("span", span, 0.0, 1.0)
    draws = Draws(seed)
    count = draws.integers(batch_size, *regions, severity)
    time = ops.reshape(ops.arange(num_snapshots, dtype="float32"), (1, -1, 1, 1))
    hidden = ops.zeros((batch_size, num_snapshots, num_angle, num_delay), dtype="bool")
    for region in range(max(regions)):
        duration = draws.strength(batch_size, *span, severity) * num_snapshots
        duration = ops.clip(ops.round(duration), 1, num_snapshots)
        start = _column(draws.index(num_snapshots - duration + 1), 4)
        duration = _column(duration, 4)
        inside = (time >= start) & (time < start + duration)
        centres = _centres(draws, batch_size, num_angle, num_delay, energy)
        distance = 0.0
        for axis, (size, centre) in enumerate(zip((num_angle, num_delay), centres), start=2):
            place = ops.reshape(
                ops.arange(size, dtype="float32"), [-1 if a == axis else 1 for a in range(4)]
            )
            speed = _DRIFT * (2 * draws.uniform((batch_size,)) - 1)
            path = _column(centre, 4) + _column(speed, 4) * (time - start)
            offset = ops.mod(place - path + size / 2, size) - size / 2
            # The bin of the centre is hidden however small the region is.
            radius = ops.maximum(draws.strength(batch_size, *width, severity) * size / 2, 0.5)
            distance = distance + ops.square(offset / _column(radius, 4))
        chosen = _column(count, 4) > region
        nearest = distance <= ops.min(distance, axis=(2, 3), keepdims=True)
        hidden = hidden | (chosen & inside & ((distance <= 1.0) | nearest))
    return _keep_some(hidden, draws)


def time_comb_mask(
    seed: Seed, batch_size: Tensor, grid: Grid, period: Range = (2, 4), severity: Tensor = 1.0
) -> Tensor:
    """Leaves only every `period`-th snapshot.

    Imitates sounding more rarely than the channel turns: sounding reference signals of a longer
    periodicity, or a user whose reports share the resource with others.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots (at least 2), angle tokens and delay tokens.
        period: Mild and severe distance of visible snapshots, uniform among the integers; the
            first visible one is uniform too. The hidden share is `1 - 1 / period`, up to the ends.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_angle, num_delay]`, the same over each snapshot.
    """
    grid = _check(grid)
    if grid[0] < 2:
        raise ValueError(f"A comb over time needs two snapshots. Received: grid={grid}")
    period = check_integers("period", period, 2, 2**16)
    missing = _comb(Draws(seed), batch_size, grid[0], period, severity)
    return ops.broadcast_to(missing[:, :, None, None], (batch_size, *grid))


def tail_mask(
    seed: Seed, batch_size: Tensor, grid: Grid, horizon: Range = (1, 5), severity: Tensor = 1.0
) -> Tensor:
    """Hides the last snapshots: prediction.

    Imitates the age of channel state information, from the next slot to several sounding periods.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots (more than the largest horizon), angle tokens and delay tokens.
        horizon: Mild and severe number of hidden snapshots, uniform among the integers.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_angle, num_delay]`, the same over each snapshot.
    """
    grid = _check(grid)
    horizon = check_integers("horizon", horizon, 1, 2**16)
    if max(horizon) >= grid[0]:
        raise ValueError(
            "The largest horizon must leave a snapshot visible. Received: "
            f"horizon={horizon}, grid={grid}"
        )
    count = Draws(seed).integers(batch_size, *horizon, severity)
    hidden = ops.arange(grid[0], dtype="float32")[None] >= grid[0] - count[:, None]
    return ops.broadcast_to(hidden[:, :, None, None], (batch_size, *grid))


def subcarrier_comb_mask(
    seed: Seed,
    batch_size: Tensor,
    grid: Grid,
    period: Range = (2, 4),
    hop: bool = True,
    severity: Tensor = 1.0,
) -> Tensor:
    """Leaves only every `period`-th subcarrier of the measurement.

    Imitates the transmission comb of sounding reference signals (2, 4 or 8 in 3GPP TS 38.211,
    section 6.4.1.4) or sparse pilots. Delays then repeat every `num_subcarriers / period` bins.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots, antennas and subcarriers (at least 2).
        period: Mild and severe distance of the pilots, uniform among the integers.
        hop: Whether the comb may move by a subcarrier from snapshot to snapshot (in half of the
            samples), so that time resolves what one snapshot cannot.
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_ant, num_subcarriers]`, true where there is no pilot.
    """
    missing = _hopping_comb(seed, batch_size, grid, 2, period, hop, severity)
    return ops.broadcast_to(missing[:, :, None, :], (batch_size, *grid))


def antenna_comb_mask(
    seed: Seed,
    batch_size: Tensor,
    grid: Grid,
    period: Range = (2, 4),
    hop: bool = True,
    severity: Tensor = 1.0,
) -> Tensor:
    """Leaves only every `period`-th antenna of the measurement.

    Imitates fewer receive chains than antennas, switched from snapshot to snapshot. Angles then
    repeat every `num_ant / period` bins.

    Args:
        seed: Integer or `keras.random.SeedGenerator`.
        batch_size: Number of samples.
        grid: Number of snapshots, antennas (at least 2) and subcarriers.
        period: Mild and severe distance of measured antennas, uniform among the integers.
        hop: Whether the comb may move by an antenna from snapshot to snapshot (in half of the
            samples).
        severity: Part of the range that is drawn from, scalar.

    Returns:
        bool `[batch, num_snapshots, num_ant, num_subcarriers]`, true where nothing is measured.
    """
    missing = _hopping_comb(seed, batch_size, grid, 1, period, hop, severity)
    return ops.broadcast_to(missing[:, :, :, None], (batch_size, *grid))


def _check(grid):
    grid = check_grid(grid)
    if grid[1] * grid[2] < 2:
        raise ValueError(
            f"A mask needs at least two tokens per snapshot. Received: grid={tuple(grid)}"
        )
    return grid


def _comb(draws, batch_size, size, period, severity):
    """bool `[batch, size]`, false at every `period`-th place."""
    distance = draws.integers(batch_size, *period, severity)
    # An offset beyond the end would leave nothing visible.
    offset = draws.index(ops.minimum(distance, float(size)))
    place = ops.arange(size, dtype="float32")
    return ops.mod(place[None] - offset[:, None], distance[:, None]) > 0.5


def _hopping_comb(seed, batch_size, grid, axis, period, hop, severity):
    """bool `[batch, num_snapshots, grid[axis]]`."""
    grid = _check(grid)
    size = grid[axis]
    if size < 2:
        raise ValueError(f"A comb needs two places along axis {axis}. Received: grid={grid}")
    low, high = check_integers("period", period, 2, 2**16)
    draws = Draws(seed)
    distance = ops.minimum(draws.integers(batch_size, low, high, severity), float(size))
    offset = draws.index(distance)
    moves = ops.cast(draws.uniform((batch_size,)) < (0.5 if hop else 0.0), "float32")
    time = ops.arange(grid[0], dtype="float32")
    offset = offset[:, None] + moves[:, None] * time[None]
    place = ops.arange(size, dtype="float32")
    phase = ops.mod(place[None, None] - offset[..., None], distance[:, None, None])
    return phase > 0.5


def _centres(draws, batch_size, num_angle, num_delay, energy):
    """Angle and delay of a random bin, float32 `[batch]` each."""
    if energy is None:
        place = draws.uniform((batch_size,)) * (num_angle * num_delay)
    else:
        weight = ops.reshape(ops.cast(energy, "float32"), (batch_size, num_angle * num_delay))
        total = ops.cumsum(weight, axis=1)
        place = draws.uniform((batch_size, 1)) * total[:, -1:]
        place = ops.sum(ops.cast(total <= place, "float32"), axis=1)
    place = ops.clip(ops.floor(place), 0, num_angle * num_delay - 1)
    angle = ops.floor((place + 0.5) / num_delay)
    return angle, place - angle * num_delay


def _keep_some(hidden, draws):
    """Hides one random place of a sample that hides none, and shows one where all are hidden."""
    shape = hidden.shape[1:]
    size = 1
    for length in shape:
        size *= length
    flat = ops.reshape(hidden, (-1, size))
    place = ops.floor(draws.uniform((ops.shape(flat)[0], 1)) * size)
    place = ops.minimum(place, size - 1.0)
    chosen = ops.equal(ops.arange(size, dtype="float32")[None], place)
    nothing = ops.logical_not(ops.any(flat, axis=1, keepdims=True))
    everything = ops.all(flat, axis=1, keepdims=True)
    flat = (flat | (nothing & chosen)) & ops.logical_not(everything & chosen)
    return ops.reshape(flat, (-1, *shape))


def _over_time(plane, num_snapshots):
    shape = (ops.shape(plane)[0], num_snapshots, *plane.shape[1:])
    return ops.broadcast_to(plane[:, None], shape)


def _column(value, rank):
    """`[batch]` to `[batch, 1, ...]` of `rank` axes."""
    return ops.reshape(value, (-1, *(1,) * (rank - 1)))
