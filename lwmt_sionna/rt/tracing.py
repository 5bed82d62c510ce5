"""Propagation paths from a base station to many positions, coherent in phase."""

import dataclasses

import numpy as np

from lwmt_sionna.rt._sionna import SBCandidateGenerator, sionna_rt

# Sionna RT recognises duplicates of a path by a hash table whose default size of 1e6 entries loses
# paths when many receivers share a solve, different ones for neighbouring snapshots.
PATH_TABLE_SIZE = 100_000_000
_TABLE_ATTRIBUTE = "MIN_SPEC_COUNT_SIZE"


@dataclasses.dataclass(frozen=True)
class TracingConfig:
    """Settings of the path solver.

    Attributes:
        max_depth: Largest number of interactions of a path.
        samples_per_source: Rays shot by the base station. 1e5 misses weak paths (-24 to -32 dB of
            a channel's energy against 4e6) but the same ones all along a track.
        specular_reflection: Whether to trace specular reflections.
        diffraction: Whether to trace first-order diffraction, which matters out of sight.
        refraction: Whether paths may pass through surfaces.
        base_station_pattern: Element pattern of the base station, a name registered in Sionna RT.
        base_station_polarization: Polarisation of the base station: "V", "H", "VH" or "cross".
        user_pattern: Element pattern of the users.
        user_polarization: Polarisation of the users.
        power_floor_db: Paths weaker than this, relative to the strongest of their track, are
            dropped.
        seed: Seed of the ray directions.
    """

    max_depth: int = 4
    samples_per_source: int = 100_000
    specular_reflection: bool = True
    diffraction: bool = True
    refraction: bool = False
    base_station_pattern: str = "iso"
    base_station_polarization: str = "V"
    user_pattern: str = "iso"
    user_polarization: str = "V"
    power_floor_db: float = -50.0
    seed: int = 42

    def __post_init__(self):
        for name in ("max_depth", "samples_per_source"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0 or (name != "max_depth" and value == 0):
                raise ValueError(f"{name} must be a positive integer. Received: {name}={value}")
        if self.power_floor_db >= 0:
            raise ValueError(
                f"power_floor_db must be negative. Received: power_floor_db={self.power_floor_db}"
            )


def trace_positions(
    loaded, base_station_position, base_station_orientation, position, velocity, config=None
):
    """Traces all positions as receivers of one solve, with the base station as the source.

    Phases are coherent across the positions, so consecutive positions of a track form a channel
    sequence. Delays are never normalised. The number of positions is compiled into the kernels:
    calls with the same number share them.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        base_station_position: Metres, float `[3]`.
        base_station_orientation: Yaw, pitch and roll in radians, float `[3]`.
        position: Metres, float `[num_positions, 3]`.
        velocity: Metres per second, float `[num_positions, 3]`; sets the Doppler shifts.
        config: `TracingConfig`; the default settings if `None`.

    Returns:
        dict of arrays whose first axes are `[num_positions, num_paths]`: `a` complex64
        `[..., num_user_pol, num_base_station_pol]` (baseband gain, the carrier phase of the delay
        included), `tau` float32 (seconds), `theta_t`, `phi_t`, `theta_r`, `phi_r` float32
        (radians, global frame, departure at the base station), `doppler` float32 (hertz), `valid`
        bool, and `path_key` uint32, equal for paths with the same sequence of interactions and
        objects.

    Raises:
        RuntimeError: If this release of Sionna RT no longer has the path table whose size must be
            raised.
    """
    config = TracingConfig() if config is None else config
    _enlarge_path_table()
    scene = loaded.scene
    scene.tx_array = _single_element(config.base_station_pattern, config.base_station_polarization)
    scene.rx_array = _single_element(config.user_pattern, config.user_polarization)
    _place_devices(scene, base_station_position, base_station_orientation, position, velocity)
    paths = sionna_rt.PathSolver()(
        scene,
        max_depth=config.max_depth,
        samples_per_src=config.samples_per_source,
        max_num_paths_per_src=max(1_000_000, 64 * len(position)),
        synthetic_array=True,
        los=True,
        specular_reflection=config.specular_reflection,
        diffuse_reflection=False,
        refraction=config.refraction,
        diffraction=config.diffraction,
        seed=config.seed,
    )
    return _to_arrays(paths)


def path_table_size():
    """Smallest size of Sionna RT's path table, in entries."""
    if not hasattr(SBCandidateGenerator, _TABLE_ATTRIBUTE):
        raise RuntimeError(
            f"This release of Sionna RT has no SBCandidateGenerator.{_TABLE_ATTRIBUTE}; its path "
            "table cannot be enlarged and paths would be lost. Expected: sionna-rt 1.2.2"
        )
    return getattr(SBCandidateGenerator, _TABLE_ATTRIBUTE)


def _enlarge_path_table():
    if path_table_size() < PATH_TABLE_SIZE:
        setattr(SBCandidateGenerator, _TABLE_ATTRIBUTE, PATH_TABLE_SIZE)


def _single_element(pattern, polarization):
    return sionna_rt.PlanarArray(
        num_rows=1,
        num_cols=1,
        vertical_spacing=0.5,
        horizontal_spacing=0.5,
        pattern=pattern,
        polarization=polarization,
    )


def _place_devices(scene, base_position, base_orientation, position, velocity):
    """Reuses the scene's devices where their number is unchanged."""
    if len(scene.receivers) != len(position):
        for name in list(scene.receivers):
            scene.remove(name)
        for index in range(len(position)):
            scene.add(sionna_rt.Receiver(f"user-{index}", position=[0.0, 0.0, 0.0]))
    if not scene.transmitters:
        scene.add(sionna_rt.Transmitter("base-station", position=[0.0, 0.0, 0.0]))
    station = next(iter(scene.transmitters.values()))
    station.position = [float(c) for c in base_position]
    station.orientation = [float(c) for c in base_orientation]
    for receiver, place, pace in zip(scene.receivers.values(), position, velocity, strict=True):
        receiver.position = [float(c) for c in place]
        receiver.velocity = [float(c) for c in pace]


def _to_arrays(paths):
    # Delays stay absolute: normalising them per snapshot removes the phase of motion.
    a, tau = paths.cir(normalize_delays=False, out_type="numpy")
    arrays = {
        # [num_rx, rx_pol, 1, tx_pol, num_paths, 1] -> [num_rx, num_paths, rx_pol, tx_pol]
        "a": np.moveaxis(a[:, :, 0, :, :, 0], 3, 1).astype(np.complex64),
        "tau": tau[:, 0],
        "valid": np.array(paths.valid)[:, 0],
    }
    for name in ("theta_t", "phi_t", "theta_r", "phi_r", "doppler"):
        arrays[name] = np.array(getattr(paths, name))[:, 0]
    # [max_depth, num_rx, num_tx, num_paths]
    interactions = np.array(paths.interactions)[:, :, 0].astype(np.uint64)
    objects = np.array(paths.objects)[:, :, 0].astype(np.uint64)
    key = np.zeros(arrays["tau"].shape, dtype=np.uint64)
    for kind, shape in zip(interactions, objects, strict=True):
        # An interaction of kind 0 (none) leaves the object undefined.
        step = np.where(kind == 0, np.uint64(0), kind * np.uint64(1_000_003) + shape + np.uint64(1))
        key = (key * np.uint64(2_654_435_761) + step) & np.uint64(0xFFFFFFFF)
    arrays["path_key"] = key.astype(np.uint32)
    return arrays
