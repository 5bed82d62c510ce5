"""Solids that cities are built of.

They share vertices between their faces and wind counter-clockwise seen from outside. Both matter:
Sionna RT finds diffracting edges by the vertices that two faces share.
"""

import numpy as np

from lwmt_sionna.rt.scenes.meshes import Mesh
from lwmt_sionna.typing import ArrayLike

__all__ = ["box", "ellipsoid", "extrude", "house", "quad", "ring", "row"]


def quad(lower: ArrayLike, upper: ArrayLike, height: float = 0.0) -> Mesh:
    """Horizontal rectangle that looks up.

    Args:
        lower: `(x, y)` of the lower corner, metres.
        upper: `(x, y)` of the upper corner, metres.
        height: Metres.
    """
    (x0, y0), (x1, y1) = np.asarray(lower), np.asarray(upper)
    corners = [[x0, y0, height], [x1, y0, height], [x1, y1, height], [x0, y1, height]]
    return Mesh(corners, [[0, 1, 2], [0, 2, 3]])


def extrude(polygon: ArrayLike, bottom: float, top: float) -> Mesh:
    """Upright prism over a convex polygon.

    Args:
        polygon: Corners in metres, counter-clockwise, float `[num_corners, 2]`.
        bottom: Height of the lower face in metres.
        top: Height of the upper face in metres.
    """
    polygon = np.asarray(polygon, dtype=np.float64)
    n = len(polygon)
    vertices = np.concatenate([np.column_stack([polygon, np.full(n, z)]) for z in (bottom, top)])
    here, after = np.arange(n), (np.arange(n) + 1) % n
    fan = np.column_stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)])
    faces = [
        np.column_stack([here, after, after + n]),
        np.column_stack([here, after + n, here + n]),
        fan + n,
        fan[:, ::-1],
    ]
    return Mesh(vertices, np.concatenate(faces))


def box(lower: ArrayLike, upper: ArrayLike) -> Mesh:
    """Axis-aligned box between two corners, each float `[3]`, metres."""
    (x0, y0, z0), (x1, y1, z1) = np.asarray(lower), np.asarray(upper)
    return extrude([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], z0, z1)


def ring(outer: ArrayLike, inner: ArrayLike, bottom: float, top: float) -> Mesh:
    """Upright prism with a courtyard.

    Args:
        outer: Corners of the outline in metres, counter-clockwise, float `[num_corners, 2]`.
        inner: Corners of the courtyard, as many and in the same order.
        bottom: Height of the lower face in metres.
        top: Height of the upper face in metres.
    """
    outer, inner = np.asarray(outer), np.asarray(inner)
    n = len(outer)
    layers = [(outer, bottom), (outer, top), (inner, top), (inner, bottom)]
    vertices = np.concatenate([np.column_stack([p, np.full(n, z)]) for p, z in layers])
    here, after = np.arange(n), (np.arange(n) + 1) % n
    faces = []
    for layer in range(4):
        low, high = layer * n, (layer + 1) % 4 * n
        faces.append(np.column_stack([here + low, after + low, after + high]))
        faces.append(np.column_stack([here + low, after + high, here + high]))
    return Mesh(vertices, np.concatenate(faces))


def row(stations: ArrayLike, heights: ArrayLike, depth: float) -> Mesh:
    """Houses wall to wall along x, one closed surface whose facade has no seams.

    Were they boxes side by side, every seam of the facade would count as two diffracting edges.

    Args:
        stations: Ends of the houses along x in metres, ascending, float `[num_houses + 1]`.
        heights: Metres, float `[num_houses]`; neighbours of equal height are allowed.
        depth: Extent along y in metres, from 0.
    """
    stations, heights = np.asarray(stations), np.asarray(heights, dtype=np.float64)
    left = np.concatenate([[0.0], heights])
    right = np.concatenate([heights, [0.0]])
    levels = [sorted({0.0, a, b}) for a, b in zip(left, right)]
    offsets = np.cumsum([0, *(len(each) for each in levels)])
    front = np.array([[x, 0.0, z] for x, each in zip(stations, levels) for z in each])
    back = front + np.array([0.0, depth, 0.0])
    behind = len(front)
    faces = []

    def side(low, high):
        """Strip between two chains of vertices that climb, seen from the side of `low`."""
        i = j = 0
        while i < len(low) - 1 or j < len(high) - 1:
            climb_low = j == len(high) - 1 or (
                i < len(low) - 1 and front[low[i + 1], 2] <= front[high[j + 1], 2]
            )
            third = low[i + 1] if climb_low else high[j + 1]
            triangle = [low[i], high[j], third]
            faces.append(triangle)
            faces.append([behind + triangle[1], behind + triangle[0], behind + triangle[2]])
            i, j = (i + 1, j) if climb_low else (i, j + 1)

    def wall(first, second):
        """Rectangle from an edge of the front to the back; an edge that climbs looks to -x."""
        faces.append([first, second, second + behind])
        faces.append([first, second + behind, first + behind])

    for house, height in enumerate(heights):
        begin, end = levels[house], levels[house + 1]
        low = [offsets[house] + k for k, z in enumerate(begin) if z <= height]
        high = [offsets[house + 1] + k for k, z in enumerate(end) if z <= height]
        side(low, high)
        wall(low[-1], high[-1])  # the roof
        wall(high[0], low[0])  # the floor
    for station, each in enumerate(levels):
        base = offsets[station]
        for k in range(len(each) - 1):
            if each[k] >= min(left[station], right[station]):
                ends = (base + k, base + k + 1)
                wall(*(ends if right[station] > left[station] else ends[::-1]))
    return Mesh(np.concatenate([front, back]), faces)


def house(length: float, width: float, eaves: float, ridge: float) -> Mesh:
    """Detached house with a gable roof along x, centred on the origin, standing on z = 0.

    Args:
        length: Extent along x in metres.
        width: Extent along y in metres.
        eaves: Height of the eaves in metres.
        ridge: Height of the ridge in metres.
    """
    y, z = np.array(
        [[-width / 2, 0], [width / 2, 0], [width / 2, eaves], [0, ridge], [-width / 2, eaves]]
    ).T
    gable = np.column_stack([y, z])
    solid = extrude(gable, -length / 2, length / 2)
    # The prism's polygon lies in (y, z) and its height along x: a cyclic exchange keeps winding.
    return Mesh(solid.vertices[:, [2, 0, 1]], solid.faces)


def ellipsoid(centre: ArrayLike, radii: ArrayLike) -> Mesh:
    """Icosahedron stretched to the radii, for the crowns of trees.

    Args:
        centre: Metres, float `[3]`.
        radii: Metres, float `[3]`.
    """
    angle = np.arange(5) * 2 * np.pi / 5
    z = 1 / np.sqrt(5)
    upper = np.column_stack([2 * z * np.cos(angle), 2 * z * np.sin(angle), np.full(5, z)])
    half = angle + np.pi / 5
    lower = np.column_stack([2 * z * np.cos(half), 2 * z * np.sin(half), np.full(5, -z)])
    vertices = np.concatenate([[[0.0, 0.0, 1.0]], upper, lower, [[0.0, 0.0, -1.0]]])
    faces = []
    for k in range(5):
        a, b = 1 + k, 1 + (k + 1) % 5
        c, d = 6 + k, 6 + (k + 1) % 5
        faces += [[0, a, b], [a, c, b], [b, c, d], [11, d, c]]
    return Mesh(vertices * np.asarray(radii) + np.asarray(centre), faces)
