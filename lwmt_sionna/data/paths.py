"""Propagation paths of mobility sequences, in memory."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from lwmt_sionna.data.labelled import label
from lwmt_sionna.typing import Array, ArrayLike

SPEED_OF_LIGHT = 299_792_458.0
# name -> (dtype, axes): S sequences, T snapshots, P paths, R and Q polarisations of user and base
# station.
PATH_FIELDS = {
    "a": (np.complex64, "STPRQ"),
    "tau": (np.float32, "STP"),
    "theta_t": (np.float32, "STP"),
    "phi_t": (np.float32, "STP"),
    "theta_r": (np.float32, "STP"),
    "phi_r": (np.float32, "STP"),
    "doppler": (np.float32, "STP"),
    "valid": (np.bool_, "STP"),
    "path_key": (np.uint32, "STP"),
}
SEQUENCE_FIELDS = {
    "position": (np.float32, "ST3"),
    "velocity": (np.float32, "ST3"),
    "speed": (np.float32, "S"),
    "trajectory_id": (np.int64, "S"),
    "bs_index": (np.int64, "S"),
}
# Of all base stations, B of them.
STATION_FIELDS = {"bs_position": (np.float64, "B3"), "bs_orientation": (np.float64, "B3")}
# Labels that a file may lack: those of schema 1.0, and paths read from elsewhere.
OPTIONAL_FIELDS = {
    "time": (np.float64, "ST"),
    "traced": (np.bool_, "ST"),
    "seam_error": (np.float32, "ST"),
    "interactions": (np.uint32, "STP"),
}
# Room for the kind of one interaction.
_BITS = 4


@dataclasses.dataclass(frozen=True)
class PathSequences:
    """Paths between a base station and moving users, snapshot by snapshot.

    Attributes:
        a: complex64 `[num_sequences, num_snapshots, num_paths, num_user_pol, num_bs_pol]`.
            Baseband gain of a path at the carrier, the phase of its delay included.
        tau: float32 `[num_sequences, num_snapshots, num_paths]`. Delay in seconds.
        theta_t: Zenith of departure at the base station in radians, shape as `tau`.
        phi_t: Azimuth of departure in radians, global frame, shape as `tau`.
        theta_r: Zenith of arrival at the user in radians, shape as `tau`.
        phi_r: Azimuth of arrival in radians, shape as `tau`.
        doppler: Doppler shift in hertz, shape as `tau`.
        valid: bool, shape as `tau`. Whether the entry holds a path.
        path_key: uint32, shape as `tau`. Equal for paths with equal interactions and objects.
        position: float32 `[num_sequences, num_snapshots, 3]`. Users, in metres.
        velocity: float32 `[num_sequences, num_snapshots, 3]`. Metres per second.
        speed: float32 `[num_sequences]`. Metres per second.
        trajectory_id: int64 `[num_sequences]`. Unique within a scene.
        bs_index: int64 `[num_sequences]`. Row of `bs_position` that serves the sequence.
        bs_position: float64 `[num_bs, 3]`. Metres.
        bs_orientation: float64 `[num_bs, 3]`. Yaw, pitch, roll in radians.
        sampling_period: Time between snapshots in seconds.
        carrier_frequency: Hertz.
        scene: Name of the scene.
        metadata: Whatever else the generator recorded (configuration, counts), JSON-compatible.
        time: float64 `[num_sequences, num_snapshots]`. Time stamps in seconds on the clock of the
            trajectories; sequences with equal stamps happen at the same time. By default every
            sequence starts at zero.
        traced: bool `[num_sequences, num_snapshots]`. Whether the snapshot was traced, or evolved
            from its traced neighbours. By default all are traced.
        seam_error: float32 `[num_sequences, num_snapshots]` or `None`. Where tracing resumed after
            evolved snapshots: squared error of the channel evolved up to there, relative to the
            traced one; NaN elsewhere.
        interactions: uint32, shape as `tau`, or `None` where unknown. Kinds of the interactions
            from the base station on, four bits each, lowest first: 1 specular reflection,
            2 diffuse reflection, 4 refraction, 8 diffraction; zero for the line of sight.
    """

    a: Array
    tau: Array
    theta_t: Array
    phi_t: Array
    theta_r: Array
    phi_r: Array
    doppler: Array
    valid: Array
    path_key: Array
    position: Array
    velocity: Array
    speed: Array
    trajectory_id: Array
    bs_index: Array
    bs_position: Array
    bs_orientation: Array
    sampling_period: float
    carrier_frequency: float
    scene: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    # Filled in where they are left out.
    time: Array = None  # type: ignore[assignment]
    traced: Array = None  # type: ignore[assignment]
    seam_error: Array | None = None
    interactions: Array | None = None

    def __post_init__(self) -> None:
        sizes = {"3": 3}
        snapshots = np.shape(self.tau)[:2]
        if self.time is None and len(snapshots) == 2:
            stamps = np.broadcast_to(np.arange(snapshots[1]) * self.sampling_period, snapshots)
            object.__setattr__(self, "time", stamps)
        if self.traced is None:
            object.__setattr__(self, "traced", np.ones(snapshots, dtype=bool))
        given = {n: f for n, f in OPTIONAL_FIELDS.items() if getattr(self, n) is not None}
        for name, (dtype, axes) in {**PATH_FIELDS, **SEQUENCE_FIELDS, **given}.items():
            value = np.asarray(getattr(self, name), dtype=dtype)
            object.__setattr__(self, name, value)
            if value.ndim != len(axes):
                raise ValueError(
                    f"{name} must have {len(axes)} axes. Received: {name}.shape={value.shape}"
                )
            for axis, size in zip(axes, value.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(
                        f"{name} disagrees with the other fields in axis {axis!r}: expected "
                        f"{sizes[axis]}. Received: {name}.shape={value.shape}"
                    )
        for name in STATION_FIELDS:
            value = np.atleast_2d(np.asarray(getattr(self, name), dtype=np.float64))
            object.__setattr__(self, name, value)
        if self.bs_position.shape != self.bs_orientation.shape or self.bs_position.shape[1] != 3:
            raise ValueError(
                "bs_position and bs_orientation must be [num_bs, 3]. Received: "
                f"bs_position.shape={self.bs_position.shape}, "
                f"bs_orientation.shape={self.bs_orientation.shape}"
            )
        if self.num_sequences and not (
            0 <= self.bs_index.min() and self.bs_index.max() < len(self.bs_position)
        ):
            raise ValueError(
                f"bs_index must lie below the {len(self.bs_position)} base stations. Received: "
                f"bs_index from {self.bs_index.min()} to {self.bs_index.max()}"
            )
        for name in ("sampling_period", "carrier_frequency"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive. Received: {name}={getattr(self, name)}")

    @property
    def num_sequences(self) -> int:
        """Number of sequences."""
        return self.tau.shape[0]

    @property
    def num_snapshots(self) -> int:
        """Number of snapshots of each sequence."""
        return self.tau.shape[1]

    @property
    def num_paths(self) -> int:
        """Largest number of paths of a snapshot."""
        return self.tau.shape[2]

    @property
    def power(self) -> Array:
        """Power gain of every path, float32 `[num_sequences, num_snapshots, num_paths]`."""
        return np.sum(np.abs(self.a) ** 2, axis=(-2, -1)) * self.valid

    @property
    def normalized_doppler(self) -> Array:
        """`speed * carrier / c * period` of every sequence, float32 `[num_sequences]`."""
        return self.speed * (self.carrier_frequency / SPEED_OF_LIGHT * self.sampling_period)

    @property
    def line_of_sight(self) -> Array:
        """Whether the base station is in sight, bool `[num_sequences, num_snapshots]`."""
        return np.any(self.valid & (self.path_key == 0), axis=-1)

    @property
    def num_interactions(self) -> Array | None:
        """Interactions of every path, uint8, shape as `tau`; `None` where unknown."""
        if self.interactions is None:
            return None
        shifts = np.arange(0, 32, _BITS, dtype=np.uint32)
        return np.sum((self.interactions[..., None] >> shifts) & 15 != 0, axis=-1, dtype=np.uint8)

    @property
    def arrays(self) -> dict[str, Array]:
        """Dictionary of all arrays along sequences, those left out of this one excepted."""
        names = (*PATH_FIELDS, *SEQUENCE_FIELDS, *OPTIONAL_FIELDS)
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    @property
    def attributes(self) -> dict[str, Any]:
        """What is no array: numbers and texts by the names that files have for them."""
        return {
            "sampling_period_s": float(self.sampling_period),
            "carrier_frequency_hz": float(self.carrier_frequency),
            "scene": self.scene,
            "metadata": json.dumps(self.metadata, sort_keys=True),
        }

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` of all arrays, under their names here.

        Axes are `sequence`, `snapshot`, `path`, `rx_pol` (user), `tx_pol` (base station), `axis`
        (x, y, z; yaw, pitch, roll) and `tx` (all base stations). Times and identifiers are
        coordinates, `units` an attribute of each array, scene, carrier, period and metadata (JSON)
        those of the data set.

        Raises:
            ImportError: If xarray is not installed.
        """
        fields = PATH_FIELDS | SEQUENCE_FIELDS | OPTIONAL_FIELDS | STATION_FIELDS
        arrays = {name: (axes, getattr(self, name)) for name, (_, axes) in fields.items()}
        known = {name: pair for name, pair in arrays.items() if pair[1] is not None}
        return label(known, self.attributes)

    def select(self, index: Any) -> Self:
        """A new `PathSequences` of the sequences that `index` (any NumPy index) picks."""
        return dataclasses.replace(self, **{n: v[index] for n, v in self.arrays.items()})


def concatenate(parts: Sequence[PathSequences]) -> PathSequences:
    """Joins sequences of the same scene, base stations, carrier, sampling period and tracer.

    Args:
        parts: Sequence of `PathSequences`. Fewer paths are padded with invalid ones.

    Returns:
        `PathSequences` with the metadata of the first part. A label that one part lacks is dropped.

    Raises:
        ValueError: If `parts` is empty or the parts do not belong together.
    """
    if not parts:
        raise ValueError("There is nothing to join. Received: parts=[]")
    first = parts[0]
    for part in parts[1:]:
        check_alike(first, part)
    num_paths = max(part.num_paths for part in parts)
    parts = [pad_paths(part, num_paths) for part in parts]
    joined: dict[str, Any] = {}
    for name in (*PATH_FIELDS, *SEQUENCE_FIELDS, *OPTIONAL_FIELDS):
        values = [getattr(part, name) for part in parts]
        joined[name] = None if any(v is None for v in values) else np.concatenate(values)
    return dataclasses.replace(first, **joined)


def pack_interactions(kinds: ArrayLike) -> Array:
    """Packs the kinds of a path's interactions into one integer.

    Args:
        kinds: Kinds as in Sionna RT (0 none, 1, 2, 4 or 8), integer `[max_depth, ...]` with at most
            eight interactions, in the order from the base station.

    Returns:
        uint32 `[...]`, see `PathSequences.interactions`.
    """
    kinds = np.asarray(kinds, dtype=np.uint32)
    if len(kinds) > 32 // _BITS:
        raise ValueError(
            f"At most {32 // _BITS} interactions of a path can be stored. Received: "
            f"max_depth={len(kinds)}"
        )
    packed = np.zeros(kinds.shape[1:], dtype=np.uint32)
    for depth, kind in enumerate(kinds):
        packed |= kind << np.uint32(_BITS * depth)
    return packed


def tracer_of(metadata: dict[str, Any]) -> str:
    """What traced the sequences of these metadata; files that do not say are by Sionna RT 1.2."""
    return metadata.get("tracer", "sionna-rt 1.2.2")


def check_one_tracer(*metadata: dict[str, Any]) -> None:
    """Refuses sequences to be joined that were not traced alike."""
    tracers = sorted({tracer_of(each) for each in metadata})
    if len(tracers) > 1:
        raise ValueError(f"The parts differ in what traced them. Received: tracer={tracers}")


def check_alike(first: PathSequences, other: PathSequences) -> None:
    """Refuses sequences that differ in scene, base stations, carrier, sampling period or tracer."""
    check_one_tracer(first.metadata, other.metadata)
    for name in ("scene", "sampling_period", "carrier_frequency"):
        values = [getattr(first, name), getattr(other, name)]
        if values[0] != values[1]:
            raise ValueError(f"The parts differ in {name}. Received: {name}={values}")
    for name in ("bs_position", "bs_orientation"):
        values = [getattr(first, name), getattr(other, name)]
        if not np.array_equal(*values):
            raise ValueError(
                "The parts differ in their base stations. Received: "
                f"{name}={values[0].tolist()} and {values[1].tolist()}"
            )


def pad_paths(paths: PathSequences, num_paths: int) -> PathSequences:
    """Adds absent paths until there are so many."""
    fields = {**PATH_FIELDS, **OPTIONAL_FIELDS}
    arrays = {n: v for n, v in paths.arrays.items() if "P" in fields.get(n, ("", ""))[1]}
    return dataclasses.replace(paths, **widen_paths(arrays, num_paths))


def absent_value(name: str) -> float:
    """What an array of paths holds where there is no path: -1 s of delay, and zero elsewhere."""
    return -1.0 if name == "tau" else 0.0


def blank_absent(arrays: dict[str, Array]) -> dict[str, Array]:
    """Puts what stands for no path wherever `valid` says that there is none.

    Arrays of paths by the names of `PATH_FIELDS` and `"interactions"`, among them `"valid"`, are
    `[..., num_paths]`, gains with two axes more; so are those returned.
    """
    valid = arrays["valid"]
    blank = {}
    for name, value in arrays.items():
        mask = valid.reshape(valid.shape + (1,) * (value.ndim - valid.ndim))
        blank[name] = np.where(mask, value, value.dtype.type(absent_value(name)))
    return blank


def widen_paths(arrays: dict[str, Array], num_paths: int, axis: int = 2) -> dict[str, Array]:
    """Appends absent paths to arrays of paths, see `blank_absent`, until an axis is as long."""
    wide = {}
    for name, value in arrays.items():
        room = [(0, 0)] * value.ndim
        room[axis] = (0, num_paths - value.shape[axis])
        wide[name] = np.pad(value, room, constant_values=absent_value(name))
    return wide


def compact_paths(
    arrays: dict[str, Array], axis: int = 2, rank: ArrayLike = 0.0
) -> dict[str, Array]:
    """Moves the paths of every snapshot to the front and drops columns that none of them fills.

    Of arrays as in `blank_absent`; `axis` is that of the paths, and one column at least stays. They
    are sorted by their rank, or keep their order.
    """
    valid = arrays["valid"]
    order = np.argsort(np.where(valid, rank, np.inf), axis=axis, kind="stable")
    order = order[..., : max(1, int(valid.sum(axis=axis).max(initial=0)))]
    return {
        name: np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - order.ndim)), axis)
        for name, x in arrays.items()
    }
