"""The experiment from its command line, on channels small enough to run eagerly."""

import dataclasses
import sys
import textwrap

import numpy as np
import pytest
from matplotlib.figure import Figure

from lwmt_sionna.commands import link_eval
from lwmt_sionna.data import read_paths, write_paths
from lwmt_sionna.link import (
    DownlinkConfig,
    DropConfig,
    LinkEvalConfig,
    SweepConfig,
    evaluate_link,
    format_table,
)
from lwmt_sionna.link.sweep.points import Bench
from lwmt_sionna.runs import command_line, records
from tests.link.channels import make_paths, make_predictor

CONFIG = """
    policies = ["perfect", "noisy_perfect"]
    report_link_snr_db = 12.0

    [downlink]
    num_users = 2
    num_antennas = 8
    num_subcarriers = 16
    pilot_groups = [[2], [11]]
    num_iterations = 8

    [drops]
    num_drops = 6
    max_similarity = 1.0

    [sweep]
    horizons = [1, 5]
    link_snr_db = [-6.0, 12.0]
    mcs = [4, 13]
    compile = "eager"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_paths("slow.h5", make_paths(speed_kmh=30.0, sampling_period=1e-3))
    write_paths("fast.h5", make_paths(speed_kmh=60.0, sampling_period=1e-3, seed=1))
    (tmp_path / "config.toml").write_text(textwrap.dedent(CONFIG))
    (tmp_path / "my_predictor.py").write_text(
        textwrap.dedent("""
        import keras
        import numpy as np

        class LastSnapshot:
            def __call__(self, history, num_horizons):
                return np.repeat(history[:, -1:], num_horizons, axis=1)

        class Slope(keras.Model):
            def call(self, x):
                steps = keras.ops.reshape(keras.ops.arange(1.0, 6.0), (1, 5, 1, 1, 1))
                return x[:, -1:] + steps * (x[:, -1:] - x[:, -2:-1])

        slope = Slope()
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_predictor", None)


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        command_line.run(link_eval.main, ["--quiet", "--out", "out", *arguments])
    return exit_.value.code


def test_table_record_and_figures(folder, capsys, monkeypatch):
    arguments = ("--config", "config.toml", "--data", "slow.h5", "fast.h5")
    assert run(*arguments, "--policy", "my_predictor:LastSnapshot") == 0
    output = capsys.readouterr().out
    record = records.read_record("out/link_level_eval.json")
    assert len(record["points"]) == 2 * 2 * 3 * 2 * 2
    assert sorted(record["inputs"]) == ["fast", "slow"]
    assert {point["regime"] for point in record["points"]} == {"30 km/h, 1 ms", "60 km/h, 1 ms"}
    assert len(record["goodput"]) == 2 * 2 * 3 * 2
    assert [users["num_sequences"] for users in record["users"]] == [16, 16]
    assert record["config"]["sweep"]["link_snr_db"] == [-6.0, 12.0]
    figures = (
        "link_bler",
        "link_goodput",
        "link_users",
        "link_nmse",
        "link_required_snr",
        "link_speed",
    )
    for name in (f"{figure}.png" for figure in figures):
        assert (folder / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert output.startswith(format_table(record))
    rows = [line for line in output.splitlines() if " ms  " in line]
    assert len(rows) == 2 * 2 * 3
    assert sum("my_predictor:LastSnapshot" in row for row in rows) == 4
    assert "exact" in rows[0]
    assert "30 km/h, 1 ms: of 16 sequences, 0 vanish" in output

    # The same command again computes nothing, and gives the same.
    monkeypatch.setattr(Bench, "compute", None)
    assert run(*arguments, "--policy", "my_predictor:LastSnapshot") == 0
    assert records.read_record("out/link_level_eval.json")["points"] == record["points"]


def test_keras_model_of_ones_own_appears_in_table_and_figures(folder, capsys, monkeypatch):
    legends = []
    save = Figure.savefig

    def spy(figure, *arguments, **options):
        legends.append([text.get_text() for text in figure.legends[0].get_texts()])
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    flags = "--data slow.h5 --policies perfect --horizons 1 --link-snr 12 --mcs 4 --drops 3"
    own = "my_predictor:slope"
    assert run("--config", "config.toml", *flags.split(), "--policy", own) == 0
    assert own in capsys.readouterr().out
    assert legends and all(own in labels for labels in legends)
    points = {p["policy"]: p for p in records.read_record("out/link_level_eval.json")["points"]}
    # Extrapolating by the last step is no good predictor, but it is one.
    assert -15 < points[own]["nmse_median_db"] < 10


def test_flags_replace_configured_values(folder):
    flags = (
        "--data slow.h5 --policies perfect --horizons 2 --link-snr 0 5 --mcs 10 --drops 3 --slots 2"
    )
    assert run("--config", "config.toml", *flags.split(), "--seed", "7") == 0
    record = records.read_record("out/link_level_eval.json")
    assert [(p["horizon"], p["link_snr_db"], p["mcs"]) for p in record["points"]] == [
        (2, 0.0, 10),
        (2, 5.0, 10),
    ]
    assert {(p["num_drops"], p["num_blocks"]) for p in record["points"]} == {(3, 12)}
    assert record["seeds"] == {"drops": 7, "link": 7}
    assert record["config"]["report_mcs"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data missing.h5", "no data file here. Received: data=missing.h5"),
        ("--data truncated.h5", "truncated.h5"),
        ("--data slow.h5 --policies psychic", "Unknown policy"),
        ("--data slow.h5 --policy my_predictor:Missing", "has no 'Missing'"),
        ("--data slow.h5 --horizons 6", "horizons from 0 to 5"),
        ("--data slow.h5 --mcs 29", "An MCS index"),
        ("--data slow.h5 --mcs 13 13", "list of different values"),
        ("--data slow.h5 slow.h5", "a regime of its own"),
        ("--config missing.toml", "missing.toml"),
        ("--config wrong_key.toml", "wrong_key.toml: [sweep] snr: unknown key"),
        ("--config wrong_type.toml", "wrong_type.toml: policies: expected a list"),
        ("--config no.toml", "no TOML"),
        ("", "There is no data"),
        ("--link-snr loud", "invalid float value"),
    ],
)
def test_wrong_input_is_answered_in_one_line(folder, capsys, arguments, message):
    whole = (folder / "slow.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "wrong_key.toml").write_text("[sweep]\nsnr = [1.0]\n")
    (folder / "wrong_type.toml").write_text('policies = "perfect"\n')
    (folder / "no.toml").write_text("policies = [\n")
    assert run("--config", "config.toml", *arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and "Traceback" not in error


def test_a_user_whose_future_cannot_be_is_refused_by_file_and_field(folder, capsys):
    """No record is written, and none holds nulls."""
    paths = read_paths("slow.h5")
    gains = paths.a.copy()
    gains[3, 16:] = np.nan
    write_paths("slow.h5", dataclasses.replace(paths, a=gains))
    assert run("--config", "config.toml", "--data", "slow.h5") == 2
    error = capsys.readouterr().err
    assert "slow.h5" in error and "a is not finite in sequence 3" in error
    assert error.count("\n") == 1 and not (folder / "out" / "link_level_eval.json").exists()


@pytest.mark.usefixtures("eagerly")
def test_records_call_policies_as_they_were_asked_for(folder):
    """Whatever place their files have: workers may have been started in another folder."""
    make_predictor().save_to_preset("tiny")
    config = LinkEvalConfig.from_toml(
        "config.toml",
        {"data": ["slow.h5"], "policies": ["preset:tiny"], "sweep": {"horizons": [1]}},
    ).with_swept(mcs=(4,), link_snr_db=(12.0,))
    record = evaluate_link(config, "out", progress=False)
    assert {point["policy"] for point in record["points"]} == {"preset:tiny"}
    assert record["config"]["data"] == ["slow.h5"]
    assert set(record["inputs"]) == {"slow", "preset:tiny"}


def test_an_output_that_cannot_be_written_is_told_before_the_work(folder):
    (folder / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        evaluate_link(LinkEvalConfig(data=["missing.h5"]), "taken", progress=False)


def test_several_histories_are_as_many_regimes(folder):
    flags = "--data slow.h5 --policies perfect --horizons 1 --link-snr 12 --mcs 4 --drops 3"
    arguments = ("--config", "config.toml", *flags.split(), "--history-snr", "5", "15")
    assert run(*arguments) == 0
    points = records.read_record("out/link_level_eval.json")["points"]
    assert [(p["regime"], p["history_snr_db"], p["link_snr_db"]) for p in points] == [
        ("30 km/h, 1 ms, history_snr_db=5", 5.0, 12.0),
        ("30 km/h, 1 ms, history_snr_db=15", 15.0, 12.0),
    ]


def test_hardware_is_varied_like_any_setting():
    config = LinkEvalConfig.from_dict(
        {
            "hardware": {"quantization_bits": 6, "target": "chains"},
            "vary": {"hardware.timing_jitter": [0.0, 1e-8], "hardware.dropped": [[], [-1]]},
        }
    )
    variants = config.variants()
    assert [label for label, _ in variants][2] == "timing_jitter=1e-08, dropped=[]"
    found = [settings["hardware"] for _, settings in variants]
    assert [(each.timing_jitter, each.dropped) for each in found] == [
        (0.0, ()), (0.0, (-1,)), (1e-8, ()), (1e-8, (-1,))
    ]  # fmt: skip
    assert {(each.quantization_bits, each.target) for each in found} == {(6, "chains")}
    with pytest.raises(ValueError, match=r"sounding, hardware.*vary='hardware\.bits'"):
        LinkEvalConfig(vary={"hardware.bits": [3]})


def test_what_was_reported_gives_way_to_what_is_swept():
    config = LinkEvalConfig(
        report_mcs=4, sweep=SweepConfig(target_mcs=(4,), goodput_link_snr_db=(2.0,))
    )
    other = config.with_swept(mcs=(10, 16), link_snr_db=(0.0, 3.0))
    assert (other.report_mcs, other.report_link_snr_db) == (16, 3.0)
    assert other.sweep.schemes_at(0.0) == (10, 16) and other.sweep.target_mcs is None
    assert config.with_swept() == config


def test_report_must_be_swept():
    with pytest.raises(ValueError, match="report_mcs=5"):
        LinkEvalConfig(report_mcs=5)
    with pytest.raises(ValueError, match="report_link_snr_db=1"):
        LinkEvalConfig(report_link_snr_db=1.0)
    with pytest.raises(ValueError, match="not evaluated: \\['local_ar'\\]"):
        LinkEvalConfig(policies=("hold",), baselines={"local_ar": {"order": 3}})
    config = LinkEvalConfig().with_policies(["hold", "mine:Own"])
    assert config.policies.count("hold") == 1 and config.policies[-1] == "mine:Own"


def test_vanished_target_is_no_division_by_zero(folder):
    paths = make_paths(sampling_period=1e-3)
    paths.valid[:, 16] = False
    write_paths("gone.h5", paths)
    config = LinkEvalConfig(
        data=["gone.h5"],
        policies=["perfect"],
        downlink=DownlinkConfig(num_antennas=8, num_subcarriers=16, num_iterations=2),
        drops=DropConfig(max_similarity=1.0),
        sweep=SweepConfig(horizons=[1], link_snr_db=[10.0], mcs=[4], compile="eager"),
    )
    record = evaluate_link(config, "gone", progress=False)
    (point,) = record["points"]
    assert point["bler"] == 1.0 and np.isfinite(point["sum_rate"])
    assert point["nmse_pooled_db"] is None
