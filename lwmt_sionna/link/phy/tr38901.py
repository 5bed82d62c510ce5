"""Channel sequences of 3GPP TR 38.901 by Sionna PHY: CDL profiles, and UMi, UMa and RMa cells."""

import dataclasses
import functools
import logging
import pathlib
import shutil
from typing import Annotated, Literal

import numpy as np
from keras import ops

from lwmt_sionna import data
from lwmt_sionna.runs.configuration import (
    ORDERED,
    Config,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)
from lwmt_sionna.runs.digests import code_digest
from lwmt_sionna.runs.parallel import progress_bar
from lwmt_sionna.runs.records import package_versions
from lwmt_sionna.runs.store import RunFolder
from lwmt_sionna.typing import PathLike

logger = logging.getLogger(__name__)

# Sequences that are drawn at once, by one random stream: some 3 MB each for an array of 32.
_SHARD = 32
_PROFILES = ("CDL-A", "CDL-B", "CDL-C", "CDL-D", "CDL-E")


@dataclasses.dataclass(frozen=True)
class Tr38901Config(Config):
    """A world of TR 38.901.

    A user with one vertical, omnidirectional antenna moves past a base station. Each sequence is
    one realisation: history and future belong together. Path loss and shadowing are left out.

    Attributes:
        model: A clustered delay line, or a cell whose users stand outdoors at random places of a
            sector.
        num_sequences: Number of sequences.
        delay_spread: Root mean square of a CDL's delays in seconds. Cells draw their own.
        line_of_sight: Whether all users of a cell are in sight; drawn if left out. A CDL says so
            itself: D and E are.
        speed_kmh: Slowest and fastest speed; a sequence keeps its own. The direction is drawn, in
            all three dimensions for a CDL, as Sionna has it.
        sampling_period: Time between snapshots in seconds.
        num_snapshots: Number of snapshots of each sequence.
        carrier_frequency: Hertz.
        num_subcarriers: Number of subcarriers.
        subcarrier_spacing: Hertz.
        array: `PlanarArray` of the base station.
        element: Pattern of its elements, that of TR 38.901, table 7.3-1, or none.
        direction: Which way Sionna's model is asked for; the channel is the same both ways, its
            motion is not: Sionna 1.2 turns rays by the angles of the receiver, whichever end moves.
            In the downlink these are the user's, who moves; in the uplink they are those of the
            base station, which spreads Doppler shifts less.
        seed: Seed of everything that is drawn.
    """

    model: Literal["CDL-A", "CDL-B", "CDL-C", "CDL-D", "CDL-E", "UMi", "UMa", "RMa"]
    num_sequences: PositiveInt
    delay_spread: Positive | None = None
    line_of_sight: bool | None = None
    speed_kmh: Annotated[tuple[NonNegative, NonNegative], ORDERED] = (30.0, 30.0)
    sampling_period: Positive = 5e-3
    num_snapshots: PositiveInt = 21
    carrier_frequency: Positive = 3.5e9
    num_subcarriers: PositiveInt = 32
    subcarrier_spacing: Positive = 540e3
    array: data.PlanarArray = dataclasses.field(default_factory=data.PlanarArray)
    element: Literal["38.901", "omni"] = "38.901"
    direction: Literal["downlink", "uplink"] = "downlink"
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        is_cdl = self.model in _PROFILES
        if is_cdl and self.delay_spread is None:
            raise ValueError(f"delay_spread: {self.model} needs one. Received: delay_spread=None")
        name = "line_of_sight" if is_cdl else "delay_spread"
        value = getattr(self, name)
        if value is not None:
            raise ValueError(f"{name}: {self.model} sets its own. Received: {name}={value}")

    @property
    def num_shards(self) -> int:
        """Number of parts that are drawn one by one."""
        return -(-self.num_sequences // _SHARD)


def draw_channels(config: Tr38901Config, shard: int = 0) -> data.ChannelSequences:
    r"""Draws the sequences of one shard; the same ones whatever was drawn before.

    $$h[m, k] = \sum_p a_{mp}(t) e^{-j 2 \pi f_k \tau_p}$$

    with the coefficients $a$ and delays $\tau$ from one call of Sionna's model.

    Args:
        shard: Number of the shard, below `config.num_shards`, which chooses the random stream.

    Returns:
        `ChannelSequences` with the speeds of all users.

    Example:

    >>> config = Tr38901Config("CDL-A", num_sequences=10, delay_spread=100e-9)
    >>> draw_channels(config).h.shape
    (10, 21, 32, 32)

    Reference:
        3GPP TR 38.901, Study on channel model for frequencies from 0.5 to 100 GHz, sections 7.5
        (cells) and 7.7.1 (CDL).
    """
    from sionna.phy import config as sionna_config

    first = shard * _SHARD
    size = min(_SHARD, config.num_sequences - first)
    stream = np.random.SeedSequence([config.seed, shard])
    sionna_config.seed = int(stream.generate_state(1)[0])
    speed = np.random.default_rng(stream).uniform(*config.speed_kmh, size) / 3.6
    a, tau = (_cdl if config.model in _PROFILES else _cell)(config, speed.astype(np.float32))
    # Users and base stations have axes of one, and users one antenna: [sequence, antenna, path,
    # time] and [sequence, path], whichever way.
    a, tau = (ops.convert_to_numpy(each) for each in (a, tau))
    tau = tau[:, 0, 0].astype(np.float64)
    a = a.reshape(size, config.array.num_ant, *a.shape[-2:])
    frequencies = data.subcarrier_frequencies(config.num_subcarriers, config.subcarrier_spacing)
    turn = np.exp(-2j * np.pi * tau[:, :, None] * frequencies).astype(np.complex64)
    return data.ChannelSequences(
        np.moveaxis(a, -1, 1) @ turn[:, None],
        config.sampling_period,
        config.carrier_frequency,
        config.subcarrier_spacing,
        config.array.shape,
        origin=f"3GPP TR 38.901, {config.model}, by Sionna PHY",
        speed=speed,
        sequence_id=first + np.arange(size),
        metadata={"config": config.to_dict(), "tracer": _sionna()},
    )


def generate_channels(
    config: Tr38901Config, path: PathLike, *, progress: bool = True
) -> data.ChannelSequences:
    """Draws a world into a file, or goes on with one: finished shards are kept.

    Args:
        path: Path of the HDF5 file to write. A finished file of the same configuration is kept.
        progress: Whether to draw a progress bar, on terminals and in notebooks.

    Returns:
        The `ChannelSequences` written.

    Raises:
        ValueError: If a file or shards of another configuration, or a file that another version of
            Sionna drew, lie at the target.
    """
    path = pathlib.Path(path)
    folder = path.with_name(f"{path.name}.shards")
    claim, sionna = config.to_dict(), _sionna()
    if path.is_file():
        channels = data.read_channels(path)
        if channels.metadata.get("config") != claim:
            raise ValueError(
                "The file holds channels of another configuration; remove it or choose another "
                f"name. Received: path={path}"
            )
        drawn_by = channels.metadata.get("tracer", "sionna 1.2.2")
        if drawn_by != sionna:
            raise ValueError(
                f"The file was drawn by {drawn_by}; here is {sionna}, which draws other channels. "
                f"Remove it or choose another name. Received: path={path}"
            )
        logger.info("%s is complete already", path)
        return channels
    with RunFolder(folder, claim) as run:
        files = []
        shards = range(config.num_shards)
        show = None if progress else False
        for shard in progress_bar(shards, unit="shard", desc=config.model, show=show):
            key = {"shard": shard, "config": claim, "code": code_digest(__name__)}
            kept = run.store.get_file(key)
            if kept is None:
                drawn = draw_channels(config, shard)
                write = functools.partial(data.write_channels, channels=drawn)
                files.append(run.store.put_file(key, write, ".h5", name=f"{shard:05d}"))
            else:
                files.append(kept[0])
        channels = data.join_channels([data.read_channels(file) for file in files])
        data.write_channels(path, channels)
        shutil.rmtree(folder)
    return channels


def _sionna():
    """What draws the channels, as `tracer` of files: releases draw other numbers of one seed."""
    return f"sionna {package_versions().get('sionna')}"


def _cdl(config, speed):
    """Coefficients and delays of a clustered delay line."""
    from sionna.phy.channel.tr38901 import CDL

    from lwmt_sionna.link.phy.line import cdl_speeds

    model = CDL(
        config.model[-1],
        config.delay_spread,
        direction=config.direction,
        **cdl_speeds(speed),
        **_ends(config),
    )
    return model(len(speed), config.num_snapshots, 1 / config.sampling_period)


def _cell(config, speed):
    """Coefficients and delays of users of a cell, each in a cell of its own."""
    from sionna.phy.channel import gen_single_sector_topology, tr38901

    indoors = {} if config.model == "RMa" else {"o2i_model": "low"}
    model = getattr(tr38901, config.model)(
        direction=config.direction,
        enable_pathloss=False,
        enable_shadow_fading=False,
        **indoors,
        **_ends(config),
    )
    topology = list(
        gen_single_sector_topology(
            len(speed),
            1,
            config.model.lower(),
            indoor_probability=0.0,
            min_ut_velocity=1.0,
            max_ut_velocity=1.0,
        )
    )
    velocity = 4
    topology[velocity] = topology[velocity] * ops.convert_to_tensor(speed[:, None, None])
    model.set_topology(*topology, los=config.line_of_sight)
    return model(config.num_snapshots, 1 / config.sampling_period)


def _ends(config):
    """The antennas of both ends. One panel of Sionna has the order of `PlanarArray`."""
    from sionna.phy.channel.tr38901 import PanelArray

    array, carrier = config.array, config.carrier_frequency
    station = PanelArray(
        array.num_rows,
        array.num_cols,
        "single" if array.num_polarizations == 1 else "dual",
        array.polarization,
        config.element,
        carrier,
        element_vertical_spacing=array.vertical_spacing,
        element_horizontal_spacing=array.horizontal_spacing,
    )
    user = PanelArray(1, 1, "single", "V", "omni", carrier)
    return {"carrier_frequency": carrier, "ut_array": user, "bs_array": station}
