"""Blocks of the page; the template has a macro for each ``kind``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Note:
    """A paragraph; warnings are highlighted.

    Example
    -------
    >>> Note("Synthetic speech.", warning=True).kind
    'note'
    """

    kind: ClassVar[str] = "note"
    text: str
    warning: bool = False


@dataclass
class Facts:
    """Names with values.

    Example
    -------
    >>> Facts([("seed", "1")]).items[0]
    ('seed', '1')
    """

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass
class Table:
    """Rows of text; the first cell of each row is its name.

    Arguments
    ---------
    caption : str
        Title of the table.
    header : sequence of str
        Title of each column.
    rows : sequence of sequence of str
        Cells.
    texts : int
        Number of columns on the left that contain words; the others contain numbers.
    folded : bool
        Whether the table is folded at first.

    Example
    -------
    >>> Table("Classes", ["class", "n"], [["sad", "3"]]).texts
    1
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    folded: bool = False


@dataclass
class Figure:
    """Charts, with a table of the same numbers.

    Example
    -------
    >>> Figure(["<svg></svg>"], "Nothing", Table("Numbers", ["a"], [])).kind
    'figure'
    """

    kind: ClassVar[str] = "figure"
    charts: Sequence[str]
    caption: str
    table: Table


@dataclass
class Confusion:
    """A confusion matrix: counts and shares of each row.

    Example
    -------
    >>> Confusion("All", ["a", "b"], [("a", [(3, 0.75), (1, 0.25)])]).rows[0][0]
    'a'
    """

    kind: ClassVar[str] = "confusion"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]


@dataclass
class Heat:
    """A matrix of texts, whose background is darker for larger shares.

    Example
    -------
    >>> Heat("UAR", ["a", "b"], [("tiny", [("85.0", 0.85), ("–", 0)])]).kind
    'heat'
    """

    kind: ClassVar[str] = "heat"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]


@dataclass
class Map:
    """A map of points; the reader selects the field that colours them.

    Arguments
    ---------
    chart : str
        From ``charts.scatter``.
    caption : str
        Title of the map.
    fields : sequence of str
        Names of the facts about each point; points can be coloured by those in
        ``legends``.
    points : sequence of sequence of str
        Values of the fields.
    legends : dict
        Field to its values, in the order of their colours.
    table : Table
        The same content in numbers.

    Example
    -------
    >>> Map("<svg></svg>", "Map", ["id"], [["a"]], {}, Table("", [], [])).kind
    'map'
    """

    kind: ClassVar[str] = "map"
    chart: str
    caption: str
    fields: Sequence[str]
    points: Sequence[Sequence[str]]
    legends: Mapping[str, Sequence[str]]
    table: Table


@dataclass
class Mistakes:
    """Utterances that the model classified wrongly, with audio if it may be shared.

    Arguments
    ---------
    caption, header, rows, texts
        As in ``Table``.
    audio : sequence of str or None
        For each row a ``data:`` URI, empty without audio; None: no audio at all.

    Example
    -------
    >>> Mistakes("None", ["utterance"], [], 1).audio
    []
    """

    kind: ClassVar[str] = "mistakes"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int
    audio: Sequence[str | None] = field(default_factory=list)


@dataclass
class Code:
    """Text of a file, folded.

    Example
    -------
    >>> Code("hyperparams.yaml", "seed: 1").title
    'hyperparams.yaml'
    """

    kind: ClassVar[str] = "code"
    title: str
    text: str


Block = Note | Facts | Table | Figure | Confusion | Heat | Map | Mistakes | Code


@dataclass
class Section:
    """A heading and the blocks below it.

    Example
    -------
    >>> Section("data", "Data", [Note("None.")]).key
    'data'
    """

    key: str
    title: str
    blocks: list[Block]
