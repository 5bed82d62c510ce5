"""DeepMIMO v4 scenarios, written here after its published format, and what is read from them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import read_deepmimo, read_paths, validate, write_paths
from tests.mirrors import BASE_STATION, CARRIER, straight, trace

# How DeepMIMO writes one reflection, diffraction then reflection, and so on.
CODES = {0: 0.0, 11: 1.0, 12: 1.0, 13: 1.0, 14: 1.0}


def write_scene(folder, arrays, position, receiver=1, fmt="npz", transmitter=(0, 0), carrier=True):
    """One scene: `arrays` of users `[num_users, num_paths]` as the ray tracer's files have them."""
    folder.mkdir(parents=True, exist_ok=True)
    valid = arrays["valid"]
    gain = arrays["a"][..., 0, 0].astype(complex)
    if not carrier:
        gain = gain * np.exp(2j * np.pi * CARRIER * np.where(valid, arrays["tau"], 0))
    with np.errstate(divide="ignore"):
        raw = {
            "power": 20 * np.log10(np.abs(gain)),
            "phase": np.angle(gain, deg=True),
            "delay": arrays["tau"],
            # Azimuths count from 0 to 360 degrees.
            "aoa_az": np.rad2deg(arrays["phi_r"]) % 360,
            "aoa_el": np.rad2deg(arrays["theta_r"]),
            "aod_az": np.rad2deg(arrays["phi_t"]) % 360,
            "aod_el": np.rad2deg(arrays["theta_t"]),
            "inter": np.vectorize(CODES.get)(arrays["path_key"]),
        }
    raw = {name: np.where(valid, value, np.nan).astype(np.float32) for name, value in raw.items()}
    raw["phase"] = raw["phase"].astype(np.float64)
    raw |= {"rx_pos": np.float32(position), "tx_pos": np.float32(BASE_STATION[None])}
    code = f"t{transmitter[0]:03}_tx{transmitter[1]:03}_r{receiver:03}"
    for name, value in raw.items():
        path = folder / f"{name}_{code}.{fmt}"
        if fmt == "npz":
            np.savez_compressed(path, **{name: value})
        elif fmt == "npy":
            np.save(path, value)
        else:
            import scipy.io

            scipy.io.savemat(path, {name: value})


def write_params(folder, num_users, num_scenes=1, tracer="Remcom Wireless Insite"):
    users = {"id": 1, "is_tx": False, "is_rx": True, "num_points": num_users}
    station = {"id": 0, "is_tx": True, "is_rx": False, "num_points": 1}
    params = {
        "version": "4.0.0",
        "txrx_sets": {"txrx_set_0": station, "txrx_set_1": users},
        "rt_params": {"frequency": CARRIER, "raytracer_name": tracer, "max_path_depth": 3},
        "scene": {"num_scenes": num_scenes},
        "materials": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))


@pytest.fixture
def moving(rng):
    """Four users over five snapshots, and their exact paths."""
    position, velocity = straight(rng, 4, 5, 8.3, 5e-3)
    return position, velocity, trace(position, velocity)


def at(arrays, snapshot):
    return {name: value[:, snapshot] for name, value in arrays.items()}


def same_channel(paths, arrays):
    found = np.sum(paths.a[..., 0, 0] * paths.valid, axis=-1)
    exact = np.sum(arrays["a"][..., 0, 0], axis=-1)
    # Powers and phases were stored in single precision.
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize("fmt", ["npz", "npy", "mat"])
def test_static_scenario(moving, tmp_path, fmt):
    position, _, exact = moving
    write_params(tmp_path / "city_1", 4)
    write_scene(tmp_path / "city_1", at(exact, 0), position[:, 0], fmt=fmt)
    paths = read_deepmimo(tmp_path / "city_1")
    assert (paths.num_sequences, paths.num_snapshots, paths.scene) == (4, 1, "city_1")
    same_channel(paths, {name: value[:, :1] for name, value in exact.items()})
    np.testing.assert_allclose(paths.bs_position, BASE_STATION[None])
    np.testing.assert_allclose(paths.phi_t, np.float32(exact["phi_t"][:, :1]), atol=1e-5)
    assert paths.line_of_sight.all() and paths.num_interactions.max() == 1
    assert validate(paths) == []
    write_paths(tmp_path / "p.h5", paths)


def test_users_of_a_grid_make_tracks(moving, tmp_path):
    position, velocity, exact = moving
    flat = {name: value.reshape(20, *value.shape[2:]) for name, value in exact.items()}
    write_params(tmp_path, 20)
    write_scene(tmp_path, flat, position.reshape(20, 3))
    paths = read_deepmimo(tmp_path, tracks=np.arange(20).reshape(4, 5), sampling_period=5e-3)
    same_channel(paths, exact)
    np.testing.assert_allclose(paths.velocity, velocity, atol=0.02)
    np.testing.assert_allclose(paths.doppler, exact["doppler"], atol=0.3)
    assert validate(paths) == []
    with pytest.raises(ValueError, match="sampling_period"):
        read_deepmimo(tmp_path, tracks=np.arange(20).reshape(4, 5))
    with pytest.raises(ValueError, match="below 20"):
        read_deepmimo(tmp_path, tracks=[[19, 20]], sampling_period=5e-3)


def test_scenes_over_time_and_users_out_of_reach(moving, tmp_path):
    position, _, _ = moving
    velocity = moving[1]
    exact = trace(position, velocity, keep=lambda index, where: where[..., 0] > -1e9)
    exact["valid"][2] = False
    exact["valid"][0, 3, 1:] = False
    write_params(tmp_path, 4, num_scenes=5)
    for snapshot in range(5):
        write_scene(tmp_path / f"scene_{snapshot:04}", at(exact, snapshot), position[:, snapshot])
    paths = read_deepmimo(tmp_path, sampling_period=5e-3)
    assert paths.num_sequences == 3 and paths.num_snapshots == 5
    assert paths.trajectory_id.tolist() == [0, 1, 3]
    assert paths.metadata["num_drawn"] == 4 and paths.metadata["num_out_of_coverage"] == 1
    assert paths.valid[0].sum(-1).tolist() == [5, 5, 5, 1, 5]
    assert validate(paths) == []
    with pytest.raises(ValueError, match="followed through 5 scenes"):
        read_deepmimo(tmp_path, tracks=[[0]], sampling_period=5e-3)
    (tmp_path / "scene_0003").rename(tmp_path.parent / "elsewhere")
    with pytest.raises(ValueError, match="4 folders"):
        read_deepmimo(tmp_path, sampling_period=5e-3)


def test_scenarios_of_sionna_get_the_phase_of_their_delays(moving, tmp_path):
    position, _, exact = moving
    write_params(tmp_path, 4, tracer="Sionna Ray Tracing")
    write_scene(tmp_path, at(exact, 0), position[:, 0], carrier=False)
    # Delays in single precision leave phases of a milliradian.
    same_channel(read_deepmimo(tmp_path), {n: v[:, :1] for n, v in exact.items()})
    without = read_deepmimo(tmp_path, gain_has_carrier_phase=True)
    expected = exact["a"][:, 0, 0, 0, 0] * np.exp(2j * np.pi * CARRIER * exact["tau"][:, 0, 0])
    np.testing.assert_allclose(without.a[:, 0, 0, 0, 0], expected, rtol=1e-3)


def test_interaction_codes_are_read_from_the_transmitter_on(moving, tmp_path):
    position, _, exact = moving
    write_params(tmp_path, 4)
    write_scene(tmp_path, at(exact, 0), position[:, 0])
    codes = np.broadcast_to([0.0, 1.0, 21.0, 134.0, 11111.0], exact["tau"][:, 0].shape)
    np.savez(tmp_path / "inter_t000_tx000_r001.npz", inter=codes)
    packed = read_deepmimo(tmp_path).interactions[0, 0]
    digits = [[(int(p) >> (4 * k)) & 15 for k in range(5)] for p in packed]
    assert digits == [
        [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [8, 1, 0, 0, 0], [1, 2, 4, 0, 0], [1, 1, 1, 1, 1]
    ]  # fmt: skip


def test_scenes_follow_their_numbers_and_other_folders_are_passed_over(moving, tmp_path):
    position, velocity = straight(np.random.default_rng(1), 4, 12, 8.3, 5e-3)
    exact = trace(position, velocity)
    write_params(tmp_path, 4, num_scenes=12)
    for snapshot in range(12):
        write_scene(tmp_path / f"scene_{snapshot}", at(exact, snapshot), position[:, snapshot])
    for name in ("a_picture", "backup_3", ".cache0"):
        (tmp_path / name).mkdir()
    paths = read_deepmimo(tmp_path, sampling_period=5e-3)
    np.testing.assert_allclose(paths.position, np.float32(position))
    assert validate(paths) == []
    write_scene(tmp_path / "other_0", at(exact, 0), position[:, 0])
    with pytest.raises(ValueError, match=r"other_.*scene_"):
        read_deepmimo(tmp_path, sampling_period=5e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("delay", -1e-9), ("delay", 1.0), ("power", np.inf), ("aod_az", np.nan), ("rx_pos", np.nan)],
)
def test_values_that_cannot_be_are_refused_by_file_and_field(moving, tmp_path, name, value):
    position, _, exact = moving
    write_params(tmp_path, 4)
    write_scene(tmp_path, at(exact, 0), position[:, 0])
    file = tmp_path / f"{name}_t000_tx000_r001.npz"
    with np.load(file) as found:
        wrong = found[name].copy()
    wrong[2, 1] = value
    np.savez(file, **{name: wrong})
    with pytest.raises(ValueError, match=rf"{name}.*Received: .*{tmp_path.name}"):
        read_deepmimo(tmp_path)
    for wrong in (0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="sampling_period"):
            read_deepmimo(tmp_path, sampling_period=wrong)


def test_what_is_wrong_with_a_scenario_is_named(moving, tmp_path):
    position, _, exact = moving
    with pytest.raises(FileNotFoundError, match=r"params\.json"):
        read_deepmimo(tmp_path)
    write_params(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match="power_t000_tx000_r001"):
        read_deepmimo(tmp_path)
    write_scene(tmp_path, at(exact, 0), position[:, 0])
    with pytest.raises(ValueError, match="base_stations"):
        read_deepmimo(tmp_path, base_stations=[(0, 3)])
    whole = (tmp_path / "delay_t000_tx000_r001.npz").read_bytes()
    (tmp_path / "delay_t000_tx000_r001.npz").write_bytes(whole[:50])
    with pytest.raises(ValueError, match="delay_t000_tx000_r001"):
        read_deepmimo(tmp_path)
    np.savez(tmp_path / "delay_t000_tx000_r001.npz", delay=np.full((3, 5), 1e-7))
    with pytest.raises(ValueError, match=r"shape=\(3, 5\)"):
        read_deepmimo(tmp_path)
    for text in ("{}", "[" * 100_000, '{"txrx_sets": 3}', "\x00"):
        (tmp_path / "params.json").write_text(text)
        with pytest.raises(ValueError, match=r"params\.json|folder="):
            read_deepmimo(tmp_path)


def test_conversion_from_the_command_line(moving, tmp_path):
    position, _, exact = moving
    write_params(tmp_path / "city_1", 4)
    write_scene(tmp_path / "city_1", at(exact, 0), position[:, 0])
    command = [sys.executable, "-m", "lwmt_sionna.data", "convert", str(tmp_path / "city_1")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert read_paths(tmp_path / "city_1.h5").num_sequences == 4
    missing = subprocess.run([*command[:-1], str(tmp_path)], capture_output=True, text=True)
    # The folder above holds the scenario's folder only.
    assert missing.returncode == 2 and "power_t000_tx000_r001" in missing.stderr
