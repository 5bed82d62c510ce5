"""Synthesis, noise, events, splits and storage on small made-up paths."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import (
    PathSequences,
    PlanarArray,
    add_noise,
    check_disjoint,
    concatenate,
    event_mask,
    event_power,
    history_scale,
    read_paths,
    split_by_trajectory,
    subcarrier_frequencies,
    synthesize,
    track_distance,
    vanishing_mask,
    write_paths,
)

CARRIER = 3.5e9
LIGHT = 299_792_458.0


@pytest.fixture
def paths(rng):
    """Six sequences of constant paths that move by their Doppler shifts."""
    num_sequences, num_snapshots, num_paths, period = 6, 8, 4, 2.5e-3
    shape = (num_sequences, 1, num_paths)
    doppler = np.broadcast_to(rng.uniform(-100, 100, shape), (6, 8, 4))
    time = period * np.arange(num_snapshots)[None, :, None]
    start = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    constant = {
        name: np.broadcast_to(rng.uniform(low, high, shape), (6, 8, 4))
        for name, low, high in (
            ("theta_t", 1.2, 1.9),
            ("phi_t", -1.0, 1.0),
            ("theta_r", 1.2, 1.9),
            ("phi_r", -3.0, 3.0),
        )
    }
    return PathSequences(
        a=(start * np.exp(2j * np.pi * doppler * time))[..., None, None],
        tau=rng.uniform(0, 1e-6, shape) - doppler / CARRIER * time,
        **constant,
        doppler=doppler,
        valid=np.ones((6, 8, 4), bool),
        path_key=np.broadcast_to(np.arange(4), (6, 8, 4)),
        position=rng.uniform(-50, 50, (6, 8, 3)),
        velocity=np.ones((6, 8, 3)),
        speed=np.full(6, np.sqrt(3.0)),
        trajectory_id=np.arange(6),
        bs_index=np.zeros(6, int),
        bs_position=(0.0, 0.0, 10.0),
        bs_orientation=(0.3, 0.0, 0.0),
        sampling_period=period,
        carrier_frequency=CARRIER,
        scene="made-up",
    )


def test_synthesis_is_the_sum_over_paths(paths):
    array, frequencies = PlanarArray(1, 4), subcarrier_frequencies(6, 540e3)
    h = synthesize(paths, array, frequencies)
    expected = np.zeros((4, 6), complex)
    for p in range(4):
        wave = array.response(paths.theta_t[2, 3, p], paths.phi_t[2, 3, p], paths.bs_orientation[0])
        ramp = np.exp(-2j * np.pi * frequencies * paths.tau[2, 3, p])
        expected += paths.a[2, 3, p, 0, 0] * np.outer(wave, ramp)
    np.testing.assert_allclose(h[2, 3], expected, rtol=1e-4, atol=1e-4)


def test_doppler_evolution_reaches_the_next_snapshot(paths):
    array, frequencies = PlanarArray(1, 4), subcarrier_frequencies(6, 540e3)
    h = synthesize(paths, array, frequencies)
    evolved = synthesize(paths, array, frequencies, times=[0.0, paths.sampling_period])
    np.testing.assert_allclose(evolved[:, :, 0], h, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(evolved[:, :-1, 1], h[:, 1:], rtol=1e-2, atol=1e-2)


def test_one_path_has_the_phase_of_its_angle():
    array = PlanarArray(1, 8)
    phase = np.angle(array.response(np.pi / 2, np.pi / 6))
    np.testing.assert_allclose(
        np.exp(1j * np.diff(phase)), np.exp(1j * np.pi * 0.5 * np.ones(7)), atol=1e-9
    )


def test_wrong_polarisation_is_refused(paths):
    with pytest.raises(ValueError, match="polarization=VH"):
        synthesize(paths, PlanarArray(1, 4, polarization="VH"), [0.0])


def test_noise_has_the_stated_power_and_leaves_the_input_alone(rng):
    h = rng.standard_normal((3, 16, 32, 32)) + 1j * rng.standard_normal((3, 16, 32, 32))
    h = (h * np.array([1e-6, 1.0, 1e3])[:, None, None, None]).astype(np.complex64)
    before = h.copy()
    noisy = add_noise(h, [5.0, 15.0, 25.0], rng)
    np.testing.assert_array_equal(h, before)
    power = np.mean(np.abs(h) ** 2, axis=(1, 2, 3), dtype=np.float64)
    noise = np.mean(np.abs(noisy - h) ** 2, axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(10 * np.log10(power / noise), [5.0, 15.0, 25.0], atol=0.1)


def test_scale_comes_from_the_history_alone(rng):
    h = (rng.standard_normal((2, 20, 4, 4)) + 0j).astype(np.complex64)
    changed = h.copy()
    changed[:, 16:] *= 100
    np.testing.assert_array_equal(history_scale(h[:, :16]), history_scale(changed[:, :16]))


def test_constant_paths_have_no_event_and_a_birth_is_one(paths):
    assert event_power(paths, 3, 7).max() == 0
    valid = paths.valid.copy()
    strongest = np.argmax(np.abs(paths.a[0, 0, :, 0, 0]))
    valid[0, :5, strongest] = False
    born = dataclasses.replace(paths, valid=valid)
    mask = event_mask(born, 3, 7)
    assert mask[0] and not mask[1:].any()
    assert not event_mask(born, 5, 7).any()


def test_a_channel_that_vanishes_is_found(paths):
    valid = paths.valid.copy()
    valid[4, 2] = False
    assert vanishing_mask(dataclasses.replace(paths, valid=valid)).tolist() == [
        False, False, False, False, True, False,
    ]  # fmt: skip


def test_splits_keep_trajectories_apart(paths):
    training, validation = split_by_trajectory(paths, 0.34, seed=0)
    assert training.num_sequences == 4 and validation.num_sequences == 2
    assert not set(training.trajectory_id) & set(validation.trajectory_id)
    assert (track_distance(training, validation) > 0).all()
    assert np.isinf(track_distance(dataclasses.replace(training, scene="x"), validation)).all()
    with pytest.raises(ValueError, match="share trajectories"):
        check_disjoint(paths, validation)


def test_storage_keeps_everything(paths, tmp_path):
    write_paths(tmp_path / "p.h5", paths)
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5"]
    back = read_paths(tmp_path / "p.h5")
    for field in dataclasses.fields(paths):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(paths, field.name))


def test_damaged_files_are_refused_by_name(paths, tmp_path):
    import h5py

    good = tmp_path / "good.h5"
    write_paths(good, paths)
    content = good.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5").write_text("hello")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        read_paths(tmp_path / "none.h5")
    for name in ("short.h5", "text.h5", "foreign.h5"):
        with pytest.raises(ValueError, match=name):
            read_paths(tmp_path / name)
    with h5py.File(good, "a") as file:
        file["tau"][0, 0, 0] = 1.0
    with pytest.raises(ValueError, match="checksum"):
        read_paths(good)


def test_joining_pads_paths(paths):
    fewer = dataclasses.replace(
        paths,
        **{
            name: getattr(paths, name)[:, :, :2]
            for name in (
                "a", "tau", "theta_t", "phi_t", "theta_r", "phi_r", "doppler", "valid", "path_key"
            )
        },
    )  # fmt: skip
    joined = concatenate([fewer, paths])
    assert joined.num_sequences == 12 and joined.num_paths == 4
    assert not joined.valid[:6, :, 2:].any()
    with pytest.raises(ValueError, match="scene"):
        concatenate([paths, dataclasses.replace(paths, scene="other")])


def test_fields_that_disagree_are_refused(paths):
    with pytest.raises(ValueError, match="tau"):
        dataclasses.replace(paths, tau=paths.tau[:, :, :2])
