"""Triangle meshes in NumPy: solids of cities, and what can be wrong with a mesh.

Solids share vertices between their faces and wind counter-clockwise seen from outside. Both matter:
Sionna RT finds diffracting edges by the vertices that two faces share.
"""

import dataclasses

import numpy as np

__all__ = [
    "Mesh",
    "box",
    "ellipsoid",
    "extrude",
    "house",
    "join",
    "quad",
    "ring",
    "row",
    "winding_number",
]

_WELD = 1e-4


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: float64 `[num_vertices, 3]`, metres.
        faces: int64 `[num_faces, 3]`, indices of vertices.
    """

    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self):
        vertices = np.asarray(self.vertices, dtype=np.float64).reshape(-1, 3)
        faces = np.asarray(self.faces, dtype=np.int64).reshape(-1, 3)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)
        if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
            raise ValueError(
                f"faces refer to vertices that do not exist: expected indices below "
                f"{len(vertices)}. Received: {faces.min()} to {faces.max()}"
            )

    @property
    def corners(self):
        """Corners of every face, float64 `[num_faces, 3, 3]`."""
        return self.vertices[self.faces]

    @property
    def areas(self):
        """Area of every face in square metres, float64 `[num_faces]`."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2

    @property
    def normals(self):
        """Unit normals by the right-hand rule, float64 `[num_faces, 3]`; zero where no area."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)

    @property
    def bounds(self):
        """`(lower, upper)` corners of the vertices in use, each float64 `[3]`."""
        used = self.vertices[np.unique(self.faces)] if self.faces.size else self.vertices
        return used.min(axis=0), used.max(axis=0)

    @property
    def volume(self):
        """Enclosed volume in cubic metres; negative where all faces look inwards."""
        a, b, c = np.moveaxis(self.corners - self.corners.mean(axis=(0, 1)), 1, 0)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    def moved(self, offset=(0.0, 0.0, 0.0), yaw=0.0):
        """The mesh turned about the vertical axis through the origin, then shifted.

        Args:
            offset: Metres, float `[3]`.
            yaw: Radians, counter-clockwise from above.
        """
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        vertices = self.vertices.copy()
        vertices[:, :2] = vertices[:, :2] @ turn.T
        return Mesh(vertices + np.asarray(offset, dtype=np.float64), self.faces)

    def welded(self):
        """The mesh with vertices closer than 0.1 mm made one."""
        cells, inverse = np.unique(
            np.round(self.vertices / _WELD).astype(np.int64), axis=0, return_inverse=True
        )
        return Mesh(cells * _WELD, inverse.ravel()[self.faces])

    @property
    def num_shared_edges(self):
        """Number of edges that exactly two faces share by their vertices, as they stand."""
        ends = np.sort(np.stack([self.faces, self.faces[:, [1, 2, 0]]], axis=-1), axis=-1)
        _, count = np.unique(
            ends[..., 0] * (len(self.vertices) + 1) + ends[..., 1], return_counts=True
        )
        return int(np.sum(count == 2))

    def num_miswound_edges(self):
        """Edges along which two faces of the mesh look to opposite sides.

        Neighbouring faces of an orientable surface pass their common edge in opposite directions.

        Returns:
            Tuple of the number of such edges, and of the edges that exactly two faces share.
        """
        faces = self.welded().faces
        start = faces.ravel()
        stop = faces[:, [1, 2, 0]].ravel()
        low, high = np.minimum(start, stop), np.maximum(start, stop)
        _, index, count = np.unique(
            low * (len(self.vertices) + 1) + high, return_inverse=True, return_counts=True
        )
        balance = np.bincount(index.ravel(), weights=np.where(start < stop, 1, -1))
        shared = (count == 2) & (np.bincount(index.ravel(), weights=start != stop) == 2)
        return int(np.sum(shared & (balance != 0))), int(shared.sum())


def join(meshes):
    """One mesh of several; vertices are not shared between them."""
    meshes = list(meshes)
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets)]),
    )


def quad(lower, upper, height=0.0):
    """Horizontal rectangle that looks up.

    Args:
        lower: `(x, y)` of the lower corner, metres.
        upper: `(x, y)` of the upper corner, metres.
        height: Metres.
    """
    (x0, y0), (x1, y1) = lower, upper
    corners = [[x0, y0, height], [x1, y0, height], [x1, y1, height], [x0, y1, height]]
    return Mesh(corners, [[0, 1, 2], [0, 2, 3]])


def extrude(polygon, bottom, top):
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


def box(lower, upper):
    """Axis-aligned box between two corners, each float `[3]`, metres."""
    (x0, y0, z0), (x1, y1, z1) = lower, upper
    return extrude([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], z0, z1)


def ring(outer, inner, bottom, top):
    """Upright prism with a courtyard.

    Args:
        outer: Corners of the outline in metres, counter-clockwise, float `[num_corners, 2]`.
        inner: Corners of the courtyard, as many and in the same order.
        bottom: Height of the lower face in metres.
        top: Height of the upper face in metres.
    """
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


def row(stations, heights, depth):
    """Houses wall to wall along x, one closed surface whose facade has no seams.

    Were they boxes side by side, every seam of the facade would count as two diffracting edges.

    Args:
        stations: Ends of the houses along x in metres, ascending, float `[num_houses + 1]`.
        heights: Metres, float `[num_houses]`; neighbours of equal height are allowed.
        depth: Extent along y in metres, from 0.
    """
    heights = np.asarray(heights, dtype=np.float64)
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


def house(length, width, eaves, ridge):
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


def ellipsoid(centre, radii):
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


def winding_number(mesh, points):
    """How often a mesh surrounds points: about 1 inside and 0 outside of closed surfaces.

    The sum of the signed solid angles of all faces over 4 pi, after Van Oosterom and Strackee,
    IEEE Trans. Biomed. Eng. 30 (1983). Open surfaces give fractions.

    Args:
        mesh: `Mesh`.
        points: Metres, float `[num_points, 3]`.

    Returns:
        float64 `[num_points]`.
    """
    number = np.empty(len(points))
    for index, point in enumerate(np.asarray(points, dtype=np.float64)):
        a, b, c = np.moveaxis(mesh.corners - point, 1, 0)
        la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
        triple = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a))]
        scale = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
        number[index] = np.sum(2 * np.arctan2(triple, scale)) / (4 * np.pi)
    return number
