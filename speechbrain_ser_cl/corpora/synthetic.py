"""Writes and reads two built-in corpora of synthetic speech, for demos and tests.

The voice is a source-filter model of speech (Fant 1960): glottal pulses and breath
noise, filtered by the resonances of the vocal tract (cascade of second-order
resonators, Klatt 1980). Emotions change what they change in acted speech (Banse &
Scherer 1996): pitch, its range, rate, level, spectral tilt, breathiness. Results on
these corpora do not tell how well a method works on people.
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import soundfile

from speechbrain_ser_cl.corpora.checks import Candidate, locate, make_utterances
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE
from speechbrain_ser_cl.utils.files import replacing
from speechbrain_ser_cl.utils.records import read, write
from speechbrain_ser_cl.utils.schemas import SYNTHETIC

CONTENTS = "corpus.json"
TABLE = "labels.csv"
# Part of the settings: folders from another version are written again.
VERSION = 1

# First three formants in Hz (Peterson & Barney 1952, men); women's are higher.
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (490, 1350, 1690),
)
FOURTH_FORMANT = 3500
BANDWIDTHS = (80, 100, 140, 220)
TEXTS = 10


@dataclass(frozen=True)
class _Voice:
    """Speech parameters of an emotion."""

    pitch: float  # semitones above the speaker's own
    pitch_range: float  # semitones
    rate: float  # syllables per second
    level: float  # dB
    tilt: float  # pole of the glottal low-pass; near 1: dark
    breath: float  # noise beside the pulses
    formants: float  # factor on the vocal tract length, shortened by smiling


EMOTION_VOICES = {
    "neutral": _Voice(0.0, 2.0, 4.4, 0.0, 0.94, 0.012, 1.00),
    "happy": _Voice(4.0, 5.0, 4.8, 3.0, 0.92, 0.012, 1.08),
    "sad": _Voice(-1.0, 1.5, 3.6, -4.0, 0.97, 0.22, 0.92),
    "angry": _Voice(3.5, 4.0, 5.2, 5.0, 0.85, 0.22, 0.92),
}


@dataclass(frozen=True)
class _Style:
    """Recording conditions and speakers of a corpus."""

    band: tuple[float, float]  # Hz
    gain: float  # dB, on average
    noise: float  # dB full scale, on average
    pitch: float  # semitones above the usual
    breath: float  # times the usual


STYLES = {
    "synthetic_source": _Style((60, 7000), -3.0, -56.0, 0.0, 1.0),
    "synthetic_target": _Style((400, 4000), -6.0, -57.0, 1.0, 4.0),
}


def write_synthetic(
    folder: str | Path,
    corpus: str,
    seed: int = 0,
    n_speakers: int = 8,
    utterances_per_speaker: int = 20,
    listeners: int = 0,
) -> Path:
    """Writes a corpus of synthetic speech.

    Files are identical for identical arguments and versions of numpy and scipy.

    Women and men alternate as speakers, two per session. Each speaker says one of ten
    texts in a neutral, happy, sad and angry voice in turn, 1 to 2.5 s each. The two
    corpora differ in band, level, noise and speakers, so that a model trained on one is
    less accurate on the other. A complete folder with the same settings is not changed.

    Arguments
    ---------
    folder : str or pathlib.Path
        Output folder. ``corpus.json`` is written last, after the audio and
        ``labels.csv``, a table with the columns file, emotion, speaker.
    corpus : str
        ``"synthetic_source"`` or ``"synthetic_target"``.
    seed : int
        Seed of speakers and utterances.
    n_speakers : int
        At least 1.
    utterances_per_speaker : int
        At least 1.
    listeners : int
        Number of listeners who vote on each utterance. Each votes for its emotion with
        probability 0.6, else for neutral or another. Above 0, utterances also have the
        dimension ``level``, 0 to 100.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        For another corpus name, or a number below 1.

    Example
    -------
    >>> folder = write_synthetic(
    ...     getfixture("tmp_path"),
    ...     "synthetic_target",
    ...     n_speakers=2,
    ...     utterances_per_speaker=4,
    ... )
    >>> len(read_synthetic(folder))
    8
    """
    if corpus not in STYLES:
        raise ValueError(
            f"there is no synthetic corpus {corpus!r}, only {', '.join(STYLES)}"
        )
    if min(n_speakers, utterances_per_speaker) < 1:
        raise ValueError(
            f"n_speakers {n_speakers} and utterances_per_speaker "
            f"{utterances_per_speaker} must be at least 1"
        )
    folder = Path(folder)
    settings = {
        "version": VERSION,
        "corpus": corpus,
        "seed": seed,
        "n_speakers": n_speakers,
        "utterances_per_speaker": utterances_per_speaker,
    }
    if listeners:
        settings["listeners"] = listeners
    contents = folder / CONTENTS
    if contents.is_file():
        written = read(contents, SYNTHETIC)
        if written["settings"] == settings and all(
            (folder / entry["file"]).is_file() for entry in written["utterances"]
        ):
            return folder
        contents.unlink()
        shutil.rmtree(folder / "wav", ignore_errors=True)

    (folder / "wav").mkdir(parents=True, exist_ok=True)
    entries = []
    for speaker in range(n_speakers):
        for number in range(utterances_per_speaker):
            emotion = list(EMOTION_VOICES)[number % len(EMOTION_VOICES)]
            name = f"s{speaker:02d}_u{number:03d}_{emotion}"
            text = int(_rng(seed, corpus, speaker, number, "text").integers(TEXTS))
            samples = _utterance(seed, corpus, speaker, number, text, emotion)
            file = f"wav/{name}.wav"
            with replacing(folder / file) as part:
                soundfile.write(
                    part, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV"
                )
            candidate = Candidate(
                name=name,
                path=None,
                speaker=f"s{speaker:02d}",
                emotion=emotion,
                session=f"session{speaker // 2 + 1}",
                gender=_gender(speaker),
                text_id=f"t{text}",
                **_heard(
                    _rng(seed, corpus, speaker, number, "votes"), emotion, listeners
                ),
            )
            entries.append({"file": file} | asdict(candidate))
    rows = [f"{e['file']},{e['emotion']},{corpus}_{e['speaker']}\n" for e in entries]
    with replacing(folder / TABLE) as part:
        part.write_text("file,emotion,speaker\n" + "".join(rows), encoding="utf-8")
    write(contents, SYNTHETIC, {"settings": settings, "utterances": entries})
    return folder


def _heard(rng: numpy.random.Generator, emotion: str, listeners: int) -> dict[str, Any]:
    """Draws votes and level of an utterance, if there are listeners."""
    if not listeners:
        return {}
    names = list(EMOTION_VOICES)
    shares = 0.1 + 0.1 * (numpy.array(names) == "neutral")
    shares[names.index(emotion)] += 0.5
    counts = rng.multinomial(listeners, shares / shares.sum())
    level = 50 + 5 * EMOTION_VOICES[emotion].level + rng.normal(0, 8)
    return {
        "votes": dict(zip(names, counts.tolist(), strict=True)),
        "dimensions": {"level": round(float(numpy.clip(level, 0, 100)), 2)},
    }


# Also by the corpus name of their utterances, for recipes that use both.
@CORPORA.register("synthetic_source")
@CORPORA.register("synthetic_target")
@CORPORA.register("synthetic")
def read_synthetic(folder: str | Path, allow_missing: bool = False) -> list[Utterance]:
    """Reads a corpus that ``write_synthetic`` wrote.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder with ``corpus.json``.
    allow_missing : bool
        Whether missing or corrupt audio gives one warning instead of an error.

    Returns
    -------
    list of Utterance
        Sorted by id; language ``"zxx"`` (no linguistic content).

    Raises
    ------
    CorpusError
        For a wrong or incomplete folder. Unless ``allow_missing``, also for missing or
        corrupt audio.

    Example
    -------
    >>> read_synthetic("no/such/folder")
    Traceback (most recent call last):
    speechbrain_ser_cl.corpora.checks.CorpusError: synthetic: there is no folder \
no/such/folder
    """
    root = locate(
        folder, "synthetic", ["."], CONTENTS, lambda root: (root / CONTENTS).is_file()
    )
    written = read(root / CONTENTS, SYNTHETIC)
    candidates = []
    for entry in written["utterances"]:
        path = root / entry["file"]
        told: dict[str, Any] = {**entry, "path": path if path.is_file() else None}
        del told["file"]
        candidates.append(Candidate(**told))
    return make_utterances(
        candidates,
        corpus=written["settings"]["corpus"],
        language="zxx",
        folder=root,
        expected={"utterances": len(written["utterances"])},
        allow_missing=allow_missing,
    )


def _gender(speaker: int) -> str:
    return ("female", "male")[speaker % 2]


def _rng(*key: object) -> numpy.random.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return numpy.random.Generator(
        numpy.random.PCG64(int.from_bytes(digest[:16], "little"))
    )


def _utterance(
    seed: int, corpus: str, speaker: int, number: int, text: int, emotion: str
) -> numpy.ndarray:
    """Makes one recorded utterance: (T,) in [-1, 1]."""
    person = _rng(seed, corpus, speaker)
    female = _gender(speaker) == "female"
    pitch = (210.0 if female else 115.0) * 2 ** (person.normal(0, 1.5) / 12)
    tract = (1.16 if female else 1.0) * (1 + person.normal(0, 0.02))
    habit = person.normal(0, 1, size=4)  # rate, level, tilt, breath

    rng = _rng(seed, corpus, speaker, number)
    mood = EMOTION_VOICES[emotion]
    slip = rng.normal(0, 1, size=7)  # variation between utterances of a speaker
    style = STYLES[corpus]
    pitch *= 2 ** ((mood.pitch + style.pitch + 1.5 * slip[0]) / 12)
    pitch_range = max(0.5, mood.pitch_range + 0.8 * slip[1])
    rate = mood.rate * (1 + 0.05 * habit[0] + 0.08 * slip[2])
    level = mood.level + 1.5 * habit[1] + 2.0 * slip[3]
    tilt = 1 - (1 - mood.tilt) * 2 ** (0.2 * habit[2] + 0.4 * slip[4])
    breath = mood.breath * style.breath * 2 ** (0.3 * habit[3] + 0.5 * slip[5])
    tract *= mood.formants * (1 + 0.015 * slip[6])

    words = _rng("text", int(text))
    vowels = words.integers(len(VOWELS), size=words.integers(5, 9))
    seconds = numpy.clip(len(vowels) / rate, 1.0, 2.5)
    length = int(seconds * SAMPLE_RATE)
    borders = _syllable_borders(rng, len(vowels), length)

    source = _source(rng, pitch, pitch_range, tilt, breath, borders)
    speech = _tract(source, vowels, tract, borders) * _loudness(rng, borders)
    speech *= 0.05 * 10 ** (level / 20) / numpy.sqrt(numpy.mean(speech**2))
    return _record(rng, speech, style)


def _syllable_borders(
    rng: numpy.random.Generator, syllables: int, length: int
) -> numpy.ndarray:
    """Draws the samples at which syllables begin, and the end: (syllables + 1,)."""
    durations = rng.uniform(0.75, 1.25, size=syllables)
    durations[-1] *= 1.3  # the last syllable of a phrase is longer
    ends = numpy.cumsum(durations) / durations.sum() * length
    return numpy.concatenate([[0], ends.round().astype(int)])


def _source(
    rng: numpy.random.Generator,
    pitch: float,
    pitch_range: float,
    tilt: float,
    breath: float,
    borders: numpy.ndarray,
) -> numpy.ndarray:
    """Makes glottal pulses that follow the intonation, and breath noise: (T,)."""
    from scipy import signal  # here, because importing it takes a second

    length = borders[-1]
    time = numpy.arange(length)
    centres = (borders[:-1] + borders[1:]) / 2
    accents = rng.normal(0, 0.5, size=len(centres))
    declination = numpy.linspace(0.5, -0.5, len(centres))
    semitones = pitch_range * numpy.interp(time, centres, accents + declination)
    # Jitter: each period's length varies by about one percent.
    points = numpy.arange(0, length + 80, 80)
    jitter = numpy.interp(time, points, rng.normal(0, 0.01, size=len(points)))
    cycles = numpy.cumsum(pitch * 2 ** (semitones / 12) * (1 + jitter)) / SAMPLE_RATE
    pulses = numpy.diff(numpy.floor(cycles), prepend=0.0)
    pulses *= 1 + 0.05 * rng.normal(size=length)  # shimmer
    pulses *= numpy.sqrt(SAMPLE_RATE / pitch)  # the same power at any pitch
    glottis = signal.lfilter([1 - tilt], [1, -tilt], pulses)
    return numpy.asarray(glottis + breath * rng.normal(size=length))


def _tract(
    source: numpy.ndarray,
    vowels: numpy.ndarray,
    scale: float,
    borders: numpy.ndarray,
) -> numpy.ndarray:
    """Filters the source by the resonators of one vowel after another: (T,)."""
    from scipy import signal  # here, because importing it takes a second

    speech = numpy.empty_like(source)
    state = numpy.zeros((len(BANDWIDTHS), 2))
    for vowel, begin, end in zip(vowels, borders[:-1], borders[1:], strict=True):
        formants = scale * numpy.array([*VOWELS[vowel], FOURTH_FORMANT])
        radius = numpy.exp(-numpy.pi * numpy.array(BANDWIDTHS) / SAMPLE_RATE)
        sections = numpy.zeros((len(BANDWIDTHS), 6))
        sections[:, 3] = 1
        sections[:, 4] = -2 * radius * numpy.cos(2 * numpy.pi * formants / SAMPLE_RATE)
        sections[:, 5] = radius**2
        sections[:, 0] = sections[:, 3:].sum(axis=1)  # gain 1 at 0 Hz
        speech[begin:end], state = signal.sosfilt(sections, source[begin:end], zi=state)
    return speech


def _loudness(rng: numpy.random.Generator, borders: numpy.ndarray) -> numpy.ndarray:
    """Makes a loudness curve with one peak per syllable: (T,) in [0.05, 1.2]."""
    loudness = numpy.empty(borders[-1])
    for begin, end in zip(borders[:-1], borders[1:], strict=True):
        phase = numpy.linspace(0, numpy.pi, end - begin)
        loudness[begin:end] = 0.05 + rng.uniform(0.75, 1.15) * numpy.sin(phase) ** 0.7
    return loudness


def _record(
    rng: numpy.random.Generator, speech: numpy.ndarray, style: _Style
) -> numpy.ndarray:
    """Adds microphone and room to the speech: (T,) in [-1, 1]."""
    from scipy import signal  # here, because importing it takes a second

    band = signal.butter(1, style.band, "bandpass", fs=SAMPLE_RATE, output="sos")
    hiss = signal.lfilter([1], [1, -0.7], rng.normal(size=len(speech)))
    gain, noise = rng.normal([style.gain, style.noise], 3.0)
    speech = 10 ** (gain / 20) * signal.sosfilt(band, speech)
    speech = speech + 10 ** (noise / 20) * hiss
    return numpy.asarray(numpy.clip(speech, -1, 1))
