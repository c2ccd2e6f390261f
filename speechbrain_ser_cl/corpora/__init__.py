"""Corpora: cards that describe them, and readers that return lists of ``Utterance``.

``speechbrain_ser_cl.registry.CORPORA.get("emodb")(folder)`` reads a corpus by its name.
"""

from speechbrain_ser_cl.corpora.card import Card, Licence, load_card
from speechbrain_ser_cl.corpora.cards import (
    CardReader,
    all_cards,
    get_card,
    register_cards,
)
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.crema_d import CremaDReader
from speechbrain_ser_cl.corpora.eesc import read_eesc
from speechbrain_ser_cl.corpora.folders import read_folders
from speechbrain_ser_cl.corpora.iemocap import read_iemocap
from speechbrain_ser_cl.corpora.m3ed import read_m3ed
from speechbrain_ser_cl.corpora.msp_improv import read_msp_improv
from speechbrain_ser_cl.corpora.msp_podcast import MSPPodcastReader
from speechbrain_ser_cl.corpora.pavoque import read_pavoque
from speechbrain_ser_cl.corpora.synthetic import read_synthetic, write_synthetic
from speechbrain_ser_cl.corpora.table import read_table
from speechbrain_ser_cl.corpora.utterance import EMOTIONS, Utterance

register_cards({"crema_d": CremaDReader, "msp_podcast": MSPPodcastReader})

__all__ = [
    "EMOTIONS",
    "Card",
    "CardReader",
    "CorpusError",
    "Licence",
    "MSPPodcastReader",
    "Utterance",
    "all_cards",
    "get_card",
    "load_card",
    "read_eesc",
    "read_folders",
    "read_iemocap",
    "read_m3ed",
    "read_msp_improv",
    "read_pavoque",
    "read_synthetic",
    "read_table",
    "write_synthetic",
]
