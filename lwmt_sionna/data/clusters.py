"""Random path clusters: endless sequences at no cost of tracing."""

import dataclasses
from typing import Annotated

import numpy as np

from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences, absent_value
from lwmt_sionna.runs.configuration import (
    ORDERED,
    Config,
    Interval,
    NonNegative,
    PositiveInt,
    PositiveInterval,
    Share,
)
from lwmt_sionna.typing import Random

_Count = Annotated[tuple[PositiveInt, PositiveInt], ORDERED]


@dataclasses.dataclass(frozen=True)
class ClusterConfig(Config):
    """Statistics of random clusters. Pairs are bounds of uniform draws, one per sequence.

    Attributes:
        num_clusters: Fewest and most clusters.
        num_rays: Fewest and most rays of a cluster.
        distance: Length of the shortest path in metres.
        delay_spread: Mean excess delay of the clusters in seconds.
        ray_spread: Spread of the rays of a cluster: standard deviation of their departure angles
            in degrees; their delays spread by the same share of `delay_spread`.
        cluster_decay_db: Loss of a cluster per mean excess delay in decibels.
        shadowing_db: Standard deviation of the clusters' powers in decibels.
        line_of_sight: Probability that the shortest path is a single strong ray.
        k_factor_db: Power of that ray over all others in decibels.
        speed_kmh: Speeds, drawn log-uniformly.
        birth_rate: Mean number of births and of deaths per ray and second.
    """

    num_clusters: _Count = (2, 12)
    num_rays: _Count = (1, 4)
    distance: PositiveInterval = (15.0, 300.0)
    delay_spread: PositiveInterval = (30e-9, 400e-9)
    ray_spread: Interval = (0.5, 8.0)
    cluster_decay_db: float = 4.3
    shadowing_db: float = 4.0
    line_of_sight: Share = 0.5
    k_factor_db: Interval = (0.0, 12.0)
    speed_kmh: PositiveInterval = (1.0, 150.0)
    birth_rate: NonNegative = 1.0


def draw_clusters(
    num_sequences: int,
    num_snapshots: int,
    sampling_period: float,
    rng: Random,
    config: ClusterConfig | None = None,
    carrier_frequency: float = 3.5e9,
) -> PathSequences:
    """Draws sequences of random path clusters with the geometry of moving users.

    Every ray comes from an image of the base station at the distance that its delay says. The user
    moves on a straight line, so that delays, Doppler shifts and directions of arrival change as
    they do for reflections by plane walls; the direction of departure turns by as much as that of
    arrival. Rays are born and die at random.

    Args:
        num_sequences: Number of sequences.
        num_snapshots: Snapshots of each.
        sampling_period: Time between snapshots in seconds.
        carrier_frequency: Hertz.

    Returns:
        `PathSequences` of vertical polarisation, scene `"clusters"`; every sequence is a trajectory
        of its own.
    """
    config = ClusterConfig() if config is None else config
    if num_sequences < 1 or num_snapshots < 1 or not sampling_period > 0:
        raise ValueError(
            "num_sequences, num_snapshots and sampling_period must be positive. Received: "
            f"num_sequences={num_sequences}, num_snapshots={num_snapshots}, "
            f"sampling_period={sampling_period}"
        )
    rays = _draw_rays(num_sequences, rng, config)
    count = rays["delay"].shape[1]
    low, high = np.log(config.speed_kmh)
    speed = np.exp(rng.uniform(low, high, num_sequences)) / 3.6
    heading = rng.uniform(-np.pi, np.pi, num_sequences)
    velocity = speed[:, None] * np.stack([np.cos(heading), np.sin(heading), 0 * heading], axis=-1)
    time = np.arange(num_snapshots) * float(sampling_period)
    # Images around the user's first place, horizontal; heights are left out.
    direction = np.stack(
        [np.cos(rays["arrival"]), np.sin(rays["arrival"]), 0 * rays["arrival"]], axis=-1
    )
    image = direction * (rays["delay"] * SPEED_OF_LIGHT)[..., None]
    offset = image[:, None] - velocity[:, None, None] * time[:, None, None]  # [S, T, P, 3]
    length = np.linalg.norm(offset, axis=-1)
    arrival = np.arctan2(offset[..., 1], offset[..., 0])
    turn = np.angle(np.exp(1j * (arrival - arrival[:, :1])))
    departure = rays["departure"][:, None] + rays["mirror"][:, None] * turn
    unit = offset / length[..., None]
    doppler = np.einsum("sd,stpd->stp", velocity, unit) * carrier_frequency / SPEED_OF_LIGHT
    tau = length / SPEED_OF_LIGHT
    # The base station stands at the origin.
    first = rays["departure"][:, 0]
    start = np.stack([np.cos(first), np.sin(first), 0 * first], axis=-1)
    start = start * (rays["delay"][:, :1] * SPEED_OF_LIGHT)
    phase = rays["phase"][:, None] - 2 * np.pi * carrier_frequency * (tau - tau[:, :1])
    gain = rays["amplitude"][:, None] * rays["delay"][:, None] / tau * np.exp(1j * phase)
    valid = rays["present"][:, None] & _alive(rng, config, time, (num_sequences, count))
    keys = np.arange(count, dtype=np.uint32) + np.uint32(1)
    keys = np.where(rays["line_of_sight"], np.uint32(0), keys[None])
    shape = (num_sequences, num_snapshots, count)
    level = np.full(shape, np.pi / 2)
    return PathSequences(
        a=(gain * valid)[..., None, None],
        tau=np.where(valid, tau, absent_value("tau")),
        theta_t=level,
        phi_t=np.angle(np.exp(1j * departure)),
        theta_r=level,
        phi_r=arrival,
        doppler=doppler,
        valid=valid,
        path_key=np.broadcast_to(keys[:, None], shape),
        position=start[:, None] + velocity[:, None] * time[:, None],
        velocity=np.repeat(velocity[:, None], num_snapshots, axis=1),
        speed=speed,
        trajectory_id=np.arange(num_sequences),
        bs_index=np.zeros(num_sequences, np.int64),
        bs_position=np.zeros((1, 3)),
        bs_orientation=np.zeros((1, 3)),
        sampling_period=float(sampling_period),
        carrier_frequency=float(carrier_frequency),
        scene="clusters",
    )


def _draw_rays(num_sequences, rng, config):
    """Rays at the first snapshot, arrays `[num_sequences, num_rays]`."""

    def uniform(pair):
        return rng.uniform(*pair, (num_sequences, 1, 1))

    clusters, rays = config.num_clusters[1], config.num_rays[1]
    shape = (num_sequences, clusters, rays)
    number = rng.integers(*config.num_clusters, (num_sequences, 1, 1), endpoint=True)
    per_cluster = rng.integers(*config.num_rays, (num_sequences, clusters, 1), endpoint=True)
    present = (np.arange(clusters)[:, None] < number) & (np.arange(rays) < per_cluster)
    shortest = uniform(config.distance) / SPEED_OF_LIGHT
    spread = uniform(config.delay_spread)
    excess = rng.exponential(size=(num_sequences, clusters, 1))
    excess[:, 0] = 0.0
    width = np.deg2rad(uniform(config.ray_spread))
    delay = shortest + spread * (excess + width * np.abs(rng.standard_normal(shape)))
    departure = rng.uniform(-np.pi, np.pi, (num_sequences, clusters, 1))
    departure = departure + width * rng.standard_normal(shape)
    arrival = rng.uniform(-np.pi, np.pi, (num_sequences, clusters, 1))
    # Users stand among scatterers: arrivals spread more than departures.
    arrival = arrival + 4 * width * rng.standard_normal(shape)
    power_db = -config.cluster_decay_db * excess
    power_db = power_db + config.shadowing_db * rng.standard_normal((num_sequences, clusters, 1))
    power = 10 ** (power_db / 10) * rng.exponential(size=shape) * present
    direct = rng.uniform(size=num_sequences) < config.line_of_sight
    others = power.sum(axis=(1, 2)) - power[:, 0, 0]
    ratio = 10 ** (rng.uniform(*config.k_factor_db, num_sequences) / 10)
    power[:, 0, 0] = np.where(direct, ratio * np.maximum(others, 1e-3), power[:, 0, 0])
    delay[:, 0, 0] = shortest[:, 0, 0]
    power = power / power.sum(axis=(1, 2), keepdims=True)
    line_of_sight = np.zeros(shape, bool)
    line_of_sight[:, 0, 0] = direct
    # In sight, what departs towards the user arrives from the opposite direction.
    arrival[:, 0, 0] = np.where(direct, departure[:, 0, 0] + np.pi, arrival[:, 0, 0])
    mirror = rng.choice([-1.0, 1.0], shape)
    mirror[:, 0, 0] = np.where(direct, 1.0, mirror[:, 0, 0])
    drawn = {
        "delay": delay,
        "departure": departure,
        "arrival": arrival,
        "amplitude": np.sqrt(power),
        "phase": rng.uniform(-np.pi, np.pi, shape),
        "mirror": mirror,
        "present": present,
        "line_of_sight": line_of_sight,
    }
    return {name: value.reshape(num_sequences, -1) for name, value in drawn.items()}


def _alive(rng, config, time, shape):
    """Presence of rays that are born and die once at most, bool `[S, T, P]`."""
    if config.birth_rate == 0 or len(time) < 2:
        return np.ones((shape[0], len(time), shape[1]), bool)
    wait = rng.exponential(1 / config.birth_rate, shape)
    birth = rng.uniform(size=shape) < 0.5
    # Births are the mirror image of deaths: half of the rays are there from the start on.
    instant = time[:, None]
    return np.where(birth[:, None], instant > time[-1] - wait[:, None], instant < wait[:, None])
