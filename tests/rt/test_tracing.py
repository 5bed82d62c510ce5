"""Physics of traced sequences. Ray tracing runs here, on small scenes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lwmt_sionna.data import (
    PlanarArray,
    event_mask,
    read_paths,
    subcarrier_frequencies,
    synthesize,
)

pytestmark = pytest.mark.rt

CARRIER = 3.5e9
WAVELENGTH = 299_792_458.0 / CARRIER
BASE_STATION = (-20.0, 3.0, 15.0)
FREQUENCIES = subcarrier_frequencies(32, 540e3)


@pytest.fixture(scope="module")
def street():
    from lwmt_sionna.rt import load_scene

    return load_scene("simple_street_canyon", CARRIER)


def as_sequences(traced, position, velocity, sampling_period, num_sequences=1):
    """Wraps what `trace_positions` returns as `PathSequences`."""
    from lwmt_sionna.data import PathSequences

    num_snapshots = len(position) // num_sequences
    shaped = {k: v.reshape(num_sequences, num_snapshots, *v.shape[1:]) for k, v in traced.items()}
    velocity = velocity.reshape(num_sequences, num_snapshots, 3)
    return PathSequences(
        **shaped,
        position=position.reshape(num_sequences, num_snapshots, 3),
        velocity=velocity,
        speed=np.linalg.norm(velocity[:, 0], axis=-1),
        trajectory_id=np.arange(num_sequences),
        bs_index=np.zeros(num_sequences, int),
        bs_position=BASE_STATION,
        bs_orientation=(0.0, 0.0, 0.0),
        sampling_period=sampling_period,
        carrier_frequency=CARRIER,
        scene="simple_street_canyon",
    )


def straight_track(step, num_snapshots, direction=(1.0, 0.0, 0.0), start=(5.0, 1.0, 1.5)):
    direction = np.asarray(direction)
    return np.asarray(start) + step * np.arange(num_snapshots)[:, None] * direction


def test_phase_of_the_line_of_sight_follows_geometry(street):
    from lwmt_sionna.rt import TracingConfig, trace_positions

    position = straight_track(WAVELENGTH / 8, 12)
    velocity = np.zeros_like(position)
    config = TracingConfig(max_depth=0, diffraction=False)
    traced = trace_positions(street, BASE_STATION, (0, 0, 0), position, velocity, config)
    assert traced["valid"].shape == (12, 1)
    phase = np.angle(traced["a"][:, 0, 0, 0])
    distance = np.linalg.norm(position - BASE_STATION, axis=-1)
    expected = -2 * np.pi * distance / WAVELENGTH
    turn = np.angle(np.exp(1j * (np.diff(phase) - np.diff(expected))))
    # An eighth of a wavelength turns the phase by up to 45 degrees: were delays normalised per
    # snapshot, the turn would be 0 and this would miss by tens of degrees.
    assert np.abs(np.diff(expected)).min() > np.deg2rad(10)
    assert np.rad2deg(np.abs(turn).max()) < 1.0
    np.testing.assert_allclose(traced["tau"][:, 0], distance / 299_792_458.0, rtol=1e-5)


def test_many_receivers_in_one_solve_give_the_channels_of_small_solves(street):
    from lwmt_sionna.rt import TracingConfig, trace_positions

    position = straight_track(0.1, 192)
    velocity = np.zeros_like(position)
    array = PlanarArray()
    config = TracingConfig(samples_per_source=50_000)

    def channels(blocks):
        parts = []
        for rows in np.array_split(np.arange(len(position)), blocks):
            traced = trace_positions(
                street, BASE_STATION, (0, 0, 0), position[rows], velocity[rows], config
            )
            paths = as_sequences(traced, position[rows], velocity[rows], 1e-3)
            parts.append(synthesize(paths, array, FREQUENCIES)[0])
        return np.concatenate(parts)

    small, large = channels(16), channels(1)
    error = np.sum(np.abs(large - small) ** 2, axis=(1, 2)) / np.sum(
        np.abs(small) ** 2, axis=(1, 2)
    )
    assert 10 * np.log10(np.median(error)) < -50
    assert 10 * np.log10(error.max()) < -40


def test_one_seed_gives_one_result_in_any_parts(street, monkeypatch):
    """Where Sionna RT can be deterministic; its memory is bounded by parts that change nothing."""
    from lwmt_sionna.rt import TracingConfig, trace_positions
    from lwmt_sionna.rt.tracing import candidates

    if not candidates.DETERMINISTIC:
        pytest.skip("Sionna RT 1.2 leaves to chance which ray stands for a path")
    position = straight_track(0.3, 10, (1.0, 0.1, 0.0))
    shooters = np.arange(0, 10, 2)
    listens = np.abs(np.arange(10)[:, None] - shooters) < 4
    velocity = np.tile([10.0, 2.0, 0.0], (10, 1))
    config = TracingConfig(samples_per_source=20_000)

    def trace():
        for pooled in ({}, {"shooters": shooters, "listens": listens}):
            yield trace_positions(
                street, BASE_STATION, (0, 0, 0), position, velocity, config, **pooled
            )

    whole, *others = (list(trace()) for _ in range(4))
    # Room for three receivers at a time.
    monkeypatch.setattr(candidates, "_MOST_TESTS", 3 * 4 * 20_000)
    others.append(list(trace()))
    for each in zip(whole, *others):
        assert each[0]["valid"].sum() > 1_000
        for name in each[0]:
            # The first solve of a process rounds Doppler shifts in another way.
            slack = 1e-4 if name == "doppler" else 0
            for other in each[1:]:
                np.testing.assert_allclose(other[name], each[0][name], 0, slack, err_msg=name)


def test_default_path_table_loses_paths():
    """The enlarged table is what makes large solves right: with the default one paths are lost."""
    program = f"""
import numpy as np
from lwmt_sionna.rt import load_scene, TracingConfig
from lwmt_sionna.rt.tracing import solver as tracing
default = tracing.SBCandidateGenerator.MIN_SPEC_COUNT_SIZE
street = load_scene("munich", {CARRIER})
position = np.array([10.0, 80.0, 1.5]) + 0.05 * np.arange(128)[:, None] * np.array([0.0, 1.0, 0.0])
config = TracingConfig(diffraction=False, samples_per_source=100_000)
def trace(size):
    tracing.PATH_TABLE_SIZE = size
    tracing.SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = size
    traced = tracing.trace_positions(
        street, (8.5, 21.0, 27.0), (0, 0, 0), position, 0 * position, config
    )
    return traced["valid"].sum()
print(default, trace(default), trace(100_000_000))
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()
    default, with_default, with_large = map(int, output[-3:])
    assert default == 1_000_000
    assert with_default < with_large


@pytest.mark.parametrize(
    ("array", "num_rows", "num_cols", "polarization"),
    [("linear", 1, 32, "V"), ("planar dual-polarised", 4, 4, "VH")],
)
def test_synthesis_equals_cfr_of_sionna(street, array, num_rows, num_cols, polarization):
    from lwmt_sionna.rt import TracingConfig, trace_positions
    from lwmt_sionna.rt.tracing.engine import sionna_rt

    position = straight_track(2.0, 6)
    velocity = np.tile([8.0, 3.0, 0.0], (6, 1))
    orientation = (0.4, -0.2, 0.1)
    config = TracingConfig(base_station_polarization=polarization)
    traced = trace_positions(street, BASE_STATION, orientation, position, velocity, config)
    paths = as_sequences(traced, position, velocity, 1e-3)
    object.__setattr__(paths, "bs_orientation", np.array([orientation]))
    instants = np.arange(3) / 10e3
    ours = synthesize(
        paths, PlanarArray(num_rows, num_cols, polarization=polarization), FREQUENCIES, instants
    )[0]

    scene = street.scene
    scene.tx_array = sionna_rt.PlanarArray(
        num_rows=num_rows,
        num_cols=num_cols,
        vertical_spacing=0.5,
        horizontal_spacing=0.5,
        pattern="iso",
        polarization=polarization,
    )
    reference = sionna_rt.PathSolver()(
        scene,
        max_depth=config.max_depth,
        samples_per_src=config.samples_per_source,
        diffraction=True,
        refraction=False,
        seed=config.seed,
    ).cfr(
        frequencies=FREQUENCIES.astype(np.float32),
        sampling_frequency=10e3,
        num_time_steps=3,
        normalize_delays=False,
        normalize=False,
        out_type="numpy",
    )
    # [num_rx, 1, 1, num_tx_ant, num_times, num_subcarriers]
    expected = np.moveaxis(reference[:, 0, 0], 1, 2)
    error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
    # Two solves agree up to the rounding of their float32 delays, which turns phases: which of a
    # path's duplicate candidates the solver refines depends on the order of its threads.
    turn = 2 * np.pi * CARRIER * traced["tau"][traced["valid"]].max() * np.finfo(np.float32).eps
    assert error < 4 * turn < 0.02


def test_doppler_evolution_agrees_with_retracing(street):
    from lwmt_sionna.rt import trace_positions

    period, speed = 1e-3, np.array([12.0, 4.0, 0.0])
    position = np.array([5.0, 1.0, 1.5]) + period * np.arange(8)[:, None] * speed
    velocity = np.tile(speed, (8, 1))
    traced = trace_positions(street, BASE_STATION, (0, 0, 0), position, velocity)
    paths = as_sequences(traced, position, velocity, period)
    h = synthesize(paths, PlanarArray(), FREQUENCIES)[0]
    evolved = synthesize(paths, PlanarArray(), FREQUENCIES, times=[period])[0, :, 0]
    error = np.sum(np.abs(evolved[:-1] - h[1:]) ** 2) / np.sum(np.abs(h[1:]) ** 2)
    # Curvature and changing amplitudes over 1.3 cm are all that is left; a wrong sign of the
    # Doppler shift would leave +6 dB.
    assert 10 * np.log10(error) < -35


def test_temporal_correlation_follows_geometry(street):
    from lwmt_sionna.rt import trace_positions

    period, speed = 2.5e-3, np.array([14.0, 0.0, 0.0])
    position = np.array([5.0, 1.0, 1.5]) + period * np.arange(10)[:, None] * speed
    velocity = np.tile(speed, (10, 1))
    traced = trace_positions(street, BASE_STATION, (0, 0, 0), position, velocity)
    # Doppler shifts from the directions of arrival alone: v . k / wavelength.
    arrival = np.stack(
        [
            np.sin(traced["theta_r"]) * np.cos(traced["phi_r"]),
            np.sin(traced["theta_r"]) * np.sin(traced["phi_r"]),
            np.cos(traced["theta_r"]),
        ],
        axis=-1,
    )
    doppler = traced["valid"] * (arrival @ speed) / WAVELENGTH
    np.testing.assert_allclose(traced["doppler"] * traced["valid"], doppler, atol=0.5)
    h = synthesize(as_sequences(traced, position, velocity, period), PlanarArray(), FREQUENCIES)[0]
    first = {name: value[:1] for name, value in traced.items()} | {"doppler": doppler[:1]}
    expected = synthesize(
        as_sequences(first, position[:1], velocity[:1], period),
        PlanarArray(),
        FREQUENCIES,
        times=period * np.arange(10),
    )[0, 0]

    def correlation(h):
        h = h.reshape(len(h), -1)
        norms = np.linalg.norm(h, axis=1) * np.linalg.norm(h[0])
        return h @ h[0].conj() / norms

    np.testing.assert_allclose(correlation(h), correlation(expected), atol=0.05)


def test_generated_tracks_are_outdoors_and_evenly_spaced(tmp_path):
    from lwmt_sionna.rt import GenerationConfig, TracingConfig, generate, load_scene

    config = GenerationConfig(
        scene="simple_street_canyon",
        base_stations=(BASE_STATION,),
        num_sequences=6,
        num_snapshots=5,
        shard_size=3,
        tracks_per_solve=3,
        max_distance=60.0,
        tracing=TracingConfig(samples_per_source=100_000),
    )
    whole = generate(config, tmp_path / "whole.h5", progress=False)
    reread = read_paths(tmp_path / "whole.h5")
    assert reread.metadata["num_vanishing"] >= 0
    street = load_scene("simple_street_canyon", CARRIER)
    _, is_ground = street.drop_to_ground(whole.position.reshape(-1, 3)[:, :2])
    assert is_ground.all()
    step = np.linalg.norm(np.diff(whole.position, axis=1), axis=-1)
    np.testing.assert_allclose(
        step, np.tile(whole.speed[:, None] * config.sampling_period, (1, 4)), rtol=2e-2, atol=1e-4
    )
    assert event_mask(whole, 0, 4).shape == (6,)


# The backend of each line's link, at work before tracing, and LDPC over a channel without errors.
_LINKS = {
    "tensorflow": """
import tensorflow as tf
tf.linalg.matmul(tf.ones([4, 4]), tf.ones([4, 4]))
---
bits = tf.cast(tf.random.uniform([8, 100]) > 0.5, tf.float32)
link = tf.function(lambda b: decoder(8.0 * (2.0 * encoder(b) - 1.0)), jit_compile=True)
errors = int(tf.reduce_sum(tf.abs(link(bits) - bits)))
""",
    "torch": """
import torch
torch.ones(4, 4) @ torch.ones(4, 4)
---
bits = (torch.rand(8, 100) > 0.5).float()
errors = int((decoder(8.0 * (2.0 * encoder(bits) - 1.0)) - bits).abs().sum())
""",
}


@pytest.mark.parametrize("first", ["backend", "lwmt_sionna.rt"])
def test_trace_and_link_share_a_process_in_either_order(first):
    backend, link = _LINKS[os.environ["KERAS_BACKEND"]].split("---")
    trace = f"""
from lwmt_sionna.rt import load_scene, trace_positions
import numpy as np
street = load_scene("simple_street_canyon", {CARRIER})
position = np.array([[5.0, 1.0, 1.5], [6.0, 1.0, 1.5]])
def trace():
    traced = trace_positions(street, {BASE_STATION}, (0, 0, 0), position, 0 * position)
    return traced["valid"].sum()
count = trace()
"""
    order = [backend, trace] if first == "backend" else [trace, backend]
    program = f"""
{"".join(order)}
from sionna.phy.fec.ldpc import LDPC5GEncoder, LDPC5GDecoder
encoder = LDPC5GEncoder(100, 200)
decoder = LDPC5GDecoder(encoder, hard_out=True)
{link}
print("errors", errors, "paths", count == trace())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "errors 0 paths True" in result.stdout
