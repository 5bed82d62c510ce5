"""What a user may hand to a predictor and an encoder, and what comes back."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwmt_sionna import ChannelPredictor, LWMTBackbone, MaskedChannelModel, Neighborhood
from lwmt_sionna.models import ChannelEncoder
from lwmt_sionna.models.normalization import unit_power
from lwmt_sionna.ops.complex import to_stacked

UNITS = (2.5e-3, 2 / 8, 1 / 4e6)


def make_backbone(**overrides):
    arguments = {
        "width": 8,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 1,
        "patch": (3, 4),
        "neighborhood": Neighborhood(window=1, corridor=1, time_offsets=(-1, 1), class_token=True),
    }
    return LWMTBackbone(**(arguments | overrides))


def make_predictor(backbone=None, **overrides):
    """With weights that are not zero anywhere, so that the network takes part."""
    keras.utils.set_random_seed(5)
    arguments = {"num_horizons": 3, "context": 3, "experts": ((6, 2), (10, 3))}
    predictor = ChannelPredictor(backbone or make_backbone(), **(arguments | overrides))
    predictor.build((None, 10, 8, 8, 2))
    predictor.head.kernel.assign(0.05 * keras.random.normal(predictor.head.kernel.shape, seed=3))
    return predictor


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


@pytest.fixture(scope="module")
def compiled():
    """Real `[2, 10, 8, 8, 2]` to the future, compiled once."""
    model = make_predictor()
    model.compile(jit_compile=keras.backend.backend() != "torch")

    def predict(history):
        stacked = np.stack([history.real, history.imag], axis=-1).astype(np.float32)
        future = np.asarray(model.predict_on_batch(stacked))
        return future[..., 0] + 1j * future[..., 1]

    return predict


def channels(rng, *shape, dtype=np.complex64):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def paths(rng, shape=(2, 10, 8, 8), num_paths=4, noise=0.1):
    """Sequences of a few moving paths, with noise."""
    batch, *sizes = shape
    h = noise * channels(rng, *shape, dtype=np.complex128)
    for _ in range(num_paths):
        ramp = 1.0
        for axis, size in enumerate(sizes):
            place = [1, 1, 1, 1]
            place[axis + 1] = size
            slope = rng.uniform(size=(batch, 1, 1, 1))
            ramp = ramp * np.exp(2j * np.pi * slope * np.arange(size).reshape(place))
        h = h + rng.uniform(0.3, 1.0, size=(batch, 1, 1, 1)) * ramp
    return h


@given(
    exponent=st.floats(-9, 3),
    phase=st.floats(0, 2 * np.pi),
    seed=st.integers(0, 2**32 - 1),
)
def test_predictions_scale_with_the_history(compiled, exponent, phase, seed):
    """By any complex number of magnitude 1e-9 to 1e3."""
    h = paths(np.random.default_rng(seed))
    factor = 10.0**exponent * np.exp(1j * phase)
    reference = compiled(h)
    scaled = compiled(factor * h) / factor
    # Another phase rounds another way; long memories amplify rounding.
    assert np.linalg.norm(scaled - reference) < 2e-3 * np.linalg.norm(reference)


@pytest.mark.parametrize("magnitude", [1e-30, 1e25])
def test_extreme_magnitudes_in_double_precision(predictor, rng, magnitude):
    h = paths(rng)
    scaled = np.asarray(predictor(magnitude * h)) / magnitude
    reference = np.asarray(predictor(h))
    if keras.backend.backend() == "tensorflow":
        assert reference.dtype == np.complex128
        assert np.linalg.norm(scaled - reference) < 2e-3 * np.linalg.norm(reference)


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(-1e3, 1e3))
def test_the_future_of_others_moves_nothing(compiled, seed, factor):
    """Links are independent, and the prediction is a function of the history alone."""
    rng = np.random.default_rng(seed)
    h = paths(rng)
    changed = h.copy()
    changed[1] = factor * channels(rng, *h.shape[1:])
    np.testing.assert_array_equal(compiled(changed)[0], compiled(h)[0])


@settings(max_examples=25)
@given(cut=st.integers(1, 11), seed=st.integers(0, 2**32 - 1))
def test_a_causal_encoder_never_sees_the_future(cut, seed):
    """Embeddings of a snapshot do not move with what comes after it."""
    encoder = _causal_encoder()
    rng = np.random.default_rng(seed)
    h = channels(rng, 1, 12, 6, 4)
    changed = h.copy()
    changed[:, cut:] += channels(rng, 1, 12 - cut, 6, 4)
    # The scale is that of the whole sequence, so it is kept.
    changed[:, cut:] *= np.linalg.norm(h[:, cut:]) / np.linalg.norm(changed[:, cut:])
    peak = np.abs([h.real, h.imag]).max() + np.abs([changed.real, changed.imag]).max()
    h[:, 0, 0, 0] = changed[:, 0, 0, 0] = peak  # one peak for both
    before, after = encoder(h), encoder(changed)
    np.testing.assert_allclose(before[:, :cut], after[:, :cut], atol=1e-5)
    assert np.abs(before[:, cut:] - after[:, cut:]).max() > 1e-4


_ENCODERS = []


def _causal_encoder():
    if not _ENCODERS:
        keras.utils.set_random_seed(5)
        neighborhood = Neighborhood(window=1, corridor=1, causal=True)
        _ENCODERS.append(
            ChannelEncoder(make_backbone(neighborhood=neighborhood, depth=2), per="snapshot")
        )
    return _ENCODERS[0]


def test_sionna_links_are_predicted_one_by_one(predictor, rng):
    """`[batch, num_rx, num_rx_ant, num_tx, num_tx_ant, time, num_subcarriers]`."""
    h = channels(rng, 2, 3, 2, 2, 8, 10, 8)
    future = np.asarray(predictor(h))
    assert future.shape == (2, 3, 2, 2, 8, 3, 8)
    ones = np.asarray(predictor(np.swapaxes(h, 4, 5).reshape(24, 10, 8, 8)))
    np.testing.assert_allclose(np.swapaxes(future, 4, 5).reshape(ones.shape), ones, atol=1e-4)
    assert predictor.compute_output_shape(h.shape) == future.shape


def test_uplink_has_its_array_at_the_receiver(predictor, rng):
    h = channels(rng, 2, 2, 8, 3, 2, 10, 8)
    future = np.asarray(predictor(h, array="rx"))
    assert future.shape == (2, 2, 8, 3, 2, 3, 8)
    ones = np.asarray(predictor(np.moveaxis(h, 2, 5).reshape(24, 10, 8, 8)))
    np.testing.assert_allclose(np.moveaxis(future, 2, 5).reshape(ones.shape), ones, atol=1e-4)


def test_precision_follows_the_input(predictor, rng):
    h = channels(rng, 2, 10, 8, 8, dtype=np.complex128)
    double, single = np.asarray(predictor(h)), np.asarray(predictor(h.astype(np.complex64)))
    assert single.dtype == np.complex64
    if keras.backend.backend() == "tensorflow":
        assert double.dtype == np.complex128
    np.testing.assert_allclose(double, single, atol=1e-4)


def test_null_subcarriers(predictor, rng):
    """Guards and a null at DC: as if the band had no holes, whatever the nulls hold."""
    delays = rng.uniform(0, 0.1, size=4)
    gains, tones = channels(rng, 4), rng.uniform(size=(2, 4))
    instants, elements, carriers = np.arange(10), np.arange(8), np.arange(16)
    ramps = [
        np.exp(2j * np.pi * instants[:, None] * tones[0]),
        np.exp(2j * np.pi * elements[:, None] * tones[1]),
        np.exp(-2j * np.pi * carriers[:, None] * delays),
    ]
    whole = np.einsum("p,tp,mp,kp->tmk", gains, *ramps)[None].astype(np.complex64)
    effective = np.array([3, 4, 5, 6, 7, 9, 10, 11, 12])
    h = np.full_like(whole, np.nan)
    h[..., effective] = whole[..., effective]
    future = np.asarray(predictor(h, subcarriers=effective))
    expected = np.asarray(predictor(whole[..., 3:13]))
    np.testing.assert_allclose(future[..., 3:13], expected, atol=0.02 * np.abs(expected).max())
    assert (future[..., :3] == future[..., 3:4]).all()
    assert (future[..., 13:] == future[..., 12:13]).all()
    # The effective subcarriers alone, as estimators give them.
    alone = np.asarray(predictor(whole[..., effective], subcarriers=list(effective)))
    np.testing.assert_array_equal(alone, future[..., effective])
    for wrong in ([3], [4, 3], [-1, 5], [3, 99]):
        with pytest.raises(ValueError, match="subcarriers"):
            predictor(h, subcarriers=wrong)


def test_fewer_horizons_are_the_first_of_all(predictor, rng):
    h = channels(rng, 2, 10, 8, 8)
    np.testing.assert_allclose(predictor(h, num_horizons=2), predictor(h)[:, :2], atol=1e-5)
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=f"num_horizons={wrong}"):
            predictor(h, num_horizons=wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_history_that_is_not_finite_gives_nan_to_its_link_alone(compiled, rng, value):
    h = paths(rng)
    reference = compiled(h)
    h[1, 4, 3, 2] = value
    future = compiled(h)
    assert np.isnan(future[1]).all()
    np.testing.assert_array_equal(future[0], reference[0])


def test_zero_history_gives_zero(predictor):
    assert np.abs(predictor(np.zeros((2, 10, 8, 8), np.complex64))).max() == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((10, 8, 8), np.complex64, r"h\.shape=\(10, 8, 8\)"),
        ((1, 10, 8, 8, 2), np.complex64, "h.shape"),
        ((1, 10, 8, 8), np.float32, "h.dtype"),
        ((1, 1, 1, 1, 8, 10, 8), np.float32, "h.dtype"),
        ((1, 10, 8, 8, 3), np.float32, "h.shape"),
        ((1, 3, 8, 8), np.complex64, "At least 4 snapshots"),
        ((1, 1, 1, 1, 8, 3, 8), np.complex64, "At least 4 snapshots"),
    ],
)
def test_wrong_histories_are_refused(predictor, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        predictor(np.zeros(shape, dtype))
    with pytest.raises(ValueError, match="'tx' or 'rx'"):
        predictor(np.zeros((1, 10, 8, 8), np.complex64), array="both")


@pytest.mark.usefixtures("eagerly")
def test_antennas_must_match_the_array(rng):
    model = make_predictor(array_shape=(2, 2, 2))
    assert model(channels(rng, 2, 10, 8, 8)).shape == (2, 3, 8, 8)
    for shape, array in (((1, 10, 12, 8), "tx"), ((1, 1, 8, 1, 2, 10, 8), "tx")):
        with pytest.raises(ValueError, match="8 antennas"):
            model(np.zeros(shape, np.complex64), array=array)
    assert model(channels(rng, 1, 1, 8, 1, 2, 10, 8), array="rx").shape == (1, 1, 8, 1, 2, 3, 8)


@pytest.mark.usefixtures("eagerly")
def test_truncated_delays(rng):
    """A band whose paths lie in the first bins is predicted as well from those alone."""
    h = paths(rng, (1, 10, 8, 1), noise=0.0) * np.ones(32)  # all delays are zero
    h = h.astype(np.complex64)
    whole, part = make_predictor(), make_predictor(num_delay=8, first_delay=-2)
    for model in (whole, part):
        model.head.kernel.assign(0.0 * model.head.kernel)
    truth = np.asarray(whole(h))
    np.testing.assert_allclose(part(h), truth, atol=0.02 * np.abs(truth).max())
    with pytest.raises(ValueError, match="num_delay=8, num_subcarriers=4"):
        part(h[..., :4])


@pytest.mark.usefixtures("eagerly")
def test_physical_positions_reach_the_backbone(rng):
    model = make_predictor(make_backbone(position="rotary_grid", position_units=UNITS))
    h = channels(rng, 1, 10, 8, 8)
    period, bandwidth = UNITS[0], 1.0 / UNITS[2]
    near = model(h, sampling_period=period, subcarrier_spacing=bandwidth / 8)
    far = model(h, sampling_period=2 * period, subcarrier_spacing=bandwidth / 8)
    assert np.abs(near - far).max() > 1e-5
    # What is not told is a step.
    np.testing.assert_allclose(model(h), near, atol=1e-5)
    with pytest.raises(ValueError, match="bandwidth=None"):
        model(h, sampling_period=period)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("class_token", [False, True])
def test_embeddings(rng, class_token):
    neighborhood = Neighborhood(window=1, corridor=1, class_token=class_token)
    backbone = make_backbone(neighborhood=neighborhood)
    h = channels(rng, 2, 5, 6, 8)
    tokens = np.asarray(ChannelEncoder(backbone)(h))
    assert tokens.shape == (2, 5 * 2 * 2, 8)
    snapshots = ChannelEncoder(backbone, per="snapshot")(h)
    np.testing.assert_allclose(snapshots, np.reshape(tokens, (2, 5, 4, 8)).mean(axis=2), atol=1e-5)
    sequence = ChannelEncoder(backbone, per="sequence")(h)
    assert sequence.shape == (2, 8)
    assert np.allclose(sequence, np.mean(tokens, axis=1), atol=1e-5) != class_token
    # Magnitude and form do not matter.
    stacked = 1e-7 * np.stack([h.real, h.imag], axis=-1)
    np.testing.assert_allclose(ChannelEncoder(backbone)(stacked), tokens, atol=1e-4)
    sionna = np.swapaxes(h, 1, 2).reshape(1, 2, 1, 1, 6, 5, 8)
    found = ChannelEncoder(backbone, per="snapshot")(sionna)
    assert found.shape == (1, 2, 1, 1, 5, 8)
    np.testing.assert_allclose(found[0, :, 0, 0], snapshots, atol=1e-4)
    with pytest.raises(ValueError, match="per='user'"):
        ChannelEncoder(backbone, per="user")


@pytest.mark.usefixtures("eagerly")
def test_embeddings_are_those_of_what_was_pretrained(rng, tmp_path):
    """A masked channel model scales and turns patches before its backbone: so does the encoder."""
    masked = MaskedChannelModel(make_backbone(), local_scale=True, local_motion=True)
    masked.build()
    h = channels(rng, 2, 5, 6, 8)
    encoder = ChannelEncoder(masked)
    expected, _ = masked.encode({"channel": encoder.transform(unit_power(to_stacked(h))[0])})
    np.testing.assert_allclose(encoder(h), expected, atol=1e-5)
    assert not np.allclose(encoder(h), ChannelEncoder(masked.backbone)(h), atol=1e-2)
    encoder.save_to_preset(tmp_path)
    np.testing.assert_array_equal(ChannelEncoder.from_preset(tmp_path)(h), encoder(h))


def test_embeddings_of_a_predictor(predictor, rng):
    h = channels(rng, 2, 10, 8, 8)
    tokens = predictor.embed(h)
    # 3 snapshots of context and 3 horizons, 3 x 2 patches of 3 x 4 bins
    assert tokens.shape == (2, 6 * 6, 8)
    assert predictor.embed(h, per="snapshot").shape == (2, 6, 8)
    sionna = np.swapaxes(h, 1, 2).reshape(1, 2, 1, 1, 8, 10, 8)
    assert predictor.embed(sionna, per="sequence").shape == (1, 2, 1, 1, 8)


@pytest.mark.usefixtures("eagerly")
def test_embeddings_need_no_program(predictor, rng):
    """Within a function of one's own, and where the backend compiles no loops."""
    assert predictor.embed(channels(rng, 1, 10, 8, 8)).shape == (1, 6 * 6, 8)


def test_null_subcarriers_inside_of_a_graph(rng):
    """Indices given as an array stay numbers where the call is traced."""
    encoder = ChannelEncoder(make_backbone(), per="sequence")
    inputs = keras.Input((1, 1, 1, 6, 3, 9), dtype="complex64")
    model = keras.Model(inputs, encoder(inputs, subcarriers=np.array([1, 2, 3, 5, 6])))
    assert model.output_shape == (None, 1, 1, 1, 8)
    h = channels(rng, 2, 1, 1, 1, 6, 3, 9)
    expected = encoder(h, subcarriers=[1, 2, 3, 5, 6])
    np.testing.assert_allclose(model.predict(h, verbose=0), expected, atol=1e-5)
