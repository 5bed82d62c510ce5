"""Runs the sources of notebooks and keeps them, with what they print and draw, as `.ipynb`.

Usage: notebooks.py SOURCE [SOURCE ...]

What changes from run to run without saying anything is left out: times, identifiers of cells, the
version of Python, and what libraries write to the standard error.
"""

import os
import pathlib
import sys

import jupytext
import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def is_kept(output: nbformat.NotebookNode) -> bool:
    """Neither the chatter of libraries nor what needs a kernel to be seen."""
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})


def run(source: pathlib.Path) -> nbformat.NotebookNode:
    """The executed notebook; an error in a cell is one here."""
    notebook = jupytext.read(source)
    settings = {"timeout": None, "record_timing": False, "coalesce_streams": True}
    place = {"metadata": {"path": str(source.parent)}}
    NotebookClient(notebook, resources=place, **settings).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if is_kept(each)]
    nbformat.validate(notebook)
    return notebook


def main(sources: list[str]) -> None:
    root = pathlib.Path(__file__).resolve().parents[1]
    os.environ |= {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ.pop("LWMT_QUICK", None)  # what is kept is the whole
    for source in map(pathlib.Path, sources):
        notebook = run(source.resolve())
        nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
