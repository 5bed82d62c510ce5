"""A link that is small enough to run eagerly, and channels for it."""

import pytest

from lwmt_sionna.link import DownlinkConfig, DropFactory
from lwmt_sionna.link.csi.drops import DropConfig
from tests.link.channels import make_paths


@pytest.fixture(scope="session")
def small_config():
    """A link that is small enough to run eagerly."""
    return DownlinkConfig(
        num_users=2,
        num_antennas=8,
        num_subcarriers=16,
        pilot_groups=((2,), (11,)),
        num_iterations=8,
    )


@pytest.fixture(scope="session")
def small_drops(small_config):
    """Six drops of that size, with a moderate change between history and slot."""
    paths = make_paths(num_sequences=24, speed_kmh=30.0, sampling_period=1e-3)
    config = DropConfig(num_drops=6, max_similarity=1.0, csi_subcarrier_spacing=1.08e6)
    return DropFactory(paths, small_config, config).at(1)
