"""Places from strongest paths and users nearby: geometry where it decides, neighbours elsewhere."""

import keras
import numpy as np
import pytest

from lwmt_sionna.layers.places import PlacesNearby


def features(places, height=20.0, sight=1.0):
    """What users at places see, all of them in sight."""
    distance = np.sqrt(np.sum(places**2, axis=1) + height**2)
    return np.stack([distance, places[:, 1] / distance, np.full(len(places), sight)], axis=1)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_users_in_sight_are_placed_by_geometry_and_the_side_of_others(rng):
    """A street ahead, and one behind further along: who lives there tells side and height."""
    side = rng.choice([-1.0, 1.0], 60)
    places = np.stack([side * rng.uniform(40, 60, 60), side * rng.uniform(30, 90, 60)], axis=1)
    layer = PlacesNearby()
    layer.keep(features(places[:20]), places[:20])
    found = numpy(layer(features(places[20:])))
    assert np.linalg.norm(found - places[20:], axis=1).max() < 0.1
    # Their neighbours are metres away.
    nearest = np.linalg.norm(places[20:, None] - places[:20], axis=-1).min(axis=1)
    assert np.median(nearest) > 3.0


def test_users_out_of_sight_are_where_such_users_are(rng):
    places = rng.uniform(-90, 90, (30, 2))
    seen = features(rng.uniform(10, 300, (30, 2)), sight=0.0)
    layer = PlacesNearby()
    layer.keep(seen, places)
    np.testing.assert_allclose(numpy(layer(seen)), places, atol=5.0)
    # One who is in sight is another one, whatever range and direction say.
    in_sight = seen[:1] + np.array([0.0, 0.0, 1.0])
    layer.keep(np.concatenate([seen[:1], in_sight + np.array([9.0, 0.0, 0.0])]), places[:2])
    far = [np.linalg.norm(numpy(layer(in_sight))[0] - place) for place in places[:2]]
    assert far[1] < far[0]


def test_what_is_known_is_saved_and_replaced(rng, tmp_path):
    places = rng.uniform(-90, 90, (9, 2))
    model = keras.Sequential([keras.Input((3,)), PlacesNearby()])
    model.layers[0].keep(features(places), places)
    asked = features(rng.uniform(-90, 90, (4, 2)))
    expected = numpy(model.layers[0](asked))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    np.testing.assert_array_equal(numpy(again(asked)), expected)
    again.keep(features(places[:1]), places[:1])
    assert np.abs(numpy(again(asked)) - expected).max() > 1.0


def test_wrong_arguments_are_named(rng):
    layer, places = PlacesNearby(), np.ones((3, 2))
    for call, message in (
        (lambda: layer(np.ones((1, 3))), "No place is known yet"),
        (lambda: layer.keep(np.ones((3, 2)), places), r"features.shape=\(3, 2\)"),
        (lambda: layer.keep(np.ones((2, 3)), places), r"places.shape=\(3, 2\)"),
        (lambda: layer.keep(np.ones((0, 3)), places[:0]), "0 users"),
        (lambda: layer.keep(np.full((3, 3), np.nan), places), "3 of them not finite"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
