"""Channel sequences in HDF5, for worlds that have no paths: measurements, TR 38.901, arrays.

One schema, `lwmt_sionna.channels`, with the checksum of `lwmt_sionna.data.container`; and what
brings arrays of one's own into it, with every axis named and none guessed.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from lwmt_sionna.data.array_files import ArrayReader
from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.container import new_file, read_content
from lwmt_sionna.data.labelled import label
from lwmt_sionna.data.paths import SPEED_OF_LIGHT, PathSequences, check_one_tracer
from lwmt_sionna.data.synthesis import subcarrier_frequencies, synthesize
from lwmt_sionna.typing import Array, ArrayLike, PathLike

CHANNEL_SCHEMA = "lwmt_sionna.channels"
_VERSION = (1, 1)
_ARRAYS = {"h": "STAK", "speed": "S", "sequence_id": "S", "bs_index": "S"}
_POSITIVE = ("sampling_period", "carrier_frequency", "subcarrier_spacing")
# Names of the axes of arrays of others; antennas are in Sionna's order.
_PLANE = ("polarization", "column", "row")
# What the check of axes looks at: sequences at least, below which signs are chance, and at most.
_FEWEST, _MOST = 10, 64
AXES = ("sequence", "time", "antenna", *_PLANE, "subcarrier", "complex")


@dataclasses.dataclass(frozen=True)
class ChannelSequences:
    """Channels between users and a base station, snapshot by snapshot.

    Attributes:
        h: complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`. Antennas in the
            order of Sionna's `PlanarArray` (polarisation, column, row), subcarriers by frequency.
        sampling_period: Time between snapshots in seconds.
        carrier_frequency: Hertz.
        subcarrier_spacing: Hertz.
        array_shape: Number of rows, columns and polarisations of the base station's array.
        origin: Where the channels come from, in words.
        speed: float32 `[num_sequences]`. Metres per second, NaN where unknown. By default unknown.
        sequence_id: int64 `[num_sequences]`. Unique. By default 0, 1, ...
        bs_index: int64 `[num_sequences]`. Which base station serves. By default the first one.
        metadata: Whatever else is known, JSON-compatible.

    Raises:
        ValueError: If the fields do not fit each other, or a channel is not finite.
    """

    h: Array
    sampling_period: float
    carrier_frequency: float
    subcarrier_spacing: float
    array_shape: tuple[int, int, int]
    origin: str
    # Filled in where they are left out.
    speed: Array = None  # type: ignore[assignment]
    sequence_id: Array = None  # type: ignore[assignment]
    bs_index: Array = None  # type: ignore[assignment]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        h = np.asarray(self.h)
        if h.ndim != 4 or h.dtype.kind != "c":
            raise ValueError(
                "h must be complex [num_sequences, num_snapshots, num_ant, num_subcarriers]. "
                f"Received: h.shape={h.shape}, h.dtype={h.dtype}"
            )
        h = h.astype(np.complex64, copy=False)
        finite = np.isfinite(h).all(axis=(1, 2, 3))
        if not finite.all():
            raise ValueError(f"h is not finite in sequence {int(np.argmin(finite))}")
        shape = tuple(int(size) for size in self.array_shape)
        if len(shape) != 3 or min(shape) < 1 or np.prod(shape) != h.shape[2]:
            raise ValueError(
                "array_shape must be (rows, columns, polarisations) of all antennas. Received: "
                f"array_shape={self.array_shape}, h.shape={h.shape}"
            )
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive. Received: {name}={getattr(self, name)}")
        speed = np.full(len(h), np.nan) if self.speed is None else self.speed
        speed = np.array(np.broadcast_to(np.asarray(speed, np.float32), len(h)))
        if (speed < 0).any() or np.isinf(speed).any():
            raise ValueError("speed must be finite, not negative, or NaN where unknown")
        number = np.arange(len(h)) if self.sequence_id is None else np.asarray(self.sequence_id)
        if number.shape != (len(h),) or len(np.unique(number)) != len(h):
            raise ValueError(
                f"sequence_id must be {len(h)} different integers. Received: "
                f"sequence_id.shape={number.shape}"
            )
        serving = np.zeros(len(h)) if self.bs_index is None else np.asarray(self.bs_index)
        if serving.shape != (len(h),) or (serving < 0).any():
            raise ValueError(
                f"bs_index must be {len(h)} integers from zero on. Received: "
                f"bs_index.shape={serving.shape}"
            )
        fields = {"h": h, "array_shape": shape, "speed": speed}
        numbers = {"sequence_id": number, "bs_index": serving}
        for name, value in (fields | {k: v.astype(np.int64) for k, v in numbers.items()}).items():
            object.__setattr__(self, name, value)

    @property
    def num_sequences(self) -> int:
        """Number of sequences."""
        return self.h.shape[0]

    @property
    def num_snapshots(self) -> int:
        """Number of snapshots of each sequence."""
        return self.h.shape[1]

    @property
    def frequencies(self) -> Array:
        """Baseband frequencies of the subcarriers in hertz, float64 `[num_subcarriers]`."""
        return subcarrier_frequencies(self.h.shape[3], self.subcarrier_spacing)

    @property
    def normalized_doppler(self) -> Array:
        """`speed * carrier / c * period` of every sequence, float32 `[num_sequences]`."""
        return self.speed * (self.carrier_frequency / SPEED_OF_LIGHT * self.sampling_period)

    @property
    def array(self) -> PlanarArray:
        """`PlanarArray` of as many rows, columns and polarisations, at half wavelengths."""
        rows, columns, polarizations = self.array_shape
        return PlanarArray(rows, columns, polarization="V" if polarizations == 1 else "VH")

    @property
    def scene(self) -> str:
        """Where the channels come from, as that of `PathSequences`: `origin`."""
        return self.origin

    @property
    def trajectory_id(self) -> Array:
        """int64 `[num_sequences]`: each sequence is a trajectory of its own, `sequence_id`."""
        return self.sequence_id

    @property
    def attributes(self) -> dict[str, Any]:
        """What is no array: numbers and texts by the names that files have for them."""
        return {
            "sampling_period_s": float(self.sampling_period),
            "carrier_frequency_hz": float(self.carrier_frequency),
            "subcarrier_spacing_hz": float(self.subcarrier_spacing),
            **dict(zip(("num_rows", "num_cols", "num_polarizations"), self.array_shape)),
            "origin": self.origin,
            "metadata": json.dumps(self.metadata, sort_keys=True),
        }

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of `h` and the sequences' own numbers.

        Axes are `sequence`, `snapshot`, `tx_ant` (polarisation, column, row) and `subcarrier`.
        `time` (seconds from the first snapshot), `frequency` (hertz, the carrier included) and
        identifiers are coordinates, `units` an attribute of each array, the others those of the
        data set.

        Raises:
            ImportError: If xarray is not installed.
        """
        arrays = {name: (axes, getattr(self, name)) for name, axes in _ARRAYS.items()}
        arrays["time"] = ("T", self.sampling_period * np.arange(self.num_snapshots))
        arrays["frequency"] = ("K", self.carrier_frequency + self.frequencies)
        return label(arrays, self.attributes)

    def select(self, index: Any) -> Self:
        """A new `ChannelSequences` of the sequences that `index` (any NumPy index) picks."""
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in _ARRAYS})


def write_channels(path: PathLike, channels: ChannelSequences) -> None:
    """Writes sequences to an HDF5 file; the file appears under its name only when complete.

    Args:
        path: Target path, ending in `.h5`.

    Raises:
        OSError: If the file cannot be written, as on a full disk. The error names the path.
    """
    with new_file(path, CHANNEL_SCHEMA, _VERSION, channels.attributes) as file:
        # Noise does not shrink: compression would cost time alone.
        for name in _ARRAYS:
            file[name] = getattr(channels, name)
        file["speed"].attrs["unit"] = "m/s"


def read_channels(path: PathLike) -> ChannelSequences:
    """Reads sequences and checks that they are whole, and possible.

    Args:
        path: Path of a file that `write_channels` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, altered, of another kind or of a later version, leads
            to other files, or holds what cannot be. The message names the file and the field.
    """
    content = read_content(path, CHANNEL_SCHEMA, _VERSION[0])
    if not content.has_checksum:
        raise ValueError(f"The file lacks its checksum. Received: path={path}")
    attributes = content.attributes
    try:
        shape = [attributes[name] for name in ("num_rows", "num_cols", "num_polarizations")]
        return ChannelSequences(
            # Files of version 1.0 know of one base station.
            **{name: content.arrays[name] for name in _ARRAYS if name != "bs_index"},
            bs_index=content.arrays.get("bs_index"),
            sampling_period=float(attributes["sampling_period_s"]),
            carrier_frequency=float(attributes["carrier_frequency_hz"]),
            subcarrier_spacing=float(attributes["subcarrier_spacing_hz"]),
            array_shape=tuple(shape),
            origin=str(attributes["origin"]),
            metadata=json.loads(attributes["metadata"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The file is damaged: {error}. Received: path={path}") from error


def join_channels(
    parts: Sequence[ChannelSequences], metadata: dict[str, Any] | None = None
) -> ChannelSequences:
    """Joins sequences of one world: of the same array, band, sampling period and tracer.

    The metadata of the whole are those of the first part if `None`.

    Raises:
        ValueError: If there is no part, or the parts do not belong together.
    """
    worlds = {
        (p.array_shape, p.sampling_period, p.carrier_frequency, p.subcarrier_spacing, p.origin)
        for p in parts
    }
    if len(worlds) != 1:
        raise ValueError(f"Expected sequences of one world. Received: {sorted(worlds)}")
    check_one_tracer(*(part.metadata for part in parts))
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    metadata = parts[0].metadata if metadata is None else metadata
    return dataclasses.replace(parts[0], **joined, metadata=metadata)


def true_channels(
    sequences: PathSequences | ChannelSequences,
    array: PlanarArray | None = None,
    frequencies: ArrayLike | None = None,
    snapshots: ArrayLike | None = None,
) -> Array:
    """Channels of stored sequences: synthesised where paths are stored, or as they are stored.

    Args:
        sequences: `PathSequences` or `ChannelSequences`.
        array: That of the base station. Stored channels have theirs: `None`, or one of the same
            rows, columns and polarisations; `frequencies` alike, see `synthesize`.
        snapshots: Indices of the snapshots; all of them if `None`.

    Returns:
        complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`.

    Raises:
        ValueError: If array or frequencies are missing, or not those of the stored channels.
    """
    if isinstance(sequences, PathSequences):
        if array is None or frequencies is None:
            raise ValueError(
                "Channels of paths need an array and frequencies. Received: "
                f"array={array}, frequencies={frequencies}"
            )
        return synthesize(sequences, array, frequencies, snapshots=snapshots)
    if array is not None and array.shape != sequences.array_shape:
        raise ValueError(
            "Stored channels have an array of their own: expected None, or rows, columns and "
            f"polarisations {sequences.array_shape}. Received: array.shape={array.shape}"
        )
    own = sequences.frequencies
    if frequencies is not None and not (
        np.shape(frequencies) == own.shape
        and np.allclose(frequencies, own, rtol=0, atol=1e-3 * sequences.subcarrier_spacing)
    ):
        raise ValueError(
            f"Stored channels have subcarriers of their own: expected None, or {own.size} of them "
            f"{sequences.subcarrier_spacing:g} Hz apart. Received: "
            f"{np.size(frequencies)} frequencies from {np.min(frequencies):g} Hz on"
        )
    return sequences.h if snapshots is None else np.take(sequences.h, snapshots, axis=1)


def vanishing_mask(sequences: PathSequences | ChannelSequences) -> Array:
    """Sequences whose channel vanishes (has no path, or is zero) in at least one snapshot.

    bool `[num_sequences]`.
    """
    if isinstance(sequences, PathSequences):
        return ~sequences.valid.any(axis=-1).all(axis=-1)
    return ~np.any(sequences.h, axis=(2, 3)).all(axis=-1)


def check_channels(path: PathLike) -> list[str]:
    """Checks a file of channels: see `check_file`."""
    try:
        channels = read_channels(path)
    except (OSError, ValueError) as error:
        return [str(error)]
    vanishing = int(vanishing_mask(channels).sum())
    return [f"h vanishes in a snapshot of {vanishing} sequences."] if vanishing else []


def as_channels(
    value: ArrayLike, axes: str, array_shape: tuple[int, int, int] | None = None
) -> tuple[Array, tuple[int, int, int]]:
    """Brings an array of one's own into the order of axes of `ChannelSequences`.

    Args:
        value: Complex, or real with an axis `complex` of (real, imaginary).
        axes: Names of its axes in their order, such as `"subcarrier antenna time"`: `time` and
            `subcarrier`; `antenna`, or `row`, `column` and `polarization` as far as there are;
            `sequence`, if there are several; `complex` of real arrays.
        array_shape: Number of rows, columns and polarisations; needed with `antenna`, whose order
            is then that of Sionna (polarisation, column, row).

    Returns:
        Tuple of the array, complex64 `[num_sequences, num_snapshots, num_ant, num_subcarriers]`,
        and the array's shape.

    Raises:
        ValueError: If axes are missing, unknown or named twice, or do not fit the array.
    """
    value, names = np.asarray(value), axes.replace(",", " ").split()
    where = f"Received: axes={axes!r}, shape={value.shape}, dtype={value.dtype}"
    unknown = [name for name in names if name not in AXES]
    if unknown or len(set(names)) < len(names) or len(names) != value.ndim:
        raise ValueError(f"Expected one of {', '.join(AXES)} for each axis, each once. {where}")
    planar = [name for name in _PLANE if name in names]
    missing = {"time", "subcarrier"} - set(names)
    if missing or ("antenna" in names) == bool(planar):
        raise ValueError(
            "Expected axes for time, subcarrier, and either antenna or some of row, column and "
            f"polarization. {where}"
        )
    if ("complex" in names) == np.iscomplexobj(value):
        raise ValueError(f"Expected an axis complex of real arrays, and of those alone. {where}")
    if "complex" in names:
        value = np.moveaxis(value, names.index("complex"), -1)
        names.remove("complex")
        if value.shape[-1] != 2:
            raise ValueError(f"Expected (real, imaginary) along the axis complex. {where}")
        value = value[..., 0] + 1j * value[..., 1]
    size = {name: value.shape[names.index(name)] for name in names}
    if planar:
        found = (size.get("row", 1), size.get("column", 1), size.get("polarization", 1))
        array_shape = found if array_shape is None else array_shape
        if tuple(array_shape) != found:
            raise ValueError(f"Expected array_shape={found}. Received: array_shape={array_shape}")
    elif array_shape is None:
        raise ValueError(f"An axis antenna needs an array_shape. {where}, array_shape=None")
    # The order in the file, then that of Sionna.
    order = [n for n in ("sequence", "time", *(planar or ["antenna"]), "subcarrier") if n in names]
    value = value.transpose([names.index(name) for name in order])
    shape = (size.get("sequence", 1), size["time"], -1, size["subcarrier"])
    if 0 in value.shape:
        raise ValueError(f"Expected no empty axis. {where}")
    return value.reshape(shape).astype(np.complex64), array_shape


def axes_fault(channels: ChannelSequences) -> str | None:
    """What speaks against the order of the axes, told by correlations along them.

    The correlation of neighbours along an axis, one complex number per sequence, has a length and
    a phase. Delays are positive: along subcarriers the phases of most sequences are negative, and
    near each other. Along time they are as often positive: users come and go. Along the rows of a
    plane steps differ from those to the next column. Other sequences are other channels.

    Of fewer than ten sequences nothing is told. Time and the antennas of a line look alike where
    channels turn as much from snapshot to snapshot as from antenna to antenna.

    Returns:
        A sentence; `None` where nothing speaks against it.
    """
    if channels.num_sequences < _FEWEST:
        return None
    h = channels.h[np.linspace(0, len(channels.h) - 1, min(len(channels.h), _MOST)).astype(int)]
    lags = {name: _lags(h, axis) for axis, name in enumerate(("time", "antenna", "subcarrier"), 1)}
    alike = {name: float(np.median(np.abs(lag))) for name, lag in lags.items()}
    others = float(np.median(np.abs(_lags(h.swapaxes(0, 1), 1))))
    for name, value in alike.items():
        if others > value + 0.1:
            return f"neighbours along sequence are more alike than along {name}"
    side = {name: _side(lag) for name, lag in lags.items()}
    # How much an axis is like that of subcarriers, if its delays are positive.
    like = {n: alike[n] * abs(np.mean(x / np.maximum(abs(x), 1e-30))) for n, x in lags.items()}
    is_delay = side["subcarrier"] < -0.5
    for name in ("time", "antenna"):
        limit, least = (-0.8, like["subcarrier"] + 0.01) if is_delay else (-0.5, 0.2)
        if side[name] < limit and like[name] > least:
            return f"the axis {name} looks like subcarriers: its phases are those of delays"
    if abs(side["time"]) > 0.8 and alike["time"] > 0.2:
        return "all users come, or all go: along time the phases of all have one sign"
    return _array_fault(h, lags, side, channels.array_shape)


def _array_fault(h, lags, side, shape):
    rows, _, polarizations = shape
    turn = {name: float(np.median(np.abs(lag - 1))) for name, lag in lags.items()}
    # A line that hardly turns, and to either side: users at rest, not users in front of it.
    line = rows == polarizations == 1
    if line and turn["antenna"] < min(0.35, turn["time"] - 0.1) and abs(side["antenna"]) < 0.6:
        return "neighbouring antennas are more alike than snapshots, as snapshots at rest are"
    if rows == 1:
        return None
    steps = {}
    for axis, name in enumerate(("time", "antenna", "subcarrier"), 1):
        inside = np.arange(h.shape[axis] - 1) % rows != rows - 1
        if not inside.all() and h.shape[axis] > 2 * rows:
            steps[name] = np.median(np.abs(_lags(h, axis, inside) - _lags(h, axis, ~inside)))
    for name in set(steps) - {"antenna"}:
        if steps[name] > max(0.2, steps.get("antenna", np.inf)):
            return f"the axis {name} looks like antennas: every {rows} steps a column ends"
    return None


def _lags(h, axis, chosen=slice(None)):
    """Correlation of neighbours along an axis, of each entry of the first, complex `[len(h)]`."""
    h = np.moveaxis(h, axis, 1).reshape(len(h), h.shape[axis], -1)
    after, before = h[:, 1:][:, chosen], h[:, :-1][:, chosen]
    power = [np.sum(np.abs(x) ** 2, axis=(1, 2), dtype=np.float64) for x in (after, before)]
    lag = np.einsum("six,six->s", after, before.conj())
    return lag / np.maximum(np.sqrt(power[0] * power[1]), 1e-30)


def _side(lag):
    """From -1 to 1: whether the phases of all sequences have one sign."""
    return float(np.sum(lag.imag) / max(np.sum(np.abs(lag.imag)), 1e-30))


def import_channels(
    path: PathLike,
    axes: str,
    *,
    array_shape: tuple[int, int, int] | None = None,
    name: str | None = None,
    as_named: bool = False,
    **settings: Any,
) -> ChannelSequences:
    """Reads channels of one's own: `.npy`, `.npz`, `.mat` or HDF5.

    Args:
        path: Path of the file.
        axes: Names of the array's axes in their order, see `as_channels`.
        array_shape: Number of rows, columns and polarisations, see `as_channels`.
        name: Name of the array within the file; may be left out where there is only one.
        as_named: Whether the axes are as they are named whatever `axes_fault` says, which tells
            from statistics, and may be wrong.
        **settings: The other attributes of `ChannelSequences`: `sampling_period`,
            `carrier_frequency` and `subcarrier_spacing`, and `speed`, `sequence_id`, `metadata` and
            `origin`, the name of the file by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no such array, axes do not fit or look swapped,
            or a number cannot be. The message names the file.

    Example:

    >>> channels = import_channels(
    ...     "measured.mat", "subcarrier antenna time", name="H", array_shape=(4, 8, 1),
    ...     sampling_period=1e-3, carrier_frequency=3.5e9, subcarrier_spacing=30e3,
    ... )
    >>> write_channels("measured.h5", channels)
    """
    path = pathlib.Path(path)
    with ArrayReader() as reader:
        value = reader.read(path, name)
    try:
        h, array_shape = as_channels(value, axes, array_shape)
        settings = {"origin": path.name, **settings}
        channels = ChannelSequences(h=h, array_shape=array_shape, **settings)
        fault = None if as_named else axes_fault(channels)
        if fault is not None:
            raise ValueError(
                f"The axes look swapped: {fault}. If they are as named, say so (--as-named, "
                f"as_named=True). Received: axes={axes!r}, shape={value.shape}"
            )
        return channels
    except ValueError as error:
        raise ValueError(f"{error}. Received: path={path}") from error
