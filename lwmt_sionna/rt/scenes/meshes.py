"""Triangle meshes in NumPy: what can be wrong with one, and their files (PLY, OBJ).

Sionna RT finds diffracting edges by the vertices that two faces share.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable

import numpy as np

from lwmt_sionna.typing import Array, ArrayLike, PathLike

_WELD = 1e-4
# A city of ten million triangles is a quarter of this. Text, and faces that are no triangles, take
# seconds for each million.
_LARGEST_FILE = 2**30
_LARGEST_TEXT = 2**27
_LARGEST_HEADER = 2**16
_MOST_POLYGONS = 3_000_000
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: float64 `[num_vertices, 3]`, metres.
        faces: int64 `[num_faces, 3]`, indices of vertices.
    """

    vertices: Array
    faces: Array

    def __post_init__(self) -> None:
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
    def corners(self) -> Array:
        """Corners of every face, float64 `[num_faces, 3, 3]`."""
        return self.vertices[self.faces]

    @property
    def normals(self) -> Array:
        """Normal of every face, as long as twice its area in square metres, `[num_faces, 3]`."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        return np.cross(b - a, c - a)

    @property
    def areas(self) -> Array:
        """Area of every face in square metres, float64 `[num_faces]`."""
        return np.linalg.norm(self.normals, axis=-1) / 2

    @property
    def bounds(self) -> tuple[Array, Array]:
        """`(lower, upper)` corners of the vertices in use, each float64 `[3]`."""
        used = self.vertices[np.unique(self.faces)] if self.faces.size else self.vertices
        return used.min(axis=0), used.max(axis=0)

    @property
    def volume(self) -> float:
        """Enclosed volume in cubic metres; negative where all faces look inwards."""
        a, b, c = np.moveaxis(self.corners - self.corners.mean(axis=(0, 1)), 1, 0)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    def moved(self, offset: ArrayLike = (0.0, 0.0, 0.0), yaw: float = 0.0) -> "Mesh":
        """The mesh turned about the vertical axis through the origin, then shifted.

        By radians, counter-clockwise from above, and metres `[3]`.
        """
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        vertices = self.vertices.copy()
        vertices[:, :2] = vertices[:, :2] @ turn.T
        return Mesh(vertices + np.asarray(offset, dtype=np.float64), self.faces)

    def welded(self) -> "Mesh":
        """The mesh with vertices closer than 0.1 mm made one."""
        cells, inverse = np.unique(
            np.round(self.vertices / _WELD).astype(np.int64), axis=0, return_inverse=True
        )
        return Mesh(cells * _WELD, inverse.ravel()[self.faces])

    @property
    def num_shared_edges(self) -> int:
        """Number of edges that exactly two faces share by their vertices, as they stand."""
        _, count = np.unique(self._edges()[1], return_counts=True)
        return int(np.sum(count == 2))

    def _edges(self):
        """Of every edge of every face: the way it is passed, and a number that both faces share."""
        start, stop = self.faces.ravel(), self.faces[:, [1, 2, 0]].ravel()
        low, high = np.minimum(start, stop), np.maximum(start, stop)
        return np.sign(stop - start), low * (len(self.vertices) + 1) + high

    def num_miswound_edges(self) -> tuple[int, int]:
        """Edges along which two faces of the mesh look to opposite sides.

        Neighbouring faces of an orientable surface pass their common edge in opposite directions.

        Returns:
            Tuple of the number of such edges, and of the edges that exactly two faces share.
        """
        way, edge = self.welded()._edges()
        _, index, count = np.unique(edge, return_inverse=True, return_counts=True)
        balance = np.bincount(index.ravel(), weights=way)
        # An edge without length has no way.
        shared = (count == 2) & (np.bincount(index.ravel(), weights=way != 0) == 2)
        return int(np.sum(shared & (balance != 0))), int(shared.sum())


def join(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of several; vertices are not shared between them."""
    meshes = list(meshes)
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets)]),
    )


def winding_number(mesh: Mesh, points: ArrayLike) -> Array:
    """How often a mesh surrounds points: about 1 inside and 0 outside of closed surfaces.

    The sum of the signed solid angles of all faces over 4 pi, after Van Oosterom and Strackee,
    IEEE Trans. Biomed. Eng. 30 (1983). Open surfaces give fractions: float64 `[num_points]`, of
    points in metres `[num_points, 3]`.
    """
    points = np.asarray(points, dtype=np.float64)
    number = np.empty(len(points))
    for index, point in enumerate(points):
        a, b, c = np.moveaxis(mesh.corners - point, 1, 0)
        la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
        triple = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a))]
        scale = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
        number[index] = np.sum(2 * np.arctan2(triple, scale)) / (4 * np.pi)
    return number


def write_ply(path: PathLike, mesh: Mesh) -> None:
    """Writes a binary PLY file; coordinates are rounded to millimetres, so builds repeat."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    records = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    records["count"] = 3
    records["index"] = mesh.faces
    # Adding zero turns -0.0 into 0.0.
    vertices = np.round(mesh.vertices, 3).astype("<f4") + np.float32(0)
    pathlib.Path(path).write_bytes(header.encode() + vertices.tobytes() + records.tobytes())


def read_mesh(path: PathLike) -> Mesh:
    """Reads a PLY file (text or binary, of either byte order) or an OBJ file.

    Args:
        path: Path of the file. Faces of more than three corners are cut into fans.

    Returns:
        `Mesh`, with the vertices as the file lists them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, damaged, without faces, or larger than one gigabyte.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no mesh here. Received: path={path}")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ValueError(
            f"The mesh is larger than {_LARGEST_FILE} bytes. Received: path={path}, {size} bytes"
        )
    raw = path.read_bytes()
    try:
        mesh = _parse_obj(raw) if path.suffix.lower() == ".obj" else _parse_ply(raw)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"The mesh is damaged: {error}. Received: path={path}") from error
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        lack = "has no faces" if not len(mesh.faces) else "has vertices that are not finite"
        raise ValueError(f"The mesh {lack}. Received: path={path}")
    return mesh


def _parse_obj(raw):
    _check_text(raw)
    vertices, faces = [], []
    for line in raw.decode("utf-8", "replace").splitlines():
        kind, *words = line.split(None, 1) or [""]
        if kind == "v":
            vertices.append([float(word) for word in words[0].split()[:3]])
        elif kind == "f":
            corners = [int(word.partition("/")[0]) for word in words[0].split()]
            corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            faces += [[corners[0], *pair] for pair in itertools.pairwise(corners[1:])]
    return Mesh(np.array(vertices, dtype=np.float64), np.array(faces, dtype=np.int64))


def _check_text(raw):
    if len(raw) > _LARGEST_TEXT:
        raise ValueError(f"text is larger than {_LARGEST_TEXT} bytes; export it in binary form")


def _read_header(raw):
    """Byte order (`None` for text), elements with their counts and properties, and the rest."""
    end = raw.find(b"end_header", 0, _LARGEST_HEADER)
    lines = [line.split() for line in raw[: max(end, 0)].decode("ascii", "replace").splitlines()]
    if not lines or lines[0] != ["ply"]:
        raise ValueError("it has no header of a PLY file")
    form, elements = "", []
    for words in lines[1:]:
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    return _PLY_ORDERS[form], elements, raw[raw.find(b"\n", end) + 1 :]


def _parse_ply(raw):
    order, elements, source = _read_header(raw)
    if order is None:
        _check_text(source)
        source = source.split()
    at = 0
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    for name, count, properties in elements:
        # The header is not believed: as many records must fit into what is left.
        each = [_least_size(prop, order) for prop in properties]
        if count < 0 or count * sum(each) > len(source) - at or (count and not properties):
            raise ValueError(f"it does not hold {count} elements {name}")
        if any(prop[0] == "list" for prop in properties):
            polygons, at = _read_lists(source, at, count, properties, order)
            if name == "face":
                faces = polygons
            continue
        if order is None:
            table = np.array(source[at : at + count * len(each)], dtype=np.float64)
            table = table.reshape(count, len(each))
            columns = {prop[1]: table[:, k] for k, prop in enumerate(properties)}
        else:
            dtype = [(prop[1], order + _PLY_TYPES[prop[0]]) for prop in properties]
            columns = np.frombuffer(source, dtype, count, at)
        at += count * sum(each)
        if name == "vertex":
            vertices = np.column_stack([columns[axis] for axis in "xyz"]).astype(np.float64)
    return Mesh(vertices, faces)


def _least_size(prop, order):
    """Words or bytes that a property takes at least."""
    if order is None:
        return 1
    return np.dtype(_PLY_TYPES[prop[1] if prop[0] == "list" else prop[0]]).itemsize


def _read_lists(source, at, count, properties, order):
    """Triangles of faces, and the place behind them."""
    if order is not None and len(properties) == 1:
        length, kind = (np.dtype(order + _PLY_TYPES[word]) for word in properties[0][1:3])
        record = np.dtype([("size", length), ("corner", kind, 3)])
        if len(source) - at >= count * record.itemsize:
            table = np.frombuffer(source, record, count, at)
            if np.all(table["size"] == 3):
                return table["corner"].astype(np.int64), at + count * record.itemsize
    if count > _MOST_POLYGONS:
        raise ValueError(f"more than {_MOST_POLYGONS} faces that are no triangles")
    triangles = []
    for _ in range(count):
        for prop in properties:
            if prop[0] != "list":
                at += _least_size(prop, order)
                continue
            if order is None:
                size, first, step = int(source[at]), at + 1, 1
            else:
                length, kind = (np.dtype(order + _PLY_TYPES[word]) for word in prop[1:3])
                size = int(np.frombuffer(source, length, 1, at)[0])
                first, step = at + length.itemsize, kind.itemsize
            at = first + size * step
            if size < 0 or at > len(source):
                raise ValueError(f"a list of {size} entries does not fit into it")
            if prop[-1] not in ("vertex_indices", "vertex_index"):
                continue
            if order is None:
                corners = [int(word) for word in source[first:at]]
            else:
                corners = np.frombuffer(source, kind, size, first).tolist()
            triangles += [[corners[0], *pair] for pair in itertools.pairwise(corners[1:])]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3), at
