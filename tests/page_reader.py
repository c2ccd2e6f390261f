"""Reads a page like a screen reader: headings, tables, texts."""

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Contents of a page.

    Attributes
    ----------
    tables : list of (str, list)
        Text that labels a table, and its rows of cells, the header first.
    sections : list of str
        Headings.
    text : str
        All that is not script or style.
    elements : list of (str, dict)
        Every start tag with its attributes.
    """

    def __init__(self, html):
        super().__init__()
        self.elements, self.tables, self.sections = [], [], []
        self.text = ""
        self._open, self._labels, self._rows, self._cell = [], {}, None, None
        self.feed(html)
        assert self._open == [], "elements that are never closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes))
        if tag == "table":
            self._rows = []
            label = self._labels[attributes["aria-labelledby"]]
            self.tables.append((label, self._rows))
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.sections.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> where <{opened}> is open"

    def handle_data(self, data):
        tags = [tag for tag, _ in self._open]
        if "script" in tags or "style" in tags:
            return
        data = data.replace("\u00a0", " ")
        self.text += data
        for tag, attributes in self._open:
            if "id" in attributes and tag not in ("main", "section"):
                name = attributes["id"]
                self._labels[name] = self._labels.get(name, "") + data
            if tag in ("td", "th"):
                self._rows[-1][-1] += data
            elif tag in ("h1", "h2", "h3"):
                self.sections[-1] += data

    def rows(self, beginning):
        """Returns the rows of each table whose label starts with this text."""
        return [rows for label, rows in self.tables if label.startswith(beginning)]

    def table(self, beginning):
        """Returns the rows of the only such table, as dictionaries."""
        ((header, *body),) = self.rows(beginning)
        return [dict(zip(header, row, strict=True)) for row in body]

    def attributes(self, name):
        """Returns all values of an attribute."""
        return [a[name] for _, a in self.elements if name in a]
