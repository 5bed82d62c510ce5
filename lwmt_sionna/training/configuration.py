"""The settings that all trainings are made of, each of them in one place."""

import dataclasses
from typing import Annotated, Any, Literal

import msgspec

from lwmt_sionna.data import PlanarArray, subcarrier_frequencies
from lwmt_sionna.data.arrays import Polarization
from lwmt_sionna.masking import HardwareRanges
from lwmt_sionna.models import LWMTBackbone
from lwmt_sionna.ops import EnergyRouting, Neighborhood, RandomNeighborhood
from lwmt_sionna.runs.configuration import (
    FILLED,
    Config,
    Interval,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from lwmt_sionna.training.contestants import FactoredBackbone
from lwmt_sionna.typing import Array

__all__ = ["DataConfig", "ModelConfig", "OptimizationConfig", "PredictorConfig"]

# Half-widths beyond any grid: corridors are cut at its edge.
_BEYOND = 1 << 10

Part = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Portion = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Pair = tuple[PositiveInt, PositiveInt]
HalfWidths = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """What predictors are trained and judged on. Trajectories are split, never snapshots.

    Attributes:
        files: Paths of the HDF5 files of paths or channels. Channels keep their array and their
            band; they need as many antennas and subcarriers as are configured.
        validation_files: Files of other worlds, on which the weights to keep are chosen; a share
            of each of `files` if empty.
        clusters: Sequences of random path clusters beside those of the files.
        test_share: Share of the trajectories of every file that is kept for a test.
        validation_share: Share of the others on which the weights to keep are chosen, where no
            other files serve for that.
        label_share: Share of the remaining ones that is trained on; one trajectory at least.
        split_seed: Seed of these splits and of all draws; that of the training if left out.
        num_ant: Antennas of the base station, both polarisations counted. Array and subcarriers
            are those of the files where all hold channels: see `TrainConfig.on_files`.
        num_rows: Rows of its array; one makes a line.
        more_rows: Rows of further arrays of as many antennas, which draws of paths take in turns.
        small_arrays: Antennas of short lines, which a fifth of the augmented draws of paths and of
            longer lines are of.
        polarization: Polarisation of its array, that of the stored paths; see `PlanarArray`.
        num_subcarriers: Subcarriers of the CSI grid.
        subcarrier_spacing: Distance of the subcarriers in hertz.
        bandwidth: Lowest and highest bandwidth of draws of paths in hertz, drawn log-uniformly; as
            many times the spacing as there are subcarriers if left out.
        num_history: Snapshots of history.
        history_snr_db: Lowest and highest pilot SNR of the histories in decibels, drawn uniformly.
        doppler_shift: Largest common Doppler shift of the augmentation, in turns per snapshot.
        switched: Share of the augmented draws to which the channel of another sequence is added
            that appears or vanishes within the history: births and deaths of strong paths.
        num_draws: Draws of noise and augmentation per training sequence.
        pool: Draws over all training sequences, in place of `num_draws`: as many for a small share
            of labels as for all.
        hardware: `HardwareRanges`: impairments of each sequence; noise alone if left out.
    """

    files: Annotated[tuple[str, ...], FILLED]
    validation_files: tuple[str, ...] = ()
    clusters: NonNegativeInt = 0
    test_share: Portion = 0.0
    validation_share: Part = 0.1
    label_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    split_seed: NonNegativeInt | None = None
    num_ant: PositiveInt = 32
    num_rows: PositiveInt = 1
    more_rows: tuple[PositiveInt, ...] = ()
    small_arrays: tuple[PositiveInt, ...] = ()
    polarization: Polarization = "V"
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: Positive = 540e3
    bandwidth: Interval | None = None
    num_history: PositiveInt = 16
    history_snr_db: Interval = (0.0, 30.0)
    doppler_shift: Portion = 0.5
    switched: Portion = 0.0
    num_draws: PositiveInt = 4
    pool: PositiveInt | None = None
    hardware: HardwareRanges | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Said here rather than when the files are read.
        _ = self.arrays
        for size in self.small_arrays:
            PlanarArray.of(size, 1, self.polarization)
        if any(size >= self.num_ant for size in self.small_arrays):
            raise ValueError(
                f"small_arrays: expected fewer antennas than num_ant={self.num_ant}. Received: "
                f"small_arrays={self.small_arrays}"
            )
        if self.bandwidth is not None and self.bandwidth[0] <= 0:
            raise ValueError(
                f"bandwidth: expected positive numbers. Received: bandwidth={self.bandwidth}"
            )

    @property
    def array(self) -> PlanarArray:
        """The array of the base station."""
        return self.arrays[0]

    @property
    def arrays(self) -> tuple[PlanarArray, ...]:
        """That array, and the further ones."""
        rows = (self.num_rows, *self.more_rows)
        return tuple(PlanarArray.of(self.num_ant, n, self.polarization) for n in rows)

    @property
    def frequencies(self) -> Array:
        """Baseband frequencies of the subcarriers in hertz, float64 `[num_subcarriers]`."""
        return subcarrier_frequencies(self.num_subcarriers, self.subcarrier_spacing)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Config):
    """Architecture of an `LWMTBackbone`, and of what stands around it.

    Attributes:
        width: Width of the tokens.
        depth: Number of encoder blocks.
        num_heads: Heads per block.
        mlp_ratio: Hidden units of the perceptrons over the width.
        patch: Bins per patch in angle and delay.
        attention: `"ssta"`, the neighbourhood that follows; `"dense"`, all tokens; `"factored"`,
            space and time in turns; or `"random"`, as many tokens as the neighbourhood has, drawn
            at random. Weights have the same shapes.
        window: Half-widths of the neighbourhood in the own snapshot, in patches.
        corridor: Half-widths in other snapshots, in patches.
        time_offsets: Offsets of the other snapshots.
        leakage: Patches of the corridor that do not depend on the time distance.
        kept_patches: Angle and delay patches with most energy that the network works on; all of
            them if left out.
        position: See `LWMTBackbone`. `"rotary_grid"` sees differences of places alone, so that
            weights serve sequences cut elsewhere.
        position_units: See `LWMTBackbone`: physical positions, for pretraining and tasks.
        local_motion: See `MaskedChannelModel` and `ChannelPredictor`.
        block_loop: See `LWMTBackbone`.
    """

    width: PositiveInt = 64
    depth: PositiveInt = 2
    num_heads: PositiveInt = 4
    mlp_ratio: Positive = 2.0
    patch: Pair = (4, 4)
    attention: Literal["ssta", "dense", "factored", "random"] = "ssta"
    window: HalfWidths = (1, 1)
    corridor: HalfWidths = (1, 1)
    time_offsets: tuple[int, ...] = (-4, -3, -2, -1, 1, 2, 3, 4)
    leakage: HalfWidths = (1, 1)
    kept_patches: Pair | None = None
    position: Literal["factored", "rotary_grid"] = "factored"
    position_units: tuple[Positive, Positive, Positive] | None = None
    local_motion: bool = False
    block_loop: Literal["unroll", "rematerialize"] = "unroll"

    def neighborhood(self, max_snapshots: int, seed: int = 0) -> Neighborhood:
        """The neighbourhood of the attention.

        Args:
            max_snapshots: Longest sequence, which dense attention has to span.
            seed: Seed of the random neighbourhood.
        """
        if self.attention == "dense":
            wide = (_BEYOND, _BEYOND)
            return Neighborhood(
                window=(-1, -1),
                time_offsets=tuple(o for o in range(1 - max_snapshots, max_snapshots) if o != 0),
                corridor=wide,
                leakage=wide,
                drift=(0, 0),
                edge="drop",
            )
        settings: dict[str, Any] = {
            "window": self.window,
            "time_offsets": self.time_offsets,
            "corridor": self.corridor,
            "drift": (0.0, 0.0),
            "leakage": self.leakage,
        }
        if self.attention == "random":
            return RandomNeighborhood(seed=seed, **settings)
        return Neighborhood(**settings)

    def build_backbone(
        self, max_snapshots: int, seed: int = 0, precision: str = "float32"
    ) -> LWMTBackbone:
        """Makes a backbone, which gets its weights when it is built, from the global seed of Keras.

        `precision` is its dtype policy; for the rest see `neighborhood`.
        """
        make = FactoredBackbone if self.attention == "factored" else LWMTBackbone
        return make(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            patch=self.patch,
            neighborhood=self.neighborhood(max_snapshots, seed),
            routing=None if self.kept_patches is None else EnergyRouting(*self.kept_patches),
            position=self.position,
            position_units=self.position_units,
            block_loop=self.block_loop,
            dtype=precision,
            name="backbone",
        )


@dataclasses.dataclass(frozen=True)
class PredictorConfig(Config):
    """What a predictor is beside its network.

    Attributes:
        kind: `"predictor"`, a `ChannelPredictor`: physics in front of the backbone; `"direct"`, a
            `MaskedChannelModel` whose last snapshots are hidden, without physics; `"gru"` or
            `"conv"`: see `RecurrentPredictor` and `ConvolutionalPredictor`.
        num_horizons: Snapshots to predict.
        context: Most recent snapshots that the network sees.
        experts: Pairs (window, order) of the linear predictions.
        denoise_radius: Arm of the denoising cross in bins.
        num_paths: Largest number of paths to resolve; 0 for linear prediction alone.
        whole_experts: Pairs (window, order) of the linear predictions of the whole history beside
            the paths.
        least_squares: Pairs (window, order) of those by least squares.
        backtest: Snapshots that are held out to tell how good which expert is; 0 for no backtest.
        aligned: Whether phases and delays of snapshots are undone before all else.
    """

    kind: Literal["predictor", "direct", "gru", "conv"] = "predictor"
    num_horizons: PositiveInt = 5
    context: PositiveInt = 4
    experts: tuple[Pair, ...] = ((6, 2), (10, 4), (16, 2), (16, 4), (16, 6))
    denoise_radius: NonNegativeInt = 2
    num_paths: NonNegativeInt = 0
    whole_experts: tuple[Pair, ...] = ()
    least_squares: tuple[Pair, ...] = ()
    backtest: NonNegativeInt = 0
    aligned: bool = False


@dataclasses.dataclass(frozen=True)
class OptimizationConfig(Config):
    """How long and by which steps a model is trained.

    Attributes:
        steps: Number of steps; as many as `epochs` make if left out.
        epochs: Passes over all draws of the training sequences, if `steps` is left out.
        batch_size: Sequences per step, over all devices.
        learning_rate: Peak of the learning rate; cosine decay to zero after a linear warm-up.
        warmup_share: Share of the steps spent on the warm-up.
        weight_decay: Decoupled weight decay.
        decay_vectors: Whether norms, biases and the mask embedding, which have no direction to
            decay in, decay as well.
        ema_momentum: Momentum of the moving average of the weights, which is what is evaluated and
            saved; 0 keeps the weights themselves.
        precision: Policy of the network. Physics, masks and losses are computed in float32.
        checkpoint_every: Steps between checkpoints, at which the validation is made; a pass over
            the data if left out.
        log_every: Steps between rows of the log beside those of the checkpoints.
    """

    steps: PositiveInt | None = None
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    learning_rate: Positive = 2e-3
    warmup_share: Portion = 0.05
    weight_decay: NonNegative = 1e-2
    decay_vectors: bool = True
    ema_momentum: Portion = 0.0
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    checkpoint_every: PositiveInt | None = None
    log_every: PositiveInt | None = None

    def num_steps(self, epoch: int) -> int:
        """Number of steps of a training: `steps`, or what `epochs` of so many steps make."""
        return self.epochs * epoch if self.steps is None else self.steps
