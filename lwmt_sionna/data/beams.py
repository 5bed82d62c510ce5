"""Beams: codebooks, the power that each beam collects, and the best one as a label."""

import numpy as np

from lwmt_sionna.data.arrays import PlanarArray
from lwmt_sionna.data.paths import PathSequences
from lwmt_sionna.typing import Array

_CHUNK_BYTES = 2**28


def dft_codebook(
    array: PlanarArray, num_horizontal: int | None = None, num_vertical: int | None = None
) -> Array:
    r"""Beams of an array on a regular grid of directions: the discrete Fourier transform.

    Beam $(v, b)$ points to the direction cosines $u_y = (b / N_b - 1/2) / d_y$ along the columns
    and $u_z = (v / N_v - 1/2) / d_z$ along the rows, with spacings in wavelengths; a single row has
    one beam, at $u_z = 0$. Its index is $v N_b + b$: neighbours in angle are neighbours in index.

    Args:
        array: `PlanarArray`; polarisations share the beams.
        num_horizontal: Beams along the columns. Defaults to as many as columns.
        num_vertical: Beams along the rows. Defaults to as many as rows.

    Returns:
        complex64 `[num_vertical * num_horizontal, num_rows * num_cols]`, rows of norm one: the
        response of the array to a plane wave, as `PlanarArray.response` has it.
    """
    beams = [
        default if given is None else given
        for given, default in ((num_horizontal, array.num_cols), (num_vertical, array.num_rows))
    ]
    if min(beams) < 1:
        raise ValueError(
            "num_horizontal and num_vertical must be positive. Received: "
            f"num_horizontal={num_horizontal}, num_vertical={num_vertical}"
        )
    along_y, along_z = (
        np.zeros(1) if count == 1 else (np.arange(count) / count - 0.5) / spacing
        for count, spacing in zip(
            beams, (array.horizontal_spacing, array.vertical_spacing), strict=True
        )
    )
    _, y, z = array.positions.T
    turns = along_z[:, None, None] * z + along_y[:, None] * y  # vertical beam, horizontal, element
    response = np.exp(2j * np.pi * turns.reshape(-1, y.size))
    return (response / np.sqrt(y.size)).astype(np.complex64)


def beam_power(h: Array, codebook: Array) -> Array:
    r"""Power that every beam collects, over subcarriers and polarisations.

    $$P_b = \frac{1}{K} \sum_{p, k} \left| \sum_m \bar w_{b, m} h_{p, m, k} \right|^2$$

    Args:
        h: Channels of the carrier and array of the beams, on the same tracks as those that the task
            sees: complex `[num_sequences, num_snapshots, num_ant, num_subcarriers]`.
        codebook: complex `[num_beams, num_elements]`: see `dft_codebook`. Antennas are as many, or
            as many for each polarisation.

    Returns:
        float32 `[num_sequences, num_snapshots, num_beams]`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    num_elements = codebook.shape[-1]
    if h.ndim != 4 or codebook.ndim != 2 or h.shape[2] % num_elements:
        raise ValueError(
            "Expected channels [num_sequences, num_snapshots, num_ant, num_subcarriers] and a "
            "codebook [num_beams, num_elements] whose elements are the antennas, or those of one "
            f"polarisation. Received: h.shape={h.shape}, codebook.shape={codebook.shape}"
        )
    num_sequences, num_snapshots, num_ant, num_subcarriers = h.shape
    power = np.zeros((num_sequences, num_snapshots, len(codebook)), np.float32)
    weights = np.conj(codebook)
    step = max(1, _CHUNK_BYTES // (8 * max(1, num_snapshots * len(codebook) * num_subcarriers)))
    for begin in range(0, num_sequences, step):
        part = h[begin : begin + step]
        for first in range(0, num_ant, num_elements):
            seen = weights @ part[:, :, first : first + num_elements]
            power[begin : begin + step] += np.mean(np.abs(seen) ** 2, axis=-1)
    return power


def best_beams(power: Array) -> Array:
    """The strongest beam, as `BeamPredictor` learns it.

    Args:
        power: float `[..., num_beams]`, such as the last snapshot of a history and those after it,
            `beam_power(h, codebook)[:, last:]`.

    Returns:
        int32 `[...]`.

    Raises:
        ValueError: If there is no power: without a path no beam is best, and such sequences are
            left out before.
    """
    silent = ~(power.max(axis=-1) > 0)
    if silent.any():
        raise ValueError(
            "Every snapshot needs a path, or no beam is best; leave the others out. Received: "
            f"{silent.sum()} of {silent.size} snapshots without power"
        )
    return power.argmax(axis=-1).astype(np.int32)


def check_same_tracks(paths: PathSequences, other: PathSequences) -> None:
    """Refuses two carriers that were not traced on the same tracks at the same time.

    Raises:
        ValueError: If scenes, trajectories, base stations, instants or positions differ.
    """
    if paths.scene != other.scene:
        raise ValueError(f"Expected one scene. Received: scene={paths.scene!r} and {other.scene!r}")
    for name, tolerance in (
        ("trajectory_id", 0),
        ("bs_index", 0),
        ("bs_position", 1e-3),
        ("time", 1e-9),
        ("position", 1e-3),
    ):
        one, two = getattr(paths, name), getattr(other, name)
        if one.shape != two.shape or not np.allclose(one, two, rtol=0, atol=tolerance):
            raise ValueError(
                f"Expected both carriers on the same tracks. Received: {name} that differ, of "
                f"shapes {one.shape} and {two.shape}"
            )
