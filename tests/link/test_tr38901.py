"""Worlds of TR 38.901: what their tables say, and files of them."""

import dataclasses
import itertools

import numpy as np
import pytest

from lwmt_sionna.data import PlanarArray, axes_fault, join_channels, read_channels, write_channels
from lwmt_sionna.link import Tr38901Config, draw_channels, generate_channels
from lwmt_sionna.link.phy import tr38901
from lwmt_sionna.link.phy.line import IS_SIONNA_2

SMALL = {"array": {"num_cols": 2}, "num_subcarriers": 4}
LIGHT = 299792458.0


def cdl(name="A", **settings):
    values = {"model": f"CDL-{name}", "num_sequences": 32, "delay_spread": 100e-9, **SMALL}
    return Tr38901Config.from_dict(values | settings)


@pytest.mark.parametrize("name", ["A", "D"])
def test_delays_are_those_of_the_table(name):
    from sionna.phy.channel.tr38901 import CDL, PanelArray

    # Snapshots and antennas far apart: every one of them is another sample.
    config = cdl(
        name, num_subcarriers=64, num_snapshots=32, sampling_period=0.1, speed_kmh=[60, 60],
        element="omni", array={"num_cols": 4, "horizontal_spacing": 5.0},
    )  # fmt: skip
    h = draw_channels(config).h
    correlation = [np.mean(h[..., d:] * h[..., : 64 - d].conj()) for d in range(16)]
    antenna = PanelArray(1, 1, "single", "V", "omni", 3.5e9)
    table = CDL(name, 100e-9, 3.5e9, antenna, antenna, "uplink")
    if IS_SIONNA_2:
        # Not public there. In sight, the first cluster has a path beside its rays.
        powers, delays, k_factor = (
            np.array(x) for x in (table._powers, table._delays, table._k_factor)
        )
        powers[0] += k_factor
        powers /= 1 + k_factor
    else:
        powers, delays = np.asarray(table.powers), np.asarray(table.delays)
    turn = np.exp(-2j * np.pi * np.arange(16)[:, None] * config.subcarrier_spacing * delays)
    # The mean over some thousand samples is good to a few percent.
    np.testing.assert_allclose(correlation, turn @ powers, atol=0.08)


def test_doppler_shifts_are_those_of_the_speed():
    config = cdl(
        "C", num_sequences=128, num_snapshots=128, sampling_period=1e-3, speed_kmh=[15, 60]
    )  # fmt: skip
    channels = join_channels([draw_channels(config, shard) for shard in range(config.num_shards)])
    assert 15 <= 3.6 * channels.speed.min() < 3.6 * channels.speed.max() <= 60
    window = np.blackman(128)[:, None, None]
    spectrum = np.mean(np.abs(np.fft.fft(window * channels.h, axis=1)) ** 2, axis=(2, 3))
    shift = np.abs(np.fft.fftfreq(128))
    largest = channels.normalized_doppler[:, None]
    np.testing.assert_allclose(largest[:, 0], channels.speed * 3.5e9 / LIGHT * 1e-3, rtol=1e-5)
    outside = np.sum(spectrum * (shift > largest + 4 / 128), axis=1) / spectrum.sum(axis=1)
    assert outside.max() < 1e-3
    # Sionna draws azimuth and zenith of the motion uniformly: whatever the rays, the mean square
    # of the cosine to them lies between 1/4 (all in the plane) and 1/2 (all from above), and is
    # known from 128 draws to 0.03 (one standard deviation).
    spectrum = spectrum / spectrum.sum(axis=1, keepdims=True)
    square = np.mean(np.sum(spectrum * (shift / largest) ** 2, axis=1))
    assert 0.16 < square < 0.59


@pytest.mark.parametrize("direction", ["downlink", "uplink"])
def test_doppler_shifts_spread_as_the_angles_of_the_receiver(direction):
    """The user moves: in the downlink its own angles, those of the tables, spread its shifts."""
    from sionna.phy.channel.tr38901 import CDL, PanelArray

    config = cdl(
        "A", num_sequences=256, num_snapshots=128, sampling_period=1e-3, speed_kmh=[60, 60],
        element="omni", array={"num_cols": 1}, num_subcarriers=64, direction=direction,
    )  # fmt: skip
    channels = join_channels([draw_channels(config, shard) for shard in range(config.num_shards)])
    window = np.blackman(128)[:, None, None]
    spectrum = np.mean(np.abs(np.fft.fft(window * channels.h, axis=1)) ** 2, axis=(2, 3))
    spectrum /= spectrum.sum(axis=1, keepdims=True)
    cosine = np.fft.fftfreq(128) / channels.normalized_doppler[:, None]
    mean = np.sum(spectrum * cosine, axis=1)
    spread = np.mean(np.sum(spectrum * cosine**2, axis=1) - mean**2)

    antenna = PanelArray(1, 1, "single", "V", "omni", 3.5e9)
    user = CDL("A", 100e-9, 3.5e9, antenna, antenna, direction)
    # Sionna 1.2 has three axes of one in front.
    azimuth, zenith = (np.asarray(x).reshape(*x.shape[-2:]) for x in (user._aoa, user._zoa))
    power = np.repeat(
        np.asarray(user._powers).reshape(-1, 1) / azimuth.shape[1], azimuth.shape[1], axis=1
    )
    ray = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth),
                    np.cos(zenith)])  # fmt: skip
    centre = np.sum(power * ray, axis=(1, 2))
    variance = np.sum(power * ray**2, axis=(1, 2)) - centre**2
    # Sionna draws azimuth and zenith of the motion uniformly: mean squares of its direction.
    expected = variance @ [0.25, 0.25, 0.5]
    np.testing.assert_allclose(spread, expected, rtol=0.15)


def test_a_sequence_is_one_realisation():
    h = draw_channels(cdl(num_snapshots=12, sampling_period=1e-3, speed_kmh=[3, 3])).h
    step = np.sum(np.abs(np.diff(h, axis=1)) ** 2, axis=(0, 2, 3))
    power = np.sum(np.abs(h[:, 1:]) ** 2, axis=(0, 2, 3))
    # 1 - correlation is at most (2 pi 0.0097)^2 / 2.
    assert (step / power).max() < (2 * np.pi * 3 / 3.6 * 3.5e9 / LIGHT * 1e-3) ** 2


@pytest.mark.parametrize("polarization", ["V", "VH", "cross"])
def test_antennas_have_the_order_of_the_house(polarization):
    from sionna.phy.channel.tr38901 import PanelArray

    array = PlanarArray(2, 3, 0.7, 0.5, polarization)
    kind = "single" if polarization == "V" else "dual"
    panel = PanelArray(
        2, 3, kind, polarization, "omni", LIGHT,
        element_vertical_spacing=0.7, element_horizontal_spacing=0.5,
    )  # fmt: skip
    places = np.tile(array.positions, (array.num_polarizations, 1))
    np.testing.assert_allclose(panel.ant_pos, places, atol=1e-4)
    # Seen through a channel: CDL-D is in sight straight ahead, at 98.5 degrees of zenith.
    channels = draw_channels(cdl("D", array=array, num_subcarriers=8))
    assert channels.array_shape == (2, 3, array.num_polarizations)
    sight = np.einsum("stmk,stnk->mn", channels.h, channels.h.conj())
    strongest = np.linalg.eigh(sight)[1][:, -1].reshape(array.num_polarizations, -1)
    response = array.response(np.radians(98.5), 0.0) / np.sqrt(6)
    shares = np.abs(strongest @ response.conj()) ** 2
    np.testing.assert_allclose(shares.sum(), 1.0, atol=0.02)
    # A vertical wave is seen by V alone, and by both of a crossed pair alike.
    expected = {"V": [1.0], "VH": [1.0, 0.0], "cross": [0.5, 0.5]}
    np.testing.assert_allclose(shares, expected[polarization], atol=0.05)


@pytest.mark.parametrize("model", ["UMi", "UMa", "RMa"])
def test_cells_in_and_out_of_sight(model):
    ripple = {}
    for sight in (True, False):
        config = Tr38901Config(
            model, 32, line_of_sight=sight, speed_kmh=(20, 40), num_snapshots=3,
            array=PlanarArray(1, 4), num_subcarriers=32,
        )  # fmt: skip
        channels = draw_channels(config)
        assert channels.h.shape == (32, 3, 4, 32)
        assert 20 / 3.6 <= channels.speed.min() < channels.speed.max() <= 40 / 3.6
        power = np.abs(channels.h) ** 2
        ripple[sight] = np.median(power.std(axis=3) / power.mean(axis=3))
    # One strong path fades less over the band than many.
    assert ripple[True] < ripple[False]


def test_seeds():
    first = draw_channels(cdl()).h
    np.testing.assert_array_equal(draw_channels(cdl()).h, first)
    assert not np.allclose(draw_channels(cdl(seed=1)).h, first)


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    config = cdl(num_sequences=40)
    path, drawn, draw = tmp_path / "world.h5", [], draw_channels

    def killed(config, shard):
        if shard == 1:
            raise KeyboardInterrupt
        return draw(config, shard)

    monkeypatch.setattr(tr38901, "draw_channels", killed)
    with pytest.raises(KeyboardInterrupt):
        generate_channels(config, path)
    assert not path.exists()
    with pytest.raises(ValueError, match="another"):
        generate_channels(dataclasses.replace(config, seed=1), path)
    monkeypatch.setattr(
        tr38901, "draw_channels", lambda config, shard: drawn.append(shard) or draw(config, shard)
    )
    channels = generate_channels(config, path)
    assert drawn == [1]
    expected = np.concatenate([draw(config, 0).h, draw(config, 1).h])
    np.testing.assert_array_equal(read_channels(path).h, expected)
    assert channels.sequence_id.tolist() == list(range(40))
    assert [entry.name for entry in tmp_path.iterdir()] == ["world.h5"]
    # What is finished stays; another world does not overwrite it.
    generate_channels(config, path)
    assert drawn == [1]
    older = dataclasses.replace(channels, metadata=channels.metadata | {"tracer": "sionna 1.0"})
    write_channels(tmp_path / "older.h5", older)
    with pytest.raises(ValueError, match=r"drawn by sionna 1\.0; here is"):
        generate_channels(config, tmp_path / "older.h5")
    with pytest.raises(ValueError, match=r"differ in what traced them.*sionna 1\.0"):
        join_channels([channels, older])
    with pytest.raises(ValueError, match="another configuration"):
        generate_channels(dataclasses.replace(config, seed=1), path)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"delay_spread": None}, "delay_spread"),
        ({"line_of_sight": True}, "line_of_sight"),
        ({"model": "UMi"}, "delay_spread"),
        ({"model": "CDL-F"}, "model"),
        ({"speed_kmh": (30, 3)}, "speed_kmh"),
        ({"speed_kmh": (-3, 3)}, "speed_kmh"),
    ],
)
def test_worlds_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        cdl(**settings)


@pytest.mark.parametrize("speed", [3.0, 30.0, 120.0])
@pytest.mark.parametrize("model", ["CDL-A", "CDL-C", "CDL-D"])
def test_a_wrong_order_of_axes_is_told(model, speed):
    config = Tr38901Config(
        model, num_sequences=16, delay_spread=100e-9, speed_kmh=(speed, speed), num_snapshots=16,
        num_subcarriers=16, array=PlanarArray(1, 16),
    )  # fmt: skip
    channels = draw_channels(config)
    for order in itertools.permutations(range(4)):
        fault = axes_fault(dataclasses.replace(channels, h=channels.h.transpose(order)))
        assert (fault is None) == (order == (0, 1, 2, 3)), order
