"""Digests of code change with what a computation imports, and with nothing else."""

import shutil

import pytest

import lwmt_sionna
from lwmt_sionna.runs import digests
from lwmt_sionna.runs.digests import code_digest, code_modules

MODULES = {
    "__init__.py": "",
    "low/__init__.py": "from pack.low.one import first\nfrom pack.low.two import second\n",
    "low/one.py": "def first():\n    return 1\n",
    "low/two.py": "def second():\n    return 2\n",
    "lazy/__init__.py": '_EXPORTS = {"third": "three", "fourth": "pack.lazy.four"}\n',
    "lazy/three.py": "third = 3\n",
    "lazy/four.py": "fourth = 4\n",
    "runs/__init__.py": "",
    "runs/records.py": "text = 1\n",
    "top.py": (
        "from typing import TYPE_CHECKING\n"
        "from pack.low import first\n"
        "from pack.runs import records\n"
        "if TYPE_CHECKING:\n"
        "    from pack.low import second\n"
        "def main():\n"
        "    from pack.lazy import third\n"
        "    return first() + third\n"
    ),
    "rooms.py": "from pack import lazy, low\nvalue = low.second() + lazy.fourth\n",
    "whole.py": "from pack import low\nvalue = getattr(low, 'first')\n",
}


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pack"
    for name, text in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_imports_lead_to_the_modules_that_define(package):
    assert code_modules("pack.top", package=package) == (
        "pack.lazy.three",
        "pack.low.one",
        "pack.top",
    )
    assert code_modules("pack.rooms", package=package) == (
        "pack.lazy.four",
        "pack.low.two",
        "pack.rooms",
    )
    assert set(code_modules("pack.whole", package=package)) == {
        "pack.low",
        "pack.low.one",
        "pack.low.two",
        "pack.whole",
    }
    assert "pack.lazy.four" in code_modules("pack.lazy", package=package)
    with pytest.raises(ValueError, match="no such module"):
        code_modules("pack.missing", package=package)


def copy(package, target, **changes):
    """A copy of a package with other text in some of its modules."""
    ignore = shutil.ignore_patterns("preset_files", "__pycache__")
    shutil.copytree(package, target, ignore=ignore)
    for name, change in changes.items():
        path = target / name
        path.write_text(change(path.read_text()))
    return target


def test_words_about_the_code_do_not_count(package, tmp_path):
    before = code_digest("pack.top", package=package)
    told = copy(
        package,
        tmp_path / "told" / "pack",
        **{
            "low/one.py": lambda text: (
                '"""Words."""\n\n# Why.\n' + text.replace("1\n", "1  # one\n")
            )
        },
    )
    assert code_digest("pack.top", package=told) == before
    changed = copy(
        package, tmp_path / "changed" / "pack", **{"low/one.py": lambda t: t.replace("1\n", "5\n")}
    )
    assert code_digest("pack.top", package=changed) != before


def test_versions_of_what_computes_count(package, tmp_path, monkeypatch):
    before = code_digest("pack.top", package=package)
    same = copy(package, tmp_path / "same" / "pack")
    assert code_digest("pack.top", package=same) == before
    versions = digests.package_versions()
    monkeypatch.setattr(digests, "package_versions", lambda: versions | {"sionna": "2.2.0.1"})
    newer = copy(package, tmp_path / "newer" / "pack")
    assert code_digest("pack.top", package=newer) != before


LAYERS = "layers/encoder.py"
TRAINING = "training/loop.py"


@pytest.mark.parametrize(
    ("file", "change", "counts"),
    [
        (LAYERS, "\nEPSILON = 1e-7\n", True),
        (TRAINING, "\nEPSILON = 1e-7\n", False),
        (LAYERS, '\n# A comment.\n"""A text."""\n', False),
    ],
)
def test_results_depend_on_the_code_they_import(tmp_path, file, change, counts):
    root = lwmt_sionna.__path__[0]
    changed = copy(root, tmp_path / "lwmt_sionna", **{file: lambda text: text + change})
    for module in ("lwmt_sionna.evaluation.grid", "lwmt_sionna.link.sweep.points"):
        assert (code_digest(module) != code_digest(module, package=changed)) is counts, module


def test_predictors_without_training_outlive_changes_of_the_models():
    """Their forecasts are hours of work that every new predictor is compared with."""
    rooms = ("lwmt_sionna.models", "lwmt_sionna.layers", "lwmt_sionna.training")
    for module in ("autoregression", "bins", "parametric", "reference"):
        reached = code_modules(f"lwmt_sionna.baselines.{module}")
        assert not [name for name in reached if name.startswith(rooms)], module
