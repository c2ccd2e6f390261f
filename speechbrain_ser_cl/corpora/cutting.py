"""Cuts utterances from long recordings."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import clear_unfinished


class Piece(NamedTuple):
    """Part of a file: name for errors, start and end in seconds."""

    name: str
    path: Path
    start: float
    end: float | None


def cut_pieces(
    pieces: Sequence[Piece | None],
    cut_into: str | Path | None,
    allow_missing: bool,
    where: str,
) -> list[Path | None]:
    """Writes the pieces as 16 kHz FLAC, unless the files exist.

    Arguments
    ---------
    pieces : sequence of Piece or None
        Pieces; None entries stay None.
    cut_into : str or pathlib.Path or None
        Output folder; created if needed.
    allow_missing : bool
        Whether pieces that cannot be cut become None.
    where : str
        Name of the corpus, for errors.

    Returns
    -------
    list of pathlib.Path or None
        File of each piece.

    Raises
    ------
    CorpusError
        If ``cut_into`` is None. Unless ``allow_missing``, also for pieces that cannot
        be cut.

    Example
    -------
    >>> cut_pieces([None], None, False, "calls")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: calls: 1 utterances are parts of \
longer files. Say where they are to be written: cut_into: /data/parts
    """
    from speechbrain_ser_cl.utils.audio import AudioError, cut_audio

    if cut_into is None:
        raise CorpusError(
            f"{where}: {len(pieces)} utterances are parts of longer files. Say where "
            "they are to be written: cut_into: /data/parts"
        )
    folder = Path(cut_into)

    def cut(piece: Piece | None) -> Path | str | None:
        if piece is None:
            return None
        try:
            return cut_audio(piece.path, piece.start, piece.end, folder)
        except AudioError as error:
            return f"{piece.name}: {error}"

    folder.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder)
    with ThreadPoolExecutor() as pool:
        found = list(
            tqdm(
                pool.map(cut, pieces),
                total=len(pieces),
                desc="cutting utterances",
                disable=None,
            )
        )
    wrong = [one for one in found if isinstance(one, str)]
    if wrong and not allow_missing:
        raise CorpusError(
            f"{where}: parts that cannot be cut ({offenders(wrong)}). Correct them, or "
            "set allow_missing: True to leave them out"
        )
    return [None if isinstance(one, str) else one for one in found]
