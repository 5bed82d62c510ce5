"""The data sets by name: enough of everything, and nothing of the held-out scenes."""

import dataclasses
import pathlib

import pytest

pytestmark = pytest.mark.rt

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "experiments" / "configs"
PRETRAINING = sorted((CONFIGS / "pretraining").glob("*.toml"))
HELD_OUT = {"san_francisco", "old_town"}


def read(path):
    from lwmt_sionna.rt import GenerationConfig

    return GenerationConfig.from_toml(path)


def test_pretraining_is_large_and_of_all_regimes():
    from lwmt_sionna.rt import own_scenes

    configs = [read(path) for path in PRETRAINING]
    assert sum(config.num_sequences for config in configs) >= 4000
    scenes = {config.scene for config in configs}
    assert {"munich", "etoile", "simple_street_canyon_with_cars"} <= scenes
    assert len(scenes & set(own_scenes())) >= 4
    for scene in scenes:
        mine = [config for config in configs if config.scene == scene]
        for speed in (3.0, 30.0, 60.0, 120.0):
            assert any(c.speed_kmh[0] <= speed <= c.speed_kmh[1] for c in mine), (scene, speed)
        assert {config.trajectory.regime for config in mine} == {"pedestrian", "vehicular"}
        # Trajectories are told apart by their seeds.
        assert len({config.seed for config in mine}) == len(mine)


def test_held_out_scenes_stay_out():
    scenes = {read(path).scene for path in PRETRAINING}
    assert not scenes & HELD_OUT
    held_out = {read(path).scene for path in CONFIGS.glob("data_*_*kmh_*.toml")}
    assert held_out == HELD_OUT
    trained = (CONFIGS / "predictor_small.toml").read_text()
    assert not any(name in trained for name in HELD_OUT)


def test_worlds_share_their_tracks():
    from lwmt_sionna.rt import GenerationConfig

    for scene in HELD_OUT:
        path = CONFIGS / "worlds" / f"data_{scene}.toml"
        variants = GenerationConfig.variants_from_toml(path)
        assert {config.scene for config in variants.values()} == {scene}
        for name, config in variants.items():
            assert (config.diffuse is not None) == name.startswith("diffuse_")
            twin = variants.get(name.removeprefix("diffuse_"), config)
            assert (twin.seed, twin.shard_size) == (config.seed, config.shard_size)
            # Four users of one base station make a drop: 25 of them and more.
            each = config.num_sequences // len(config.base_stations)
            assert each // 4 * len(config.base_stations) >= 25


SCENES = sorted({path.stem.rpartition("_")[0] for path in PRETRAINING})


@pytest.mark.parametrize("scene", ["old_town", *SCENES])
def test_base_stations_stand_where_they_may(scene):
    """One check for every scene; its files share their base stations."""
    from lwmt_sionna.rt.tracing.check import check_scene

    paths = [*CONFIGS.glob(f"data_{scene}_*kmh_*.toml")]
    paths += [path for path in PRETRAINING if path.stem.rpartition("_")[0] == scene]
    stations = {read(path).base_stations for path in paths}
    assert len(stations) == 1
    assert check_scene(scene, 3.5e9, stations.pop(), coverage=False).is_fit


def test_training_worlds_are_apart_and_made():
    """From those they are judged in, and validation from both; each file has its configuration."""
    from lwmt_sionna.link import Tr38901Config
    from lwmt_sionna.rt import GenerationConfig
    from lwmt_sionna.training import TrainConfig

    files, scenes, profiles, seeds = set(), {}, {}, set()
    for path in sorted((CONFIGS / "training").glob("*.toml")):
        traced = path.stem.startswith("data_")
        variants = (GenerationConfig if traced else Tr38901Config).variants_from_toml(path)
        files |= {f"{path.stem.removeprefix('data_')}_{name}.h5" for name in variants}
        if traced:
            scenes[path.stem] = {config.scene for config in variants.values()}
            assert len({config.seed for config in variants.values()}) == len(variants)
        else:
            profiles[path.stem] = {config.model for config in variants.values()}
            seeds |= {config.seed for config in variants.values()}
    assert not set.union(*scenes.values()) & HELD_OUT
    assert not profiles["tr38901"] & profiles["validation_tr38901"]
    judged = [
        config
        for path in (CONFIGS / "worlds").glob("*.toml")
        if not path.stem.startswith("data_")
        for config in Tr38901Config.variants_from_toml(path).values()
    ]
    assert not seeds & {config.seed for config in judged}
    known = {config.model for config in judged if config.model.startswith("CDL")}
    assert not known & set.union(*profiles.values())
    data = TrainConfig.from_toml(CONFIGS / "predictor_worlds.toml").data
    assert {pathlib.Path(name).name for name in data.files + data.validation_files} == files
    trained = {pathlib.Path(name).name for name in data.files}
    assert not trained & {pathlib.Path(name).name for name in data.validation_files}


def test_other_carriers_are_traced_on_the_same_tracks():
    """Tracks follow from everything but the carrier."""
    for path in CONFIGS.glob("wide_*_28ghz.toml"):
        twin = read(path.with_name(path.name.replace("_28ghz", "")))
        assert read(path) == dataclasses.replace(twin, carrier_frequency=28e9)
