"""Objects of a scene that move from snapshot to snapshot."""

import contextlib

import numpy as np

from lwmt_sionna.rt._sionna import drjit, mitsuba

__all__ = ["moving_scene"]


@contextlib.contextmanager
def moving_scene(loaded, moving, num_snapshots, sampling_period):
    """Moves objects of a scene, and puts them back at the end.

    All objects are moved at once: each of Sionna RT's own setters rebuilds the scene.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        moving: Sequence of `lwmt_sionna.rt.motion.MovingObject`.
        num_snapshots: Number of snapshots for which poses are needed.
        sampling_period: Time between snapshots in seconds; sets the objects' velocities, which
            shift the frequency of the paths they reflect.

    Returns:
        Context manager whose value is a function of the index of a snapshot that poses all objects.

    Raises:
        ValueError: If an object is not in the scene, or its poses are of another number.
    """
    scene = loaded.scene
    for item in moving:
        if item.name not in scene.objects:
            raise ValueError(
                "There is no such object in the scene (small ones may have been merged when it was "
                f"loaded). Its objects are {', '.join(list(scene.objects)[:20])}. Received: "
                f"name={item.name}, scene={loaded.name}"
            )
        if len(item.position) != num_snapshots:
            raise ValueError(
                f"An object's poses must be given for all {num_snapshots} snapshots. Received: "
                f"name={item.name}, {len(item.position)} positions"
            )
    keys = [f"{scene.objects[item.name].mi_mesh.id()}.vertex_positions" for item in moving]
    rest = [np.array(scene.mi_scene_params[key]).reshape(-1, 3).astype(np.float64) for key in keys]
    # What Sionna RT calls an object's position.
    centre = [(corners.min(axis=0) + corners.max(axis=0)) / 2 for corners in rest]
    velocity = [item.velocity(sampling_period) for item in moving]

    def write(corners):
        for key, value in zip(keys, corners, strict=True):
            scene.mi_scene_params[key] = mitsuba.Float(value.astype(np.float32).ravel())
        scene.mi_scene_params.update()
        scene.scene_geometry_updated()

    def pose(snapshot):
        corners = []
        for item, points, middle, pace in zip(moving, rest, centre, velocity, strict=True):
            turn = item.orientation[snapshot]
            cosine, sine = np.cos(turn), np.sin(turn)
            rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
            corners.append((points - middle) @ rotation.T + item.position[snapshot])
            scene.objects[item.name].velocity = [float(v) for v in pace[snapshot]]
        write(corners)

    try:
        yield pose
    finally:
        if moving:
            write(rest)
            for item in moving:
                scene.objects[item.name].velocity = [0.0, 0.0, 0.0]
            drjit.eval()
