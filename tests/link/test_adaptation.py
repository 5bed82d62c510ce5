import numpy as np
import pytest
from keras import ops

from lwmt_sionna.link import AdaptationConfig
from lwmt_sionna.link.decoding import Waterfall
from lwmt_sionna.link.sweep.adaptation import adapt

WATERFALLS = [Waterfall(0.3, 0.01, snr, 0.4) for snr in (0.0, 5.0, 10.0, 15.0)]


def failures_at(true_snr_db, num_slots):
    """Probabilities for users whose SNR is the same for all schemes."""
    return np.stack(
        [np.repeat(w.failure_in_noise(true_snr_db)[..., None], num_slots, -1) for w in WATERFALLS]
    )


def test_the_fastest_scheme_that_meets_the_target():
    # The target of 10 % is met 1.28 widths beyond the centre of a waterfall.
    snr = np.array([-5.0, 0.4, 0.6, 5.4, 5.6, 30.0])
    snr = np.repeat(snr[:, None], 4, axis=1)
    # A scheme that is worse than its faster neighbour is passed over.
    mixed = np.array([[20.0, -20.0, 20.0, -20.0]])
    for belief, expected in ((snr, [0, 0, 0, 0, 1, 3]), (mixed, [2])):
        failure = np.zeros((4, len(belief), 1, 1))
        chosen, _ = adapt(failure, belief[:, None], WATERFALLS, outer_loop=False)
        assert chosen.ravel().tolist() == expected


def test_outer_loop_meets_the_target_though_belief_is_wrong(rng):
    true = rng.uniform(2.0, 20.0, (400, 4))
    belief = np.repeat((true + 4.0)[..., None], 4, axis=2)
    failure = failures_at(true, 2)
    config = AdaptationConfig(bler_target=0.1, step_db=0.3)
    bler = {}
    for outer in (False, True):
        chosen, offset = adapt(failure, belief, WATERFALLS, config, outer_loop=outer)
        lost = np.take_along_axis(failure, chosen[None], axis=0)[0]
        bler[outer] = lost.mean()
    assert bler[False] > 0.5
    assert bler[True] == pytest.approx(0.1, abs=0.02)
    # It has found most of the 4 dB: with schemes 5 dB apart less already meets the target.
    assert 1.5 < offset.mean() < 5.0


def test_inner_loop_meets_the_target_where_belief_is_right(rng):
    true = rng.uniform(1.0, 20.0, (500, 4))
    failure = failures_at(true, 1)
    belief = np.repeat(true[..., None], 4, axis=2)
    chosen, offset = adapt(failure, belief, WATERFALLS, outer_loop=False)
    lost = np.take_along_axis(failure, chosen[None], axis=0)[0]
    assert lost.mean() < 0.1 and not offset.any()
    assert chosen.shape == (500, 4, 1)


def test_decoded_blocks_are_their_own_feedback():
    """Failures of 0 and 1 leave nothing to chance: the seed does not matter."""
    rng = np.random.default_rng(3)
    failure = (rng.random((4, 50, 3, 2)) < 0.3).astype(float)
    belief = rng.uniform(0, 20, (50, 3, 4))
    results = [
        adapt(failure, belief, WATERFALLS, AdaptationConfig(seed=seed))[0] for seed in (0, 1)
    ]
    np.testing.assert_array_equal(*results)


def test_offset_follows_the_rule_of_sionna_sys():
    from sionna.sys import OuterLoopLinkAdaptation, PHYAbstraction

    rng = np.random.default_rng(5)
    failure = (rng.random((4, 30, 1, 1)) < 0.2).astype(float)
    failure[:] = failure[:1]  # the same whatever the scheme: only the feedback matters
    belief = np.full((30, 1, 4), 8.0)
    config = AdaptationConfig(bler_target=0.1, step_db=0.7)
    _, offset = adapt(failure, belief, WATERFALLS, config)
    sionna = OuterLoopLinkAdaptation(PHYAbstraction(), 1, bler_target=0.1, delta_up=0.7)
    expected = []
    for drop in [*range(30), *range(30)]:
        expected.append(float(sionna.offset.numpy()[0]))
        feedback = ops.convert_to_tensor([int(1 - failure[0, drop, 0, 0])])
        sionna(
            ops.convert_to_tensor([320]),
            harq_feedback=feedback,
            sinr_eff=ops.convert_to_tensor([6.3]),
        )
    np.testing.assert_allclose(offset[:, 0], expected[30:], atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bler_target": 0.0}, "bler_target=0.0"),
        ({"step_db": -1.0}, "step_db=-1.0"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        AdaptationConfig(**values)
