"""README and docs: examples run, commands parse, links lead somewhere, numbers are the records'."""

import argparse
import copy
import importlib
import itertools
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from lwmt_sionna.__main__ import main as lwmt
from lwmt_sionna.runs.shipped import find
from tests.experiments.scripts import script

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The changelog tells of the past, whose commands need not run.
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {ROOT / "CHANGELOG.md"})
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
# What a user makes: nothing of it is there before.
MADE = ("data/", "my_", "presets/", "pytorch_model", "runs/")


def blocks(*languages):
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text()):
            if language in languages:
                yield page.name, text


def commands():
    """(page, words) of every command that a page shows, the prompts of other tools left out."""
    found = []
    for page, text in blocks("", "sh", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            shown = re.match(r"(?:[A-Z_]+=\S* )*((?:lwmt|python|make) .*)", line)
            if shown:
                found.append((page, tuple(shlex.split(shown[1], comments=True))))
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text())
        for line in re.findall(r"`((?:lwmt|python|make) [^`]+)`", prose):
            found.append((page.name, tuple(shlex.split(" ".join(line.split())))))
    return list(dict.fromkeys(found))


COMMANDS = commands()
EXAMPLES = list(blocks("python"))


def test_there_are_examples_and_commands():
    assert len(EXAMPLES) >= 2
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize("code", [text for page, text in EXAMPLES if page == "README.md"])
def test_example_of_the_readme_runs(code):
    """As a user runs it: a process of its own, the default preset, compiled."""
    run_alone(code)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("page", "code"), [(page, text) for page, text in EXAMPLES if page != "README.md"]
)
def test_example_runs(page, code, monkeypatch):
    if "lwmt_sionna.rt" in code:  # the ray tracer and TensorFlow do not like to meet
        run_alone(code)
        return
    monkeypatch.chdir(ROOT)
    # What the default predicts is compared elsewhere; that it is called rightly, any tells.
    exec(code.replace('"universal"', '"small"'), {})


def run_alone(code):
    # Users set no flags of XLA, as `make test` does for most of its parts.
    env = {n: value for n, value in os.environ.items() if n not in ("XLA_FLAGS", "TF_XLA_FLAGS")}
    kept = "from lwmt_sionna.runs.compilation import keep_compiled\n\nkeep_compiled()\n"
    done = subprocess.run(
        [sys.executable, "-c", kept + code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Held channels lose more than predicted ones.
    told = dict(re.findall(r"^(held|predicted) +([\d.e-]+)$", done.stdout, flags=re.MULTILINE))
    assert not told or float(told["predicted"]) < float(told["held"])


class ParsedError(Exception):
    """The arguments were understood; nothing else is to be done."""


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda part: str(part)[:60])
def test_command_is_understood(page, words, monkeypatch):
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(words[1:]) <= {*targets, "LINE=sionna2"}
        return
    if words == ("lwmt", "--help"):
        assert lwmt(["--help"]) is None
        return
    if words[0] == "lwmt":
        main, arguments = lwmt, words[1:]
    elif words[1] == "-m":
        name = words[2]
        if importlib.util.find_spec(name).submodule_search_locations is not None:
            name = f"{name}.__main__"
        main, arguments = importlib.import_module(name).main, words[3:]
    else:
        assert (ROOT / words[1]).is_file()
        main, arguments = runpy.run_path(str(ROOT / words[1]))["main"], words[2:]
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(sys, "argv", [words[0]])

    def parse_alone(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    with pytest.raises(ParsedError):
        main(list(arguments))
    for option, word in itertools.pairwise(("", *arguments)):
        if option == "--config" and not word.startswith(MADE):
            assert find(word, ".toml").is_file(), word
        elif "/" in word and not word.startswith(MADE):
            assert list(ROOT.glob(word)), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_map_names_files_that_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    names = set(re.findall(r"`([\w/]+\.py)`", text))
    files = [ROOT / "setup.py", *ROOT.glob("*/**/*.py")]
    known = [path.relative_to(ROOT).as_posix() for path in files]
    assert len(names) > 50
    for name in names:
        assert any(f"/{path}".endswith(f"/{name}") for path in known), name


def test_readme_is_one_screen():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(re.findall(r"\d+(?:\.\d+)?", text)) <= 60


def test_every_figure_can_be_drawn_again():
    report = script("report.py")
    assert all(callable(report.drawing(name)) for name in report.DRAWN)


def test_tables_and_figures_equal_the_records(capsys):
    script("report.py").main(["--check"])
    assert "equals the records" in capsys.readouterr().out


def test_verdicts_are_those_of_the_record(monkeypatch):
    """Paired differences, where the record has them."""
    report = script("report.py")
    record = copy.deepcopy(report.read_link("link_level_eval"))
    for row in record["goodput"]:
        row |= {
            "goodput_reference": "path_fit", "goodput_difference": 0.25,
            "goodput_difference_low": 0.125, "goodput_difference_high": 0.5,
            "goodput_verdict": "better" if row["horizon"] == 1 else "worse",
        }  # fmt: skip
    monkeypatch.setattr(report, "read_link", lambda name: record)
    lines = report.link().splitlines()
    assert lines[0].endswith("| goodput against the best training-free policy |")
    verdicts = {line.split(" | ")[1].strip(): line.split(" | ")[-1] for line in lines[2:-2]}
    assert verdicts["perfect CSI"] == "ceiling |"
    assert verdicts["path fit"] == "best training-free |"
    assert verdicts["pooled AR"] == "+0.25 (+0.12 to +0.50): worse |"  # the last is of horizon 5
    rows = [line for line in report.verdicts().splitlines() if "against path fit: goo" in line]
    assert [row.split()[-2] for row in rows] == ["better", "worse"] * 2
    assert all(row.endswith(("won back | better |", "won back | worse |")) for row in rows)


def world_point(predictor, kind, median, world="street", group="diffuse", **more):
    """A point of one cell, its pooled error 1 dB above the median."""
    return {
        "world": world, "group": group, "kind": kind, "predictor": predictor, "subset": "all",
        "history_snr_db": 15.0, "horizon": 1, "nmse_median_db": median,
        "nmse_pooled_db": median + 1.0, "goodput": 4.0, "goodput_difference": 0.2,
        "goodput_difference_low": 0.1, "goodput_difference_high": 0.3, "sum_rate": 40.0,
        "sum_rate_difference": -1.0, "sum_rate_difference_low": -2.0,
        "sum_rate_difference_high": -0.2, **more,
    }  # fmt: skip


def test_records_of_earlier_weights_are_named(monkeypatch):
    report = script("report.py")
    preset = report.CARD.rpartition("/")[0]
    digest = report.records.sha256(ROOT / preset)
    for sha256, names in ((digest, []), ("0" * 64, ["worlds_eval"])):
        inputs = {"worlds_eval": {"preset": {"path": preset, "sha256": sha256}}}
        monkeypatch.setattr(
            report,
            "read",
            lambda name, i=inputs: {"inputs": i.get(name, {}), "created": "2030-01-01"},
        )
        assert report.older() == names
        assert ("worlds_eval.json" in report.older_records()) == bool(names)


def test_records_of_an_earlier_path_fit_are_named(monkeypatch):
    report = script("report.py")
    records = {
        "finetuning": {"created": "2026-11-24T21:52", "points": [{"predictor": "hold"}]},
        "link_wide": {"created": "2026-11-24T23:00", "points": [{"policy": "path_fit"}]},
        "worlds_eval": {"created": report.PATH_FIT_SINCE, "points": [{"predictor": "path_fit"}]},
    }
    other = {"created": "2026-11-24T21:52", "points": []}
    monkeypatch.setattr(report, "read", lambda n: {"inputs": {}, **records.get(n, other)})
    assert report.judged_before(report.PATH_FIT_SINCE, report.FITTED) == ["link_wide"]
    assert "earlier path fit, which `paths` has as well: `link_wide.json`" in report.older_records()


def test_the_default_is_compared_with_all_others(monkeypatch):
    report = script("report.py")
    name = report.default_label().strip("`")
    interval = {
        "nmse_median_others_difference_db_low": 0.1, "nmse_median_others_difference_db_high": 1.0,
    }  # fmt: skip
    points = [
        world_point(name, "preset", -10.0, **interval),
        world_point(f"{name} (untrained)", "untrained_start", -8.0),
        world_point("hold", "training_free", -3.0),
        world_point("old", "preset", -10.5),
        world_point("perfect", "ceiling", -99.0),
        world_point(name, "preset", -12.0, "cell", "tr38901"),
        world_point("hold", "training_free", -3.0, "cell", "tr38901"),
        world_point("perfect", "ceiling", -99.0, "cell", "tr38901"),
    ]
    config = {"history_snr_db": [15.0], "horizons": [1]}
    record = {"points": points, "config": config, "inputs": {}}
    monkeypatch.setattr(report, "read", lambda _: record)
    street, cell = report.default_cells()
    assert street["median"] == (0.5, 0.1, 1.0, "old")
    assert street["pooled"] == (0.5, 0.5, 0.5, "old")
    assert cell["median"] == (-9.0, -9.0, -9.0, "hold")
    lines = [line.split(" | ")[1:] for line in report.worlds_default().splitlines()[2:]]
    told = "1 | +0.5 | 1 | 0 | +2.0 | +2.0 | +0.5 | 1 | 0 | +2.0 | +2.0 | 1 / 0 | 0 / 1 |".split(
        " | "
    )
    assert lines[1] == told
    assert lines[0][:2] == ["0", "-"]
    told = "2 | -4.2 | 1 | 1 | +2.0 | +2.0 | -4.2 | 1 | 1 | +2.0 | +2.0 | 2 / 0 | 0 / 2 |".split(
        " | "
    )
    assert lines[-1] == told
    missed, slower = report.worlds_behind().splitlines()[2:]
    assert missed.startswith("| `street` | 15 dB, horizon 1: +0.5 (0.1 to 1.0), old | 15 dB")
    assert slower == "| `cell` |  |  |  | 15 dB, horizon 1: -2.5 % (-5.0 to -0.5) |"
    rows = dict(line[2:-2].split(" | ", 1) for line in report.worlds_verdicts().splitlines()[2:])
    assert rows["streets that scatter"] == "+0.5 dB | worse | better | worse"
    assert rows["TR 38.901"] == "-9.0 dB | better | better | worse"
    assert rows["planar arrays"] == "- | - | - | -"
    assert len(rows) == len(report.GROUPS)


def test_the_card_is_what_the_training_says(monkeypatch):
    report = script("report.py")
    monkeypatch.setattr(report, "CARD", report.CARD.replace("universal", "small"))
    told = dict(line[2:-2].split(" | ") for line in report.card().splitlines()[2:])
    assert told["parameters"] == "92144"
    assert (told["sequences to train on"], told["sequences to validate on"]) == ("2585", "287")
    assert told["validation before training [dB]"] == "-20.80"
    assert told["validation of the weights that were kept [dB]"] == "-21.01"
    assert "validation after each pass [dB]" not in told
