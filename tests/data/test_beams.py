"""Beams of codebooks, and the best of them as labels."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import (
    PlanarArray,
    beam_power,
    best_beams,
    check_same_tracks,
    dft_codebook,
    draw_clusters,
)


@pytest.mark.parametrize(("count", "spacing"), [(64, 0.5), (16, 0.5), (16, 0.4)])
def test_the_best_beam_of_a_plane_wave_is_its_angle(rng, count, spacing):
    array = PlanarArray(num_cols=16, horizontal_spacing=spacing)
    codebook = dft_codebook(array, num_horizontal=count)
    azimuth = rng.uniform(-1.2, 1.2, (40, 3))
    h = array.response(np.full(azimuth.shape, np.pi / 2), azimuth)[..., None]
    found = best_beams(beam_power(h, codebook)[:, 1:])
    assert found.shape == (40, 2) and found.dtype == np.int32
    # The grid of direction cosines ends where it repeats.
    off = (np.sin(azimuth[:, 1:]) * spacing - (found / count - 0.5) + 0.5) % 1 - 0.5
    assert np.abs(off).max() <= 0.5 / count + 1e-6


def test_beams_of_a_planar_array_point_where_their_index_says():
    array = PlanarArray(2, 4, polarization="VH")
    codebook = dft_codebook(array)
    assert codebook.shape == (8, 8)
    np.testing.assert_allclose(codebook @ codebook.conj().T, np.eye(8), atol=1e-6)
    # Vertical beam 1 is the horizon, horizontal beam 3 has the direction cosine 1/2.
    wave = array.response(np.array(np.pi / 2), np.array(np.pi / 6))
    for scale in ([1, 0], [0, 1j], [0.6, 0.8]):  # whatever its polarisation
        h = np.concatenate([s * wave for s in scale])[None, None, :, None]
        power = beam_power(h, codebook)[0, 0]
        assert power.argmax() == 1 * 4 + 3
        assert power.sum() == pytest.approx(np.sum(np.abs(h) ** 2), rel=1e-5)


def test_two_carriers_are_of_the_same_tracks_or_refused(rng):
    low = draw_clusters(6, 4, 1e-3, rng)
    high = dataclasses.replace(low, carrier_frequency=28e9)
    check_same_tracks(low, high)
    moved = dataclasses.replace(high, position=high.position + 1.0)
    for other, message in (
        (moved, r"same tracks. Received: position"),
        (high.select([0, 1]), "trajectory_id"),
        (dataclasses.replace(high, scene="elsewhere"), "one scene"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            check_same_tracks(low, other)
        assert "\n" not in str(caught.value)


def test_wrong_arguments_are_named():
    power = np.ones((3, 2, 8))
    power[1, 0] = 0
    for call, message in (
        (lambda: best_beams(power), "Received: 1 of 6 snapshots"),
        (lambda: dft_codebook(PlanarArray(), 0), "num_horizontal=0"),
        (lambda: beam_power(np.ones((1, 2, 6, 3)), np.ones((4, 4))), r"h.shape=\(1, 2, 6, 3\)"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
