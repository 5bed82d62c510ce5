"""What all commands and scripts share: one grammar of options, logging, and errors in one line.

A script is a `main(argv)` handed to `run`:

>>> def main(argv=None):
...     parser = command_line.build_parser(__doc__)
...     parser.add_argument("--config", type=pathlib.Path, required=True)
...     args = parser.parse_args(argv)
...     command_line.configure_logging(args)
...     ...
>>> if __name__ == "__main__":
...     command_line.run(main)
"""

import argparse
import logging
import math
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lwmt_sionna.runs.compilation import keep_compiled
from lwmt_sionna.runs.records import git_state
from lwmt_sionna.runs.shipped import how_to_install, how_to_install_sionna

_EXIT_USER_ERROR = 2
_EXIT_INTERRUPTED = 130
# The extra that brings a package that is missing; "" for what everything needs.
_EXTRAS = {
    **dict.fromkeys(("h5py", "keras", "matplotlib", "msgspec", "numpy", "scipy", "tqdm"), ""),
    **dict.fromkeys(("dask", "distributed"), "dask"),
    **dict.fromkeys(("drjit", "mitsuba", "sionna.rt"), "rt"),
    **dict.fromkeys(("sionna", "tensorflow"), "tf"),
    "jax": "jax",
    "pyproj": "maps",
    "sklearn": "tasks",
    "torch": "torch",
    "xarray": "xarray",
}
# Options that mean the same in every script that has them.
_OPTIONS: dict[str, dict[str, Any]] = {
    "config": {
        "type": pathlib.Path,
        "required": True,
        "metavar": "TOML",
        "help": "settings: a file, or the name of one that comes with the package",
    },
    "dask": {
        "metavar": "ADDRESS",
        "help": "Dask scheduler whose workers compute, such as tcp://10.0.0.1:8786",
    },
    "data": {
        "nargs": "+",
        "metavar": "FILE",
        "help": "HDF5 files of paths or channels, in place of the configured ones",
    },
    "history_snr": {
        "nargs": "+",
        "type": float,
        "metavar": "DB",
        "help": "SNR of the measured histories in dB",
    },
    "horizons": {
        "nargs": "+",
        "type": int,
        "metavar": "H",
        "help": "snapshots ahead that are predicted and told",
    },
    "limit": {"type": int, "metavar": "N", "help": "sequences of each file at most"},
    "link_snr": {"nargs": "+", "type": float, "metavar": "DB", "help": "SNR of the link in dB"},
    "preset": {
        "nargs": "*",
        "metavar": "PRESET",
        "help": "trained models to judge: names of shipped presets, or folders",
    },
    "seed": {"type": int, "metavar": "N", "help": "seed of everything that is drawn"},
    "workdir": {
        "type": pathlib.Path,
        "metavar": "FOLDER",
        "help": "finished work, from which a run that was killed goes on",
    },
    "workers": {"type": int, "metavar": "N", "help": "processes on this machine"},
}
# Files and folders that a script writes to.
_OUTPUTS = ("figure", "figures", "out", "record", "workdir")
# What they write into files; a folder may have any other dot in its name.
_FILES = (".csv", ".gif", ".h5", ".json", ".npz", ".pdf", ".png", ".svg")


class UsageError(Exception):
    """Something that the caller of a script can put right; `run` prints its text alone."""


def workdir(args: argparse.Namespace) -> pathlib.Path:
    """The folder of finished work: `--workdir`, or `runs/NAME.work` by the name of `--out`."""
    if args.workdir is not None:
        return args.workdir
    return pathlib.Path("runs") / f"{args.out.stem}.work"


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_USER_ERROR, f"{self.prog}: error: {_one_line(message)} (see --help)\n")

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            option = f"--{name.replace('_', '-')}"
            numbers = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
                self.error(f"argument {option}: expected finite numbers. Received: {value}")
            # Hours of work must not end at a folder that cannot be written to.
            if name in _OUTPUTS and value is not None:
                reason = _cannot_be_written(value)
                if reason is not None:
                    self.error(f"argument {option}: {reason}. Received: {value}")
        return parsed


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns an `argparse.ArgumentParser` with the options that every command has.

    They are `--debug` (tracebacks, debug messages) and `--quiet` (warnings only). Wrong arguments
    give one line and exit status 2; so do numbers that are none, and outputs (`--out`, `--record`,
    `--workdir`, `--figure`, `--figures`) that cannot be written.

    Args:
        description: Text shown by `--help`, usually the module's `__doc__`.
    """
    parser = _OneLineParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("messages")
    group.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    group.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    return parser


def add_options(parser: Any, *names: str, **defaults: Any) -> None:
    """Adds options that mean the same in every script.

    Args:
        parser: `argparse.ArgumentParser` or a group of one.
        *names: Some of `"config"`, `"dask"`, `"data"`, `"history_snr"`, `"horizons"`, `"limit"`,
            `"link_snr"`, `"preset"`, `"seed"`, `"workdir"` and `"workers"`.
        **defaults: Values, by name, where an option is not given; `None` otherwise.
    """
    for name in names:
        settings = dict(_OPTIONS[name])
        default = defaults.get(name)
        if default is not None:
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            settings["help"] += f" [{shown}]"
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, **settings)


def add_training_options(parser: Any) -> None:
    """Adds what all trainings have: settings, data, seed, and where a run and its results lie."""
    add_options(parser, "config", "data", "seed")
    for name, told in (
        ("workdir", "checkpoints and logs [runs/CONFIG]"),
        ("out", "preset to save [WORKDIR/preset]"),
        ("record", "record to write [WORKDIR/record.json]"),
    ):
        parser.add_argument(f"--{name}", type=pathlib.Path, help=told)


def configure_logging(args: argparse.Namespace) -> None:
    """Sends log messages to stderr, at the level that `args.debug` and `args.quiet` ask for."""
    level = logging.DEBUG if args.debug else logging.WARNING if args.quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s")
    # Only the package's own messages follow the option: those of libraries drown them.
    logging.getLogger("lwmt_sionna").setLevel(level)
    if not args.debug:
        # TensorFlow warns of every new shape that Keras makes a program for.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the main function of a script and ends the process.

    What a caller can put right (`UsageError`, `ValueError`, missing or unreadable files, missing
    packages or LLVM) becomes one line on stderr and exit status 2; the traceback is shown with
    `--debug` among the arguments. Anything else is a defect of the program and keeps its traceback.

    Args:
        main: Callable that takes the list of arguments and returns the exit status or `None`.
        argv: Optional list of arguments. Defaults to those of the process.

    Raises:
        SystemExit: Always, with the exit status.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    # TensorFlow reads it at import, which a script leaves to its main function. What fails raises;
    # what TensorFlow calls an error beside that is how it looks for a GPU and reads kept programs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_compiled()
    # Records name the commit that the run was started from, not the one it ended on.
    git_state()
    try:
        status = main(argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(_EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout has left (`| head`); a second attempt to flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        if "--debug" in argv:
            traceback.print_exc()
        program = os.path.basename(sys.argv[0]) if sys.argv[0] else "lwmt_sionna"
        sys.stderr.write(f"{program}: error: {message}\n")
        sys.exit(_EXIT_USER_ERROR)
    sys.exit(0 if status is None else status)


def say(text: object = "") -> None:
    """Writes a line to stdout, at once: what a command answers."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def natural_order(name: str) -> list[Any]:
    """A key that sorts names by the numbers in them, as people do: 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _explain(error):
    """Returns the line for an error that the caller can put right, or `None` for a defect."""
    if isinstance(error, ModuleNotFoundError):
        package = "" if error.name is None else error.name
        package = package if package in _EXTRAS else package.partition(".")[0]
        if package not in _EXTRAS:
            return None
        extra = _EXTRAS[package]
        hint = how_to_install_sionna() if extra == "tf" else how_to_install(extra)
        return f"the package {package} is missing: {hint} (see lwmt doctor)"
    if isinstance(error, ImportError | RuntimeError) and "LLVM" in str(error):
        return _one_line(error)
    if isinstance(error, ImportError):
        # The package's own hints name what to install; other import errors are defects.
        return _one_line(error) if "install" in str(error) else None
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"no such file or folder: {error.filename}"
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, UsageError | ValueError | OSError | MemoryError):
        return _one_line(error)
    return None


def _cannot_be_written(path):
    """Why nothing can be written to a path, or `None` where it can."""
    path = pathlib.Path(path)
    if path.suffix in _FILES and path.is_dir():
        return "a folder has this name"
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder != path and not folder.is_dir():
        return f"{folder} is no folder"
    return None if os.access(folder, os.W_OK) else f"no permission to write to {folder}"


def _one_line(error):
    text = " ".join(str(error).split())
    return text if text else type(error).__name__
