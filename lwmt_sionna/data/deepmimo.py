"""Reading scenarios of DeepMIMO v4: their paths in, this package's sequences out.

A scenario is a folder with `params.json` and one array per file, named
`NAME_t<transmitter set>_tx<transmitter>_r<receiver set>` and stored as `.npz`, `.npy` or `.mat`;
those that change over time have one folder per scene. The package `deepmimo` is not needed.

Reference: DeepMIMO v4 specification and conventions, https://deepmimo.net.
"""

import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from lwmt_sionna.data.array_files import ArrayReader
from lwmt_sionna.data.arrays import unit_vectors
from lwmt_sionna.data.paths import (
    SPEED_OF_LIGHT,
    PathSequences,
    absent_value,
    pack_interactions,
    widen_paths,
)
from lwmt_sionna.typing import ArrayLike, PathLike

_PER_PATH = ("power", "phase", "delay", "aoa_az", "aoa_el", "aod_az", "aod_el", "inter")
_AZIMUTHS = ("aod_az", "aoa_az")
# Digits of DeepMIMO's interaction codes, and the kinds of this package.
_KINDS = {0: 0, 1: 1, 2: 8, 3: 2, 4: 4}
_MOST_INTERACTIONS = 8
_MOST_TRANSMITTERS = 10_000
_MAX_PARAMS_BYTES = 50_000_000
_LONGEST_DELAY = 1e-3


def read_deepmimo(
    folder: PathLike,
    *,
    base_stations: Sequence[tuple[int, int]] | None = None,
    tracks: ArrayLike | None = None,
    sampling_period: float | None = None,
    gain_has_carrier_phase: bool | None = None,
) -> PathSequences:
    """Reads the paths of a DeepMIMO v4 scenario.

    Static scenarios become sequences of one snapshot, one per user and base station; with `tracks`
    they become sequences of users that stand where a moving one would pass. In scenarios of several
    scenes every user is followed through the scenes. Users that no path reaches are left out and
    counted. Velocities follow from the positions, and Doppler shifts from velocities and directions
    of arrival, the world at rest. `path_key` tells kinds of interaction only: DeepMIMO stores no
    objects.

    Args:
        folder: Path of the scenario's folder.
        base_stations: Which transmitters to read: sequence of `(transmitter set, transmitter)`; all
            of them if `None`.
        tracks: Integer `[num_tracks, num_snapshots]`, users of a static scenario in the order of
            the files (receiver sets one after the other) that make up each sequence; `None` takes
            every user by itself.
        sampling_period: Time between snapshots in seconds; needed with `tracks` and for scenarios
            of several scenes.
        gain_has_carrier_phase: Whether the stored phase includes that of the path's delay. If
            `None`, it is taken to do so unless the scenario was traced with Sionna RT, whose
            `Paths.a`, which DeepMIMO stores, does not.

    Returns:
        `PathSequences`: gains for isotropic antennas of one polarisation, powers taken as gains
        over a transmitter of 0 dBW.

    Raises:
        FileNotFoundError: If there is no scenario, or one of its files is missing.
        ValueError: If a file is damaged or does not fit the others, or arguments contradict the
            scenario.
    """
    folder = pathlib.Path(folder)
    params = _read_params(folder)
    try:
        sets = list(params["txrx_sets"].values())
        carrier = float(np.ravel(params["rt_params"]["frequency"])[0])
        tracer = str(params["rt_params"].get("raytracer_name", ""))
        num_scenes = int(params.get("scene", {}).get("num_scenes", 1))
        places = {(int(s["id"]), bool(s["is_tx"])): int(s["num_points"]) for s in sets}
        transmitters = [
            (number, index)
            for (number, is_tx), count in places.items()
            for index in range(min(count, _MOST_TRANSMITTERS) if is_tx else 0)
        ]
        receivers = [int(s["id"]) for s in sets if s["is_rx"] and not s["is_tx"]]
        if len({number for number, _ in places}) < len(sets):
            raise ValueError("an id of txrx_sets stands twice")
        if not 0 < carrier < np.inf:
            raise ValueError(f"frequency={carrier}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"params.json is not that of a DeepMIMO v4 scenario: {error!r}. Received: "
            f"folder={folder}"
        ) from error
    chosen = transmitters if base_stations is None else [tuple(b) for b in base_stations]
    unknown = sorted(set(chosen) - set(transmitters))
    if unknown or not chosen or not receivers or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"The scenario has transmitters {transmitters} and receiver sets {receivers}, each to "
            f"be read once. Received: folder={folder}, base_stations={base_stations}"
        )
    if gain_has_carrier_phase is None:
        gain_has_carrier_phase = "sionna" not in tracer.lower()
    scenes = _scene_folders(folder, num_scenes)
    if tracks is not None and num_scenes > 1:
        raise ValueError(
            "tracks are for static scenarios; users of this one are followed through "
            f"{num_scenes} scenes. Received: folder={folder}"
        )
    if sampling_period is None and (tracks is not None or num_scenes > 1):
        raise ValueError(f"Sequences need a sampling_period. Received: folder={folder}")
    period = 1.0 if sampling_period is None else float(sampling_period)
    if not 0 < period < np.inf:
        raise ValueError(
            f"sampling_period must be positive. Received: sampling_period={sampling_period}"
        )
    with ArrayReader() as reader:
        stations = []
        for transmitter in chosen:
            raw, place = _read_station(reader, scenes, transmitter, receivers, tracks)
            station = _convert(raw, carrier, gain_has_carrier_phase)
            stations.append({**station, "bs_position": place})
    return _assemble(stations, chosen, folder.name, carrier, period, tracer)


def _read_params(folder):
    # Scenarios of several scenes may keep it in the first of them.
    found = [folder / "params.json"] if (folder / "params.json").is_file() else []
    if not found and folder.is_dir():
        found = [child / "params.json" for child in _numbered(folder)]
        found = [path for path in found if path.is_file()]
    if not found:
        raise FileNotFoundError(
            f"There is no DeepMIMO v4 scenario here: params.json is missing. "
            f"Received: folder={folder}"
        )
    if found[0].stat().st_size > _MAX_PARAMS_BYTES:
        raise ValueError(f"The file is too large for a list of settings. Received: path={found[0]}")
    try:
        return json.loads(found[0].read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The file is no JSON: {error}. Received: path={found[0]}") from error


def _numbered(folder):
    """Folders whose names end in a number, in the order of the numbers."""
    found = {}
    for child in folder.iterdir():
        match = re.fullmatch(r"(.*?)(\d+)", child.name)
        if match is not None and child.is_dir():
            found[match[1], int(match[2])] = child
    return [found[key] for key in sorted(found)]


def _scene_folders(folder, num_scenes):
    if num_scenes == 1:
        return [folder]
    # Others, such as pictures or a copy without arrays, do not belong to the scenario.
    scenes = [child for child in _numbered(folder) if any(child.glob("power_t*_tx*_r*"))]
    kinds = {re.sub(r"\d+$", "", child.name) for child in scenes}
    if len(scenes) < num_scenes or len(kinds) > 1:
        raise ValueError(
            f"The scenario has {num_scenes} scenes, in folders of one name and a number; "
            f"{len(scenes)} folders of the names {sorted(kinds)} were found. Received: "
            f"folder={folder}"
        )
    return scenes[:num_scenes]


def _read_station(reader, scenes, transmitter, receivers, tracks):
    """Arrays `[num_sequences, num_snapshots, ...]` of one base station, and its position."""
    parts = [_read_scene(reader, scene, transmitter, receivers) for scene in scenes]
    places = np.array([part["tx_pos"] for part in parts])
    if np.ptp(places, axis=0).max() > 1e-3:
        raise ValueError(
            "A base station that moves cannot be stored. Received: "
            f"folder={scenes[0].parent}, transmitter={transmitter}"
        )
    users = {len(part["rx_pos"]) for part in parts}
    if len(users) > 1:
        raise ValueError(
            f"The scenes differ in their number of users. Received: folder={scenes[0].parent}, "
            f"numbers={sorted(users)}"
        )
    width = max(part["power"].shape[1] for part in parts)
    stacked = {
        name: np.stack([_widen(part[name], width) for part in parts], 1) for name in _PER_PATH
    }
    stacked["rx_pos"] = np.stack([part["rx_pos"] for part in parts], axis=1)
    if tracks is not None:
        tracks = np.asarray(tracks)
        most = len(stacked["rx_pos"])
        if (
            tracks.ndim != 2
            or tracks.dtype.kind not in "iu"
            or not all(0 <= index < most for index in (tracks.min(), tracks.max()))
        ):
            raise ValueError(
                "tracks must be [num_tracks, num_snapshots] indices of users, below "
                f"{most}. Received: tracks.shape={tracks.shape}"
            )
        stacked = {name: value[tracks, 0] for name, value in stacked.items()}
    return stacked, places[0]


def _read_scene(reader, folder, transmitter, receivers):
    """All receiver sets of one scene and transmitter, one after the other."""
    parts = []
    for receiver in receivers:
        code = f"t{transmitter[0]:03}_tx{transmitter[1]:03}_r{receiver:03}"
        part = {
            name: _read_array(reader, folder, name, code)
            for name in (*_PER_PATH, "rx_pos", "tx_pos")
        }
        part["tx_pos"] = part["tx_pos"].reshape(-1)[:3]
        num_users = len(part["rx_pos"])
        for name in _PER_PATH:
            if part[name].shape != (num_users, part["power"].shape[1]):
                raise ValueError(
                    f"{name}_{code} does not fit the other files: expected "
                    f"{(num_users, part['power'].shape[1])}. Received: folder={folder}, "
                    f"shape={part[name].shape}"
                )
        there = np.isfinite(part["power"]) & np.isfinite(part["delay"])
        for name in _PER_PATH:
            if not np.isfinite(part[name][there]).all():
                raise ValueError(
                    f"{name}_{code} lacks values of paths that have power and delay. Received: "
                    f"folder={folder}"
                )
        parts.append(part)
    width = max(part["power"].shape[1] for part in parts)
    joined = {name: np.concatenate([_widen(p[name], width) for p in parts]) for name in _PER_PATH}
    joined["rx_pos"] = np.concatenate([part["rx_pos"] for part in parts])
    return joined | {"tx_pos": parts[0]["tx_pos"]}


def _read_array(reader, folder, name, code):
    base = folder / f"{name}_{code}"
    candidates = [base.with_name(base.name + suffix) for suffix in (".npz", ".npy", ".mat")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"A file of the scenario is missing: {base.name} (.npz, .npy or .mat). "
            f"Received: folder={folder}"
        )
    value = reader.read(path, name)
    if value.dtype.kind not in "iuf" or (value.ndim != 2 and name != "tx_pos"):
        raise ValueError(
            "Expected an array of two axes of real numbers. Received: "
            f"path={path}, shape={value.shape}, dtype={value.dtype}"
        )
    value = value.astype(np.float64)
    place = name in ("rx_pos", "tx_pos")
    if place and (value.shape[-1] != 3 or not np.isfinite(value).all()):
        raise ValueError(f"{name} must be places of finite coordinates. Received: path={path}")
    # Paths that are not there are NaN.
    impossible = value == np.inf
    if name == "delay":
        impossible |= (value < 0) | (value > _LONGEST_DELAY)
    if impossible.any():
        raise ValueError(
            f"{name} must be possible where it is not NaN. Received: path={path}, "
            f"{name}={value[impossible][0]}"
        )
    return value


def _widen(value, width):
    return np.pad(value, ((0, 0), (0, width - value.shape[1])), constant_values=np.nan)


def _convert(raw, carrier, gain_has_carrier_phase):
    """From decibels, degrees and codes to gains, radians and labels."""
    valid = np.isfinite(raw["power"]) & np.isfinite(raw["delay"]) & (raw["delay"] > 0)
    clean = {name: np.where(valid, raw[name], 0.0) for name in _PER_PATH}
    turns = clean["phase"] / 360.0
    if not gain_has_carrier_phase:
        turns = turns - carrier * clean["delay"]
    gain = 10.0 ** (clean["power"] / 20.0) * np.exp(2j * np.pi * (turns % 1.0)) * valid
    wrapped = {name: (np.deg2rad(clean[name]) + np.pi) % (2 * np.pi) - np.pi for name in _AZIMUTHS}
    interactions = _unpack(clean["inter"])
    return {
        "a": gain[..., None, None],
        "tau": np.where(valid, clean["delay"], absent_value("tau")),
        "theta_t": np.deg2rad(clean["aod_el"]),
        "phi_t": np.where(valid, wrapped["aod_az"], 0.0),
        "theta_r": np.deg2rad(clean["aoa_el"]),
        "phi_r": np.where(valid, wrapped["aoa_az"], 0.0),
        "valid": valid,
        "interactions": interactions,
        # Kinds are never zero, so that zero means line of sight here too.
        "path_key": interactions,
        "position": raw["rx_pos"],
    }


def _unpack(codes):
    """Interactions of decimal codes whose first digit is the first interaction."""
    codes = np.abs(codes).round().astype(np.int64)
    digits = np.stack([codes // 10**p % 10 for p in reversed(range(_MOST_INTERACTIONS))])
    # Leading zeros are no interactions: what follows them moves to the front.
    order = np.argsort(digits == 0, axis=0, kind="stable")
    digits = np.take_along_axis(digits, order, axis=0)
    kinds = np.select([digits == digit for digit in _KINDS], list(_KINDS.values()), default=15)
    return pack_interactions(kinds)


def _assemble(stations, transmitters, name, carrier, period, tracer):
    width = max(station["tau"].shape[2] for station in stations)
    places = np.array([station.pop("bs_position") for station in stations])
    position = np.concatenate([station.pop("position") for station in stations])
    stations = [widen_paths(station, width) for station in stations]
    joined = {name: np.concatenate([s[name] for s in stations]) for name in stations[0]}
    num_users = len(stations[0]["tau"])
    if position.shape[1] > 1:
        order = 2 if position.shape[1] > 2 else 1
        velocity = np.gradient(position, period, axis=1, edge_order=order)
        step = np.linalg.norm(np.diff(position, axis=1), axis=-1)
        speed = step.mean(axis=1) / period
    else:
        velocity, speed = np.zeros_like(position), np.zeros(len(position))
    arrival = unit_vectors(joined["theta_r"], joined["phi_r"])
    shift = np.einsum("stpx,stx->stp", arrival, velocity)
    reached = joined["valid"].any(axis=(1, 2))
    paths = PathSequences(
        **joined,
        position=position,
        doppler=shift * joined["valid"] * carrier / SPEED_OF_LIGHT,
        velocity=velocity,
        speed=speed,
        trajectory_id=np.tile(np.arange(num_users), len(stations)),
        bs_index=np.repeat(np.arange(len(stations)), num_users),
        bs_position=places,
        bs_orientation=np.zeros((len(stations), 3)),
        sampling_period=period,
        carrier_frequency=carrier,
        scene=name,
        metadata={
            "source": "DeepMIMO v4",
            "raytracer": tracer,
            "transmitters": [list(transmitter) for transmitter in transmitters],
            "num_drawn": len(reached),
            "num_out_of_coverage": int((~reached).sum()),
        },
    )
    return paths.select(reached)
