"""Reads the speaker turns of a recording from RTTM or a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speechbrain_ser_cl.corpora.table_file import READERS, TEXTS, read_rows
from speechbrain_ser_cl.utils.errors import FileError
from speechbrain_ser_cl.utils.files import read_text

_START = ("start", "begin", "onset", "start_s")
_END = ("end", "stop", "offset", "end_s")
_WHO = ("speaker", "name", "who")


class Turn(NamedTuple):
    """A time span in which one person speaks.

    Arguments
    ---------
    start, end : float
        In seconds.
    speaker : str or None
        Name of the speaker.

    Example
    -------
    >>> Turn(0.5, 2.0, "A").speaker
    'A'
    """

    start: float
    end: float
    speaker: str | None = None


def read_turns(path: str | Path, recording: str | None = None) -> list[Turn]:
    r"""Reads speaker turns.

    Arguments
    ---------
    path : str or pathlib.Path
        ``.rttm`` (NIST's, lines of type SPEAKER), or a table with columns ``start`` and
        ``end`` in seconds, and optionally ``speaker``.
    recording : str, optional
        Name of the recording to read, if an RTTM has several.

    Returns
    -------
    list of Turn
        Sorted by start.

    Raises
    ------
    FileError
        For a line that is not a turn, and if there are no turns.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.rttm"
    >>> _ = path.write_text("SPEAKER a 1 0.5 1.5 <NA> <NA> anna <NA> <NA>\n")
    >>> read_turns(path)
    [Turn(start=0.5, end=2.0, speaker='anna')]
    """
    path = Path(path)
    table = path.suffix.lower() in (*TEXTS, *READERS)
    turns = _of_table(path) if table else _of_rttm(path, recording)
    if not turns:
        of = f" of {recording}" if recording else ""
        raise FileError(f"{path}: no turn{of}; expected lines that begin with SPEAKER")
    return sorted(turns, key=lambda turn: (turn.start, turn.end, str(turn.speaker)))


def _of_rttm(path: Path, recording: str | None) -> list[Turn]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        cells = line.split()
        if not cells or cells[0].startswith(";") or cells[0] != "SPEAKER":
            continue
        where = f"{path}, line {number}"
        if len(cells) < 8:
            raise FileError(f"{where}: {len(cells)} fields, expected 8 or more")
        start, duration = _seconds(where, cells[3:5])
        rows.append((cells[1], Turn(start, start + duration, cells[7])))
    names = {name for name, _ in rows}
    if recording is None or len(names) == 1:
        if len(names) > 1:
            raise FileError(
                f"{path}: turns of {len(names)} recordings; expected those of one"
            )
        return [_checked(path, turn) for _, turn in rows]
    plain = "_".join(recording.split())  # RTTM has no blanks in names
    return [_checked(path, turn) for name, turn in rows if name == plain]


def _of_table(path: Path) -> list[Turn]:
    rows = read_rows(path)
    columns = {name.lower(): name for name in rows[0]}
    start, end, who = (
        next((columns[name] for name in names if name in columns), None)
        for names in (_START, _END, _WHO)
    )
    if start is None or end is None:
        raise FileError(
            f"{path}: the columns are {', '.join(rows[0])}, expected start and end in "
            "seconds, and perhaps speaker"
        )
    turns = []
    for number, row in enumerate(rows, 2):
        first, last = _seconds(f"{path}, row {number}", [row[start], row[end]])
        turns.append(
            _checked(path, Turn(first, last, row[who] or None if who else None))
        )
    return turns


def _seconds(where: str, cells: Sequence[str]) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        raise FileError(
            f"{where}: found {', '.join(cells)}, expected numbers of seconds"
        ) from None


def _checked(path: Path, turn: Turn) -> Turn:
    if not 0 <= turn.start < turn.end < float("inf"):
        raise FileError(
            f"{path}: a turn from {turn.start} to {turn.end} s, expected a start of at "
            "least 0 and an end after it"
        )
    return turn
