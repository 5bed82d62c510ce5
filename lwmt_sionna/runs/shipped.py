"""Files that come with the package: beside it in a checkout, inside of it in a wheel.

Configurations, the demonstration's data and scenes keep their places of the repository, so that one
path finds them anywhere: `experiments/configs/link_demo.toml`, or by its name `link_demo`.
"""

import pathlib

from lwmt_sionna.typing import PathLike

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_INSIDE = _PACKAGE / "shipped"  # made by setup.py
_FOLDERS = {".toml": "experiments/configs", ".h5": "experiments/data"}

IS_CHECKOUT = not _INSIDE.is_dir()
# What the paths of shipped files are relative to.
ROOT = _PACKAGE.parent if IS_CHECKOUT else _INSIDE
CONFIGS = ROOT / "experiments" / "configs"


def find(path: PathLike, suffix: str = "") -> pathlib.Path:
    """Finds a file: that of the path, or else the one that the package brings under this name.

    Args:
        path: Path of any file. Relative to the root of the repository, or to `experiments/configs`
            and `experiments/data`, it stands for a shipped TOML or HDF5 file where the current
            folder has no such file.
        suffix: ".toml" or ".h5", which a shipped file's name may then leave out.

    Returns:
        `pathlib.Path` of the file; `path` as it is where there is none.

    Example:

    >>> find("link_demo", ".toml")
    PosixPath('.../experiments/configs/link_demo.toml')
    """
    path = pathlib.Path(path)
    folder = _FOLDERS.get(suffix or path.suffix)
    if path.is_file() or path.is_absolute() or ".." in path.parts or folder is None:
        return path
    name = path.as_posix().removeprefix(f"{folder}/")
    named = (ROOT / folder / each for each in (name, name + suffix))
    return next((file for file in named if file.is_file()), path)


def how_to_install(extra: str = "") -> str:
    """The command that brings what an extra names, or what the package itself needs."""
    extra = f"[{extra}]" if extra else ""
    # A wheel that is installed already is not looked for anywhere else.
    return f'pip install -e ".{extra}"' if IS_CHECKOUT else f'pip install "lwmt-sionna{extra}"'


def how_to_install_sionna() -> str:
    """The commands that bring Sionna, 1.2 on TensorFlow or 2.2 on PyTorch."""
    on_pytorch = f"{how_to_install('sionna2')} and export KERAS_BACKEND=torch"
    return f"{how_to_install('tf')}, or on PyTorch {on_pytorch}"
