"""What the experiment scripts share: a parser, logging, and errors in one line.

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
import os
import sys
import traceback

__all__ = ["UsageError", "build_parser", "configure_logging", "run"]

_EXIT_USER_ERROR = 2
_EXIT_INTERRUPTED = 130
_EXTRAS = {
    "distributed": "dask",
    "dask": "dask",
    "drjit": "rt",
    "h5py": "experiments",
    "jax": "jax",
    "matplotlib": "experiments",
    "mitsuba": "rt",
    "scipy": "experiments",
    "sionna": "tf",
    "tensorflow": "tf",
    "torch": "torch",
    "tqdm": "experiments",
}


class UsageError(Exception):
    """Something that the caller of a script can put right; `run` prints its text alone."""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(_EXIT_USER_ERROR, f"{self.prog}: error: {_one_line(message)} (see --help)\n")


def build_parser(description):
    """Returns an `argparse.ArgumentParser` with the options that every script has.

    They are `--debug` (tracebacks, debug messages) and `--quiet` (warnings only). Wrong arguments
    give one line and exit status 2.

    Args:
        description: Text shown by `--help`, usually the script's `__doc__`.
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


def configure_logging(args):
    """Sends log messages to stderr, at the level that `args.debug` and `args.quiet` ask for.

    Args:
        args: The `argparse.Namespace` of a parser made by `build_parser`.
    """
    level = logging.DEBUG if args.debug else logging.WARNING if args.quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s")
    # Only the package's own messages follow the option: those of libraries drown them.
    logging.getLogger("lwmt_sionna").setLevel(level)


def run(main, argv=None):
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
    # TensorFlow reads it at import, which a script leaves to its main function.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _note_git_state()
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


def _note_git_state():
    # Records name the commit that the run was started from, not the one it ended on.
    from lwmt_sionna.runs import records

    records.git_state()


def _explain(error):
    """Returns the line for an error that the caller can put right, or `None` for a defect."""
    if isinstance(error, ModuleNotFoundError):
        package = "" if error.name is None else error.name.partition(".")[0]
        if package not in _EXTRAS:
            return None
        return (
            f"the package {package} is missing: "
            f'pip install -e ".[{_EXTRAS[package]}]" (see python -m lwmt_sionna.doctor)'
        )
    if isinstance(error, ImportError | RuntimeError) and "LLVM" in str(error):
        return _one_line(error)
    if isinstance(error, ImportError):
        # The package's own hints name what to install; other import errors are defects.
        return _one_line(error) if "install" in str(error) else None
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"no such file or folder: {error.filename}"
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, UsageError | ValueError | OSError):
        return _one_line(error)
    return None


def _one_line(error):
    text = " ".join(str(error).split())
    return text if text else type(error).__name__
