"""Channels for pretraining: many from one trace, and endless ones from random path clusters."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
import numpy as np

from lwmt_sionna.data import (
    ChannelSequences,
    ClusterConfig,
    PathSequences,
    PlanarArray,
    draw_clusters,
    evolve,
    read_sequences,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    vanishing_mask,
)
from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    Interval,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Share,
)
from lwmt_sionna.training.configuration import Part, Portion
from lwmt_sionna.training.histories import augment_channels, stack_complex
from lwmt_sionna.typing import Array, PathLike, Random

__all__ = [
    "ChannelPool",
    "Channels",
    "SourceConfig",
    "draw_channels",
    "load_scenes",
    "synthesize_grid",
]

_BLOCK = 32
# Lowest and highest factor on the stored speed of evolved sequences, drawn log-uniformly.
_SPEED_FACTOR = (0.5, 2.0)

Axis = Annotated[int, msgspec.Meta(ge=2)]


@dataclasses.dataclass(frozen=True)
class SourceConfig(Config):
    """What the channels of a pretraining are synthesised from.

    Attributes:
        data: Paths of the HDF5 files of paths or channels; may be empty.
        cluster_share: Share of the sequences that come from random path clusters.
        evolved_share: Share of the others that continue one stored snapshot by its Doppler shifts,
            at any period and speed; the rest are stored snapshots, or every second, third ... one.
            Stored channels are not continued.
        grids: Snapshots, antennas and subcarriers: one compiled program each, drawn in turns.
        bandwidth: Lowest and highest bandwidth in hertz, drawn log-uniformly. Stored channels have
            theirs.
        sampling_period: Periods in seconds, drawn from.
        pool: Sequences per grid that are synthesised at a time.
        pool_steps: Steps after which the next pool is drawn; every step augments anew.
        doppler_shift: Largest common Doppler shift of the augmentation, in turns per snapshot. At
            0.5 slow channels turn as fast as any, and none is easy.
        validation_share: Share of the trajectories of every file that is held out.
        split_seed: Seed of that split, the same for all contestants.
    """

    data: tuple[str, ...] = ()
    cluster_share: Share = 0.25
    evolved_share: Share = 0.5
    grids: Annotated[tuple[tuple[Axis, Axis, Axis], ...], FILLED] = ((12, 16, 16),)
    bandwidth: Interval = (5e6, 40e6)
    sampling_period: Annotated[tuple[Positive, ...], FILLED] = (2.5e-3, 5e-3)
    pool: PositiveInt = 1024
    pool_steps: PositiveInt = 1000
    doppler_shift: Portion = 0.0
    validation_share: Part = 0.2
    split_seed: NonNegativeInt = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data and self.cluster_share < 1:
            raise ValueError(
                "Without data all sequences come from clusters. Received: data=(), "
                f"cluster_share={self.cluster_share}"
            )
        if self.bandwidth[0] <= 0:
            raise ValueError(
                f"bandwidth: expected positive numbers. Received: bandwidth={self.bandwidth}"
            )


Scenes: TypeAlias = list[PathSequences | ChannelSequences]


class Channels(NamedTuple):
    """Channels on one grid, and what one step of it is.

    Attributes:
        h: complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`, or, of a
            `ChannelPool`, real with a last axis of two.
        sampling_period: Seconds between snapshots, float32 `[num_sequences]`.
        bandwidth: Hertz that the subcarriers span, float32 `[num_sequences]`.
    """

    h: Array
    sampling_period: Array
    bandwidth: Array


def load_scenes(
    files: Sequence[PathLike], validation_share: float, seed: int
) -> tuple[Scenes, Scenes]:
    """Reads stored sequences and holds trajectories out.

    Args:
        files: Paths of HDF5 files.
        validation_share: Share of the trajectories of every file that is held out.
        seed: Seed of the split.

    Returns:
        Tuple of two lists of `PathSequences` or `ChannelSequences`, training and held out, one per
        file. Sequences whose channel vanishes in a snapshot are left out.
    """
    training: Scenes = []
    held_out: Scenes = []
    for name in files:
        sequences = read_sequences(name)
        kept = sequences.select(~vanishing_mask(sequences))
        one, other = split_by_trajectory(kept, validation_share, seed)
        training.append(one)
        held_out.append(other)
    return training, held_out


def synthesize_grid(
    sequences: PathSequences | ChannelSequences,
    grid: tuple[int, int, int],
    bandwidth: float,
    snapshots: Array | None = None,
    rng: Random | None = None,
) -> Array:
    """Channels on a grid, each scaled to a mean power of one.

    Args:
        sequences: `PathSequences`, or `ChannelSequences`, of which neighbouring subcarriers are
            taken, and neighbouring antennas of a line.
        grid: Snapshots, antennas, and subcarriers.
        bandwidth: Bandwidth that the subcarriers of paths span, in hertz.
        snapshots: Indices of the snapshots; the first ones by default.
        rng: `numpy.random.Generator` of the place of the antennas and subcarriers that are taken of
            stored channels; the first ones by default.

    Returns:
        complex64 `[num_sequences, *grid]`.

    Raises:
        ValueError: If the sequences are too short, or stored channels smaller than the grid.
    """
    length, num_ant, num_subcarriers = grid
    snapshots = np.arange(length) if snapshots is None else snapshots
    if snapshots[-1] >= sequences.num_snapshots:
        raise ValueError(
            f"The sequences are too short: expected at least {snapshots[-1] + 1} snapshots. "
            f"Received: scene={sequences.scene}, num_snapshots={sequences.num_snapshots}"
        )
    if isinstance(sequences, ChannelSequences):
        h = _part_of(sequences, grid, rng)[:, snapshots]
    else:
        frequencies = subcarrier_frequencies(num_subcarriers, bandwidth / num_subcarriers)
        h = synthesize(sequences, PlanarArray(1, num_ant), frequencies, snapshots=snapshots)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True)
    return h / np.sqrt(np.where(power > 0, power, 1.0)).astype(np.float32)


def _take(sequences, rows):
    """Sequences, some of them more than once."""
    if isinstance(sequences, PathSequences):
        return sequences.select(rows)
    own = {name: getattr(sequences, name)[rows] for name in ("h", "speed", "bs_index")}
    return dataclasses.replace(sequences, **own, sequence_id=None)


def _part_of(channels, grid, rng):
    """Neighbouring antennas and subcarriers, as many as a grid has."""
    most = channels.h.shape[2:]
    # Of a plane no row is cut off.
    least = (1 if channels.array_shape[::2] == (1, 1) else most[0], 1)
    begin = []
    for name, size, low, high in zip(("antennas", "subcarriers"), grid[1:], least, most):
        if not low <= size <= high:
            raise ValueError(
                f"The grid does not fit the stored channels: expected {low} to {high} {name}. "
                f"Received: grid={grid}, scene={channels.scene}"
            )
        begin.append(0 if rng is None else int(rng.integers(high - size, endpoint=True)))
    (m, k), (_, num_ant, num_subcarriers) = begin, grid
    return channels.h[:, :, m : m + num_ant, k : k + num_subcarriers]


def draw_channels(
    scenes: Scenes,
    grid: tuple[int, int, int],
    num_sequences: int,
    rng: Random,
    config: SourceConfig,
    clusters: ClusterConfig | None = None,
) -> Channels:
    """Draws channels of mixed scenes, speeds, periods and bandwidths on one grid.

    Args:
        scenes: List of `PathSequences` or `ChannelSequences`.
        grid: Snapshots, antennas and subcarriers.
        num_sequences: Number of sequences.
        rng: `numpy.random.Generator`.
        config: `SourceConfig`.
        clusters: `ClusterConfig`.

    Returns:
        `Channels`, each of mean power one.
    """
    length = grid[0]
    parts, periods, bandwidths = [], [], []
    for begin in range(0, num_sequences, _BLOCK):
        count = min(_BLOCK, num_sequences - begin)
        period = float(rng.choice(config.sampling_period))
        bandwidth = np.exp(rng.uniform(*np.log(config.bandwidth)))
        snapshots = None
        paths: PathSequences | ChannelSequences
        if rng.uniform() < config.cluster_share:
            paths = draw_clusters(count, length, period, rng, clusters)
        else:
            scene = scenes[rng.integers(len(scenes))]
            stored = scene.num_snapshots
            paths = _take(scene, rng.integers(scene.num_sequences, size=count))
            longest = (stored - 1) // (length - 1)
            evolves = longest == 0 or rng.uniform() < config.evolved_share
            if evolves and isinstance(paths, PathSequences):
                factor = np.exp(rng.uniform(*np.log(_SPEED_FACTOR), count))
                start = rng.integers(stored, size=count)
                paths = evolve(paths, length, period, start, factor)
            else:
                stride = int(rng.integers(1, max(longest, 1), endpoint=True))
                first = int(rng.integers(max(stored - (length - 1) * stride, 1)))
                snapshots = first + stride * np.arange(length)
                period = stride * scene.sampling_period
            if isinstance(scene, ChannelSequences):
                bandwidth = grid[2] * scene.subcarrier_spacing
        parts.append(synthesize_grid(paths, grid, bandwidth, snapshots, rng))
        periods += [period] * count
        bandwidths += [bandwidth] * count
    return Channels(np.concatenate(parts), np.float32(periods), np.float32(bandwidths))


class ChannelPool:
    """Batches of channels that follow from the number of the step alone.

    The next pools are made in the background, those of all grids side by side, while the second
    half of a pool's steps is taken.

    Args:
        config: `SourceConfig`.
        seed: Seed of all draws.
        batch_size: Sequences per batch.
        clusters: `ClusterConfig`.
        scenes: What `load_scenes` returns; read from the files of the configuration if left out.
    """

    def __init__(
        self,
        config: SourceConfig,
        seed: int,
        batch_size: int,
        clusters: ClusterConfig | None = None,
        scenes: Scenes | None = None,
    ) -> None:
        self.config = config
        self.seed = int(seed)
        self.batch_size = int(batch_size)
        self.clusters = ClusterConfig() if clusters is None else clusters
        if scenes is None:
            scenes, _ = load_scenes(config.data, config.validation_share, config.split_seed)
        self.scenes = scenes
        workers = len(set(config.grids))
        self._workers = concurrent.futures.ThreadPoolExecutor(workers, "channels")
        self._pools: dict[tuple[int, int], concurrent.futures.Future[Channels]] = {}

    def draw(self, step: int) -> tuple[tuple[int, int, int], Channels]:
        """Channels of a step.

        Args:
            step: Number of the step, from 0.

        Returns:
            Tuple of the grid and `Channels`, `h` real `[batch_size, *grid, 2]`.
        """
        grid = self.config.grids[step % len(self.config.grids)]
        number, index = step // self.config.pool_steps, self.config.grids.index(grid)
        pool = self._pool(number, index).result()
        if 2 * (step % self.config.pool_steps) >= self.config.pool_steps:
            self._pool(number + 1, index)
        self._pools = {key: p for key, p in self._pools.items() if key[0] in (number, number + 1)}
        rng = np.random.default_rng([self.seed, 2, step])
        rows = rng.integers(self.config.pool, size=self.batch_size)
        h, period, bandwidth = (values[rows] for values in pool)
        h = stack_complex(augment_channels(h, rng, self.config.doppler_shift))
        return grid, Channels(h, period, bandwidth)

    def _pool(self, number, index):
        key = (number, index)
        if key not in self._pools:
            rng = np.random.default_rng([self.seed, 1, number, index])
            grid, count = self.config.grids[index], self.config.pool
            self._pools[key] = self._workers.submit(
                draw_channels, self.scenes, grid, count, rng, self.config, self.clusters
            )
        return self._pools[key]
