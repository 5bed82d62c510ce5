"""Planted faults are found and named; sound sequences pass."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import check_file, validate, write_paths
from tests.mirrors import CARRIER, LIGHT, sequences


def change(name, index, value):
    def plant(paths):
        array = getattr(paths, name).copy()
        array[index] = value
        return dataclasses.replace(paths, **{name: array})

    return plant


def without_carrier_phase(paths):
    """Gains as `Paths.a` of Sionna RT has them."""
    turn = np.exp(2j * np.pi * CARRIER * paths.tau.astype(float))
    return dataclasses.replace(paths, a=paths.a * turn[..., None, None])


def normalized_delays(paths):
    """What `normalize_delays=True` does to a sequence that was traced again and again."""
    first = paths.tau[..., :1].astype(float)
    turn = np.exp(2j * np.pi * CARRIER * first)
    return dataclasses.replace(
        paths, tau=paths.tau - first + 1e-9, a=paths.a * turn[..., None, None]
    )


FAULTS = {
    "infinite delay": (change("tau", (3, 2, 1), np.inf), "tau is not finite in sequence 3"),
    "missing position": (change("position", (1, 0), np.nan), "position is not finite"),
    "negative delay": (change("tau", (3, 2, 1), -1.0), "tau must lie"),
    "silent path": (change("a", (2, 2, 1), 0.0), "a must be non-zero"),
    "degrees": (lambda p: dataclasses.replace(p, theta_t=np.rad2deg(p.theta_t)), "theta_t"),
    "phantom": (change("valid", (2, 2, 1), False), "a must be zero"),
    "clock": (change("time", (4, 5), 1.0), "time does not follow the sampling period"),
    "twin": (lambda p: p.select([0, 0, 1]), "1 trajectories are stored more than once"),
    "speed in km/h": (lambda p: dataclasses.replace(p, speed=p.speed * 3.6), "speed does not"),
    "velocity": (
        lambda p: dataclasses.replace(p, velocity=-p.velocity),
        "velocity does not follow the positions in sequence 0 (of 6 such)",
    ),
    "wrong base station": (
        lambda p: dataclasses.replace(p, bs_position=p.bs_position + np.array([5.0, 0.0, 0.0])),
        "line of sight",
    ),
    "mirrored angles": (lambda p: dataclasses.replace(p, phi_t=-p.phi_t), "miss the user"),
    "line of sight": (change("interactions", (0, 0, 0), 1), "interactions and path_key disagree"),
    "sign of the Doppler shift": (
        lambda p: dataclasses.replace(p, doppler=-p.doppler),
        "doppler is off",
    ),
    "no carrier phase": (without_carrier_phase, "phases of a do not follow"),
    "normalised delays": (normalized_delays, "doppler is off"),
    "seam": (
        lambda p: dataclasses.replace(p, seam_error=np.full((6, 8), -1.0)),
        "seam_error",
    ),
}  # fmt: skip


def test_sound_sequences_pass(rng):
    for speed in (0.8, 8.3, 33.0):
        assert validate(sequences(rng, speed=speed)) == []
    assert validate(sequences(rng, num_snapshots=1, speed=0.0)) == []
    assert validate(sequences(rng).select(slice(0, 0))) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_named(fault, rng):
    plant, problem = FAULTS[fault]
    found = validate(plant(sequences(rng)))
    assert any(problem in text for text in found), found


def test_units_are_checked(rng, tmp_path):
    from lwmt_sionna.data import storage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "UNITS", storage.UNITS | {"tau": "ns"})
        write_paths(tmp_path / "p.h5", sequences(rng))
    assert check_file(tmp_path / "p.h5") == ["tau is stated in 'ns'; expected 's'."]


def test_constants_agree():
    from lwmt_sionna.data.paths import SPEED_OF_LIGHT

    assert SPEED_OF_LIGHT == LIGHT
