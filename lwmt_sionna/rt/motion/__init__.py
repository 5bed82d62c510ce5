"""Users and objects that move: tracks, routes, drives, trips from files. NumPy alone.

What they need of the scene, its ground and its walls, they ask of a `Terrain`.
"""

from lwmt_sionna.rt.motion.ground import GroundMap, Ring, Terrain, ground_map
from lwmt_sionna.rt.motion.routes import Drive, Route
from lwmt_sionna.rt.motion.tracks import Clock, MovingObject, Tracks, derive_velocity
from lwmt_sionna.rt.motion.trajectories import (
    REGIMES,
    TrajectoryConfig,
    sample_moving_objects,
    sample_straight_tracks,
    sample_tracks,
)
from lwmt_sionna.rt.motion.trips import Trip, read_trips

__all__ = [
    "REGIMES",
    "Clock",
    "Drive",
    "GroundMap",
    "MovingObject",
    "Ring",
    "Route",
    "Terrain",
    "Tracks",
    "TrajectoryConfig",
    "Trip",
    "derive_velocity",
    "ground_map",
    "read_trips",
    "sample_moving_objects",
    "sample_straight_tracks",
    "sample_tracks",
]
