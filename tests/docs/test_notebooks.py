"""The notebooks run from top to bottom, and are kept as they ran."""

import importlib.metadata
import os
import pathlib
import re
import runpy
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.py"))
ON_SIONNA_1 = ("predictor_in_a_sionna_link", "train_and_judge_a_predictor")
ON_SIONNA_2 = ("predictor_in_a_sionna_2_link",)
ON_ANY_BACKEND = ("a_task_of_your_own", "your_own_arrays")


def check_line(name):
    """Skips the notebooks of the Sionna that is not here; the others run with either."""
    if name not in ON_SIONNA_1 + ON_SIONNA_2:
        return
    try:
        here = importlib.metadata.version("sionna").partition(".")[0]
    except importlib.metadata.PackageNotFoundError:
        here = "none"
    needed = "2" if name in ON_SIONNA_2 else "1"
    if here != needed:
        pytest.skip(f"needs Sionna {needed}, here is {here}")


def test_there_are_notebooks():
    assert NOTEBOOKS == [
        "a_task_of_your_own",
        "predictor_in_a_sionna_2_link",
        "predictor_in_a_sionna_link",
        "trace_your_own_street",
        "train_and_judge_a_predictor",
        "your_own_arrays",
    ]
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_kept_notebook_is_what_its_source_ran(name):
    """`make notebooks` wrote it: the same cells, run from the first to the last, none failed."""
    import jupytext
    import nbformat

    source, kept = (jupytext.read(FOLDER / f"{name}{suffix}") for suffix in (".py", ".ipynb"))
    nbformat.validate(kept)
    assert [(c.cell_type, c.source) for c in kept.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_kept_notebook_is_small_and_of_no_machine(name):
    file = FOLDER / f"{name}.ipynb"
    assert file.stat().st_size < 300_000
    text = re.sub(r'"image/png": "[^"]*"', "", file.read_text())
    assert not re.findall(
        r"/(?:home|root|tmp|usr|Users)/|0x[0-9a-f]{6,}|[Ww]arning|Traceback", text
    )
    assert str(ROOT) not in text


@pytest.mark.parametrize("name", ON_SIONNA_1 + ON_ANY_BACKEND)
def test_quick_form(name, monkeypatch, capsys):
    check_line(name)
    monkeypatch.setenv("LWMT_QUICK", "1")
    monkeypatch.chdir(FOLDER)
    try:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="notebook")
    finally:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.run_functions_eagerly(False)
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("name", ON_SIONNA_2)
def test_quick_form_on_pytorch(name, monkeypatch, capsys):
    check_line(name)
    import torch

    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("LWMT_QUICK", "1")
    with torch.enable_grad():  # which the notebook switches off
        result = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="notebook")
    (served,) = zip(*result["bler"].values())
    assert result["bler"].keys() == {"perfect", "hold", "predicted"}
    assert served[0] <= min(served[1:])  # the first knows the channel
    assert "held minus predicted" in capsys.readouterr().out


@pytest.mark.rt
def test_quick_form_with_ray_tracing():
    """In a process of its own: the ray tracer and TensorFlow do not like to meet."""
    done = subprocess.run(
        [sys.executable, FOLDER / "trace_your_own_street.py"],
        cwd=FOLDER,
        env=os.environ | {"LWMT_QUICK": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "link_bler.png" in done.stdout


@pytest.mark.slow
@pytest.mark.rt
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_as_notebooks(name, monkeypatch):
    """In full length, through Jupyter."""
    check_line(name)
    import jupytext
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = jupytext.read(FOLDER / f"{name}.py")
    assert notebook.cells[0].cell_type == "markdown"
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
