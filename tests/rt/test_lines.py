"""Both lines of Sionna RT trace the same street canyon, and each of them what it traced before."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(__file__).parent / "references"
LINES = {
    "1.2.2": (ROOT / ".venv", "tensorflow"),
    "2.2.0": (ROOT / ".venv-sionna2", "torch"),
}
SPEED_OF_LIGHT = 299_792_458.0

pytestmark = pytest.mark.rt


@pytest.fixture(scope="module")
def here():
    from tests.rt import canyon

    return canyon.trace()


@pytest.fixture(scope="module")
def version():
    from lwmt_sionna.rt.tracing.engine import TRACER

    return TRACER.removeprefix("sionna-rt ").removesuffix(", deterministic")


def reference(version):
    with np.load(FOLDER / f"{version}.npz") as file:
        return dict(file)


def compare(first, second, share):
    """Compares the paths of every user with their partners of the same interactions.

    Paths that are diffracted may differ in gain, together by a share of the power. Of edges at one
    place chance, or the line, decides how many are kept.
    """
    for user in range(len(first["valid"])):
        one, other = (
            {name: value[user][paths["valid"][user]] for name, value in paths.items()}
            for paths in (first, second)
        )
        assert len(one["tau"]) == pytest.approx(len(other["tau"]), rel=0.03)
        far = np.abs(one["tau"][:, None] - other["tau"])
        far[one["path_key"][:, None] != other["path_key"]] = np.inf
        partner = far.argmin(axis=1)
        # A tenth of a millimetre.
        assert far.min(axis=1).max() < 1e-4 / SPEED_OF_LIGHT
        other = {name: value[partner] for name, value in other.items()}
        for name in ("theta_t", "phi_t", "theta_r", "phi_r"):
            turn = np.angle(np.exp(1j * (one[name] - other[name])))
            np.testing.assert_allclose(turn, 0.0, atol=5e-5, err_msg=name)
        np.testing.assert_allclose(one["doppler"], other["doppler"], atol=5e-3)
        np.testing.assert_array_equal(one["interactions"], other["interactions"])
        gain, error = np.abs(one["a"]).ravel(), np.abs(one["a"] - other["a"]).ravel()
        # Four bits for each interaction, of which the highest says that it is a diffraction.
        is_bent = (one["interactions"] & 0x88888888) != 0
        assert error[~is_bent].max(initial=0.0) < 2e-5 * gain.max()
        assert np.sum(error**2) < share * np.sum(gain**2)


@pytest.mark.parametrize("other", LINES)
def test_the_trace_is_that_of_the_references(other, here, version):
    """The one of this line, and that of the other but for the gains of what is diffracted."""
    compare(here, reference(other), 1e-5 if other == version else 0.01)
    compare(reference(other), here, 1e-5 if other == version else 0.01)


def test_the_line_of_sight_says_where_it_leads(here):
    from tests.rt.canyon import BASE_STATION, CARRIER, POSITION, VELOCITY

    is_direct = here["valid"] & (here["interactions"] == 0)
    assert is_direct.sum(axis=1).tolist() == [1, 1, 1, 0]
    away = POSITION[:3] - BASE_STATION
    distance = np.linalg.norm(away, axis=1)
    away /= distance[:, None]
    direct = {name: value[is_direct] for name, value in here.items()}
    for end, towards in (("t", away), ("r", -away)):
        azimuth = np.arctan2(towards[:, 1], towards[:, 0])
        np.testing.assert_allclose(direct[f"theta_{end}"], np.arccos(towards[:, 2]), atol=1e-5)
        turn = np.exp(1j * (direct[f"phi_{end}"] - azimuth))
        np.testing.assert_allclose(np.angle(turn), 0.0, atol=1e-5)
    shift = -np.sum(VELOCITY[:3] * away, axis=1) * CARRIER / SPEED_OF_LIGHT
    assert np.abs(shift).min() > 10
    np.testing.assert_allclose(direct["doppler"], shift, atol=2e-3)
    np.testing.assert_allclose(direct["tau"], distance / SPEED_OF_LIGHT, rtol=1e-6)


def test_the_other_line_agrees_where_it_is_installed(here, version, tmp_path):
    [(folder, backend)] = [line for key, line in LINES.items() if key != version]
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        pytest.skip(f"there is no environment of the other line: {folder.name}")
    environment = {key: v for key, v in os.environ.items() if key != "DRJIT_LIBLLVM_PATH"}
    subprocess.run(
        [python, ROOT / "tests" / "rt" / "canyon.py", tmp_path / "other.npz"],
        check=True,
        timeout=300,
        env=environment | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
    )
    with np.load(tmp_path / "other.npz") as file:
        there = dict(file)
    compare(here, there, 0.01)
    compare(there, here, 0.01)
