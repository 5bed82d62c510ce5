"""The program `lwmt`: its commands, the files that come with it, and a wheel as the whole of it."""

import importlib
import os
import pathlib
import runpy
import subprocess
import sys
import zipfile

import pytest

from lwmt_sionna import __main__ as program
from lwmt_sionna.data import read_paths
from lwmt_sionna.runs import command_line, records, shipped
from lwmt_sionna.runs.configuration import read_toml

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEMO = ROOT / "experiments" / "configs" / "link_demo.toml"
DATA = "experiments/data/san_francisco_30kmh_5ms.h5"
# Scripts that are callers of a command.
CALLERS = {
    "finetune.py": "finetune", "generate_channels.py": "draw", "generate_sequences.py": "trace",
    "link_level_eval.py": "link-eval", "new_city.py": "scene new", "prediction_eval.py": "predict",
    "pretrain.py": "pretrain", "train_predictor.py": "train", "worlds_eval.py": "worlds-eval",
}  # fmt: skip


@pytest.fixture
def lwmt(monkeypatch, capsys):
    """Runs the program as a console does; returns exit status, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lwmt", *words])
        with pytest.raises(SystemExit) as stop:
            program.run()
        return stop.value.code, *capsys.readouterr()

    return run


def main_of(name):
    return importlib.import_module(f"lwmt_sionna.{program.COMMANDS[name][0]}").main


@pytest.mark.parametrize("name", program.COMMANDS)
def test_help_of_a_command_calls_it_by_its_name(lwmt, name):
    status, out, err = lwmt(*name.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: lwmt {name} [-h]")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(lwmt, words):
    status, out, _ = lwmt(*words)
    assert status == 0
    for name, (_, told) in program.COMMANDS.items():
        assert f"  {name} " in out and told in out


def test_version(lwmt):
    assert lwmt("--version") == (0, f"{importlib.import_module('lwmt_sionna').__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["linkeval"], "lwmt: error: unknown command. Expected one of link-eval, "),
        (["--config", "x"], "Received: --config"),
        (["scene", "sell"], "lwmt scene: error: argument COMMAND: invalid choice: 'sell'"),
        (["data", "check"], "lwmt data: error: the following arguments are required: files"),
        (["link-eval", "--config", "link_dem", "--out", "x"], "nor one of this name in"),
        (["link-eval", "--speed", "3"], "lwmt link-eval: error:"),
        (["worlds-eval", "--quick", "--worlds", "cdl", "munihc"], "Received: munihc"),
    ],
)
def test_wrong_words_are_one_line(lwmt, words, message):
    status, _, err = lwmt(*words)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.parametrize(("script", "name"), CALLERS.items())
def test_scripts_call_the_commands(script, name):
    assert runpy.run_path(ROOT / "experiments" / script)["main"] is main_of(name)


def test_old_names_stay(capsys):
    main_of("scene")(["list-scenes"])
    assert "old_town" in capsys.readouterr().out
    with pytest.raises(command_line.UsageError, match="an array needs --axes"):
        main_of("data")(["convert", DATA])


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("link_demo", "link_demo.toml", "experiments/configs/link_demo.toml"):
        assert shipped.find(name, ".toml") == DEMO
    assert read_toml("worlds/data_old_town")["scene"] == "old_town"
    assert shipped.find("san_francisco_30kmh_5ms.h5") == ROOT / DATA
    assert read_paths(DATA).num_sequences
    assert records.sha256(DATA) == records.sha256(ROOT / DATA)
    for name in ("runs/link_demo", "../configs/link_demo", str(tmp_path / "link_demo"), "x.json"):
        assert shipped.find(name, ".toml") == pathlib.Path(name)


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link_demo").mkdir()  # what an earlier run was told to write to
    assert shipped.find("link_demo", ".toml") == DEMO
    (tmp_path / "link_demo.toml").write_text("seed = 3\n")
    assert read_toml("link_demo.toml") == {"seed": 3}


def test_hints_fit_a_wheel(monkeypatch):
    assert shipped.how_to_install("rt") == 'pip install -e ".[rt]"'
    monkeypatch.setattr(shipped, "IS_CHECKOUT", False)
    assert shipped.how_to_install("rt") == 'pip install "lwmt-sionna[rt]"'
    assert shipped.how_to_install() == 'pip install "lwmt-sionna"'


def test_records_name_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "/x/bin/lwmt", "predict", "--data", "a.h5"])
    record = records.write_record(
        tmp_path / "record.json", name="x", config={}, points=[], seeds=[],
        inputs={"a": "san_francisco_30kmh_5ms.h5"}, started=2e9 - 4e8,
    )  # fmt: skip
    assert record["command"] == "lwmt predict --data a.h5"
    assert record["inputs"]["a"]["path"] == DATA


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of a wheel, installed, that was built of an sdist of the tracked files alone."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tracked = listed.stdout.split()
    if not tracked:
        pytest.skip("no git checkout: what is tracked cannot be told")
    copy = folder / "checkout"
    for name in filter(lambda name: (ROOT / name).is_file(), tracked):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import *; build_{}({!r})"

    def python(*words, cwd):
        done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    python("-c", build.format("sdist", str(folder)), cwd=copy)
    [sdist] = folder.glob("*.tar.gz")
    python("-m", "tarfile", "-e", sdist, folder, cwd=folder)
    source = folder / sdist.name.removesuffix(".tar.gz")
    missing = [name for name in tracked if not (source / name).is_file()]
    assert not missing
    python("-c", build.format("wheel", str(folder)), cwd=source)
    [wheel] = folder.glob("*.whl")
    python(
        "-m", "pip", "install", "--no-deps", "--no-index", "-t", folder / "site", wheel, cwd=folder
    )
    return wheel, folder / "site"


@pytest.mark.slow
def test_wheel_is_the_whole_tool(installed, tmp_path):
    wheel, site = installed
    names = zipfile.ZipFile(wheel).namelist()
    for folder, pattern in (
        ("experiments/configs", "*.toml"),
        ("experiments/data", "*.h5"),
        ("scenes", "*.ply"),
    ):
        there = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob(pattern)}
        packed = {name.removeprefix("lwmt_sionna/shipped/") for name in names}
        assert there and there <= packed

    def run(*words):
        done = subprocess.run(
            words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    lwmt = site / "bin" / "lwmt"
    assert str(site) in run(sys.executable, "-c", "import lwmt_sionna; print(lwmt_sionna.__file__)")
    assert "(lwmt link-eval --config link_demo --out runs/demo) can run." in run(lwmt, "doctor")
    assert run(lwmt, "link-eval", "--help").startswith("usage: lwmt link-eval")
    assert str(site) in run(lwmt, "scene", "list")
    assert "1 of 1 files are sound" in run(lwmt, "data", "check", DATA)
    assert "link_level_eval.json" in run(
        lwmt, "link-eval", "--config", "link_ci", "--drops", "2", "--out", "out", "--quiet"
    )
    record = records.read_record(tmp_path / "out" / "link_level_eval.json")
    assert record["command"].startswith("lwmt link-eval --config link_ci")
    assert record["inputs"]["san_francisco_30kmh_5ms"] == {
        "path": DATA, "sha256": records.sha256(ROOT / DATA)
    }  # fmt: skip
    assert record["git"] == {"commit": None, "dirty": None}
