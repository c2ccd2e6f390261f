"""Sweep files: the rows and columns of a results table, as data.

A sweep file is YAML::

    title: Losses and their temperatures
    recipe: ../hparams/my.yaml     # relative to this file; a row may have another one
    output_folder: results/losses  # relative to where the command is given
    protocol: {kind: speaker_kfold, n_folds: 5}  # default: the recipe's
    seeds: [0, 1]                  # default: the recipe's one
    overrides: {n_epochs: 20}      # of all rows
    columns: [uar, wa, {metric: valid.uar, title: validation UAR}]
    baseline: cross-entropy        # what rows are tested against; default: the first
    printed_in: Somebody 2023, table 1
    rows:
        - name: cross-entropy
          overrides: {loss: ce}
          printed: {uar: 54.07 ± 4.03}
        - name: SupCon
          overrides: {loss: supcon}
          sweep_over: {key: temperature, values: [0.1, 0.5], symbol: τ}
          printed:
              0.1: {uar: "52.40 ± 3.27"}

- A column is a measure of the test utterances: of classes ``uar``, ``wa``,
``macro_f1``; against votes ``kl``, ``js``, ``cosine``, ``brier``, ``majority``
(agreement); of dimensions ``ccc``, ``pearson``, ``rmse``, their means, or
``ccc.arousal`` of one; of several emotions ``macro_f1``, ``micro_f1``, ``sample_f1``.
Or it is any number in ``results.json`` by its dotted name. Fractions are in percent,
unless ``percent`` says otherwise. The first measure is pooled and tested for
significance. A row without such a measure has a dash.
- ``sweep_over`` makes one row per value of a key of the recipe. Rows of one file that
sweep over the same key are curves in one figure.
- ``needs``: keys of the recipe, dotted if nested, that must name existing folders;
otherwise the row is not run. Default: ``[corpora]``, of which one is enough.
- ``result``: subfolder of the result that a row shows, if a run has several results.
``corpus``: the corpus that it shows, if a run is tested on several.
- ``{output}`` in a value stands for ``output_folder``, for files that runs share.

A row's folder is named after its overrides, so that tables with the same
``output_folder`` share runs.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from speechbrain_ser_cl.metrics.kinds import MEASURES, look_up
from speechbrain_ser_cl.results.text import NONE
from speechbrain_ser_cl.utils.errors import did_you_mean
from speechbrain_ser_cl.utils.settings import is_text, read_plain_yaml

_OUTPUT = "{output}"
_LONGEST = 100  # characters of a folder's name
_FIGURE = re.compile(r"\d+(\.\d+)?( ± \d+(\.\d+)?)?")
# Set by the command for each run, or by a key of the sweep file.
_OWN = {
    "seed": "seeds",
    "output_folder": "output_folder of the file",
    "protocol": "protocol of the file",
    "fold": "protocol of the file",
    "split_file": "protocol of the file",
}


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Arguments
    ---------
    metric : str
        ``uar``, ``kl``, ``ccc.arousal``, …, or the dotted name of a number.
    title : str
        Title of the column.
    percent : bool
        Whether values are fractions, shown in percent.

    Example
    -------
    >>> Column("uar", "UAR", True).heading
    'UAR %'
    """

    metric: str
    title: str
    percent: bool

    @property
    def heading(self) -> str:
        """Title with its unit."""
        return f"{self.title} %" if self.percent else self.title

    @property
    def scale(self) -> float:
        """Factor of the displayed values."""
        return 100.0 if self.percent else 1.0

    @property
    def is_measure(self) -> bool:
        """Returns whether the column is computed from the test utterances."""
        return look_up(self.metric) is not None

    def write(self, value: float | None) -> str:
        """Formats a value: percent with one decimal, other measures with three."""
        if value is None or not math.isfinite(value):
            return NONE
        digits = ".1f" if self.percent else ".3f" if self.is_measure else ".3g"
        return f"{self.scale * value:{digits}}"

    def bounds(self, interval: Sequence[float] | None) -> str:
        """Formats an interval."""
        return NONE if interval is None else " to ".join(map(self.write, interval))


@dataclass(frozen=True)
class CurvePoint:
    """A row's point on a curve.

    Arguments
    ---------
    curve : str
        Name of the curve.
    key : str
        Key of the recipe that is varied.
    value : float or int or str
        Value of the key in this row; values other than numbers and text are as typed.
    symbol : str
        Name of the key for readers.

    Example
    -------
    >>> CurvePoint("SupCon", "temperature", 0.1, "τ").symbol
    'τ'
    """

    curve: str
    key: str
    value: float | int | str
    symbol: str


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Arguments
    ---------
    name : str
        Unique name in the table.
    hparams_file : pathlib.Path
        YAML of the recipe.
    overrides : dict
        Key of the YAML to value, as text.
    own : frozenset of str
        Keys that only this row sets.
    needs : tuple of str
        Keys of the YAML that must name folders.
    result : str
        Subfolder of a run with the result; ``"."`` for a single result.
    corpus : str or None
        Corpus to show, if several are tested together; else None.
    printed : dict
        Metric to the value in a paper, as text.
    point : CurvePoint or None
        Point of a sweep.

    Example
    -------
    >>> given = {"loss": "supcon", "temperature": "0.1", "cache": "{output}/cache"}
    >>> own = frozenset({"loss"})
    >>> row = Row("a", Path("my.yaml"), given, own, (), ".", None, {}, None)
    >>> row.folder.as_posix()
    'my/loss-supcon,temperature-0.1'
    """

    name: str
    hparams_file: Path
    overrides: dict[str, str]
    own: frozenset[str]
    needs: tuple[str, ...]
    result: str
    corpus: str | None
    printed: dict[str, str]
    point: CurvePoint | None

    @property
    def folder(self) -> Path:
        """Folder of its runs, below the sweep's output folder."""
        pairs = sorted(
            (key, text)
            for key, text in self.overrides.items()
            if key != "protocol" and _OUTPUT not in text
        )
        whole = ",".join(f"{key}-{text}" for key, text in pairs) or "default"
        name = re.sub(r"[^\w.,+-]+", "_", whole, flags=re.ASCII)[:_LONGEST]
        if name != whole:
            name += f"-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        return Path(self.hparams_file.stem, name)

    @property
    def record(self) -> str:
        """Path of its ``crossval.json``, below the sweep's output folder."""
        return (self.folder / self.result / "crossval.json").as_posix()


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Arguments
    ---------
    path : pathlib.Path
        Path of the file.
    title : str
        Title above the table.
    printed_in : str or None
        Source of the printed values.
    output_folder : pathlib.Path
        Folder of the runs.
    seeds : tuple of int or None
        Seeds of the trainings. None: the recipe's.
    columns : tuple of Column
        Columns in order.
    baseline : str
        Name of the baseline row.
    rows : tuple of Row
        Rows in order.

    Example
    -------
    >>> column = Column("wa", "WA", True)
    >>> Sweep(
    ...     Path("a.yaml"), "A", None, Path("out"), None, (column,), "x", ()
    ... ).tested.title
    'WA'
    """

    path: Path
    title: str
    printed_in: str | None
    output_folder: Path
    seeds: tuple[int, ...] | None
    columns: tuple[Column, ...]
    baseline: str
    rows: tuple[Row, ...]

    @property
    def tested(self) -> Column:
        """Column that is pooled and tested for significance."""
        return next(column for column in self.columns if column.is_measure)


class _Entries:
    """A mapping of a sweep file, whose entries are read one by one."""

    def __init__(self, file: Path, place: str, entries: object) -> None:
        self.file, self.place = file, place
        if not isinstance(entries, Mapping):
            self._fail(place or "the file", entries, "a mapping of keys to values")
        self.left = dict(entries)
        self.known: list[str] = []

    def _fail(self, key: str, found: object, expected: str) -> NoReturn:
        text = json.dumps(found, ensure_ascii=False, default=str)
        raise ValueError(f"{self.file}: {key} is {text}, expected {expected}")

    def name(self, key: object) -> str:
        """Returns the path of a key."""
        return f"{self.place}.{key}" if self.place else str(key)

    def fail(self, key: object, found: object, expected: str) -> NoReturn:
        """Raises the error."""
        self._fail(self.name(key), found, expected)

    def take(
        self,
        key: str,
        expected: str,
        fits: Callable[[object], bool],
        default: object = ...,
    ) -> Any:
        """Reads a value and checks it; without a default it is required."""
        self.known.append(key)
        if key not in self.left:
            if default is ...:
                raise ValueError(
                    f"{self.file}: no {self.name(key)}, expected {expected}"
                )
            return default
        value = self.left.pop(key)
        if not fits(value):
            self.fail(key, value, expected)
        return value

    def end(self) -> None:
        """Refuses keys that were not read."""
        for key in self.left:
            hint = did_you_mean(str(key), self.known)
            raise ValueError(
                f"{self.file}: unknown key {self.name(key)}; {hint}expected "
                f"{', '.join(self.known)}"
            )


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_seeds(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(seed, int) and _is_number(seed) for seed in value)
        and len(set(value)) == len(value)
    )


def as_text(value: object) -> str:
    """Formats a value as on the command line.

    Arguments
    ---------
    value : object
        Number, text, list, mapping, truth value or None.

    Returns
    -------
    str
        YAML on one line.

    Example
    -------
    >>> [as_text(v) for v in (1e-05, True, None, "supcon", "0.1", {"kind": "seeds"})]
    ['1.0e-05', 'True', 'null', 'supcon', '"0.1"', '{"kind": "seeds"}']
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)
    if isinstance(value, str) and re.fullmatch(r"[\w./{}+-]+", value, re.ASCII):
        try:
            if value.startswith(_OUTPUT) or YAML(typ="safe").load(value) == value:
                return value
        except YAMLError:
            pass
    return json.dumps(value, ensure_ascii=False)


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Sweep
        Sweep with one row per swept value. The overridden keys are not compared with
        the recipes.

    Raises
    ------
    ValueError
        The message has the file, the key, what was found and what was expected.

    Example
    -------
    >>> path = getfixture("tmp_path") / "table.yaml"
    >>> _ = path.write_text(
    ...     '''
    ... title: Margins
    ... recipe: my.yaml
    ... rows:
    ...     - {name: Triplet, sweep_over: {key: margin, values: [0.1, 0.2]}}
    ... '''
    ... )
    >>> path.with_name("my.yaml").touch()
    >>> [row.name for row in read_sweep(path).rows]
    ['Triplet, margin = 0.1', 'Triplet, margin = 0.2']
    """
    path = Path(path)
    contents = read_plain_yaml(path)
    file = _Entries(path, "", contents)
    title = file.take("title", "a text", is_text)
    recipe = file.take("recipe", "the path of a recipe's YAML", is_text, None)
    folder = file.take("output_folder", "a folder", is_text, f"results/{path.stem}")
    protocol = file.take(
        "protocol",
        "the name of a protocol or a mapping with kind",
        lambda value: is_text(value) or _is_map(value),
        None,
    )
    seeds = file.take("seeds", "a list of different whole numbers", _is_seeds, None)
    overrides = _overrides(file)
    if protocol is not None:
        overrides["protocol"] = as_text(protocol)
    columns = _columns(file)
    needs = file.take("needs", "a list of keys", _is_texts, ["corpora"])
    printed_in = file.take("printed_in", "a text", is_text, None)
    baseline = file.take("baseline", "the name of a row", is_text, None)
    entries = file.take("rows", "a list of at least one row", _is_list)
    file.end()
    rows: list[Row] = []
    for i, entry in enumerate(entries):
        row = _Entries(path, f"rows[{i}]", entry)
        rows += _rows(row, recipe, overrides, needs, [c.metric for c in columns])
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{path}: rows: {names.count(name)} rows have the name {name!r}, "
                "expected a name of its own for each"
            )
    baseline = names[0] if baseline is None else baseline
    if baseline not in names:
        file.fail("baseline", baseline, f"one of the rows: {', '.join(names)}")
    _check_stems(path, rows)
    return Sweep(
        path=path,
        title=title,
        printed_in=printed_in,
        output_folder=Path(folder),
        seeds=None if seeds is None else tuple(seeds),
        columns=tuple(columns),
        baseline=baseline,
        rows=tuple(rows),
    )


def _columns(file: _Entries) -> list[Column]:
    given = file.take("columns", "a list of metrics", _is_list, ["uar", "wa"])
    columns = []
    for i, entry in enumerate(given):
        if not isinstance(entry, Mapping):
            entry = {"metric": entry}
        column = _Entries(file.file, f"columns[{i}]", entry)
        metric = column.take("metric", "the name of a measure or number", is_text)
        known = look_up(metric)
        if not known and "." not in metric:
            hint = did_you_mean(metric, MEASURES).strip()
            column.fail(
                "metric",
                metric,
                f"{', '.join(MEASURES)}, or the dotted name of a number of "
                f"results.json, such as valid.uar{hint and '; '}{hint}",
            )
        last = look_up(metric.rpartition(".")[2])
        usual, in_percent = known or (metric, last is None or last[1])
        title = column.take("title", "a text", is_text, usual)
        percent = column.take(
            "percent",
            "True or False",
            lambda value: isinstance(value, bool),
            in_percent,
        )
        column.end()
        columns.append(Column(metric, title, percent))
    metrics = [column.metric for column in columns]
    if len(set(metrics)) < len(metrics) or not any(map(look_up, metrics)):
        file.fail(
            "columns",
            metrics,
            f"different metrics, at least one of {', '.join(MEASURES)}",
        )
    return columns


def _overrides(entries: _Entries) -> dict[str, str]:
    expected = "a mapping of keys of the recipe to values"
    given = entries.take("overrides", expected, _is_map, {})
    for key in given:
        _refuse_own(entries, "overrides", key)
    return {
        str(key): _text(entries, f"overrides.{key}", value)
        for key, value in given.items()
    }


def _refuse_own(entries: _Entries, place: str, key: object) -> None:
    if key in _OWN:
        raise ValueError(
            f"{entries.file}: {entries.name(place)}: {key!r} is set for each run; "
            f"choose with {_OWN[key]}"
        )


def _text(entries: _Entries, place: str, value: object) -> str:
    """Formats a value that replaces one of the recipe."""
    text = as_text(value)
    # SpeechBrain also reads --key=value.
    if "=" in text or "--" in text:
        entries.fail(place, value, "a value without '=' and '--'")
    return text


def _rows(
    entries: _Entries,
    recipe: str | None,
    common: Mapping[str, str],
    needs: Sequence[str],
    metrics: Sequence[str],
) -> list[Row]:
    """Makes the row, or the rows of its sweep."""
    name = entries.take("name", "a text", is_text)
    recipe = entries.take("recipe", "the path of a recipe's YAML", is_text, recipe)
    if recipe is None:
        raise ValueError(
            f"{entries.file}: no recipe, expected the path of a recipe's YAML, for "
            f"all rows or as {entries.name('recipe')}"
        )
    hparams_file = entries.file.parent / recipe
    if not hparams_file.is_file():
        entries.fail("recipe", recipe, f"a file; there is no {hparams_file}")
    own = _overrides(entries)
    swept = entries.take("sweep_over", "a mapping", _is_map, None)
    printed = entries.take("printed", "a mapping", _is_map, {})
    shared: dict[str, Any] = {
        "hparams_file": hparams_file,
        "needs": tuple(entries.take("needs", "a list of keys", _is_texts, needs)),
        "result": entries.take("result", "a sub-folder of a run", is_text, "."),
        "corpus": entries.take("corpus", "the name of a corpus", is_text, None),
    }
    entries.end()
    if swept is None:
        return [
            Row(
                name=name,
                overrides={**common, **own},
                own=frozenset(own),
                printed=_printed(entries, "printed", printed, metrics),
                point=None,
                **shared,
            )
        ]
    over = _Entries(entries.file, entries.name("sweep_over"), swept)
    key = over.take("key", "a key of the recipe", is_text)
    values = over.take("values", "a list of at least one value", _is_list)
    symbol = over.take("symbol", "a text", is_text, key)
    over.end()
    if key in own:
        over.fail("key", key, "a key that overrides of the row do not set")
    _refuse_own(over, "key", key)
    texts = [_text(over, "values", value) for value in values]
    if len(set(texts)) < len(texts):
        over.fail("values", values, "each value once")
    by_text = {as_text(value): figures for value, figures in printed.items()}
    unknown = [value for value in printed if as_text(value) not in texts]
    if unknown:
        entries.fail("printed", unknown, f"values of the sweep: {', '.join(texts)}")
    return [
        Row(
            name=f"{name}, {symbol} = {value if isinstance(value, str) else text}",
            overrides={**common, **own, key: text},
            own=frozenset({*own, key}),
            printed=_printed(
                entries, f"printed.{text}", by_text.get(text, {}), metrics
            ),
            point=CurvePoint(
                name,
                key,
                value if isinstance(value, str) or _is_number(value) else text,
                symbol,
            ),
            **shared,
        )
        for value, text in zip(values, texts, strict=True)
    ]


def _printed(
    entries: _Entries, key: str, figures: object, metrics: Sequence[str]
) -> dict[str, str]:
    if not isinstance(figures, Mapping):
        entries.fail(key, figures, "a mapping of metrics to figures")
    for metric, figure in figures.items():
        if metric not in metrics:
            entries.fail(key, metric, f"metrics of columns: {', '.join(metrics)}")
        if not _is_number(figure) and not (
            isinstance(figure, str) and _FIGURE.fullmatch(figure)
        ):
            entries.fail(
                f"{key}.{metric}", figure, "a number, or a text such as 54.07 ± 4.03"
            )
    return {metric: str(figure) for metric, figure in figures.items()}


def _check_stems(path: Path, rows: Sequence[Row]) -> None:
    """Refuses two recipes with one file name: folders are named after it."""
    files: dict[str, Path] = {}
    for row in rows:
        other = files.setdefault(row.hparams_file.stem, row.hparams_file)
        if other.resolve() != row.hparams_file.resolve():
            raise ValueError(
                f"{path}: recipe: {other} and {row.hparams_file} have the same name, "
                "after which the folders of their runs are named; expected different "
                "ones, or a table for each"
            )
