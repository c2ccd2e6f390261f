"""Audio inside the page, if the corpus' licence allows it."""

import base64
import io
from pathlib import Path

import soundfile

from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, load_audio

MOST_SECONDS = 8.0


def data_uri(path: Path) -> str:
    """Encodes the beginning of an audio file as a ``data:`` URI.

    FLAC at 16 kHz, which browsers play and libsndfile always writes.

    Arguments
    ---------
    path : pathlib.Path
        File that ``load_audio`` reads.

    Returns
    -------
    str
        URI of at most 8 s, about 20 kB.

    Raises
    ------
    AudioError
        If the file cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 16000, 16000)
    >>> data_uri(path)[:24]
    'data:audio/flac;base64,Z'
    """
    samples = load_audio(path).numpy()[: int(MOST_SECONDS * SAMPLE_RATE)]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{encoded}"
