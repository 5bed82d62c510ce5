"""What fills masks in without a network: exact where physics says so, blind to what is hidden."""

import numpy as np
import pytest

from lwmt_sionna.baselines.base import as_complex, as_pairs
from lwmt_sionna.baselines.reconstruction import PathFilling, hidden_bins, interpolate_view
from lwmt_sionna.ops.angle_delay import angle_delay_transform

SHAPE, PATCH = (10, 8, 8), (4, 4)
TOKENS = 10 * 2 * 2


def view_of(h, hidden=None, missing=None):
    """A view of complex channels without noise, at their own scale."""
    hidden = np.zeros((len(h), TOKENS), bool) if hidden is None else hidden
    missing = np.zeros(h.shape, bool) if missing is None else missing
    observed, target = (
        np.asarray(angle_delay_transform(as_pairs(x))) for x in (np.where(missing, 0, h), h)
    )
    # Whatever stands at hidden places must not matter.
    observed = np.where(hidden_bins(hidden, SHAPE, PATCH)[..., None], 1e3, observed)
    return {"observed": observed, "target": target, "hidden": hidden, "missing": missing}


def wave(turns):
    """Plane waves of so many turns per snapshot, antenna and subcarrier, `[1, *SHAPE]`."""
    phase = sum(t * axis for t, axis in zip(turns, np.ogrid[tuple(map(slice, SHAPE))]))
    return np.exp(2j * np.pi * phase)[None].astype(np.complex64)


def error(view, guess):
    return np.linalg.norm(guess - view["target"]) / np.linalg.norm(view["target"])


def test_a_path_of_one_bin_is_interpolated_exactly_whatever_its_doppler_shift():
    hidden = np.zeros((1, 10, 2, 2), bool)
    hidden[:, 3:6] = True
    hidden[:, 9] = True
    view = view_of(wave((0.37, 1 / 8, -2 / 8)), hidden.reshape(1, -1))
    assert error(view, interpolate_view(view, PATCH)) < 1e-4


def test_what_is_never_seen_is_zero():
    hidden = np.zeros((1, 10, 2, 2), bool)
    hidden[:, :, 0, 1] = True
    view = view_of(wave((0.1, 0.03, 0.2)), hidden.reshape(1, -1))
    guess = interpolate_view(view, PATCH)
    nothing = hidden_bins(view["hidden"], SHAPE, PATCH)
    assert not guess[nothing].any()
    np.testing.assert_allclose(guess[~nothing], view["target"][~nothing], atol=1e-4)


@pytest.mark.parametrize("axis", (2, 3))
def test_combs_are_filled_along_the_axis_they_thin_out(axis):
    missing = np.zeros((1, *SHAPE), bool)
    np.moveaxis(missing, axis, 0)[1:-1:2] = True
    # Linear along that axis, anything along the others.
    course = np.random.default_rng(0).standard_normal((*SHAPE, 2)).astype(np.float32)
    h = as_complex(course)[None].take([0], axis) * np.arange(1, 9).reshape(
        [-1 if a == axis else 1 for a in range(4)]
    )
    view = view_of(h.astype(np.complex64), missing=missing)
    assert error(view, interpolate_view(view, PATCH)) < 1e-5


def test_paths_go_on_and_fill_holes():
    """Two paths between bins, noiseless but for a little: a tail, and scattered tokens."""
    rng = np.random.default_rng(1)
    h = wave((0.21, 0.13, -0.07)) + 0.5 * wave((-0.12, -0.31, 0.22))
    h = h + 1e-3 * as_complex(rng.standard_normal((1, *SHAPE, 2)))
    tail = np.zeros((1, 10, 2, 2), bool)
    tail[:, 8:] = True
    scattered = rng.uniform(size=tail.shape) < 0.3
    hidden = np.concatenate([tail, scattered]).reshape(2, -1)
    view = view_of(np.concatenate([h, h]), hidden)
    guess = PathFilling()(view, PATCH)
    rows = [{name: value[i] for name, value in view.items()} for i in range(2)]
    assert error(rows[0], guess[0]) < 0.01
    straight = interpolate_view(view, PATCH)
    assert error(rows[1], guess[1]) < 0.95 * error(rows[1], straight[1])
