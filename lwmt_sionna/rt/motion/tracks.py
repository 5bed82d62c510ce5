"""What moves: users on one clock, and objects of the scene."""

import dataclasses

import numpy as np

from lwmt_sionna.typing import Array, ArrayLike


@dataclasses.dataclass(frozen=True)
class Clock:
    """Instants that all who move together share.

    Attributes:
        num_snapshots: Number of snapshots.
        sampling_period: Time between snapshots in seconds.
    """

    num_snapshots: int
    sampling_period: float

    @property
    def time(self) -> Array:
        """Instants of the snapshots in seconds, float64 `[num_snapshots]`, from zero."""
        return self.sampling_period * np.arange(self.num_snapshots)


def derive_velocity(position: ArrayLike, sampling_period: float) -> Array:
    """Velocities of sampled positions: central differences, of second order at both ends too.

    float64 in metres per second, of the shape of the positions in metres `[..., num_snapshots, 3]`,
    a period in seconds apart; zero for a single snapshot.
    """
    position = np.asarray(position, dtype=np.float64)
    num_snapshots = position.shape[-2]
    if num_snapshots == 1:
        return np.zeros_like(position)
    order = 2 if num_snapshots > 2 else 1
    return np.gradient(position, sampling_period, axis=-2, edge_order=order)


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Users that move at the same time: snapshot `t` is the same instant for all of them.

    Attributes:
        position: float64 `[num_tracks, num_snapshots, 3]`, metres.
        sampling_period: Time between snapshots in seconds.
    """

    position: Array
    sampling_period: float

    def __post_init__(self) -> None:
        position = np.asarray(self.position, dtype=np.float64)
        object.__setattr__(self, "position", position)
        if position.ndim != 3 or position.shape[-1] != 3 or not np.isfinite(position).all():
            raise ValueError(
                "position must be finite and of shape [num_tracks, num_snapshots, 3]. Received: "
                f"position.shape={position.shape}"
            )
        if not self.sampling_period > 0:
            raise ValueError(
                "sampling_period must be positive. Received: "
                f"sampling_period={self.sampling_period}"
            )

    @property
    def time(self) -> Array:
        """Instants of the snapshots in seconds, float64 `[num_snapshots]`, from zero."""
        return self.sampling_period * np.arange(self.position.shape[1])

    @property
    def velocity(self) -> Array:
        """Metres per second, float64 `[num_tracks, num_snapshots, 3]`, from the positions."""
        return derive_velocity(self.position, self.sampling_period)

    @property
    def speed(self) -> Array:
        """Mean speed along each track in metres per second, float64 `[num_tracks]`."""
        if self.position.shape[1] == 1:
            return np.zeros(len(self.position))
        step = np.linalg.norm(np.diff(self.position, axis=1), axis=-1)
        return step.mean(axis=1) / self.sampling_period


@dataclasses.dataclass(frozen=True)
class MovingObject:
    """An object of the scene that moves, such as a car, on the clock of the users.

    Attributes:
        name: Name of the object in `Scene.objects` of Sionna RT. The scene has to be loaded so that
            the object is not merged with others (`load_scene` keeps cars apart).
        position: float64 `[num_snapshots, 3]`, metres. Centre of the object's bounding box, which
            is what `SceneObject.position` of Sionna RT means.
        orientation: float64 `[num_snapshots]`, radians. Rotation about the vertical axis through
            that centre, counter-clockwise from above and relative to the pose that the scene's
            file gives the object: the first angle of `SceneObject.orientation`.
    """

    name: str
    position: Array
    orientation: Array

    def __post_init__(self) -> None:
        position = np.asarray(self.position, dtype=np.float64)
        orientation = np.asarray(self.orientation, dtype=np.float64)
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "orientation", orientation)
        if position.ndim != 2 or position.shape[1] != 3 or orientation.shape != position.shape[:1]:
            raise ValueError(
                "position must be of shape [num_snapshots, 3] and orientation of shape "
                f"[num_snapshots]. Received: name={self.name}, position.shape={position.shape}, "
                f"orientation.shape={orientation.shape}"
            )

    def velocity(self, sampling_period: float) -> Array:
        """Velocities in metres per second, float64 `[num_snapshots, 3]`: see `derive_velocity`."""
        return derive_velocity(self.position, sampling_period)
