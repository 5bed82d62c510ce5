import dataclasses
import inspect
import sys
import types

import numpy as np
import pytest

from lwmt_sionna import ChannelPredictor, LWMTBackbone, baselines
from lwmt_sionna.link import (
    CsiPolicy,
    DownlinkConfig,
    DropConfig,
    DropFactory,
    SoundingConfig,
    make_policy,
    policy_names,
)
from lwmt_sionna.link.csi import policies
from lwmt_sionna.link.csi.policies import NoisyPerfectCsi, PredictedCsi
from lwmt_sionna.models import ChannelEstimator, list_presets
from tests.link.channels import FixedDrops, make_paths, make_predictor, store_channels


class LastSnapshot:
    def __call__(self, history, num_horizons):
        return np.repeat(history[:, -1:], num_horizons, axis=1)


class Broken:
    def __call__(self, history, num_horizons):
        return np.full((len(history), num_horizons, *history.shape[2:]), np.nan, np.complex64)


class Demanding:
    def __init__(self, order):
        self.order = order


class Silent(CsiPolicy):
    def __init__(self):
        super().__init__("silent")

    def __call__(self, history, horizon, target=None):
        return np.zeros_like(history[:, :, -1])


@pytest.fixture
def own_module(monkeypatch):
    module = types.ModuleType("own_policies")
    module.LastSnapshot = LastSnapshot
    module.last_snapshot = LastSnapshot()
    module.Silent = Silent
    module.number = 3
    module.Demanding = Demanding
    module.alone = lambda history: history
    monkeypatch.setitem(sys.modules, "own_policies", module)


@pytest.fixture
def history(rng):
    return (
        rng.standard_normal((3, 2, 4, 5, 6)) + 1j * rng.standard_normal((3, 2, 4, 5, 6))
    ).astype(np.complex64)


def test_perfect_needs_the_truth(history):
    target = history[:, :, 0]
    assert make_policy("perfect")(history, 1, target=target) is target
    with pytest.raises(ValueError, match="needs the true channel"):
        make_policy("perfect")(history, 1)


def test_noisy_perfect_has_the_noise_of_a_snapshot(rng):
    h = np.exp(2j * np.pi * rng.random((20, 4, 1, 32, 32))).astype(np.complex64)
    h *= np.sqrt(10 / 11)  # with its noise in it, the history would have unit power
    noisy_history = h / np.sqrt(np.mean(np.abs(h) ** 2))
    error = NoisyPerfectCsi(10.0)(noisy_history, 1, target=h[:, :, 0]) - h[:, :, 0]
    assert np.mean(np.abs(error) ** 2) == pytest.approx(1 / 11, rel=0.02)


def test_the_causal_ceiling_knows_what_no_event_changes(small_config):
    paths = make_paths(num_sequences=8, sampling_period=1e-3)
    downlink = dataclasses.replace(
        small_config, num_users=1, num_user_antennas=2, streams_per_user=2
    )
    drops = DropConfig(max_similarity=1.0)
    factory = DropFactory(paths, downlink, drops)
    policy = make_policy("causal").for_regime(factory)
    slot = factory.at(3)
    np.testing.assert_allclose(policy(slot.history, 3), slot.target, atol=1e-5)
    # A path that is born after the history is missing.
    later = paths.valid.copy()
    later[:, :16, 0] = False
    factory = DropFactory(dataclasses.replace(paths, valid=later), downlink, drops)
    born = factory.at(3).target - make_policy("causal").for_regime(factory)(slot.history, 3)
    assert np.abs(born).max() > 0.1 and factory.at(3).event.any()
    stored = DropFactory(store_channels(paths, small_config.array), config=drops)
    for other in (FixedDrops(slot, downlink), stored):
        with pytest.raises(ValueError, match="needs the paths"):
            make_policy("causal").for_regime(other)
    with pytest.raises(ValueError, match="belongs to a regime"):
        make_policy("causal")(slot.history, 3)


def test_noise_of_noisy_perfect_repeats(history):
    policy = NoisyPerfectCsi(10.0, seed=3)
    first, second = (policy(history, 2, target=history[:, :, 0]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_baselines_are_those_of_their_module(history):
    long = np.tile(history, (1, 1, 4, 1, 1))
    for name, predictor in (
        ("hold", baselines.Hold()),
        ("pooled_ar", baselines.PooledAutoregression(order=2)),
        ("local_ar", baselines.LocalAutoregression(order=2)),
    ):
        policy = make_policy(name, settings=None if name == "hold" else {"order": 2})
        expected = predictor(long.reshape(6, *long.shape[2:]), 3)[:, -1]
        np.testing.assert_allclose(
            policy(long, 3), expected.reshape(long[:, :, 0].shape), rtol=1e-4, atol=1e-4
        )


def test_every_baseline_and_preset_has_a_policy():
    names = set(policy_names())
    for name in baselines.__all__:
        cls = getattr(baselines, name)
        own = vars(cls).get("name") if inspect.isclass(cls) else None
        if isinstance(own, str) and name not in ("Predictor", "PerfectCsi"):
            assert own in names
            parameters = inspect.signature(cls).parameters.values()
            if all(parameter.default is not parameter.empty for parameter in parameters):
                assert make_policy(own).name == own
    assert "base" not in names
    for preset in list_presets(with_weights=True, model="ChannelPredictor"):
        policy = make_policy(preset)
        assert policy.name == preset and policy.source.name == preset
        assert policy.fingerprint == make_policy("model", preset=preset).fingerprint
    names = policy_names()
    assert len(set(names)) == len(names)
    assert {"perfect", "noisy_perfect", "hold", "zero", "local_ar", "model", "small"} <= set(names)
    assert "predictor" not in names


def test_fingerprint_follows_the_settings():
    prints = {make_policy("local_ar", settings={"order": order}).fingerprint for order in (2, 3)}
    assert len(prints) == 2
    assert make_policy("local_ar", settings={"order": 2}).fingerprint in prints
    with pytest.raises(ValueError, match="'hold' does not take these settings"):
        make_policy("hold", settings={"order": 2})


@pytest.fixture(scope="module")
def sounded():
    """Two drops whose users sound a quarter of the subcarriers in each snapshot."""
    downlink = DownlinkConfig(num_users=2, num_antennas=8, pilot_groups=((2,), (11,)))
    drops = DropConfig(num_drops=2, max_similarity=1.0, history_snr_db=10.0)
    return DropFactory(
        make_paths(12, sampling_period=1e-3), downlink, drops, SoundingConfig("sparse")
    )


def error_db(h_hat, drops):
    power = np.mean(np.abs(drops.target) ** 2)
    return 10 * np.log10(np.mean(np.abs(h_hat - drops.target) ** 2) / power)


def test_estimators_find_the_whole_channel_of_the_last_snapshot(sounded):
    drops = sounded.at(0)
    errors = {}
    for name in ("linear", "pursuit", "lmmse"):
        policy = make_policy(name).for_regime(sounded)
        h_hat = policy(drops.history, 0)
        assert h_hat.shape == drops.target.shape and h_hat.dtype == np.complex64
        errors[name] = error_db(h_hat, drops)
    assert errors["lmmse"] < errors["pursuit"] < errors["linear"] < 0
    # Six paths of unknown phase are told from 1024 pilots at 10 dB: 6 / 1024 of the noise is left.
    assert errors["lmmse"] == pytest.approx(10 * np.log10(6 / 1024) - 10, abs=3.0)


def test_lmmse_needs_paths(sounded, small_config):
    with pytest.raises(ValueError, match="needs the paths"):
        make_policy("lmmse").for_regime(FixedDrops(sounded.at(0), small_config))
    with pytest.raises(ValueError, match="belongs to a regime"):
        make_policy("linear")(sounded.at(0).history, 0)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_a_channel_estimator_is_a_policy(sounded, tmp_path):
    backbone = LWMTBackbone(width=8, depth=1, num_heads=1, patch=(4, 4))
    model = ChannelEstimator(backbone)
    model.build()
    drops = sounded.at(0)
    hidden = np.isnan(drops.history)
    h = np.where(hidden, 0, drops.history).reshape(4, 16, 8, 32)
    inputs = {"h": h, "mask": hidden.reshape(h.shape)}
    for name, weight in (("untrained", 0.0), ("trained", 0.1)):
        model.head.set_weights([np.full_like(w, weight) for w in model.head.get_weights()])
        model.save_to_preset(tmp_path / name)
        policy = make_policy(f"estimator:{tmp_path / name}").for_regime(sounded)
        expected = np.asarray(model(inputs))[:, -1].reshape(drops.target.shape)
        np.testing.assert_allclose(policy(drops.history, 0), expected, atol=1e-3)
        assert policy.source == tmp_path / name and policy.fingerprint.split()[0]
    assert make_policy("estimator").source.name == "base"


def test_later_slots_are_predicted_from_estimates(sounded, monkeypatch):
    monkeypatch.setattr(policies, "_predictor", lambda preset, array_shape: LastSnapshot())
    history = sounded.at(1).history
    policy = make_policy("pursuit").for_regime(sounded)
    np.testing.assert_array_equal(policy(history, 3), policy(history, 0))


def test_predictors_refuse_what_has_been_and_what_has_holes(sounded):
    drops = sounded.at(0)
    policy = make_policy("hold").for_regime(sounded)
    with pytest.raises(ValueError, match=r"'hold' looks ahead.*horizon=0"):
        policy(drops.history, 0)
    with pytest.raises(ValueError, match=r"'hold' cannot predict these channels.*NaN"):
        policy(drops.history, 1)


def test_unknown_preset():
    with pytest.raises(ValueError, match="preset=nowhere"):
        make_policy("preset:nowhere")


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.usefixtures("eagerly")
def test_preset_is_hashed(tmp_path, history):
    model = make_predictor()
    long = np.tile(history[:, :, :, :4, :4], (1, 1, 4, 1, 1))
    expected = baselines.ModelPredictor(model)(long.reshape(6, *long.shape[2:]), 3)
    model.save_to_preset(tmp_path / "tiny")
    policy = make_policy(f"preset:{tmp_path / 'tiny'}")
    assert policy.source == tmp_path / "tiny" and len(policy.fingerprint) == 64
    np.testing.assert_allclose(
        policy(long, 3), expected[:, -1].reshape(long[:, :, 0].shape), rtol=1e-3, atol=1e-3
    )
    with pytest.raises(ValueError, match="predicts 3 snapshots"):
        policy(long, 4)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_come_in_batches(history, batch_size):
    policy = PredictedCsi(LastSnapshot(), "mine", batch_size=batch_size)
    np.testing.assert_array_equal(policy(history, 3), history[:, :, -1])


def test_prediction_of_the_horizon_is_the_last_one(history):
    def count(history, num_horizons):
        steps = np.arange(1, num_horizons + 1, dtype=np.complex64)
        return np.broadcast_to(
            steps[None, :, None, None], (len(history), num_horizons, *history.shape[2:])
        )

    assert np.all(PredictedCsi(count, "count")(history, 4) == 4)


def test_one_call_serves_all_horizons_of_a_history(history):
    calls = []

    def count(history, num_horizons):
        calls.append(num_horizons)
        steps = np.arange(1, num_horizons + 1, dtype=np.complex64)
        return history[:, -1:] * steps[:, None, None]

    policy = PredictedCsi(count, "count", num_horizons=3)
    for horizon in (1, 3, 2):
        np.testing.assert_array_equal(policy(history, horizon), horizon * history[:, :, -1])
    assert calls == [3]
    policy(history, 4)
    assert calls == [3, 4]
    other = 2 * history
    np.testing.assert_array_equal(policy(other, 1), other[:, :, -1])
    assert calls == [3, 4, 3]


def test_errors_of_a_model_lose_their_wrapping(history):
    def complain(history, num_horizons):
        raise ValueError("Exception when calling\n\n\x1b[1mThe array has 8 antennas.\x1b[0m\nargs")

    with pytest.raises(ValueError, match=r"^Policy 'm' cannot .*: The array has 8 antennas\.$"):
        PredictedCsi(complain, "m")(history, 1)


@pytest.mark.parametrize("spec", ["own_policies:LastSnapshot", "own_policies:last_snapshot"])
def test_policy_of_ones_own(own_module, history, spec):
    policy = make_policy(spec)
    assert policy.name == spec
    np.testing.assert_array_equal(policy(history, 2), history[:, :, -1])


def test_own_subclass_keeps_its_name(own_module, history):
    policy = make_policy("own_policies:Silent")
    assert policy.name == "silent"
    assert not policy(history, 1).any()


def test_fingerprint_of_ones_own_is_that_of_all_its_files(tmp_path, monkeypatch):
    """The module, what it imports from beside it, and the file that it names as its source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    helper, weights = tmp_path / "helper_of_own.py", tmp_path / "weights.npz"
    (tmp_path / "policy_of_own.py").write_text(
        "import helper_of_own\n"
        "from lwmt_sionna.link import CsiPolicy\n\n\n"
        "class Own(CsiPolicy):\n"
        f"    source = {str(weights)!r}\n\n"
        "    def __init__(self):\n"
        "        super().__init__('own')\n\n\n"
        "def predict(history, num_horizons):\n"
        "    return history[:, -num_horizons:]\n"
    )
    helper.write_text("FACTOR = 1\n")
    weights.write_bytes(b"1")

    def fingerprints():
        return [make_policy(f"policy_of_own:{name}").fingerprint for name in ("Own", "predict")]

    first = fingerprints()
    assert fingerprints() == first and all(first)
    helper.write_text("FACTOR = 2\n")
    second = fingerprints()
    assert second[0] != first[0] and second[1] != first[1]
    weights.write_bytes(b"2")
    third = fingerprints()
    assert third[0] != second[0] and third[1] == second[1]
    for name in ("policy_of_own", "helper_of_own"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("psychic", r"Unknown policy.*perfect.*policy='psychic'"),
        ("no_such_module:Thing", "PYTHONPATH.*no_such_module:Thing"),
        ("own_policies:Missing", "has no 'Missing'"),
        (
            "own_policies:number",
            "A policy is a callable.*policy='own_policies:number', 3 of type int",
        ),
        ("own_policies:Demanding", "A policy is.*the class Demanding: missing.*'order'"),
        ("own_policies:alone", "A policy is.*a callable that takes \\(history\\)"),
    ],
)
def test_unknown_policies(own_module, spec, message):
    with pytest.raises(ValueError, match=message):
        make_policy(spec)


def test_broken_predictions_are_named(history):
    with pytest.raises(ValueError, match=r"'broken' returned NaN.*6 of 6 users"):
        PredictedCsi(Broken(), "broken")(history, 2)
    with pytest.raises(ValueError, match=r"'short' must return.*\(6, 2, 5, 6\)"):
        PredictedCsi(lambda history, n: history[:, -1], "short")(history, 2)
    with pytest.raises(ValueError, match="complex"):
        PredictedCsi(lambda history, n: np.abs(history[:, -n:]), "real")(history, 2)


def test_policies_follow_the_history_of_their_regime():
    """Noise of its power, and the settings tuned at the nearest SNR."""
    noisy = DropFactory(make_paths(), config=DropConfig(max_similarity=1.0, history_snr_db=5.0))
    assert make_policy("noisy_perfect").for_regime(noisy).history_snr_db == 5.0
    policy = make_policy("denoised_ar", history_snr_db=25.0, num_horizons=4).for_regime(noisy)
    assert policy.num_horizons == 4
    assert policy.fingerprint == make_policy("denoised_ar", history_snr_db=5.0).fingerprint
    own = make_policy("denoised_ar", settings={"order": 3})
    assert own.for_regime(noisy) is own


def test_a_predictor_of_another_array_is_refused():
    """Drops are those of a line of antennas."""
    factory = DropFactory(make_paths(), config=DropConfig(max_similarity=1.0))
    planar = make_policy("kalman", settings={"array_shape": (4, 8, 1)})
    with pytest.raises(ValueError, match=r"'kalman'.*\(1, 32, 1\).*\(4, 8, 1\)"):
        planar.for_regime(factory)
    model = ChannelPredictor.from_preset("small", array_shape=(4, 4, 2))
    with pytest.raises(ValueError, match=r"\(1, 32, 1\).*\(4, 4, 2\)"):
        PredictedCsi(baselines.ModelPredictor(model), "model").for_regime(factory)
    line = make_policy("kalman", settings={"array_shape": (1, 32, 1)})
    assert line.for_regime(factory) is line


def test_baselines_have_their_tuned_settings():
    prints = [
        make_policy("denoised_ar", history_snr_db=snr_db).fingerprint for snr_db in (5.0, 25.0)
    ]
    assert [f"('order', {order})" in text for order, text in zip((7, 11), prints, strict=True)] == [
        True,
        True,
    ]
    assert "('order', 3)" in make_policy("denoised_ar", settings={"order": 3}).fingerprint


def test_presets_and_baselines_are_made_for_the_array_of_the_drops():
    paths = make_paths(num_sequences=12)
    planar = DropFactory(paths, DownlinkConfig(num_antennas=16, num_rows=4, num_subcarriers=16))
    line = DropFactory(paths, DownlinkConfig(num_antennas=16, num_subcarriers=16))
    for name, settings in (("local_ar", None), ("local_ar", {"order": 2}), ("small", None)):
        policy = make_policy(name, settings=settings)
        assert policy.for_regime(line) is policy
        own = policy.for_regime(planar)
        assert own.name == name and own.for_regime(planar) is own
        predictor = getattr(own.predictor, "model", own.predictor)
        assert getattr(predictor, "transform", predictor).array_shape == (4, 4, 1)
        assert settings is None or predictor.order == 2
    with pytest.raises(ValueError, match=r"Policy 'mine' is made for another array.*\(4, 4, 1\)"):
        PredictedCsi(baselines.LocalAutoregression(), "mine").for_regime(planar)
