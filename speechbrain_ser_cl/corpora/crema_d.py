"""Reads CREMA-D with its listener votes (Cao et al. 2014)."""

import csv
from dataclasses import replace
from pathlib import Path

from speechbrain_ser_cl.corpora.cards import CardReader
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import walk

VOTES = "processedResults/tabulatedVotes.csv"
# First digit of the row's number, which is in a column without a name.
MODALITIES = {"voice": "1", "face": "2", "both": "3"}
COLUMNS = {
    "A": "angry",
    "D": "disgusted",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
}


class CremaDReader(CardReader):
    """Reads CREMA-D by its card, with the votes of the listeners where the file exists.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora.cards import get_card
    >>> CremaDReader(get_card("crema_d"))("/data/crema_d", modality="sound")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: crema_d: modality is 'sound', \
expected one of voice, face, both
    """

    def __call__(
        self,
        folder: str | Path,
        allow_missing: bool = False,
        modality: str = "voice",
    ) -> list[Utterance]:
        """Reads the corpus.

        Arguments
        ---------
        folder : str or pathlib.Path
            Folder of the corpus, its parent or one of its subfolders.
        allow_missing : bool
            Whether missing files, corrupt files and wrong counts give one warning
            instead of an error.
        modality : str
            What the raters judged: ``"voice"``, ``"face"`` or ``"both"``.

        Returns
        -------
        list of Utterance
            Sorted by id. If ``processedResults/tabulatedVotes.csv`` exists, with
            ``votes`` and the dimension ``level``: mean rated strength of the chosen
            emotion, 0 to 100.

        Raises
        ------
        CorpusError
            As for :class:`CardReader`, and if the table of votes lacks a file or a
            number.
        """
        if modality not in MODALITIES:
            raise CorpusError(
                f"{self.card.name}: modality is {modality!r}, expected one of "
                f"{', '.join(MODALITIES)}"
            )
        utterances = super().__call__(folder, allow_missing)
        path = _table(Path(folder).absolute())
        if path is None:
            return utterances
        heard = _read(path, MODALITIES[modality])
        names = [utterance.path.stem for utterance in utterances]
        absent = [name for name in names if name not in heard]
        if absent:
            raise CorpusError(
                f"{self.card.name}: {path} has no votes by {modality} for "
                f"({offenders(absent)}). Get the complete file, or remove it"
            )
        return [
            replace(utterance, votes=heard[name][0], dimensions=heard[name][1])
            for utterance, name in zip(utterances, names, strict=True)
        ]


def _table(folder: Path) -> Path | None:
    near = (parent / VOTES for parent in (folder, *folder.parents[:2]))
    inside = (Path(path) for path in walk(folder) if path.endswith(f"/{VOTES}"))
    return next((path for path in near if path.is_file()), next(inside, None))


def _read(path: Path, digit: str) -> dict[str, tuple[dict[str, int], dict[str, float]]]:
    """Reads the votes and the level of each file name."""
    heard = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                if row[""].startswith(digit):
                    votes = {name: int(row[code]) for code, name in COLUMNS.items()}
                    level = {"level": float(row["meanEmoResp"])}
                    heard[row["fileName"]] = votes, level
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(
            f"{path}: not the table of votes of CREMA-D ({error!r}); expected columns "
            f"{', '.join(COLUMNS)}, fileName, meanEmoResp with numbers"
        ) from error
    return heard
