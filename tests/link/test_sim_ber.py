import numpy as np
import pytest
from keras import ops
from sionna.phy import config
from sionna.phy.utils import PlotBER, sim_ber

from lwmt_sionna.link import make_sim_ber_model
from lwmt_sionna.link.csi.policies import PerfectCsi
from lwmt_sionna.link.phy.line import IS_SIONNA_2

# PyTorch compiles a decoder for minutes.
BY_TORCH = pytest.param({"compile_mode": "default"}, marks=pytest.mark.slow)
COMPILED = BY_TORCH if IS_SIONNA_2 else {"graph_mode": "xla"}


@pytest.mark.parametrize("mode", [{}, COMPILED])
def test_runs_in_sim_ber(small_drops, small_config, mode):
    model = make_sim_ber_model(small_drops, PerfectCsi(), 13, small_config, x_axis="snr")
    ber, bler = sim_ber(
        model,
        [-6.0, 15.0],
        batch_size=8,
        max_mc_iter=2,
        early_stop=False,
        verbose=False,
        **mode,
    )
    assert bler[0] == 1.0 and ber[0] > 0.05
    assert bler[1] == 0.0 and ber[1] == 0.0


def test_takes_estimates_and_ebno(small_drops, small_config):
    model = make_sim_ber_model(small_drops, small_drops.target, 4, small_config)
    bits, bits_hat = model(5, 20.0)
    assert bits.shape == bits_hat.shape == (5, 2, 115)
    plot = PlotBER("policies")
    _, bler = plot.simulate(
        model, [20.0], batch_size=4, max_mc_iter=1, show_fig=False, verbose=False, add_bler=True
    )
    assert bler[0] == 0.0


def test_unknown_axis(small_drops, small_config):
    with pytest.raises(ValueError, match="x_axis='power'"):
        make_sim_ber_model(small_drops, PerfectCsi(), 13, small_config, x_axis="power")


def test_a_seed_gives_the_same_blocks_again(small_drops, small_config):
    model = make_sim_ber_model(small_drops, PerfectCsi(), 13, small_config, x_axis="snr")
    drawn = []
    for seed in (3, 3, 4):
        config.seed = seed
        drawn.append([ops.convert_to_numpy(x) for x in model(6, -2.0)])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.any(drawn[0][0] != drawn[2][0])
    assert np.any(drawn[0][0] != drawn[0][1])
