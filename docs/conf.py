"""The documentation site, `make docs`: Sphinx, since its napoleon reads Keras sections as they are.

Pages are those of this folder; the README is the first of them, and the API comes from docstrings.
"""

import inspect
import os
import pathlib
import re
import sys
from unittest import mock

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Nothing is computed: the smallest backend that Keras imports alone does.
os.environ["KERAS_BACKEND"] = "jax"

import lwmt_sionna  # noqa: E402

project = "lwmt_sionna"
author = "The lwmt_sionna contributors"
version = release = lwmt_sionna.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # shown as `make notebooks` left them

autosummary_ignore_module_all = False
autosummary_imported_members = True
# Sionna and LLVM are not needed to read docstrings.
autodoc_mock_imports = ["sionna", "tensorflow"]
for name in ("rt.tracing.engine", "link.phy.line"):  # what looks at the Sionna that is here
    sys.modules[f"lwmt_sionna.{name}"] = mock.MagicMock()
autodoc_typehints = "none"  # the docstrings say dtype, shape and unit
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [
    ("Attributes", "params_style"),
    ("Call arguments", "params_style"),
    "Reference",
]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "lwmt_sionna"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
highlight_language = "text"

# Docstrings are Markdown, as those of Keras are; napoleon wants reStructuredText.
_MARKDOWN = re.compile(
    r"(?P<example>^ *>>> .*(?:\n *\S.*)*)"
    r"|`{1,2}(?P<code>[^`]+)`{1,2}"
    r"|\$\$(?P<equation>[^$]+)\$\$"
    r"|\$(?P<formula>[^$]+)\$"
    r"|\[(?P<text>[^\]]+)\]\((?P<address>https?:[^)]+)\)"
    r"|(?P<emphasis>\*{1,2}\w(?:[^*\n]*\w)?\*{1,2})"
    r"|(?P<special>[*|\\]|(?<=\w)_(?!\w))",
    flags=re.MULTILINE,
)


def to_rst(match):
    found = match.groupdict()
    if found["code"]:
        return f"``{' '.join(found['code'].split())}``"
    if found["equation"]:
        return f".. math:: {' '.join(found['equation'].split())}"
    if found["formula"]:
        return f":math:`{found['formula']}`"
    if found["address"]:
        return f"`{' '.join(found['text'].split())} <{found['address']}>`__"
    return found["example"] or found["emphasis"] or f"\\{found['special']}"


def convert_docstring(app, what, name, obj, options, lines):
    text = "\n".join(lines)
    if what in ("data", "attribute") and text.strip() == (type(obj).__doc__ or "").strip():
        text = ""  # the type's, not the value's
    text = _MARKDOWN.sub(to_rst, text)
    text = re.sub(r"^Example:\n\n", ".. rubric:: Example\n\n", text, flags=re.MULTILINE)
    text = re.sub(r":\n\n(?= {4}\S)", "::\n\n", text)  # an indented block is a listing
    # A property's first line is no "type: description", whatever colons it has.
    lines[:] = [*[""] * (what == "property"), *text.split("\n")]


def sign_as_init(app, what, name, obj, options, signature, returns):
    """Layers of Keras take any arguments in `__new__`, and their own in `__init__`."""
    if what == "class" and signature == "(*args, **kwargs)":
        _, *own = inspect.signature(obj.__init__).parameters.values()
        bare = [each.replace(annotation=inspect.Parameter.empty) for each in own]
        return str(inspect.Signature(bare)), returns
    return None


def skip_plain_fields(app, what, name, obj, skip, options):
    """Fields of a NamedTuple stand among its attributes already."""
    return skip or (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")


def visit_math(translator, node):
    """Formulas as MathML, which browsers draw by themselves: no script from anywhere."""
    is_block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def mark_wide_tables(app, doctree):
    for group in doctree.findall(nodes.tgroup):
        if group["cols"] > 6:
            group.parent["classes"].append("wide")


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", convert_docstring, priority=400)
    app.connect("autodoc-process-signature", sign_as_init)
    app.connect("doctree-read", mark_wide_tables)
    app.connect("autodoc-skip-member", skip_plain_fields)
