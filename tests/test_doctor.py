"""The doctor names what is missing and its exit status tells whether the main job can run."""

import os
import pathlib
import subprocess
import sys

import pytest

from lwmt_sionna import doctor
from lwmt_sionna.doctor import Finding

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def only(monkeypatch):
    """Replaces the examination by given findings."""
    monkeypatch.setattr(doctor, "_line", lambda: doctor._LINES["1"])
    return lambda *findings: monkeypatch.setattr(doctor, "examine", lambda: list(findings))


@pytest.fixture
def no_probes(monkeypatch):
    """The examination without the imports that take seconds."""
    monkeypatch.setattr(
        doctor, "_probe", lambda code: ({"backend": "tensorflow", "devices": []}, None)
    )
    monkeypatch.setattr(doctor, "_tracing", lambda: [])


def test_report_of_this_installation():
    done = subprocess.run(
        [sys.executable, "-m", "lwmt_sionna.doctor"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stderr == ""
    names = ["python", "numpy", "keras", "tensorflow", "torch", "sionna", "LLVM", "CPU", "memory"]
    for name in names:
        assert f"\n{name} " in f"\n{done.stdout}"
    assert "sionna.phy" in done.stdout
    assert done.returncode == 0, done.stdout


def test_report_without_numpy(tmp_path):
    """Where everything is missing, the doctor says so; nothing that it needs is."""
    program = tmp_path / "bare.py"
    program.write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('numpy', 'keras', 'msgspec', 'h5py', 'tqdm'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from lwmt_sionna import doctor\n"
        "doctor._version = lambda package: None\n"
        "sys.exit(doctor.main([]))\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "needed: numpy: pip install numpy" in done.stdout
    assert "cannot run yet" in done.stdout


def test_nothing_missing(only, capsys):
    only(Finding("keras", "3.15.1"))
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.endswith("The main job (make demo) can run.\n")


def test_optional_package_missing(only, capsys):
    only(Finding("jax", "not installed", "pip install jax"))
    assert doctor.main([]) == 0
    assert "optional: jax: pip install jax" in capsys.readouterr().out


def test_needed_package_missing(only, capsys):
    only(Finding("keras", "not installed", "pip install keras", required=True))
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "needed: keras: pip install keras" in out
    assert "cannot run yet: see keras" in out


def test_absent_package_is_found(monkeypatch, no_probes):
    versions = {"keras": None, "jax": None}
    monkeypatch.setattr(doctor, "_version", lambda package: versions.get(package, "1.0"))
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["keras"].required
    assert findings["keras"].advice == "pip install keras"
    assert not findings["jax"].required
    assert '".[jax]"' in findings["jax"].advice
    assert findings["tensorflow"].advice is None


def test_llvm_missing_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(doctor, "_line", lambda: doctor._LINES["1"])
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nonexistent/libLLVM.so")
    (finding,) = doctor._tracing()
    assert "libllvm19" in finding.advice
    assert not finding.required


def test_wrong_backend_is_an_obstacle(monkeypatch):
    monkeypatch.setattr(doctor, "_probe", lambda code: ({"backend": "jax", "devices": []}, None))
    monkeypatch.setattr(doctor, "_version", lambda package: "1.2.2")
    finding = next(iter(doctor._backend()))
    assert finding.required
    assert "KERAS_BACKEND=tensorflow" in finding.advice


def test_sionna2_wants_pytorch_and_nothing_of_sionna1(monkeypatch, no_probes, capsys):
    versions = {"tensorflow": None}
    monkeypatch.setattr(doctor, "_version", lambda package: versions.get(package, "2.2.0"))
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "not installed (goes with Sionna 1.2)" in out
    assert "needed: keras backend:" in out
    assert "KERAS_BACKEND=torch" in out
    assert out.count("needed:") == 1
    answer = {"backend": "torch", "devices": []}
    monkeypatch.setattr(doctor, "_probe", lambda code: (answer, None))
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.endswith("(make demo LINE=sionna2) can run.\n")


@pytest.mark.parametrize(
    ("sionna", "extra", "needed"), [("1.2.2", "rt", "tensorflow"), ("2.2.0", "sionna2", "torch")]
)
def test_each_line_brings_its_own_ray_tracing(sionna, extra, needed, monkeypatch):
    versions = {"sionna": sionna}
    monkeypatch.setattr(doctor, "_version", versions.get)
    findings = {finding.name: finding for finding in doctor._packages()}
    assert findings["sionna"].advice is None and findings["sionna"].value == sionna
    for name in ("sionna-rt", "mitsuba", "drjit"):
        assert f'".[{extra}]"' in findings[name].advice
        assert "only for ray tracing" in findings[name].advice
        assert not findings[name].required
    required = {name for name, finding in findings.items() if finding.required}
    assert required & {"tensorflow", "torch"} == {needed}


@pytest.mark.rt
def test_ray_tracing_is_tried():
    from lwmt_sionna.rt.tracing.engine import TRACER

    llvm, tracing = doctor._tracing()
    assert llvm.advice is None and tracing.advice is None
    assert TRACER in tracing.value and "llvm" in tracing.value


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("pass", "exit status 0"),
    ],
)
def test_probe_survives(code, reason):
    answer, why = doctor._probe(code)
    assert answer is None
    assert reason in why


@pytest.mark.parametrize(
    ("name", "version"),
    [("libLLVM.so.19.1", "19.1"), ("libLLVM-15.so.1", "15"), ("libLLVM.so", "unknown version")],
)
def test_llvm_version(name, version):
    assert doctor._llvm_version(f"/nonexistent/{name}") == version
