"""Writes corpora with real names and label files, and a few milliseconds of noise."""

import io
import os
import shutil
from collections import Counter
from itertools import islice, product
from pathlib import Path

import numpy
import soundfile

MAC_RUBBISH = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "

# Per session, as published; the rest of the 10 039 turns is spread over them.
IEMOCAP_SESSIONS = (
    {"ang": 229, "hap": 135, "exc": 143, "neu": 384, "sad": 194},
    {"ang": 137, "hap": 117, "exc": 210, "neu": 362, "sad": 197},
    {"ang": 240, "hap": 135, "exc": 151, "neu": 320, "sad": 305},
    {"ang": 327, "hap": 65, "exc": 238, "neu": 258, "sad": 143},
    {"ang": 170, "hap": 143, "exc": 299, "neu": 384, "sad": 245},
)
IEMOCAP_OTHERS = {"fru": 1849, "fea": 40, "sur": 107, "dis": 2, "oth": 3, "xxx": 2507}
IEMOCAP_PARTS = (
    *(f"impro{n:02d}" for n in range(1, 9)),
    *("script01_1", "script01_2", "script01_3", "script02_1", "script02_2"),
)
# The dialogue is the man's, but nine of its turns are the woman's.
IEMOCAP_TRAP = ("Ses05M_script01_1b", {"F": 9, "M": 15})

MSP_IMPROV_CODES = {"A": 792, "H": 2644, "N": 3477, "S": 885, "O": 84, "X": 556}
MSP_IMPROV_SCENARIOS = {"P": 2785, "R": 4381, "S": 652, "T": 620}


def wav_bytes(frames: int, rate: int, channels: int = 1) -> bytes:
    """Makes a wav file with quiet noise, always the same."""
    noise = numpy.random.default_rng(0).normal(0, 0.01, size=(frames, channels))
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def write_iemocap(folder: Path, frames: int = 160) -> Path:
    """Writes all 10 039 turns of IEMOCAP below ``folder / "IEMOCAP_full_release"``."""
    root = folder / "IEMOCAP_full_release"
    audio = wav_bytes(frames, 16000)
    others = [c for code, number in IEMOCAP_OTHERS.items() for c in [code] * number]
    for session, classes in enumerate(IEMOCAP_SESSIONS, start=1):
        codes = [c for code, number in classes.items() for c in [code] * number]
        codes += others[session - 1 :: 5]
        dialogues = {}
        if session == 5:
            name, speakers = IEMOCAP_TRAP
            dialogues[name] = [
                (f"{name}_{letter}{n:03d}", codes.pop())
                for letter, number in speakers.items()
                for n in range(number)
            ]
        names = [f"Ses0{session}{x}_{part}" for x in "FM" for part in IEMOCAP_PARTS]
        for i, code in enumerate(codes):
            dialogue = names[i % len(names)]
            turn = i // len(names)
            dialogues.setdefault(dialogue, []).append(
                (f"{dialogue}_{'FM'[turn % 2]}{turn // 2:03d}", code)
            )
        _write_session(root / f"Session{session}", dialogues, audio)
    return root


def _write_session(session: Path, dialogues: dict, audio: bytes) -> None:
    labels = session / "dialog" / "EmoEvaluation"
    for folder in ("Attribute", "Categorical", "Self-evaluation"):
        (labels / folder).mkdir(parents=True)
    for dialogue, turns in dialogues.items():
        sentences = session / "sentences" / "wav" / dialogue
        sentences.mkdir(parents=True)
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for i, (name, code) in enumerate(turns):
            lines += [
                f"[{2.5 * i:.4f} - {2.5 * i + 2:.4f}]\t{name}\t{code}\t"
                "[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()",
                "C-E4:\tFrustration; Anger;\t(tired)",
                "C-F1:\tNeutral;\t()",
                "A-E3:\tval 3; act 2; dom  2;\t()",
                "A-F1:\tval 3; act 2; dom  1;\t()",
                "",
            ]
            (sentences / f"{name}.wav").write_bytes(audio)
        (labels / f"{dialogue}.txt").write_text("\n".join(lines))
        (labels / f"._{dialogue}.txt").write_bytes(MAC_RUBBISH)
        (labels / "Categorical" / f"{dialogue}_e2_cat.txt").write_text(
            f"{turns[0][0]} :Neutral state; ()\n"
        )
        (sentences / f"._{turns[0][0]}.wav").write_bytes(MAC_RUBBISH)


def write_msp_improv(
    folder: Path,
    label_file: str = "Evaluation.txt",
    audio_folder: str = ".",
    frames: int = 441,
) -> Path:
    """Writes all 8438 turns of MSP-IMPROV below ``folder / "MSP-IMPROV"``."""
    root = folder / "MSP-IMPROV"
    audio = wav_bytes(frames, 44100)
    # Coprime steps, so that every class occurs in every scenario and speaker.
    codes = [c for code, number in MSP_IMPROV_CODES.items() for c in [code] * number]
    codes = [codes[i * 1009 % len(codes)] for i in range(len(codes))]
    scenarios = [c for c, number in MSP_IMPROV_SCENARIOS.items() for _ in range(number)]
    turns = Counter()
    lines = []
    for i, (code, scenario) in enumerate(zip(codes, scenarios, strict=True)):
        session, letter = i % 6 + 1, "FM"[i // 6 % 2]
        sentence = f"S{i // 12 % 20 + 1:02d}{'AHSN'[i // 240 % 4]}"
        group = f"{sentence}-{letter}0{session}-{scenario}"
        turns[group] += 1
        name = f"{group}-{('FM', 'MF')[i % 2]}{turns[group]:02d}"
        dominance = "NaN" if i % 50 == 0 else "2.571429"
        lines += [
            f"UTD-IMPROV-{name}.avi; {code}; A:1.857143; V:3.0; D:{dominance} ; "
            "N:4.428571;",
            "WORKER00000001; Neutral; Neutral; A:3.000000; V:3.000000; D:NaN; N:5.0;",
            "WORKER00000002; Other; \xbfcalm?; A:1.0; V:3.0; D:3.0; N:4.0;",
            "",
        ]
        path = root / audio_folder / f"session{session}" / sentence / scenario
        path.mkdir(parents=True, exist_ok=True)
        (path / f"MSP-IMPROV-{name}.wav").write_bytes(audio)
    (root / label_file).write_text("\n".join(lines), encoding="latin-1")
    (root / f"._{label_file}").write_bytes(MAC_RUBBISH)
    return root


def write_emodb(folder: Path) -> Path:
    """Writes all 535 files of EmoDB below ``folder / "EmoDB"``, of three lengths."""
    counts = {"W": 127, "L": 81, "E": 46, "A": 69, "F": 71, "T": 62, "N": 79}
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    texts = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
    root = folder / "EmoDB"
    (root / "wav").mkdir(parents=True)
    lengths = [wav_bytes(frames, 16000) for frames in (160, 170, 180)]
    for code, number in counts.items():
        names = islice(product("abc", speakers, texts), number)
        for i, (version, speaker, text) in enumerate(names):
            path = root / "wav" / f"{speaker}{text}{code}{version}.wav"
            path.write_bytes(lengths[i % 3])
    return root


def write_ravdess(folder: Path) -> Path:
    """Writes all 1440 files of RAVDESS below ``folder / "RAVDESS"``, one in stereo."""
    root = folder / "RAVDESS"
    mono, stereo = wav_bytes(480, 48000), wav_bytes(480, 48000, channels=2)
    for actor in range(1, 25):
        (root / f"Actor_{actor:02d}").mkdir(parents=True)
        for emotion, strength, text, take in product(range(1, 9), *[(1, 2)] * 3):
            if (emotion, strength) != (1, 2):  # neutral has one intensity
                name = f"03-01-{emotion:02d}-0{strength}-0{text}-0{take}-{actor:02d}"
                path = root / f"Actor_{actor:02d}" / f"{name}.wav"
                path.write_bytes(stereo if name == "03-01-08-01-02-02-01" else mono)
    return root


def write_crema_d(folder: Path) -> Path:
    """Writes all 7442 files of CREMA-D below ``folder / "CREMA-D"``, with speakers."""
    texts = (
        "IEO",
        "TIE",
        "IOM",
        "IWW",
        "TAI",
        "MTI",
        "IWL",
        "ITH",
        "DFA",
        "ITS",
        "TSI",
        "WSI",
    )
    root = folder / "CREMA-D"
    (root / "AudioWAV").mkdir(parents=True)
    audio = wav_bytes(160, 16000)
    for code in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
        number = 1087 if code == "NEU" else 1271
        names = product(("XX", "LO", "MD", "HI"), texts, range(1001, 1092))
        for strength, text, actor in islice(names, number):
            path = root / "AudioWAV" / f"{actor}_{text}_{code}_{strength}.wav"
            path.write_bytes(audio)
    # As in the original, one name has a single X.
    path = root / "AudioWAV" / "1040_ITH_SAD_XX.wav"
    path.rename(path.with_name("1040_ITH_SAD_X.wav"))
    rows = [
        f"{actor},30,{('Male', 'Female')[actor % 2]},Caucasian,Not Hispanic"
        for actor in range(1001, 1092)
    ]
    (root / "VideoDemographics.csv").write_text(
        "\n".join(["ActorID,Age,Sex,Race,Ethnicity", *rows])
    )
    return root


def write_casia(folder: Path) -> Path:
    """Writes all 1200 files of CASIA below ``folder / "CASIA"``, original names."""
    root = folder / "CASIA"
    audio = wav_bytes(160, 16000)
    speakers = ("liuchanhg", "wangzhe", "zhaoquanyin", "ZhaoZuoxiang")
    emotions = ("angry", "fear", "happy", "neutral", "sad", "surprise")
    for speaker, emotion in product(speakers, emotions):
        path = root / speaker / emotion
        path.mkdir(parents=True)
        for sentence in range(201, 251):
            (path / f"{sentence}.wav").write_bytes(audio)
        (path / "._201.wav").write_bytes(MAC_RUBBISH)
    return root


def linked_copy(root: Path, folder: Path) -> Path:
    """Makes a copy to damage: files may be removed or replaced, never written into."""
    return Path(shutil.copytree(root, folder / root.name, copy_function=os.link))


def damage(path: Path, content: bytes) -> None:
    """Replaces a file of a linked copy, and keeps the original."""
    path.unlink()
    path.write_bytes(content)
