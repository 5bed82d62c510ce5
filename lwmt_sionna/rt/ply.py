"""PLY files of triangle meshes, written alike on every machine."""

import itertools
import pathlib

import numpy as np

from lwmt_sionna.rt.meshes import Mesh

__all__ = ["read_ply", "write_ply"]

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "<i2", "int16": "<i2", "ushort": "<u2", "uint16": "<u2",
    "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip


def write_ply(path, mesh):
    """Writes a binary PLY file; coordinates are rounded to millimetres, so builds repeat.

    Args:
        path: Path of the file.
        mesh: `Mesh`.
    """
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


def read_ply(path):
    """Reads the vertices and faces of a PLY file, binary little-endian or text.

    Args:
        path: Path of the file. Faces of more than three corners are cut into fans.

    Returns:
        `Mesh`.

    Raises:
        ValueError: If the file is no such PLY file, or shorter than its header says.
    """
    path = pathlib.Path(path)
    raw = path.read_bytes()
    head, mark, body = raw.partition(b"end_header")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not mark or not lines or lines[0] != ["ply"]:
        raise ValueError(f"The file is no PLY file. Received: path={path}")
    form, elements = "", []
    for words in lines[1:]:
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements:
            elements[-1][2].append(words[1:])
    if form not in ("ascii", "binary_little_endian"):
        raise ValueError(
            "Expected a PLY file in the format ascii or binary_little_endian. Received: "
            f"path={path}, format={form}"
        )
    newline = body.find(b"\n") + 1
    try:
        return _parse_ply(body[newline:], form == "ascii", elements)
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"The PLY file is damaged: {error}. Received: path={path}") from error


def _parse_ply(body, is_text, elements):
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    words, at = (body.split(), 0) if is_text else (None, 0)
    for name, count, properties in elements:
        is_list = [prop[0] == "list" for prop in properties]
        if not any(is_list):
            names = [prop[1] for prop in properties]
            if is_text:
                table = np.array(words[at : at + count * len(names)], dtype=np.float64)
                table = table.reshape(count, len(names))
                columns = {key: table[:, k] for k, key in enumerate(names)}
                at += count * len(names)
            else:
                dtype = np.dtype([(prop[1], _PLY_TYPES[prop[0]]) for prop in properties])
                columns = np.frombuffer(body, dtype, count, at)
                at += dtype.itemsize * count
            if name == "vertex":
                vertices = np.column_stack([columns[axis] for axis in "xyz"]).astype(np.float64)
        elif name == "face":
            polygons, at = _parse_faces(words if is_text else body, at, count, properties, is_text)
            faces = np.array(polygons, dtype=np.int64).reshape(-1, 3)
    return Mesh(vertices, faces)


def _parse_faces(source, at, count, properties, is_text):
    if not is_text and len(properties) == 1 and properties[0][0] == "list":
        length, kind = (np.dtype(_PLY_TYPES[word]) for word in properties[0][1:3])
        record = np.dtype([("size", length), ("corner", kind, 3)])
        if len(source) - at >= count * record.itemsize:
            table = np.frombuffer(source, record, count, at)
            if np.all(table["size"] == 3):
                return table["corner"].tolist(), at + count * record.itemsize
    triangles = []
    for _ in range(count):
        for prop in properties:
            if prop[0] != "list":
                at += 1 if is_text else np.dtype(_PLY_TYPES[prop[0]]).itemsize
                continue
            if is_text:
                size = int(source[at])
                corners = [int(word) for word in source[at + 1 : at + 1 + size]]
                at += 1 + size
            else:
                length, kind = (np.dtype(_PLY_TYPES[word]) for word in prop[1:3])
                size = int(np.frombuffer(source, length, 1, at)[0])
                corners = np.frombuffer(source, kind, size, at + length.itemsize).tolist()
                at += length.itemsize + size * kind.itemsize
            if prop[-1] in ("vertex_indices", "vertex_index"):
                triangles += [[corners[0], *pair] for pair in itertools.pairwise(corners[1:])]
    return triangles, at
