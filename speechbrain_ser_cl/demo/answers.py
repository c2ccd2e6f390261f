"""Makes the page's answer for one audio file."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.data.quality.audio_facts import SILENT_PEAK
from speechbrain_ser_cl.inference import Answer, EmotionRecognizer, Rating
from speechbrain_ser_cl.recordings import EmotionStream, Turn, follow_file
from speechbrain_ser_cl.utils.audio import AudioError, load_audio
from speechbrain_ser_cl.utils.errors import SERError

LONGEST = 15 * 60.0  # seconds; limits time and memory for a small compressed file


class RefusedAudio(SERError):
    """Audio that the page does not classify; the message is for the page's user."""


def answer(
    recognizer: EmotionRecognizer,
    path: str | Path,
    window: float,
    activity: str = "none",
    turns: Sequence[Turn] | None = None,
) -> dict[str, Any]:
    """Classifies a file as a whole and in windows.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        The model.
    path : str or pathlib.Path
        Any file that libsndfile reads. No message contains its name.
    window : float
        Length of the windows of the timeline, in seconds.
    activity : str
        ``"energy"`` or ``"silero"``: the timeline has only speech, see
        ``EmotionStream``.
    turns : sequence of Turn, optional
        In place of ``activity``: the timeline has the windows of each turn, with its
        speaker, sorted by turn and time.

    Returns
    -------
    dict
        ``emotion``, ``probabilities``, ``start`` and ``end`` of the whole file, from
        ``recognizer.classify_file(path)``, and the ``timeline`` of
        ``recognizer.classify_file(path, window)``, which is empty if there is only one
        window. Values of dimensions come with ``shares`` from 0 to 1: the position of
        the value between two standard deviations below and above the mean of the
        training data.

    Raises
    ------
    RefusedAudio
        If the file is not audio, or is empty, damaged, silent or longer than 15 min.
    ValueError
        If the window is out of range, for another activity, and if all turns begin
        after the end of the recording.
    ImportError
        If silero is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "note.wav"
    >>> _ = path.write_text("not audio")
    >>> answer(None, path, 2.0)
    Traceback (most recent call last):
        ...
    speechbrain_ser_cl.demo.answers.RefusedAudio: this is not an audio file that can...
    """
    try:
        if load_audio(path, longest=LONGEST).abs().max() < SILENT_PEAK:
            raise RefusedAudio(
                "the audio is silent: no sample is above -60 dB of full "
                "scale. Was the right microphone chosen, and is it switched on?"
            )
        found = _told(recognizer, recognizer.classify_file(path))
        if activity == "none" and turns is None:
            timeline: Sequence[Answer] = recognizer.classify_file(path, window).timeline
        else:
            stream = EmotionStream(recognizer, window, activity=activity, turns=turns)
            timeline = sorted(follow_file(stream, path), key=attrgetter("segment"))
    except AudioError as error:
        why = str(error).removeprefix(f"{path}: ")
        if why.startswith("not a readable"):
            why = (
                "this is not an audio file that can be read; expected wav, flac, ogg, "
                "opus, mp3, aiff or au"
            )
        elif "expected at most" in why or "longer than" in why:
            why += ": cut it, or use `ser-cl predict`"
        raise RefusedAudio(why) from error
    return found | {"timeline": [_told(recognizer, one) for one in timeline]}


def _told(recognizer: EmotionRecognizer, one: Answer) -> dict[str, Any]:
    found = one.as_dict()
    if isinstance(one, Rating):
        means, scales = recognizer.model.mean or (), recognizer.model.scale or ()
        rows = zip(one.values.items(), means, scales, strict=True)
        found["shares"] = {
            name: min(max(0.5 + (value - mean) / (4 * scale), 0.0), 1.0)
            for (name, value), mean, scale in rows
        }
    return found
