"""Converts windows of a recording to text for other programs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from speechbrain_ser_cl.recordings.stream import Heard

FORMATS = ("json", "csv", "rttm", "textgrid", "vtt")


class Span(NamedTuple):
    """A time span in which one emotion is the most probable.

    Arguments
    ---------
    start, end : float
        In seconds.
    emotion : str
        Name of the emotion.
    probability : float
        Mean over the span's windows.
    speaker : str or None
        Speaker, if turns were given.

    Example
    -------
    >>> Span(0.0, 2.0, "sad", 0.5, None).emotion
    'sad'
    """

    start: float
    end: float
    emotion: str
    probability: float
    speaker: str | None


def spans(windows: Sequence[Heard]) -> list[Span]:
    """Joins windows of each segment to spans that do not overlap.

    Two overlapping windows are separated at the middle of their overlap; adjacent
    windows of one emotion are joined.

    Arguments
    ---------
    windows : sequence of Heard
        Windows of a recording.

    Returns
    -------
    list of Span
        Sorted by start.

    Example
    -------
    >>> def heard(start, end, emotion):
    ...     return Heard(emotion, {emotion: 0.75}, start, end)
    >>> told = [heard(0, 2, "sad"), heard(1, 3, "sad"), heard(2, 4, "angry")]
    >>> [span[:3] for span in spans(told)]
    [(0, 2.5, 'sad'), (2.5, 4, 'angry')]
    """
    found: list[Span] = []
    segments: dict[int, list[Heard]] = {}
    for window in windows:
        segments.setdefault(window.segment, []).append(window)
    for own in segments.values():
        own = sorted(own, key=lambda window: window.start)
        edges = [(a.end + b.start) / 2 for a, b in zip(own, own[1:], strict=False)]
        edges = [own[0].start, *edges, own[-1].end]
        runs: list[list[int]] = []
        for k, window in enumerate(own):
            if runs and own[runs[-1][-1]].emotion == window.emotion:
                runs[-1].append(k)
            else:
                runs.append([k])
        found += [
            Span(
                edges[run[0]],
                edges[run[-1] + 1],
                own[run[0]].emotion,
                sum(own[k].probability for k in run) / len(run),
                own[0].speaker,
            )
            for run in runs
        ]
    return sorted(found, key=lambda span: (span.start, str(span.speaker)))


def written(windows: Sequence[Heard], name: str, format: str, length: float) -> str:
    r"""Converts the windows of a recording to text.

    Arguments
    ---------
    windows : sequence of Heard
        Windows of the recording.
    name : str
        Name of the recording.
    format : str
        ``json`` (windows and spans), ``csv`` (windows), ``rttm`` (NIST's lines, with
        the emotion as speaker name and the probability as confidence), ``textgrid``
        (Praat, one tier per speaker), ``vtt`` (WebVTT, subtitles).
    length : float
        Length of the recording in seconds.

    Returns
    -------
    str
        Text in this format.

    Example
    -------
    >>> one = Heard("sad", {"sad": 0.75, "happy": 0.25}, 1.0, 3.0)
    >>> print(written([one], "call", "rttm", 5.0))
    SPEAKER call 1 1.000 2.000 <NA> <NA> sad 0.750 <NA>
    <BLANKLINE>
    """
    if format == "json":
        record = {
            "file": name,
            "seconds": length,
            "windows": [window.as_dict() for window in windows],
            "spans": [span._asdict() for span in spans(windows)],
        }
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    if format == "csv":
        return _csv(windows)
    if format == "rttm":
        plain = "_".join(name.split()) or "recording"
        return "".join(
            f"SPEAKER {plain} 1 {s.start:.3f} {s.end - s.start:.3f} <NA> <NA> "
            f"{'_'.join(s.emotion.split())} {s.probability:.3f} <NA>\n"
            for s in spans(windows)
        )
    return _textgrid(windows, length) if format == "textgrid" else _vtt(windows)


def _csv(windows: Sequence[Heard]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = list(windows[0].probabilities) if windows else []
    header = ["start", "end", "speaker", "emotion", "probability"]
    writer.writerow([*header, *(f"p_{name}" for name in names)])
    for one in windows:
        shares = [one.probability, *one.probabilities.values()]
        cells = [f"{one.start:.3f}", f"{one.end:.3f}", one.speaker or "", one.emotion]
        writer.writerow([*cells, *(f"{share:.6f}" for share in shares)])
    return file.getvalue()


def _textgrid(windows: Sequence[Heard], length: float) -> str:
    """Formats as Praat's long text: intervals without gaps, empty without speech."""
    tiers: dict[str, list[Span]] = {}
    for span in spans(windows):
        tiers.setdefault(span.speaker or "emotion", []).append(span)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {length:.6f}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines.append("item []:")
    for number, (name, own) in enumerate(tiers.items(), 1):
        intervals, reached = [], 0.0
        for span in own:
            start = max(span.start, reached)  # turns of one speaker may overlap
            if start > reached:
                intervals.append((reached, start, ""))
            if span.end > start:
                intervals.append((start, span.end, span.emotion))
            reached = max(reached, span.end)
        if length > reached:
            intervals.append((reached, length, ""))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quoted(name)}", "        xmin = 0"]
        lines.append(f"        xmax = {length:.6f}")
        lines.append(f"        intervals: size = {len(intervals)}")
        for k, (start, end, text) in enumerate(intervals, 1):
            lines += [f"        intervals [{k}]:", f"            xmin = {start:.6f}"]
            lines.append(f"            xmax = {end:.6f}")
            lines.append(f"            text = {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _vtt(windows: Sequence[Heard]) -> str:
    cues = ["WEBVTT\n"]
    for span in spans(windows):
        voice = f"<v {_plain(span.speaker)}>" if span.speaker else ""
        cues.append(
            f"{_clock(span.start)} --> {_clock(span.end)}\n"
            f"{voice}{_plain(span.emotion)} {100 * span.probability:.0f} %\n"
        )
    return "\n".join(cues)


def _plain(text: str) -> str:
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, entity)
    return " ".join(text.split())


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
