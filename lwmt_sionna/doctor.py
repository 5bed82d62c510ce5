"""Says what this installation can do and what to do about what is missing.

Run ``lwmt doctor``. Exit status 0 means that the main job (`lwmt link-eval --config link_demo`,
`make demo` in a checkout, with `LINE=sionna2` beside Sionna 2) can run; 1 that something it needs
is missing. Versions are read without importing anything; imports that may crash a process are tried
in processes of their own.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence

from lwmt_sionna.runs.command_line import build_parser, say
from lwmt_sionna.runs.records import machine_info
from lwmt_sionna.runs.shipped import IS_CHECKOUT, ROOT, how_to_install

_PACKAGE = pathlib.Path(__file__).resolve().parent
_MINIMUM_PYTHON = (3, 11)
_PROBE_TIMEOUT = 300  # s; a cold disk takes a minute to import TensorFlow

_BACKEND_PROBE = """
import json, keras
from lwmt_sionna.runs.records import machine_info
devices = machine_info()["accelerators"]
print(json.dumps({"backend": keras.config.backend(), "devices": devices}))
"""
_LINK_PROBE = "import sionna.phy; print('{}')"
_TRACING_PROBE = """
import json
from lwmt_sionna.rt.tracing.engine import TRACER, mitsuba
print(json.dumps({"tracer": TRACER, "variant": mitsuba.variant()}))
"""
_INCOMPLETE = "the package is not whole: take a full checkout, or a wheel of one"
# What lacks without a package (None: the job) and the extra that brings it (None: itself), or in
# words why it is not looked for.
_Wanted = tuple[str | None, str | None] | str
# In the order of the report; a line says what is left open.
_PACKAGES: dict[str, _Wanted] = {
    "numpy": (None, None),
    "keras": (None, None),
    "tensorflow": "",
    "sionna": "",
    "scipy": (None, None),
    "h5py": (None, None),
    "msgspec": (None, None),
    "matplotlib": (None, None),
    "tqdm": (None, None),
    "sionna-rt": "",
    "mitsuba": "",
    "drjit": "",
    "jax": ("the JAX backend", "jax"),
    "torch": "",
    "distributed": ("tasks on a Dask cluster", "dask"),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """What is different beside one line of Sionna; two of them never share an environment.

    Args:
        demo: The main job in a checkout.
        backend: Keras backend that Sionna computes on, a package too.
        extra: What brings Sionna and its backend.
        tracing: The extra that brings ray tracing.
        setup: Command that makes the environment in a checkout.
        packages: Further entries of `_PACKAGES`.
    """

    demo: str
    backend: str
    extra: str
    tracing: str
    setup: str
    packages: dict[str, _Wanted]

    def wanted(self) -> dict[str, _Wanted]:
        """All packages, in the order of the report."""
        own: dict[str, _Wanted] = dict.fromkeys((self.backend, "sionna"), (None, self.extra))
        traces: _Wanted = ("ray tracing", self.tracing)
        own |= dict.fromkeys(("sionna-rt", "mitsuba", "drjit"), traces)
        return {**_PACKAGES, **own, **self.packages}

    def remake(self) -> str:
        """How to come by this line in a new environment."""
        return self.setup if IS_CHECKOUT else how_to_install(self.extra)


_LINES = {
    "1": Line(
        demo="make demo",
        backend="tensorflow",
        extra="tf",
        tracing="rt",
        setup="make setup",
        packages={"torch": ("the PyTorch backend", "torch")},
    ),
    "2": Line(
        demo="make demo LINE=sionna2",
        backend="torch",
        extra="sionna2",
        tracing="sionna2",
        setup="make setup LINE=sionna2",
        packages={"tensorflow": "goes with Sionna 1.2"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        name: What was looked at.
        value: What was found, as text.
        advice: What to do about it, one line, or `None` if nothing is to be done.
        required: Whether the main job fails because of it. Counts only where there is advice.
    """

    name: str
    value: str
    advice: str | None = None
    required: bool = False


def examine() -> list[Finding]:
    """Examines the installation."""
    probed = [*_packages(), *_backend(), *_link(), *_tracing(), *_devices()]
    return [_python(), *probed, _presets(), _stored_paths()]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; the exit status is 0 if the main job can run, and 1 otherwise."""
    build_parser(__doc__).parse_args(argv)
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        say(f"{finding.name:<{width}}  {finding.value}")
    advice = [finding for finding in findings if finding.advice is not None]
    broken = [finding for finding in advice if finding.required]
    if advice:
        say()
    for finding in advice:
        kind = "needed" if finding.required else "optional"
        say(f"{kind}: {finding.name}: {finding.advice}")
    say()
    demo = _line().demo if IS_CHECKOUT else "lwmt link-eval --config link_demo --out runs/demo"
    job = f"The main job ({demo})"
    if broken:
        names = ", ".join(finding.name for finding in broken)
        say(f"{job} cannot run yet: see {names} above.")
        return 1
    say(f"{job} can run.")
    return 0


def _python():
    version = platform.python_version()
    if sys.version_info < _MINIMUM_PYTHON:
        return Finding("python", version, "install Python 3.11, 3.12 or 3.13", required=True)
    return Finding("python", version)


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line():
    """The line of this environment: that of the Sionna in it, and the first where there is none."""
    return _LINES.get((_version("sionna") or "1").partition(".")[0], _LINES["1"])


def _packages():
    for package, wanted in _line().wanted().items():
        version = _version(package)
        if version is not None:
            yield Finding(package, version)
            continue
        if isinstance(wanted, str):
            yield Finding(package, f"not installed ({wanted})")
            continue
        lacking, extra = wanted
        advice = f"pip install {package}" if extra is None else how_to_install(extra)
        if lacking is not None:
            advice += f" (only for {lacking})"
        yield Finding(package, "not installed", advice, required=lacking is None)


def _probe(code):
    """Runs code in a process of its own; returns (its JSON answer, None) or (None, the reason)."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    # The probe must find this very package, also where it is not installed.
    path = [str(_PACKAGE.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_PROBE_TIMEOUT} s"
    if done.returncode < 0:
        return None, f"the process was ended by signal {-done.returncode}"
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), None
    except (IndexError, ValueError):
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"exit status {done.returncode}"


def _backend():
    if _version("keras") is None:
        return
    answer, reason = _probe(_BACKEND_PROBE)
    if answer is None:
        advice = f"install it, or choose Sionna's own with KERAS_BACKEND={_line().backend}"
        yield Finding("keras backend", f"does not import: {reason}", advice, required=True)
        return
    backend = answer["backend"]
    expected = _line().backend
    if backend == expected:
        yield Finding("keras backend", backend)
    else:
        advice = f"Sionna computes on another one here: export KERAS_BACKEND={expected}"
        yield Finding("keras backend", backend, advice, required=True)
    yield Finding("GPUs of the backend", ", ".join(answer["devices"]) or "none (a CPU is enough)")


def _link():
    line = _line()
    if _version("sionna") is None or _version(line.backend) is None:
        return
    answer, reason = _probe(_LINK_PROBE)
    if answer is None:
        advice = f"the versions do not fit; in a new environment: {line.remake()}"
        yield Finding("sionna.phy", f"does not import: {reason}", advice, required=True)
    else:
        yield Finding("sionna.phy", "imports")


def _tracing():
    from lwmt_sionna.rt.tracing.llvm import find_libllvm

    path = find_libllvm()
    if path is None:
        advice = "apt-get install libllvm19, or unset DRJIT_LIBLLVM_PATH if it is set"
        advice += " (only for ray tracing on a CPU)"
        yield Finding("LLVM", "not found", advice)
        return
    yield Finding("LLVM", f"{_llvm_version(path)} ({path})")
    if _version("sionna-rt") is None:
        return
    answer, reason = _probe(_TRACING_PROBE)
    if answer is None:
        advice = f"apt-get install libllvm19, or in a new environment: {_line().remake()}"
        yield Finding("sionna.rt", f"does not import: {reason}", f"{advice} (only for ray tracing)")
    else:
        yield Finding("sionna.rt", f"imports: {answer['tracer']}, variant {answer['variant']}")


def _llvm_version(path):
    match = re.search(r"libLLVM\D*(\d+(?:\.\d+)*)", pathlib.Path(path).resolve().name)
    return "unknown version" if match is None else match.group(1)


def _devices():
    machine = machine_info()
    yield Finding("CPU", f"{machine['cpu_cores']} cores, {machine['processor']}")
    try:
        gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return
    if gibibytes < 6:
        yield Finding("memory", f"{gibibytes:.0f} GiB", "tracing and training want 8 GiB")
    else:
        yield Finding("memory", f"{gibibytes:.0f} GiB")


def _presets():
    folder = _PACKAGE / "models" / "preset_files"
    names = sorted(config.parent.name for config in folder.glob("*/config.json"))
    if names:
        return Finding("presets", ", ".join(names))
    return Finding("presets", "none", _INCOMPLETE, required=True)


def _stored_paths():
    folder = ROOT / "experiments" / "data"
    count = len(list(folder.glob("*.h5")))
    if count:
        return Finding("stored paths", f"{count} files in {folder}")
    return Finding("stored paths", "none", _INCOMPLETE, required=True)


if __name__ == "__main__":
    sys.exit(main())
