"""The package as a whole: what importing it costs, what it exports, how its rooms are kept."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lwmt_sionna

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lwmt_sionna"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PUBLIC_NAMES = [
    "AngleDelayTransform",
    "ChannelEncoder",
    "ChannelPredictor",
    "InverseAngleDelayTransform",
    "LWMTBackbone",
    "MaskedChannelModel",
    "Neighborhood",
    "SparseSpatioTemporalAttention",
]
BACKENDS = {"tensorflow", "jax", "torch", "sionna", "mitsuba", "drjit"}


def imported_packages(path):
    """Top-level names of all packages imported anywhere in a module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def modules_after(code):
    """Names of the modules loaded in a fresh interpreter after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "lwmt_sionna",
        "lwmt_sionna.__main__",
        "lwmt_sionna.runs.records",
        "lwmt_sionna.runs.command_line",
        "lwmt_sionna.rt.tracing.llvm",
    ],
)
def test_import_is_light(module):
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not loaded & (BACKENDS | {"keras", "h5py", "scipy", "matplotlib", "tqdm"})


def test_layers_need_keras_and_numpy_alone():
    """The optional packages are made impossible to import; every public name still resolves."""
    code = (
        "import sys\n"
        "for name in ('sionna', 'mitsuba', 'drjit', 'scipy', 'matplotlib', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "import lwmt_sionna\n"
        f"for name in {PUBLIC_NAMES}:\n"
        "    getattr(lwmt_sionna, name)\n"
    )
    assert "lwmt_sionna.models" in modules_after(code)


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name(name):
    assert name in lwmt_sionna.__all__
    assert name in dir(lwmt_sionna)
    assert getattr(lwmt_sionna, name).__name__ == name


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Sparse'"):
        _ = lwmt_sionna.Sparse


def test_version_is_stated_once():
    assert lwmt_sionna.__version__ == PYPROJECT["project"]["version"]
    assert f"version: {lwmt_sionna.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_every_folder_is_packaged():
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders


def test_ops_import_keras_and_numpy_alone():
    """What `make lint` cannot say: every other package is out, known or not."""
    known = {"keras", "numpy", "lwmt_sionna", *sys.stdlib_module_names}
    # Compiling is what Keras leaves to them, and solving with one factorisation more than once.
    backends = {"compiled.py": {"jax", "tensorflow", "torch"}, "linear_algebra.py": {"torch"}}
    for path in (PACKAGE / "ops").rglob("*.py"):
        assert imported_packages(path) <= known | backends.get(path.name, set()), path


def locked(name="requirements-lock.txt"):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.partition("==")[0]): pin.partition("==")[2] for pin in pins}


LOCKS = {
    "requirements-lock.txt": ("tf", "rt", "experiments", "tasks", "dev"),
    "requirements-docs-lock.txt": ("docs",),
    "requirements-sionna2-lock.txt": ("sionna2", "dask", "maps", "tasks", "xarray", "notebooks"),
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_exact_versions_alone(name):
    for line in (ROOT / name).read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line)


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_lock_satisfies_the_extras(name, extras):
    wanted = list(PYPROJECT["project"]["dependencies"])
    for extra in extras:
        wanted += PYPROJECT["project"]["optional-dependencies"][extra]
    if "dev" in extras:
        wanted += PYPROJECT["build-system"]["requires"]
    pins = locked(name)
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "pre-commit":  # a tool of the working place, of no weight for results
            continue
        assert requirement.specifier.contains(pins[name]), requirement


def test_lock_is_closed():
    """Whatever a pinned package needs on this platform is pinned as well."""
    pins = locked()
    environment = default_environment() | {"extra": ""}
    for name in pins:
        try:
            requires = importlib.metadata.requires(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # another environment than that of the lock
        for requirement in map(Requirement, [] if requires is None else requires):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                assert canonicalize_name(requirement.name) in pins, f"{name} needs {requirement}"


def test_pre_commit_uses_the_locked_ruff():
    versions = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert versions
    assert set(versions) == {locked()["ruff"]}
