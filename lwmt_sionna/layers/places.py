"""Where a user is, told by the strongest path and by users whose place is known."""

from typing import Any

import keras
import numpy as np
from keras import ops

from lwmt_sionna.layers.errors import PlainErrors
from lwmt_sionna.typing import Array, Shape, Tensor

__all__ = ["PlacesNearby"]

# Metres that line of sight and none are apart, and metres from which a neighbour counts for little:
# chosen in cities of training.
_GAP, _REACH = 60.0, 5.0
_TINY = 1e-30


@keras.saving.register_keras_serializable(package="lwmt_sionna")
class PlacesNearby(PlainErrors, keras.layers.Layer):
    """Places of users, from the paths that they see and from others whose place is known.

    The strongest path of a user in sight is the way to the base station: range and direction along
    the line of antennas give the place, but for the height of the user and for the side of the
    line. Those are the ones of users nearby: whose strongest path has about the same range and
    direction, and is a line of sight, too, or is not. Out of sight, users are where such users are.

    Nothing is trained: `keep` takes what is known at once.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: `[batch, 3]`: range of the strongest path in metres, sine of its angle along the
            antennas, probability that it is the line of sight.

    Returns:
        Places from the base station in metres, `[batch, 2]`: ahead of the line of antennas and
        along it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._known = np.zeros((0, 5), np.float32)

    def build(self, features_shape: Any = None) -> None:
        self.built = True

    def keep(self, features: Array, places: Array) -> None:
        """Takes users whose place is known, in place of those before.

        Args:
            features: See the call arguments, `[num_labels, 3]`.
            places: In metres from the base station, `[num_labels, 2]`.
        """
        features, places = (np.asarray(value, np.float32) for value in (features, places))
        if features.shape != (len(places), 3) or places.shape != (len(features), 2):
            raise ValueError(
                "Expected features [num_labels, 3] and places [num_labels, 2]. Received: "
                f"features.shape={features.shape}, places.shape={places.shape}"
            )
        known = np.concatenate([features, places], axis=1)
        if not len(known) or not np.isfinite(known).all():
            raise ValueError(
                "Expected finite features and places of one user at least. Received: "
                f"{len(known)} users, {int((~np.isfinite(known)).any(axis=-1).sum())} of them not "
                "finite"
            )
        self._known = known

    def call(self, features: Tensor) -> Tensor:
        if not len(self._known):
            raise ValueError("No place is known yet. Call `fit_head` with some first.")
        known = ops.convert_to_tensor(self._known)
        their_range, their_sine, their_sight, x, y = (known[:, i] for i in range(5))
        distance, sine, sight = (ops.cast(features[:, i], "float32")[:, None] for i in range(3))
        along, their_along = distance * sine, their_range * their_sine
        # Of the circle around the line of antennas on which a path of this length ends.
        radius, their_radius = _leg(distance, along), _leg(their_range, their_along)
        square = (
            ops.square(radius - their_radius)
            + ops.square(along - their_along)
            + ops.square(_GAP * (sight - their_sight))
        )
        away = ops.sqrt(square + _TINY)
        weight = ops.exp((ops.min(away, axis=-1, keepdims=True) - away) / _REACH)
        # The side that most of them are on, and those who are there.
        behind = ops.cast(x < 0.0, "float32")
        of_those = ops.sum(weight * behind, axis=-1, keepdims=True)
        is_behind = ops.cast(2.0 * of_those > ops.sum(weight, axis=-1, keepdims=True), "float32")
        weight = weight * (1.0 - ops.abs(behind - is_behind))
        weight = weight / ops.sum(weight, axis=-1, keepdims=True)
        # In sight, what of their range is no distance along the ground is height.
        height = their_sight * _leg(their_range, ops.sqrt(ops.square(x) + ops.square(y)))
        ahead = _leg(radius, height) * (1.0 - 2.0 * behind)
        sure = sight * their_sight
        return ops.stack(
            [
                ops.sum(weight * (sure * ahead + (1.0 - sure) * x), axis=-1),
                ops.sum(weight * (sure * along + (1.0 - sure) * y), axis=-1),
            ],
            axis=-1,
        )

    def save_own_variables(self, store: Any) -> None:
        store["known"] = self._known

    def load_own_variables(self, store: Any) -> None:
        self._known = np.array(store["known"], np.float32)

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return (features_shape[0], 2)


def _leg(hypotenuse, other):
    """The other leg of a right triangle; zero where there is none."""
    return ops.sqrt(ops.maximum(ops.square(hypotenuse) - ops.square(other), 0.0))
