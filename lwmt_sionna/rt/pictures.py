"""Rendered pictures of scenes."""

import numpy as np

from lwmt_sionna.rt._sionna import sionna_rt
from lwmt_sionna.runs.records import atomic_path

__all__ = ["render_scene"]

_FIELD_OF_VIEW = 45.0


def render_scene(
    loaded,
    path,
    *,
    base_stations=(),
    users=(),
    resolution=(640, 420),
    num_samples=64,
    num_colors=None,
):
    """Renders a scene from above at a slant, cut to what is in it.

    Args:
        loaded: `lwmt_sionna.rt.scenes.LoadedScene`.
        path: Path of the PNG file.
        base_stations: Positions in metres, float `[num_base_stations, 3]`, drawn as red balls.
        users: Positions in metres, float `[num_users, 3]`, drawn as green balls.
        resolution: Width and height in pixels, before the empty margin is cut away.
        num_samples: Rays per pixel.
        num_colors: Colours of a palette, for a small file; full colour if `None`.
    """
    from PIL import Image

    scene = loaded.scene
    names = []
    for kind, places in ((sionna_rt.Transmitter, base_stations), (sionna_rt.Receiver, users)):
        for place in places:
            names.append(f"picture-{len(names)}")
            scene.add(kind(names[-1], position=[float(c) for c in place]))
    # Devices that a solve has left in the scene are no part of its picture.
    others = {**scene.transmitters, **scene.receivers}
    others = {name: device for name, device in others.items() if name not in names}
    for name in others:
        scene.remove(name)
    try:
        bitmap = scene.render(
            camera=_camera(loaded.bounds, resolution[0] / resolution[1]),
            fov=_FIELD_OF_VIEW,
            resolution=tuple(resolution),
            num_samples=num_samples,
            show_devices=True,
            return_bitmap=True,
        )
    finally:
        for name in names:
            scene.remove(name)
        for device in others.values():
            scene.add(device)
    # Linear light with the share of the background, [height, width, (r, g, b, a)].
    pixels = np.clip(np.array(bitmap, dtype=np.float64), 0.0, 1.0)
    color = _to_srgb(pixels[..., :3]) + (1.0 - pixels[..., 3:])
    image = Image.fromarray(np.round(255 * np.clip(color, 0.0, 1.0)).astype(np.uint8))
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
    if rows.size:
        image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    if num_colors is not None:
        image = image.quantize(num_colors, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        image.save(temporary, optimize=True)


def _to_srgb(linear):
    """Transfer function of sRGB, IEC 61966-2-1."""
    return np.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * np.power(np.maximum(linear, 1e-9), 1 / 2.4) - 0.055,
    )


def _camera(bounds, aspect):
    lower, upper = (np.asarray(corner, dtype=np.float64) for corner in bounds)
    target = (lower + upper) / 2
    # Across the longer side, so that a long street fills the picture's width.
    along_x = upper[0] - lower[0] >= upper[1] - lower[1]
    forward = np.array([0.4, 1.0, -1.3] if along_x else [1.0, 0.4, -1.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    top = np.cross(right, forward)
    corners = np.array(
        [[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64
    )
    corners = lower + corners * (upper - lower) - target
    half = np.tan(np.deg2rad(_FIELD_OF_VIEW) / 2)
    needed = np.maximum(np.abs(corners @ right) / half, np.abs(corners @ top) * aspect / half)
    distance = 1.03 * np.max(needed - corners @ forward)
    eye = target - distance * forward
    return sionna_rt.Camera(position=eye.tolist(), look_at=target.tolist())
