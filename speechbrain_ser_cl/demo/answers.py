"""What the page is told about one audio file."""

from pathlib import Path

import soundfile

from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.utils.audio import AudioError, load_audio
from speechbrain_ser_cl.utils.errors import SERError

# What a small compressed file can grow to: both bound time and memory.
LONGEST = 15 * 60.0  # s
MOST_SAMPLES = 2**27  # of all channels; 512 MiB as float32
_ELSEWHERE = "cut it, or use `ser-cl predict`"


class RefusedAudio(SERError):
    """Audio that the page does not classify, in words for who gave it."""


def answer(recognizer: EmotionRecognizer, path: str | Path, window: float) -> dict:
    """Classify a file as a whole and in windows.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The model.
    path : str or pathlib.Path
        Any file that libsndfile reads. Its name appears in no message.
    window : float
        Length of the windows of the time line, in seconds.

    Returns
    -------
    dict
        ``emotion``, ``probabilities``, ``start`` and ``end`` of the whole file, as
        ``recognizer.classify_file(path)`` gives them, and the ``timeline`` of
        ``recognizer.classify_file(path, window)``: empty where all is one window.

    Raises
    ------
    RefusedAudio
        If the file is not audio, or is empty, damaged, silent or too long.
    ValueError
        If the window is out of range.

    Example
    -------
    >>> path = getfixture("tmp_path") / "note.wav"
    >>> _ = path.write_text("not audio")
    >>> answer(None, path, 2.0)
    Traceback (most recent call last):
        ...
    speechbrain_ser_cl.demo.answers.RefusedAudio: this is not an audio file that can...
    """
    _check_size(path)
    try:
        if load_audio(path).abs().max() < SILENT_PEAK:
            raise RefusedAudio(
                "there is nothing to hear in it: no sample is above -60 dB of full "
                "scale. Was the right microphone chosen, and is it switched on?"
            )
        found = recognizer.classify_file(path).as_dict()
        timeline = recognizer.classify_file(path, window).as_dict()["timeline"]
    except AudioError as error:
        raise RefusedAudio(str(error).removeprefix(f"{path}: ")) from error
    return found | {"timeline": timeline}


def _check_size(path: str | Path) -> None:
    """Refuses what is no audio, or too much of it, from the file's header."""
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise RefusedAudio(
            "this is not an audio file that can be read; expected wav, flac, ogg, "
            "opus, mp3, aiff or au"
        ) from error
    if info.duration > LONGEST:
        raise RefusedAudio(
            f"it is {info.duration / 60:.0f} min long, and this page takes up to "
            f"{LONGEST / 60:.0f} min: {_ELSEWHERE}"
        )
    if info.frames * info.channels > MOST_SAMPLES:
        raise RefusedAudio(
            f"it has {info.frames * info.channels / 1e6:.0f} million samples, and this "
            f"page takes up to {MOST_SAMPLES / 1e6:.0f}: {_ELSEWHERE}"
        )
