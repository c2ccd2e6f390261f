"""Recognises emotions in long recordings and streams, in bounded memory."""

from speechbrain_ser_cl.recordings.activity import ACTIVITIES
from speechbrain_ser_cl.recordings.formats import FORMATS, spans, written
from speechbrain_ser_cl.recordings.stream import EmotionStream, Heard, follow_file
from speechbrain_ser_cl.recordings.turns import Turn, read_turns

__all__ = [
    "ACTIVITIES",
    "FORMATS",
    "EmotionStream",
    "Heard",
    "Turn",
    "follow_file",
    "read_turns",
    "spans",
    "written",
]
