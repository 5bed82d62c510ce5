"""Propagation paths from a base station to many positions, coherent in phase."""

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from lwmt_sionna.data.paths import pack_interactions
from lwmt_sionna.rt.tracing.candidates import (
    CandidateOverflow,
    CheckedCandidates,
    FaceGroups,
    PooledCandidates,
    ScatteredCandidates,
)
from lwmt_sionna.rt.tracing.engine import SBCandidateGenerator, path_solver, sionna_rt
from lwmt_sionna.rt.tracing.loading import LoadedScene
from lwmt_sionna.runs.configuration import Config, NonNegative, PositiveInt
from lwmt_sionna.typing import Array, ArrayLike

# Sionna RT recognises duplicates of a path by a hash table whose default size of 1e6 entries loses
# paths when many receivers share a solve, different ones for neighbouring snapshots. Each entry
# takes 8 bytes.
PATH_TABLE_SIZE = 100_000_000
# What is enough for so many receivers; few sizes, because each one is a kernel of its own.
_SMALLER_TABLES = ((5, 10_000_000), (15, 30_000_000))
CANDIDATES_PER_RECEIVER = 4_096
LEAST_ROOM = 200_000
# The number of receivers that rays are shot for is compiled into the kernels.
_SHOOTERS_STEP = 6
_face_groups: weakref.WeakKeyDictionary[Any, FaceGroups] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class TracingConfig(Config):
    """Settings of the path solver, and of what is traced along a track.

    Attributes:
        max_depth: Largest number of interactions of a path.
        samples_per_source: Rays shot by the base station. Few rays miss weak paths, the same ones
            all along a track.
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
        candidate_spacing: Metres of a track for which rays are shot once; all of its positions test
            the paths found there and next to there, by the image method. Zero shoots rays for every
            position, as Sionna RT does by itself. Tracks among moving objects always do.
        retrace_wavelengths: Largest distance in wavelengths between traced snapshots of a track;
            in between paths evolve by their Doppler shifts. Zero traces every snapshot.
    """

    # Labels of paths have room for eight interactions.
    max_depth: Annotated[int, msgspec.Meta(ge=0, le=8)] = 4
    samples_per_source: PositiveInt = 400_000
    specular_reflection: bool = True
    diffraction: bool = True
    refraction: bool = False
    base_station_pattern: str = "iso"
    base_station_polarization: str = "V"
    user_pattern: str = "iso"
    user_polarization: str = "V"
    power_floor_db: Annotated[float, msgspec.Meta(lt=0)] = -50.0
    seed: int = 42
    candidate_spacing: NonNegative = 0.5
    retrace_wavelengths: NonNegative = 0.0


def trace_positions(
    loaded: LoadedScene,
    base_station_position: ArrayLike,
    base_station_orientation: ArrayLike,
    position: ArrayLike,
    velocity: ArrayLike,
    config: TracingConfig | None = None,
    *,
    shooters: Array | None = None,
    listens: Array | None = None,
) -> dict[str, Array]:
    """Traces all positions as receivers of one solve, with the base station as the source.

    Phases are coherent across the positions, so consecutive positions of a track form a channel
    sequence. Delays are never normalised. The number of positions that rays are shot for is
    compiled into the kernels: calls with the same number share them.

    Args:
        base_station_position: Metres, float `[3]`.
        base_station_orientation: Yaw, pitch and roll in radians, float `[3]`.
        position: Metres, float `[num_positions, 3]`.
        velocity: Metres per second, float `[num_positions, 3]`; sets the Doppler shifts.
        shooters: Indices of the positions that rays are shot for, integer `[num_shooters]`; all of
            them if `None`. The others test the candidate paths found there, see
            `lwmt_sionna.rt.tracing.candidates`.
        listens: bool `[num_positions, num_shooters]`: whose candidates each position tests; needed
            with `shooters`.

    Returns:
        dict of arrays whose first axes are `[num_positions, num_paths]`: `a` complex64
        `[..., num_user_pol, num_base_station_pol]` (baseband gain, the carrier phase of the delay
        included), `tau` float32 (seconds), `theta_t`, `phi_t`, `theta_r`, `phi_r` float32
        (radians, global frame, departure at the base station), `doppler` float32 (hertz), `valid`
        bool, `interactions` uint32 (see `PathSequences`) and `path_key` uint32, equal for paths
        with the same sequence of interactions and objects, and zero for the line of sight.
    """
    config = TracingConfig() if config is None else config
    scene = loaded.scene
    _set_up(loaded, base_station_position, base_station_orientation, position, velocity, config)
    num_shooters = len(position)
    choose: Callable[[Any], Any] = CheckedCandidates
    if shooters is not None and config.max_depth > 0:
        shooters, listens = _pad_shooters(shooters, listens)
        num_shooters = len(shooters)
        groups = face_groups(scene)
        choose = functools.partial(
            PooledCandidates, groups=groups, shooters=shooters, listens=listens
        )
    return _solve(
        scene,
        choose,
        num_shooters,
        max_depth=config.max_depth,
        samples_per_src=config.samples_per_source,
        los=True,
        specular_reflection=config.specular_reflection,
        diffuse_reflection=False,
        refraction=config.refraction,
        diffraction=config.diffraction,
        seed=config.seed,
    )


def trace_scattered(
    loaded: LoadedScene,
    base_station_position: ArrayLike,
    base_station_orientation: ArrayLike,
    position: ArrayLike,
    velocity: ArrayLike,
    config: TracingConfig | None = None,
    *,
    samples_per_source: int = 200_000,
    max_depth: int = 2,
) -> dict[str, Array]:
    """Traces the paths whose last interaction is a diffuse reflection, thousands per position.

    The base station's rays and their seed say where waves are scattered, not the positions:
    receivers of one solve and of others see the same scattering points, and their phases follow
    from the distances to them. A diffuse field is therefore coherent along a track, and between
    users. Paths that are mirrored after they were scattered are left out, see
    `lwmt_sionna.rt.tracing.candidates.ScatteredCandidates`; so are those that are also diffracted,
    which Sionna RT does not have.

    Args:
        loaded: `LoadedScene`, loaded with the scattering of its materials.
        base_station_position: As the next three, see `trace_positions`.
        config: Antennas, seed, and which interactions come before the last one.
        samples_per_source: Rays shot by the base station. Each of them is scattered at most once at
            every depth.
        max_depth: Largest number of interactions, the last one included.

    Returns:
        dict of arrays as `trace_positions` returns them.
    """
    config = TracingConfig() if config is None else config
    _set_up(loaded, base_station_position, base_station_orientation, position, velocity, config)
    return _solve(
        loaded.scene,
        ScatteredCandidates,
        len(position),
        max_depth=max_depth,
        samples_per_src=samples_per_source,
        los=False,
        specular_reflection=config.specular_reflection,
        diffuse_reflection=True,
        refraction=config.refraction,
        diffraction=False,
        seed=config.seed,
    )


def _set_up(loaded, base_station_position, base_station_orientation, position, velocity, config):
    scene = loaded.scene
    scene.tx_array = single_element(config.base_station_pattern, config.base_station_polarization)
    scene.rx_array = single_element(config.user_pattern, config.user_polarization)
    station = loaded.local(base_station_position), base_station_orientation
    velocity = np.asarray(velocity, dtype=np.float64)
    _place_devices(scene, *station, loaded.local(position), velocity)


def _solve(scene, choose, num_shooters, **settings):
    """Arrays of the paths of the chosen candidates, with room for all of them."""
    sizes = [size for limit, size in _SMALLER_TABLES if num_shooters <= limit]
    SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = min([PATH_TABLE_SIZE, *sizes])
    room = max(LEAST_ROOM, CANDIDATES_PER_RECEIVER * num_shooters)
    while True:
        solver = path_solver()
        solver._candidate_generator = choose(solver._candidate_generator)
        try:
            paths = solver(scene, max_num_paths_per_src=room, synthetic_array=True, **settings)
            return _to_arrays(paths, scene)
        except CandidateOverflow:
            room *= 4


def _pad_shooters(shooters, listens):
    """Shooters whose number is one of few, the added ones heard by nobody."""
    surplus = -len(shooters) % _SHOOTERS_STEP
    shooters = np.concatenate([shooters, np.repeat(shooters[-1:], surplus)])
    return shooters, np.pad(listens, ((0, 0), (0, surplus)))


def face_groups(scene: Any) -> FaceGroups:
    """The `FaceGroups` of a `sionna.rt.Scene`, worked out once."""
    if scene not in _face_groups:
        _face_groups[scene] = FaceGroups(scene)
    return _face_groups[scene]


def single_element(pattern: str, polarization: str) -> Any:
    """The `sionna.rt.PlanarArray` of a single antenna, of an element pattern of Sionna RT."""
    return sionna_rt.PlanarArray(num_rows=1, num_cols=1, pattern=pattern, polarization=polarization)


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


def _to_arrays(paths, scene):
    real, imaginary = (part.numpy() for part in paths.a)
    tau = np.array(paths.tau)[:, 0]
    valid = np.array(paths.valid)[:, 0]
    # [num_rx, rx_pol, 1, tx_pol, num_paths] -> [num_rx, num_paths, rx_pol, tx_pol]
    gain = np.moveaxis(real[:, :, 0] + 1j * imaginary[:, :, 0], 3, 1)
    # Delays stay absolute: normalising them per snapshot removes the phase of motion. In float32
    # this phase, thousands of radians, would be rounded once more.
    turns = np.where(valid, tau, 0.0) * np.array(scene.frequency, dtype=np.float64).item()
    phase = np.exp(-2j * np.pi * (turns % 1.0))
    arrays = {
        "a": (gain * phase[..., None, None]).astype(np.complex64),
        "tau": tau,
        "valid": valid,
    }
    for name in ("theta_t", "phi_t", "theta_r", "phi_r", "doppler"):
        arrays[name] = np.array(getattr(paths, name))[:, 0]
    # [max_depth, num_rx, num_tx, num_paths]
    kinds = np.array(paths.interactions)[:, :, 0].astype(np.uint64)
    objects = face_groups(scene).rank(np.array(paths.objects)[:, :, 0]).astype(np.uint64)
    key = np.zeros(tau.shape, dtype=np.uint64)
    for kind, shape in zip(kinds, objects, strict=True):
        # An interaction of kind 0 (none) leaves the object undefined.
        step = np.where(kind == 0, np.uint64(0), kind * np.uint64(1_000_003) + shape + np.uint64(1))
        key = (key * np.uint64(2_654_435_761) + step) & np.uint64(0xFFFFFFFF)
    arrays["path_key"] = key.astype(np.uint32)
    arrays["interactions"] = pack_interactions(kinds)
    return _in_order(arrays)


def _in_order(arrays):
    """The paths of every position by their delays; threads decide in which order they are found."""
    ties = [arrays[name] for name in ("phi_r", "theta_r", "phi_t", "theta_t", "path_key")]
    gain = arrays["a"][..., 0, 0]
    order = np.lexsort((gain.imag, gain.real, *ties, arrays["tau"], ~arrays["valid"]), axis=-1)
    return {name: array[np.arange(len(order))[:, None], order] for name, array in arrays.items()}
