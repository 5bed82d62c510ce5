"""Reading scenarios of DeepMIMO v4: their paths in, this package's sequences out.

A scenario is a folder with `params.json` and one array per file, named
`NAME_t<transmitter set>_tx<transmitter>_r<receiver set>` and stored as `.npz`, `.npy` or `.mat`;
those that change over time have one folder per scene. The package `deepmimo` is not needed.

Reference: DeepMIMO v4 specification and conventions, https://deepmimo.net.
"""

import json
import pathlib

import numpy as np

from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences, pack_interactions

__all__ = ["read_deepmimo"]

_PER_PATH = ("power", "phase", "delay", "aoa_az", "aoa_el", "aod_az", "aod_el", "inter")
_AZIMUTHS = ("aod_az", "aoa_az")
# Digits of DeepMIMO's interaction codes, and the kinds of this package.
_KINDS = {0: 0, 1: 1, 2: 8, 3: 2, 4: 4}
_MOST_INTERACTIONS = 8


def read_deepmimo(
    folder,
    *,
    base_stations=None,
    tracks=None,
    sampling_period=None,
    gain_has_carrier_phase=None,
):
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
        transmitters = [
            (int(s["id"]), index) for s in sets if s["is_tx"] for index in range(s["num_points"])
        ]
        receivers = [int(s["id"]) for s in sets if s["is_rx"] and not s["is_tx"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"params.json is not that of a DeepMIMO v4 scenario: {error!r}. Received: "
            f"folder={folder}"
        ) from error
    chosen = transmitters if base_stations is None else [tuple(b) for b in base_stations]
    unknown = sorted(set(chosen) - set(transmitters))
    if unknown or not chosen or not receivers:
        raise ValueError(
            f"The scenario has transmitters {transmitters} and receiver sets {receivers}. "
            f"Received: folder={folder}, base_stations={base_stations}"
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
    stations = [
        _read_station(scenes, transmitter, receivers, tracks, carrier, gain_has_carrier_phase)
        for transmitter in chosen
    ]
    return _assemble(stations, chosen, folder.name, carrier, period, tracer)


def _read_params(folder):
    # Scenarios of several scenes may keep it in the first of them.
    files = [folder / "params.json", *sorted(folder.glob("*/params.json"))]
    found = [file for file in files if file.is_file()]
    if not found:
        raise FileNotFoundError(
            f"There is no DeepMIMO v4 scenario here: params.json is missing. "
            f"Received: folder={folder}"
        )
    try:
        return json.loads(found[0].read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"The file is no JSON: {error}. Received: path={found[0]}") from error


def _scene_folders(folder, num_scenes):
    if num_scenes == 1:
        return [folder]
    scenes = sorted(child for child in folder.iterdir() if child.is_dir())
    if len(scenes) < num_scenes:
        raise ValueError(
            f"The scenario has {num_scenes} scenes; {len(scenes)} folders were found. Received: "
            f"folder={folder}"
        )
    return scenes[:num_scenes]


def _read_station(scenes, transmitter, receivers, tracks, carrier, gain_has_carrier_phase):
    """Arrays `[num_sequences, num_snapshots, ...]` of one base station, and its position."""
    parts = [_read_scene(scene, transmitter, receivers) for scene in scenes]
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
        if tracks.ndim != 2 or tracks.min() < 0 or tracks.max() >= len(stacked["rx_pos"]):
            raise ValueError(
                "tracks must be [num_tracks, num_snapshots] indices of users, below "
                f"{len(stacked['rx_pos'])}. Received: tracks.shape={tracks.shape}"
            )
        stacked = {name: value[tracks, 0] for name, value in stacked.items()}
    return {**_convert(stacked, carrier, gain_has_carrier_phase), "bs_position": places[0]}


def _read_scene(folder, transmitter, receivers):
    """All receiver sets of one scene and transmitter, one after the other."""
    parts = []
    for receiver in receivers:
        code = f"t{transmitter[0]:03}_tx{transmitter[1]:03}_r{receiver:03}"
        part = {name: _read_array(folder, name, code) for name in (*_PER_PATH, "rx_pos", "tx_pos")}
        part["tx_pos"] = part["tx_pos"].reshape(-1)[:3]
        num_users = len(part["rx_pos"])
        for name in _PER_PATH:
            if part[name].shape != (num_users, part["power"].shape[1]):
                raise ValueError(
                    f"{name}_{code} does not fit the other files: expected "
                    f"{(num_users, part['power'].shape[1])}. Received: folder={folder}, "
                    f"shape={part[name].shape}"
                )
        parts.append(part)
    width = max(part["power"].shape[1] for part in parts)
    joined = {name: np.concatenate([_widen(p[name], width) for p in parts]) for name in _PER_PATH}
    joined["rx_pos"] = np.concatenate([part["rx_pos"] for part in parts])
    return joined | {"tx_pos": parts[0]["tx_pos"]}


def _read_array(folder, name, code):
    base = folder / f"{name}_{code}"
    for suffix in (".npz", ".npy", ".mat"):
        path = base.with_name(base.name + suffix)
        if not path.is_file():
            continue
        try:
            if suffix == ".mat":
                import scipy.io

                value = scipy.io.loadmat(path)[name]
            else:
                value = np.load(path, allow_pickle=False)
                value = value[name] if suffix == ".npz" else value
            value = np.asarray(value, dtype=np.float64)
        except ImportError:
            raise
        # Each reader has errors of its own for a damaged file.
        except Exception as error:
            raise ValueError(f"The file is damaged: {error}. Received: path={path}") from error
        if value.ndim != 2 and name != "tx_pos":
            raise ValueError(
                f"Expected an array of two axes. Received: path={path}, shape={value.shape}"
            )
        return value
    raise FileNotFoundError(
        f"A file of the scenario is missing: {base.name} (.npz, .npy or .mat). "
        f"Received: folder={folder}"
    )


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
        "tau": np.where(valid, clean["delay"], -1.0),
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
    digits = []
    for place in range(_MOST_INTERACTIONS - 1, -1, -1):
        digits.append(codes // 10**place % 10)
    digits = np.stack(digits)
    # Leading zeros are no interactions: what follows them moves to the front.
    order = np.argsort(digits == 0, axis=0, kind="stable")
    digits = np.take_along_axis(digits, order, axis=0)
    kinds = np.select([digits == digit for digit in _KINDS], list(_KINDS.values()), default=15)
    return pack_interactions(kinds)


def _assemble(stations, transmitters, name, carrier, period, tracer):
    width = max(station["tau"].shape[2] for station in stations)
    joined = {}
    for field in (n for n in stations[0] if n != "bs_position"):
        values = [station[field] for station in stations]
        if field != "position":
            fill = -1.0 if field == "tau" else 0
            values = [_pad_last(value, width, fill) for value in values]
        joined[field] = np.concatenate(values)
    num_users = len(stations[0]["tau"])
    position = joined["position"]
    if position.shape[1] > 1:
        order = 2 if position.shape[1] > 2 else 1
        velocity = np.gradient(position, period, axis=1, edge_order=order)
        step = np.linalg.norm(np.diff(position, axis=1), axis=-1)
        speed = step.mean(axis=1) / period
    else:
        velocity, speed = np.zeros_like(position), np.zeros(len(position))
    theta, phi = joined["theta_r"], joined["phi_r"]
    arrival = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
    shift = np.einsum("stpx,stx->stp", np.stack(arrival, axis=-1), velocity)
    reached = joined["valid"].any(axis=(1, 2))
    paths = PathSequences(
        **joined,
        doppler=shift * joined["valid"] * carrier / SPEED_OF_LIGHT,
        velocity=velocity,
        speed=speed,
        trajectory_id=np.tile(np.arange(num_users), len(stations)),
        bs_index=np.repeat(np.arange(len(stations)), num_users),
        bs_position=np.array([station["bs_position"] for station in stations]),
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


def _pad_last(value, width, fill):
    padding = [(0, 0)] * value.ndim
    padding[2] = (0, width - value.shape[2])
    return np.pad(value, padding, constant_values=fill)
