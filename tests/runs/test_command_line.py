"""Scripts answer wrong input with one line and exit status 2, and defects with a traceback."""

import pathlib
import subprocess
import sys

import h5py
import pytest

from lwmt_sionna.runs import command_line

ROOT = pathlib.Path(__file__).resolve().parents[2]


def outcome(capsys, error, argv=()):
    """Exit status and stderr of a script that raises `error`."""

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        command_line.run(main, list(argv))
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("num_heads should be positive.\n Received: num_heads=0"), "num_heads=0"),
        (FileNotFoundError(2, "No such file or directory", "a.h5"), "no such file or folder: a.h5"),
        (PermissionError(13, "Permission denied", "a.h5"), "Permission denied: a.h5"),
        (OSError("Unable to open file (truncated file)"), "truncated file"),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), 'pip install -e "."'),
        (ModuleNotFoundError("No module named 'sionna.rt'", name="sionna.rt"), ".[rt]"),
        (ModuleNotFoundError("No module named 'sionna.phy'", name="sionna.phy"), ".[tf]"),
        (ModuleNotFoundError("No module named 'sionna'", name="sionna"), ".[sionna2]"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), 'pip install -e "."'),
        (OSError(28, "No space left on device", "a.h5"), "No space left on device: a.h5"),
        (MemoryError("Unable to allocate 3 GiB"), "3 GiB"),
        (ImportError("Ray tracing needs LLVM: apt-get install libllvm19"), "libllvm19"),
        (command_line.UsageError("The folder holds no shards."), "no shards"),
    ],
)
def test_expected_error_is_one_line(capsys, error, message):
    status, err = outcome(capsys, error)
    assert status == 2
    assert err.count("\n") == 1
    assert ": error: " in err
    assert message in err


def test_debug_shows_the_traceback(capsys):
    status, err = outcome(capsys, ValueError("bad"), ["--debug"])
    assert status == 2
    assert "Traceback" in err
    assert err.endswith(": error: bad\n")


@pytest.mark.parametrize(
    "error",
    [KeyError("h"), TypeError("unexpected"), ModuleNotFoundError("x", name="x"), ImportError("y")],
)
def test_defect_is_not_hidden(error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        command_line.run(main, [])


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_exit_status(returned, status):
    with pytest.raises(SystemExit) as stop:
        command_line.run(lambda argv: returned, [])
    assert stop.value.code == status


def test_interrupt(capsys):
    status, err = outcome(capsys, KeyboardInterrupt())
    assert (status, err) == (130, "interrupted\n")


def test_wrong_arguments_are_one_line(capsys):
    parser = command_line.build_parser("Does things.")
    parser.add_argument("--count", type=int, required=True)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--count", "many"])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.count("\n") == 1
    assert "invalid int value: 'many'" in err


def test_shared_options_mean_the_same():
    parser = command_line.build_parser("Does things.")
    command_line.add_options(parser, "history_snr", "limit", "preset", limit=8)
    args = parser.parse_args(["--history-snr", "5", "15", "--preset", "small", "runs/mine"])
    assert (args.history_snr, args.limit, args.preset) == ([5.0, 15.0], 8, ["small", "runs/mine"])
    assert "sequences of each file at most [8]" in " ".join(parser.format_help().split())


@pytest.mark.parametrize("text", ["nan", "inf", "1e999"])
def test_numbers_that_are_none_are_refused(capsys, text):
    parser = command_line.build_parser("Does things.")
    command_line.add_options(parser, "link_snr")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--link-snr", "5", text])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert "argument --link-snr: expected finite numbers" in err


def test_outputs_that_cannot_be_written_are_told_before_the_work(tmp_path, capsys):
    parser = command_line.build_parser("Does things.")
    parser.add_argument("--out", type=pathlib.Path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for name, reason in (
        ("file/record.json", "is no folder"),
        ("folder.json", "a folder has this name"),
    ):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(["--out", str(tmp_path / name)])
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert reason in err and str(tmp_path / name) in err
    assert parser.parse_args(["--out", str(tmp_path / "new" / "record.json")]).out.name
    assert not (tmp_path / "new").exists()


def test_finished_work_lies_by_the_name_of_the_output(tmp_path):
    parser = command_line.build_parser("Does things.")
    parser.add_argument("--out", type=pathlib.Path)
    command_line.add_options(parser, "workdir")
    args = parser.parse_args(["--out", "results/table.json"])
    assert command_line.workdir(args) == pathlib.Path("runs/table.work")
    args = parser.parse_args(["--workdir", str(tmp_path)])
    assert command_line.workdir(args) == tmp_path


@pytest.mark.parametrize("option", ["--quiet", "--debug", None])
def test_tensorflow_does_not_warn_of_new_shapes(option):
    """Which is what Keras makes programs for; a process of its own, for loggers are shared."""
    script = """if True:
        import logging, sys
        from lwmt_sionna.runs import command_line
        args = command_line.build_parser("A script.").parse_args(sys.argv[1:])
        command_line.configure_logging(args)
        logging.getLogger("tensorflow").warning("retracing")
        logging.getLogger("lwmt_sionna").warning("ours")
    """
    argv = [sys.executable, "-c", script, *([] if option is None else [option])]
    told = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True).stderr
    assert "ours" in told
    assert ("retracing" in told) == (option == "--debug")


def test_truncated_hdf5(tmp_path, capsys):
    path = tmp_path / "paths.h5"
    with h5py.File(path, "w") as file:
        file["h"] = range(100_000)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SystemExit) as stop:
        command_line.run(lambda argv: h5py.File(path), [])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_closed_pipe():
    code = (
        "from lwmt_sionna.runs import command_line\n"
        "def main(argv):\n"
        "    for _ in range(200_000):\n"
        "        print('a line of a table')\n"
        "command_line.run(main, [])\n"
    )
    command = f'"{sys.executable}" -c "$CODE" | head -1'
    done = subprocess.run(
        ["bash", "-c", command], env={"CODE": code, "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    assert done.stderr == b""
