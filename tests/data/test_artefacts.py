"""Births and deaths: the geometry's and the solver's."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data.events import unexplained_events
from tests.mirrors import sequences


def without(paths, *entries):
    valid = paths.valid.copy()
    for entry in entries:
        valid[entry] = False
    return dataclasses.replace(paths, valid=valid)


def test_only_what_the_solver_lost_counts(rng):
    truth = sequences(rng)
    # Geometry ends a path of sequence 1 after its third snapshot: for both.
    truth = without(truth, (1, slice(3, None), 2))
    assert not unexplained_events(truth, truth).any()
    # The solver loses one in the middle of sequence 2: gone and back again, two steps.
    lost = without(truth, (2, 4, 1))
    events = unexplained_events(lost, truth)
    assert np.argwhere(events).tolist() == [[2, 3], [2, 4]]
    # What is missing all along is weak, but no event.
    assert not unexplained_events(without(truth, (3, slice(None), 4)), truth).any()
    # Below the threshold it does not count either.
    share = truth.power[2, 4, 1] / truth.power[2, 4].sum()
    assert not unexplained_events(lost, truth, 10 * np.log10(share) + 0.5).any()


def test_other_users_are_refused(rng):
    with pytest.raises(ValueError, match="same users"):
        unexplained_events(sequences(rng), sequences(rng))
