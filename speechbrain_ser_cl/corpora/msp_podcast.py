"""Reads MSP-Podcast, which lists its parts twice (Lotfian and Busso 2019)."""

import re
from functools import cache
from pathlib import Path

from typing_extensions import override

from speechbrain_ser_cl.corpora.cards import CardReader, Listing, Rows, find_table
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.utils.errors import offenders

# By its name in most releases; lines such as "Train; MSP-PODCAST_0023_0048.wav".
PARTS = ("Partitions.txt", "Partition.txt")


class MSPPodcastReader(CardReader):
    """Reads MSP-Podcast by its card; its two lists of parts must be equal.

    Parts are those of ``Split_Set`` in ``Labels/labels_consensus.csv``. If there is a
    ``Partitions.txt``, a turn that has another part there, or is missing there, raises
    ``CorpusError``.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora.cards import get_card
    >>> MSPPodcastReader(get_card("msp_podcast"))("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: msp_podcast: there is no folder \
no/such/folder
    """

    @override
    def check(self, rows: Rows, listing: Listing) -> None:
        path = next(filter(None, (find_table(name, listing) for name in PARTS)), None)
        if path is None:
            return
        words = self.card.fields["part"].words

        @cache
        def part(word: str) -> str | None:
            fitting = (mean for code, mean in words.items() if re.fullmatch(code, word))
            return next(fitting, word)

        said: dict[str, tuple[str, int]] = {}
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                word, mark, name = line.partition(";")
                if mark:  # a heading has none
                    said[Path(name.strip()).stem] = word.strip(), number
        absent, wrong = [], []
        for _, row in rows:
            found = said.get(row["stem"])
            if found is None:
                absent.append(row["stem"])
            elif part(found[0]) != part(row.get("Split_Set", "")):
                wrong.append((found, row))
        advice = "Get both files of one release"
        if wrong:
            (word, number), row = wrong[0]
            raise CorpusError(
                f"{self.card.name}: {path}, line {number}: {row['stem']} is in "
                f"{word!r}, expected {row.get('Split_Set')!r}, its Split_Set in "
                f"{self.card.tables[0].file} ({len(wrong)} turns differ). {advice}"
            )
        if absent:
            raise CorpusError(
                f"{self.card.name}: {path} has no line for ({offenders(absent)}). "
                f"{advice}"
            )
