"""A street canyon, traced: `python tests/rt/canyon.py OUT.npz` does so in any environment.

The references in `tests/rt/references` were written this way, one by each line of Sionna RT.
"""

import sys

import numpy as np

from lwmt_sionna.rt import TracingConfig, load_scene, trace_positions

CARRIER = 3.5e9
BASE_STATION = np.array([-20.0, 3.0, 15.0])
# Three users in the street, and one round a corner.
POSITION = np.array([[5.0, 1.0, 1.5], [9.0, 0.7, 1.5], [13.0, 0.4, 1.5], [20.0, -25.0, 1.5]])
VELOCITY = np.array([[8.0, 3.0, 0.0], [8.0, 3.0, 0.0], [-2.0, 14.0, 0.0], [0.0, 9.0, 0.0]])
_SHOOTERS = np.array([1, 3])
_LISTENS = np.ones((len(POSITION), len(_SHOOTERS)), dtype=bool)


def trace():
    """What `trace_positions` returns, the users' candidates pooled as along a track."""
    street = load_scene("simple_street_canyon", CARRIER)
    config = TracingConfig(samples_per_source=100_000)
    return trace_positions(
        street, BASE_STATION, (0.3, 0.1, 0.0), POSITION, VELOCITY, config,
        shooters=_SHOOTERS, listens=_LISTENS,
    )  # fmt: skip


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **trace())
