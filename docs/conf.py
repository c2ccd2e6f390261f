"""Configures Sphinx for this site: ``python -m sphinx -W docs site``."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from myst_parser.parsers.sphinx_ import MystParser

from speechbrain_ser_cl import __version__

project = "speechbrain_ser_cl"
author = copyright = "the speechbrain_ser_cl contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["conf.py", "publish.py", "upstream.py"]
templates_path = ["_templates"]
myst_enable_extensions = ["deflist", "tasklist"]
myst_heading_anchors = 3

# Docstrings are in NumPy style, with types in their sections.
napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "furo"
html_title = f"speechbrain_ser_cl {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html"),
        *("sidebar/navigation.html", "versions.html", "sidebar/scroll-end.html"),
    ]
}
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"


def as_markdown(script):
    """Converts a script with cells (``# %%``) to a page: comments become text."""
    page = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, lines = cell.partition("\n")
        if kind.strip() == "[markdown]":
            page.append(re.sub("^# ?", "", lines, flags=re.MULTILINE).strip())
        elif lines.strip():
            page.append(f"```python\n{lines.strip()}\n```")
    return "\n\n".join(page) + "\n"


class ScriptParser(MystParser):
    """Parses the tutorial."""

    supported = ("script",)

    def parse(self, inputstring, document):
        """Parses the script as a page."""
        super().parse(as_markdown(inputstring), document)


def add_tables(app, docname, source):
    """Inserts the tables of a recipe's README where a page names it in a comment."""

    def tables(found):
        readme = app.srcdir.parent / found[1]
        app.env.note_dependency(str(readme))
        if not readme.is_file():
            return "Not measured yet."
        block = r"<!-- \w+: begin .*? -->\n(.*?)<!-- \w+: end -->"
        return "\n".join(re.findall(block, readme.read_text("utf-8"), re.DOTALL))

    source[0] = re.sub(
        r"^<!-- tables of (\S+) -->$", tables, source[0], flags=re.MULTILINE
    )


def add_modules(app, docname, source):
    """Inserts the modules of a package without public names, named in a comment."""

    def modules(found):
        folder = app.srcdir.parent / "speechbrain_ser_cl" / found[1]
        names = {
            ".".join(path.relative_to(folder).with_suffix("").parts)
            for path in folder.rglob("[a-z]*.py")
        } - {"features.pack"}
        return "\n\n".join(
            f"## {found[1]}.{name}\n\n```{{eval-rst}}\n.. automodule:: "
            f"speechbrain_ser_cl.{found[1]}.{name}\n   :members:\n```"
            for name in sorted(names)
        )

    source[0] = re.sub(r"<!-- modules of (\w+) -->", modules, source[0])


def add_cards(app, docname, source):
    """Inserts a table of all corpora, and each card, where a comment asks for them."""

    def cards(found):
        from speechbrain_ser_cl.cli.corpora import TABLE, card_text, table_row
        from speechbrain_ser_cl.corpora import all_cards

        rows = [TABLE, ["---"] * len(TABLE), *map(table_row, all_cards())]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        texts = [
            f"## {card.title}\n\n```text\n{card_text(card)}\n```"
            for card in all_cards()
        ]
        return "\n\n".join([table, *texts])

    source[0] = re.sub("<!-- cards -->", cards, source[0])


def write_mathml(translator, node):
    """Writes a formula that browsers show without a script or a network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app):
    """Registers these extensions with Sphinx."""
    app.add_source_suffix(".md", "markdown", override=True)
    app.add_source_suffix(".py", "script")
    app.add_source_parser(ScriptParser)
    app.connect("source-read", add_tables)
    app.connect("source-read", add_modules)
    app.connect("source-read", add_cards)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(write_mathml, None),
        block_renderers=(write_mathml, None),
    )
