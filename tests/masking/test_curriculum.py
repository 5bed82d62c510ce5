"""The curriculum: mixtures, schedules, ablations, and what a view gives away."""

import json

import keras
import numpy as np
import pytest

from lwmt_sionna.masking import IMPAIRMENTS, MASKS, Curriculum
from lwmt_sionna.ops.angle_delay import angle_delay_transform

QUIET = {}


@pytest.fixture
def h(rng):
    return rng.standard_normal((600, 8, 4, 8, 2)).astype(np.float32)


def numpy_view(curriculum, h, seed=1, progress=1.0, **options):
    view = curriculum.view(h, seed, progress, **options)
    return {name: np.asarray(value) for name, value in view.items()}


def test_default_mixes_everything(h):
    curriculum = Curriculum()
    assert set(curriculum.masks) == set(MASKS)
    assert set(curriculum.impairments) == set(IMPAIRMENTS)
    view = numpy_view(curriculum, h)
    assert set(view["mask"]) == set(range(len(MASKS)))
    assert view["observed"].shape == view["target"].shape == h.shape
    assert view["hidden"].shape == view["wanted"].shape == (600, 8 * 4 * 8)
    assert np.isfinite(view["observed"]).all()


def test_shares_follow_the_schedule(h):
    curriculum = Curriculum(
        masks={"random": {"weight": [[0.0, 3.0], [0.5, 1.0]]}, "tail": {"weight": 1.0}},
        impairments={"gain": {"weight": [[0.2, 0.0], [1.0, 0.8]]}},
    )
    for progress, random, gain in ((0.0, 0.75, 0.0), (0.25, 2 / 3, 0.05), (1.0, 0.5, 0.8)):
        shares = curriculum.shares(progress)
        assert shares["masks"]["random"] == pytest.approx(random)
        assert shares["impairments"]["gain"] == pytest.approx(gain)
        view = numpy_view(curriculum, h, progress=keras.ops.convert_to_tensor(progress))
        drawn = np.mean(view["mask"] == list(curriculum.masks).index("random"))
        assert abs(drawn - random) < 5 * np.sqrt(0.25 / len(h))
        # A gain error leaves the visible channel another than the true one.
        differs = np.abs(view["observed"] / view["target"] - 1).reshape(len(h), -1).max(axis=1)
        assert abs(np.mean(differs > 1e-3) - gain) < 5 * np.sqrt(0.25 / len(h))


@pytest.mark.parametrize("name", MASKS)
def test_views_of_one_mask(h, name):
    curriculum = Curriculum(masks={name: {}}, impairments=QUIET)
    view = numpy_view(curriculum, h)
    target = np.asarray(angle_delay_transform(h))
    ratio = view["target"] / target
    np.testing.assert_allclose(ratio, ratio[:, :1, :1, :1, :1] * np.ones_like(ratio), rtol=1e-3)
    if "subcarrier" in name or "antenna" in name:
        # Nothing is hidden, but of 2, 3 or 4 measurements only one is left.
        assert not view["hidden"].any() and view["wanted"].all()
        power = np.mean(view["observed"] ** 2, axis=(1, 2, 3, 4))
        np.testing.assert_allclose(power, 0.5, rtol=1e-3)
        share = power / np.mean(view["target"] ** 2, axis=(1, 2, 3, 4))
        assert share.mean() == pytest.approx(np.mean([1 / 2, 1 / 3, 1 / 4]), rel=0.05)
    else:
        np.testing.assert_array_equal(view["hidden"], view["wanted"])
        hidden = view["hidden"]
        assert hidden.any(axis=1).all() and not hidden.all(axis=1).any()
        np.testing.assert_allclose(view["observed"], view["target"], rtol=1e-5, atol=1e-5)
        # The visible part has a root mean square of one, real and imaginary part together.
        power = np.sum(view["observed"] ** 2, axis=-1).reshape(len(h), -1)
        visible = np.sum(power * ~hidden, axis=1) / np.sum(~hidden, axis=1)
        np.testing.assert_allclose(visible, 1.0, rtol=1e-3)


def test_nothing_hidden_enters_what_is_visible(h):
    """Another future under the same seed: the visible part is bit for bit the same."""
    curriculum = Curriculum(masks={"tail": {"horizon": [3, 3]}}, impairments={"phase": {}})
    other = h.copy()
    other[:, -3:] *= -5.0
    first, second = numpy_view(curriculum, h), numpy_view(curriculum, other)
    np.testing.assert_array_equal(first["observed"][:, :-3], second["observed"][:, :-3])
    assert first["hidden"].reshape(600, 8, -1)[:, -3:].all()


def test_patches(h):
    curriculum = Curriculum(masks={"tube": {}}, impairments=QUIET)
    view = numpy_view(curriculum, h, patch=(2, 4))
    assert view["hidden"].shape == (600, 8 * 2 * 2)


def test_seeds(h):
    curriculum = Curriculum()
    generator = keras.random.SeedGenerator(4)
    first, second = (numpy_view(curriculum, h[:20], generator) for _ in range(2))
    again = numpy_view(curriculum, h[:20], keras.random.SeedGenerator(4))
    np.testing.assert_array_equal(first["observed"], again["observed"])
    assert (first["hidden"] != second["hidden"]).any()


def test_ablations():
    curriculum = Curriculum()
    assert "tube" not in curriculum.without("tube", "gain").masks
    assert "gain" not in curriculum.without("tube", "gain").impairments
    assert list(curriculum.only("random").masks) == ["random"]
    assert curriculum.only("random").impairments == curriculum.impairments
    with pytest.raises(ValueError, match="pipe"):
        curriculum.without("pipe")
    with pytest.raises(ValueError, match="at least one"):
        Curriculum(masks={"tail": {}}).without("tail")


def test_toml_round_trip(tmp_path):
    path = tmp_path / "curriculum.toml"
    path.write_text(
        "[masks.tail]\nweight = [[0.0, 0.5], [1.0, 2.0]]\nhorizon = [1, 3]\n"
        "[masks.random]\nshare = [0.1, 0.2]\n[impairments.noise]\nhistory_snr_db = [20.0, 5.0]\n"
    )
    curriculum = Curriculum.from_toml(path)
    assert list(curriculum.masks) == ["random", "tail"]
    assert curriculum.masks["tail"].settings == {"horizon": [1, 3]}
    again = Curriculum(**json.loads(json.dumps(curriculum.to_dict())))
    assert again == curriculum


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": {"pipe": {}}}, "pipe"),
        ({"masks": {"tail": {"horizons": [1, 2]}}}, "horizons"),
        ({"masks": {"tail": {"weight": -1.0}}}, "weight=.*-1"),
        ({"masks": {"tail": {"weight": [[0.5, 1.0], [0.2, 1.0]]}}}, "ascending"),
        ({"masks": {"tail": {"weight": [[0.0, 1.0], [1.0, 0.0]]}}}, "progress 1"),
        ({"masks": {"tail": {"severity": 2.0}}}, "severity"),
        ({"impairments": {"gain": {"weight": 1.5}}}, "gain.weight"),
    ],
)
def test_wrong_curricula_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**arguments)


def test_numbers_come_from_hashed_keys(h, monkeypatch):
    """The backends' own generators would take as long as a training step: each draw is one key."""
    shapes, draw = [], keras.random.randint

    def recorded(shape, *args, **kwargs):
        shapes.append(tuple(shape))
        return draw(shape, *args, **kwargs)

    monkeypatch.setattr(keras.random, "randint", recorded)
    for name in ("normal", "uniform"):
        monkeypatch.delattr(keras.random, name)
    Curriculum().view(h[:4], 1, 0.7)
    assert set(shapes) == {(2,)} and len(shapes) < 100
