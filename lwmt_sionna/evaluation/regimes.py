"""Which sequences, noise and grids channel predictors are judged on."""

import dataclasses

from lwmt_sionna.data import interpolate, read_paths, retime, vanishing_mask
from lwmt_sionna.runs.configuration import from_toml, to_json

__all__ = ["SUBSETS", "GridConfig", "Regime", "load_regime"]

SUBSETS = ("event_free", "events", "quiet", "all")


@dataclasses.dataclass(frozen=True)
class Regime:
    """Stored sequences, as they are or met at another pace.

    Attributes:
        data: Path of an HDF5 file.
        interpolate: Snapshots per stored snapshot, see `lwmt_sionna.data.interpolate`.
        sampling_period: Time between snapshots in seconds to which the sequences are brought by
            another speed, see `lwmt_sionna.data.retime`; after interpolation. As it is if 0.
        controls: Whether the controls with wrong histories run.
    """

    data: str
    interpolate: int = 1
    sampling_period: float = 0.0
    controls: bool = False

    def __post_init__(self):
        if self.interpolate < 1 or int(self.interpolate) != self.interpolate:
            raise ValueError(
                f"interpolate must be a positive integer. Received: interpolate={self.interpolate}"
            )


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """What is evaluated.

    Attributes:
        regimes: Tables of `Regime`.
        presets: Names or folders of presets.
        baselines: Names of the training-free baselines; all of them if empty.
        training: HDF5 files that were trained or tuned on: the evaluated must be others.
        snr_db: Pilot SNRs of the histories in decibels.
        num_ant: Antennas of the linear array.
        num_subcarriers: Subcarriers.
        subcarrier_spacing: Hertz.
        num_history: Snapshots of history.
        num_horizons: Snapshots to predict.
        limit: Sequences per regime at most, the first ones; all if 0.
        subsets: Subsets of sequences that are reported.
        rate_snr_db: Pilot SNR at which rates are computed.
        link_snr_db: Link SNRs of the rates in decibels.
        rate_horizons: Horizons of the rates and of the errors per sequence.
        seed: Seed of noise and user groups.
    """

    regimes: tuple
    presets: tuple = ("small",)
    baselines: tuple = ()
    training: tuple = ()
    snr_db: tuple = (5.0, 15.0, 25.0)
    num_ant: int = 32
    num_subcarriers: int = 32
    subcarrier_spacing: float = 540e3
    num_history: int = 16
    num_horizons: int = 5
    limit: int = 0
    subsets: tuple = SUBSETS
    rate_snr_db: float = 15.0
    link_snr_db: tuple = (0.0, 10.0, 20.0)
    rate_horizons: tuple = (1, 5)
    seed: int = 0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        regimes = tuple(r if isinstance(r, Regime) else Regime(**r) for r in self.regimes)
        object.__setattr__(self, "regimes", regimes)
        if not regimes or not self.snr_db:
            raise ValueError("regimes and snr_db must not be empty")
        unknown = sorted(set(self.subsets) - set(SUBSETS))
        if unknown:
            raise ValueError(f"subsets must be some of {SUBSETS}. Received: {unknown}")
        for name in ("num_history", "num_horizons"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive. Received: {name}={getattr(self, name)}")
        if self.limit < 0:
            raise ValueError(f"limit must not be negative. Received: limit={self.limit}")

    @classmethod
    def from_toml(cls, path, overrides=None):
        """Reads a configuration from a TOML file; an unknown key is an error."""
        return from_toml(cls, path, overrides=overrides)

    def to_dict(self):
        """The configuration as JSON-compatible values."""
        return to_json(self)


def load_regime(regime, config):
    """Reads the sequences of a regime and leaves out those whose channel vanishes.

    Args:
        regime: `Regime`.
        config: `GridConfig`.

    Returns:
        Tuple of the `PathSequences` and the number of sequences left out.
    """
    paths = read_paths(regime.data)
    length = config.num_history + config.num_horizons
    if config.limit:
        paths = paths.select(slice(0, config.limit))
    if regime.interpolate > 1:
        paths = interpolate(paths, regime.interpolate, length)
    elif paths.num_snapshots < length:
        raise ValueError(
            f"The sequences are too short: expected at least {length} snapshots. Received: "
            f"data={regime.data}, num_snapshots={paths.num_snapshots}"
        )
    if regime.sampling_period:
        paths = retime(paths, regime.sampling_period)
    vanishing = vanishing_mask(paths)
    if vanishing.all():
        raise ValueError(f"No sequence has a channel throughout. Received: data={regime.data}")
    return paths.select(~vanishing), int(vanishing.sum())
