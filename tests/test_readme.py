"""The README's Python examples run as printed."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_there_are_examples():
    assert BLOCKS


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block_{i}" for i in range(len(BLOCKS))])
def test_example_runs(code):
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-3000:]
    # Examples that promise a line of output print it.
    for promised in re.findall(r"^print\(.*# prints (.*)$", code, flags=re.MULTILINE):
        assert promised in result.stdout
