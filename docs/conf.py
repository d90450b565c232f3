"""The site of these pages: `make docs`. Nothing is copied.

README and its neighbours become pages as they are read, help comes from the real parsers, the API from docstrings, the
tutorial from its notebook.
"""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the modules beside these pages, whatever is installed

project, author = "Flicker", "The Flicker authors"
project_copyright = "The Flicker authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
exclude_patterns = ["**.ipynb_checkpoints"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages have no pages here
autodoc_typehints = "none"  # signatures show them
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
pygments_style, pygments_dark_style = "sphinx", "monokai"

html_theme = "alabaster"
html_title = "Flicker"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "description": "How much do a recommender's results change for no reason?",
    "fixed_sidebar": True,
    "body_max_width": "940px",
    "page_width": "1180px",
    "sidebar_collapse": True,
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}

OUTSIDE = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Page -> the file beside this folder that is its text."""
LINK = re.compile(r"(?<=\]\()(?!\w+://|#)([^)#\s]+)")


def read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text of a page that stands elsewhere before what its own file says."""
    if page in OUTSIDE:
        source[0] = LINK.sub(_moved, (ROOT / OUTSIDE[page]).read_text(encoding="utf-8")) + "\n" + source[0]
    elif app.env.doc2path(page).suffix == ".ipynb":
        source[0] = "\n\n".join(map(_cell, json.loads(source[0])["cells"]))


def _moved(link: re.Match[str]) -> str:
    """A link of a file in ROOT, as seen from this folder."""
    pages = {path: f"{page}.md" for page, path in OUTSIDE.items()}
    inside = link[1].removeprefix("docs/")
    return pages.get(link[1], inside if inside != link[1] else f"../{link[1]}")


def _cell(cell: dict[str, Any]) -> str:
    """A cell of a notebook as Markdown: its text, or its code and what came of that, pictures too."""
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return text
    parts = [f"```ipython3\n{text}\n```"]
    for output in cell["outputs"]:
        shown = output.get("data", {})
        if "image/png" in shown:
            picture = "".join(shown["image/png"]).strip()
            parts.append(f'<img alt="{_said(shown)}" src="data:image/png;base64,{picture}">')
        elif "text/html" in shown:
            parts.append("".join(shown["text/html"]))
        elif printed := "".join(output.get("text") or shown.get("text/plain", "")):
            parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts)


def _said(shown: dict[str, Any]) -> str:
    return "".join(shown.get("text/plain", "a figure")).replace('"', "").replace("<", "").replace(">", "")


class Help(SphinxDirective):
    """What a command says to `--help`: `{help} flicker run`, or `python -m trainer`."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        """The help of the real parser, 100 columns wide."""
        words = self.arguments[0].split()
        module, *more = ["simulator", *words[1:]] if words[0] == "flicker" else words[2:]
        said = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with (
            patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1", "FLICKER_NAME": "HOST-PID"}, clear=True),
            patch("os.execv", lambda _, command: become(*command[2:])),
            redirect_stdout(said),
            suppress(SystemExit),
        ):
            become(module, *more, "--help")
        said.seek(0)
        text = said.read()
        return [nodes.literal_block(text, text, language="text")]


def become(module: str, *arguments: str) -> None:
    """`python -m MODULE ARGUMENTS` in this process, where what it imports is there already."""
    with patch.object(sys, "argv", ["", *arguments]):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def plain(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are sentences with `code` in them, and indented tables: nothing else in them is markup."""
    told, table = list[str](), False
    for line in lines:
        if line.strip() and table != line.startswith(" "):
            table = not table
            told += ["", "::", ""] if table else [""]
        text = line if table else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", line)
        told.append(text if table else re.sub(r"`([^`]+)`", r"``\1``", text))
    lines[:] = told


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("help", Help)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", plain)
    return {"parallel_read_safe": True}
