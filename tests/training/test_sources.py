"""Channels for training: reproducible, mixed, and without a way for the future to leak."""

import dataclasses

import numpy as np
import pytest

from lwmt_sionna.data import (
    ChannelSequences,
    PlanarArray,
    add_noise,
    check_disjoint,
    draw_clusters,
    subcarrier_frequencies,
    synthesize,
    take_trajectories,
    write_channels,
    write_paths,
)
from lwmt_sionna.evaluation.leaks import check_causal
from lwmt_sionna.masking import HardwareRanges
from lwmt_sionna.models.normalization import Frame
from lwmt_sionna.training import (
    ChannelPool,
    DataConfig,
    SourceConfig,
    TrainConfig,
    load_data,
    load_tracks,
)
from lwmt_sionna.training.histories import (
    Features,
    PredictionDataset,
    World,
    draw_histories,
    switch_channels,
)
from lwmt_sionna.training.sources import draw_channels
from tests import mirrors
from tests.training.small import predictor_config

HISTORY = 5
# Ranges whose impairments do not show.
NEARLY_NONE = {
    "phase_walk_deg": (0.0, 0.0),
    "frequency_offset": (0.0, 0.0),
    "timing_jitter": (0.0, 0.0),
    "timing_offset": (0.0, 0.0),
    "quantization_bits": (24, 24),
    "dropped_share": (0.0, 0.0),
}


@pytest.fixture
def h(rng):
    return rng.standard_normal((4, 8, 3, 4, 2)).view(np.complex128)[..., 0].astype(np.complex64)


@pytest.fixture
def scene(rng):
    return mirrors.sequences(rng, num_sequences=12, num_snapshots=12)


def clean(h, seed=0):
    config = DataConfig(files=("x",), num_history=HISTORY)
    return draw_histories(h, config, seed, False)[0]


def test_the_histories_of_training_hold_nothing_of_the_future(h):
    check_causal(clean, h, HISTORY)


def leak_frame(h):
    """An index that is off by one."""
    return add_noise(h[:, 1 : HISTORY + 1], 15.0, np.random.default_rng(0))


def leak_scale(h):
    """The scale over the whole sequence."""
    scale = np.sqrt(np.mean(np.abs(h) ** 2, axis=(1, 2, 3), keepdims=True))
    return h[:, :HISTORY] / scale


def leak_noise(h):
    """Noise whose power follows from the whole sequence."""
    return add_noise(h, 15.0, np.random.default_rng(0))[:, :HISTORY]


@pytest.mark.parametrize("leak", [leak_frame, leak_scale, leak_noise])
def test_planted_leaks_are_caught(h, leak):
    with pytest.raises(ValueError, match="depends on the future"):
        check_causal(leak, h, HISTORY)


def test_histories_must_be_reproducible(h, rng):
    with pytest.raises(ValueError, match="not reproducible"):
        check_causal(lambda x: add_noise(x[:, :HISTORY], 15.0, rng), h, HISTORY)


def test_shared_trajectories_are_caught(scene):
    with pytest.raises(ValueError, match="share trajectories"):
        check_disjoint(scene.select(slice(0, 7)), scene.select(slice(6, 12)))


def test_label_shares_are_nested(scene):
    previous = set()
    for share in (0.01, 0.25, 0.5, 1.0):
        kept = set(take_trajectories(scene, share, seed=3).trajectory_id.tolist())
        assert previous <= kept and len(kept) == max(1, round(12 * share))
        previous = kept
    with pytest.raises(ValueError, match="share=0"):
        take_trajectories(scene, 0, seed=3)


def pool(scene, seed, **settings):
    options = {"data": ("x",), "cluster_share": 0.4, "pool": 40, "pool_steps": 3}
    config = SourceConfig(grids=((6, 4, 4), (4, 2, 8)), **(options | settings))
    return ChannelPool(config, seed, batch_size=5, scenes=[scene])


def test_the_step_decides_the_batch(scene):
    """In another order, by another object: the same batch; another seed or step: another one."""
    first, second = pool(scene, 1), pool(scene, 1)
    drawn = {step: first.draw(step) for step in range(8)}
    for step in (7, 0, 5, 2):
        grid, channels = second.draw(step)
        assert grid == drawn[step][0]
        for value, expected in zip(channels, drawn[step][1], strict=True):
            np.testing.assert_array_equal(value, expected)
    assert [drawn[step][0] for step in range(3)] == [(6, 4, 4), (4, 2, 8), (6, 4, 4)]
    assert not np.array_equal(pool(scene, 2).draw(0)[1].h, drawn[0][1].h)
    # Step 6 has the same grid as step 0, from another pool.
    assert not np.array_equal(drawn[6][1].h, drawn[0][1].h)
    assert drawn[0][1].h.dtype == np.float32 and drawn[0][1].h.shape == (5, 6, 4, 4, 2)


@pytest.mark.parametrize("settings", [{"evolved_share": 1.0}, {"evolved_share": 0.0}])
def test_channels_have_unit_power(scene, settings):
    config = SourceConfig(data=("x",), cluster_share=0.5, **settings)
    h, period, bandwidth = draw_channels([scene], (5, 4, 8), 64, np.random.default_rng(0), config)
    assert period.shape == bandwidth.shape == (64,)
    low, high = config.bandwidth
    assert low <= bandwidth.min() < bandwidth.max() <= high
    assert h.shape == (64, 5, 4, 8) and h.dtype == np.complex64
    np.testing.assert_allclose(np.mean(np.abs(h) ** 2, axis=(1, 2, 3)), 1.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "data="),
        ({"cluster_share": 1.5}, "cluster_share=1.5"),
        ({"cluster_share": 1.0, "grids": ((6, 4),)}, "grids="),
        ({"cluster_share": 1.0, "bandwidth": (2e7, 1e7)}, "bandwidth="),
    ],
)
def test_wrong_sources(settings, words):
    with pytest.raises(ValueError, match=words):
        SourceConfig(**settings)


def test_stored_channels_train_as_the_paths_that_they_come_from(scene, tmp_path):
    """Once the configuration has taken their array and subcarriers from the file."""
    array, frequencies = PlanarArray(2, 3), subcarrier_frequencies(5, 1e6)
    stored = ChannelSequences(
        synthesize(scene, array, frequencies), scene.sampling_period, scene.carrier_frequency, 1e6,
        array.shape, "stored", sequence_id=scene.trajectory_id,
    )  # fmt: skip
    write_paths(tmp_path / "p.h5", scene)
    write_channels(tmp_path / "c.h5", stored)
    settings = {"num_history": HISTORY, "num_horizons": 2, "kind": "direct", "width": 8}
    config = TrainConfig.from_dict({"files": [str(tmp_path / "c.h5")], **settings}).on_files()
    assert config.data.array == array and config.array_shape == (2, 3, 1)
    np.testing.assert_array_equal(config.data.frequencies, frequencies)
    own = load_data(config)
    traced = dataclasses.replace(config.data, files=[str(tmp_path / "p.h5")])
    theirs = load_data(dataclasses.replace(config, data=traced))
    np.testing.assert_array_equal(own.training, theirs.training)
    np.testing.assert_array_equal(own.validation, theirs.validation)
    settings |= {"kind": "predictor", "context": 2}
    predictor = TrainConfig.from_dict({"files": config.data.files, **settings}).on_files().build()
    assert predictor.transform.array_shape == (2, 3, 1)
    line = TrainConfig.from_dict({"files": [str(tmp_path / "p.h5")], **settings})
    assert line.on_files() == line and line.array_shape is None
    with pytest.raises(ValueError, match=r"32 antennas and 32 subcarriers.*12, 6, 5\)"):
        load_data(TrainConfig.from_dict({"files": config.data.files, **settings}))
    write_channels(tmp_path / "one.h5", stored.select([0]))
    with pytest.raises(ValueError, match=r"two trajectories at least.*num_sequences=1"):
        load_tracks(dataclasses.replace(config.data, files=[str(tmp_path / "one.h5")]), 0)


def test_worlds_train_together(scene, tmp_path, rng):
    """Paths on two arrays and in any band, stored channels of a third array, clusters; judged in a
    file apart. What is missing or damaged is computed again, bit for bit."""
    plane = PlanarArray(2, 2)
    h = synthesize(scene, plane, subcarrier_frequencies(4, 1e6), snapshots=np.arange(11))
    write_channels(
        tmp_path / "plane.h5", ChannelSequences(h, 5e-3, 3.5e9, 1e6, plane.shape, "stored")
    )
    write_paths(tmp_path / "paths.h5", scene)
    write_paths(tmp_path / "apart.h5", draw_clusters(6, 12, 5e-3, rng))
    config = predictor_config(
        [tmp_path / "paths.h5", tmp_path / "plane.h5"],
        validation_files=[str(tmp_path / "apart.h5")],
        clusters=5,
        more_rows=(4,),
        bandwidth=(4e6, 4e7),
        hardware={"share": 0.2},
        num_draws=2,
        kind="gru",
    )
    assert config.on_files() == config
    data = load_data(config, folder=tmp_path / "features")
    assert data.counts["stored"] == {"training": 12, "validation": 0}
    assert data.counts["clusters"] == {"training": 5, "validation": 6}
    assert int(data.training.ends[-1]) == (12 + 12 + 5) * 2
    drawn = [np.array(piece) for each in (data.training, data.validation) for piece in each.pieces]
    pieces = sorted((tmp_path / "features").glob("*.npy"))
    pieces[0].unlink()
    pieces[1].write_bytes(pieces[1].read_bytes()[:-1])
    times = {path: path.stat().st_mtime_ns for path in pieces[2:]}
    data = load_data(config, folder=tmp_path / "features")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    again = [piece for each in (data.training, data.validation) for piece in each.pieces]
    for one, other in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(one, other)
    # A batch is made of rows of the pieces, each of them once in a pass.
    batches = [data.training[index][1] for index in range(len(data.training))]
    targets = np.concatenate(batches)[: (12 + 12 + 5) * 2]
    expected = np.concatenate([piece["target"] for piece in again[:3]]).astype(np.float32)
    order = [np.lexsort(x.reshape(len(x), -1).T) for x in (targets, expected)]
    np.testing.assert_array_equal(targets[order[0]], expected[order[1]])


def test_a_piece_holds_the_physics_of_its_array(scene, tmp_path):
    """To half precision; the same file as a line is another world."""
    plane = PlanarArray(2, 2)
    frequencies = subcarrier_frequencies(4, 1e6)
    stored = ChannelSequences(
        synthesize(scene, plane, frequencies), 2.5e-3, 3.5e9, 1e6, plane.shape, "stored"
    )
    write_channels(tmp_path / "plane.h5", stored)
    config = predictor_config([tmp_path / "plane.h5"], experts=((8, 2),))
    world = World(stored, "")
    (piece,) = Features(config.build(), config.data, config.seed).compute([world])
    history, future, shape = world.draw(0, config.data, 10, config.seed)
    assert shape == plane.shape
    model = predictor_config([tmp_path / "plane.h5"], experts=((8, 2),)).on_files().build()
    assert model.transform.array_shape == shape
    frame, past = Frame.of(history, model.transform)
    expected = {**model.features(past), "target": frame.into(future)}
    assert set(piece.dtype.names) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(piece[name], np.asarray(values), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "direct"}, r"kind direct.*small_arrays=\(1,\)"),
        ({"polarization": "VH", "num_rows": 1}, "Received: 1 antennas.*VH"),
    ],
)
def test_small_arrays_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        predictor_config([tmp_path / "paths.h5"], small_arrays=(1,), **change)


def test_small_arrays_are_drawn_beside_whole_ones(scene, tmp_path, monkeypatch):
    """What is kept together is of one size; a batch as well, and a pass has every draw."""
    write_paths(tmp_path / "paths.h5", scene)
    config = predictor_config(
        [tmp_path / "paths.h5"], experts=((8, 2),), more_rows=(2,), small_arrays=(1, 2), num_draws=8
    )
    world = World(scene, "", 8)
    monkeypatch.setattr("lwmt_sionna.training.histories._PIECE", 8)
    monkeypatch.setattr("lwmt_sionna.training.histories._BLOCK", 4)
    monkeypatch.setattr("lwmt_sionna.training.histories._SMALL_SHARE", 0.5)
    pieces = Features(config.build(), config.data, config.seed).compute([world])
    sizes = [piece["target"].shape[2] for piece in pieces]
    assert set(sizes) == {1, 2, 4}
    dataset = PredictionDataset(pieces, 4, seed=1)
    batches = [dataset[i][1] for i in range(len(dataset))]
    assert {len(batch) for batch in batches} == {4}
    assert sorted(batch.shape[2] for batch in batches) != [batch.shape[2] for batch in batches]
    for size in (1, 2, 4):
        drawn = np.concatenate([p["target"] for p in pieces if p["target"].shape[2] == size])
        seen = np.concatenate([batch for batch in batches if batch.shape[2] == size])
        drawn, seen = (np.unique(x.reshape(len(x), -1), axis=0) for x in (drawn, seen))
        np.testing.assert_array_equal(seen, drawn.astype(np.float32))
    # Of what is stored, the first antennas.
    h = synthesize(scene, PlanarArray(1, 4), subcarrier_frequencies(4, 1e6))
    stored = World(ChannelSequences(h, 2.5e-3, 3.5e9, 1e6, (1, 4, 1), "stored"), "", 8)
    first, _, shape = stored.channels(np.arange(2), config.data, 10, np.random.default_rng(0), 2)
    np.testing.assert_array_equal(first, h[:2, :10, :2])
    assert shape is None


def test_hardware_meets_history_and_target(h):
    """Out of calibration, both go through the same chains; what jitters is not to be foreseen."""
    h = np.concatenate([h, h])
    ranges = {"phase_jitter_deg": (3.0, 3.0), "calibration_error_db": (-20.0, -20.0)}
    data = DataConfig(
        files=("x",), num_history=HISTORY, history_snr_db=(200.0, 200.0),
        hardware=HardwareRanges(clean_share=0.0, share=1.0, **ranges, **NEARLY_NONE),
    )  # fmt: skip
    past, future = (
        x.view(np.complex64)[..., 0]
        for x in draw_histories(h, data, 3, False, subcarrier_frequencies(4, 1e6), 5e-3)
    )
    truth = h / np.sqrt(np.mean(np.abs(h[:, :HISTORY]) ** 2, axis=(1, 2, 3), keepdims=True))
    chains = future / truth[:, HISTORY:]
    np.testing.assert_allclose(chains, chains[:, :1, :, :1] * np.ones_like(chains), rtol=1e-3)
    assert 1e-4 < np.mean(np.abs(chains - 1) ** 2) < 1e-1
    turns = past / truth[:, :HISTORY] / chains[:, :1, :, :1]
    np.testing.assert_allclose(np.abs(turns), 1.0, rtol=1e-2)
    assert np.rad2deg(np.angle(turns)).std() == pytest.approx(3.0, rel=0.5)
    # Users of one base station share its chains, not their oscillators.
    np.testing.assert_allclose(chains[1:4], chains[:1] * np.ones_like(chains[1:4]), rtol=1e-3)
    assert np.abs(chains[4, 0, :, 0] - chains[0, 0, :, 0]).min() > 1e-4
    assert np.abs(np.diff(turns[:, 0, 0, 0])).min() > 1e-4


def test_stored_channels_are_cut_to_the_grids_of_a_pretraining(rng):
    h = rng.standard_normal((6, 9, 8, 7, 2)).view(np.complex128)[..., 0].astype(np.complex64)
    stored = ChannelSequences(h, 1e-3, 3.5e9, 30e3, (1, 8, 1), "stored")
    config = SourceConfig(data=["x"], cluster_share=0.0, grids=((4, 5, 3),), pool=12)
    drawn, _, bandwidth = draw_channels([stored], (4, 5, 3), 12, rng, config)
    np.testing.assert_allclose(bandwidth, 3 * stored.subcarrier_spacing)
    blocks = np.lib.stride_tricks.sliding_window_view(h, (5, 3), axis=(2, 3))
    for one in drawn:
        # Parallel to a block of the file, at snapshots that lie equally far apart.
        inner = np.abs(np.einsum("stmkab,ab->stmk", blocks.conj(), one[0]))
        norms = np.linalg.norm(blocks, axis=(-2, -1)) * np.linalg.norm(one[0])
        assert (inner / norms).max() > 1 - 1e-5
    plane = dataclasses.replace(stored, array_shape=(2, 4, 1))
    assert draw_channels([plane], (4, 8, 3), 2, rng, config).h.shape == (2, 4, 8, 3)
    for channels, grid, message in (
        (plane, (4, 5, 3), "expected 8 to 8 antennas"),
        (stored, (4, 5, 8), "expected 1 to 7 subcarriers"),
        (stored, (10, 5, 3), "at least 10 snapshots"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_channels([channels], grid, 2, rng, config)


def test_what_is_switched_appears_or_vanishes_within_the_history(rng):
    h = rng.standard_normal((64, 12, 4, 4, 2)).astype("float32").view("complex64")[..., 0]
    h[5] = 0.0
    switched = switch_channels(h, np.random.default_rng(1), 0.5, 8)
    changed = np.any(switched != h, axis=(2, 3))
    assert 20 <= changed.any(axis=1).sum() <= 44
    for there in changed[changed.any(axis=1)]:
        (step,) = np.flatnonzero(np.diff(there.astype(int)))
        assert 0 <= step < 7
    # One of zeros is neither scaled up nor added to.
    assert not switched[5].any() and not changed[6].any()
    np.testing.assert_array_equal(switch_channels(h, np.random.default_rng(1), 0.0, 8), h)
