"""Every card, on a copy of full size with names generated from the card's pattern."""

import csv
import itertools
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy
import pytest

from speechbrain_ser_cl.corpora import CardReader, CorpusError, all_cards, cards
from speechbrain_ser_cl.corpora.card import load_card
from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.data.experiment import look_up_folders, read_corpus
from speechbrain_ser_cl.registry import CORPORA
from tests.hollow import wav_bytes

try:
    from re import _parser as parser
except ImportError:  # Python 3.10
    import sre_parse as parser

READABLE = {card.name: card for card in all_cards() if card.readable}
# Release of the copy, where the published counts are only a total.
RELEASE = {"msp_podcast": "the release of EmoBox"}


LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Names:
    """Generates numbered texts that match a regular expression."""

    def __init__(self, tree, given=None):
        self.parts = [self._part(str(k), v, given or {}) for k, v in tree]
        self.size = 1
        for part in self.parts:
            self.size *= part.size if isinstance(part, Names | Either) else len(part)

    def __getitem__(self, number):
        text = ""
        for part in reversed(self.parts):
            size = part.size if isinstance(part, Names | Either) else len(part)
            text = part[number % size] + text
            number //= size
        return text

    def __iter__(self):
        return (self[i] for i in range(self.size))

    def _part(self, kind, value, given):
        if kind == "SUBPATTERN":
            number, *_, tree = value
            return given[number] if number in given else Names(tree, given)
        if kind == "GROUPREF":
            return given[value]
        if kind == "BRANCH":
            return Either([Names(tree, given) for tree in value[1]])
        if "REPEAT" in kind:
            least, most, tree = value
            if int(most) > 50:
                least = most = 4 if least else 0
            some = [Names([*tree] * n, given) for n in range(least, int(most) + 1)]
            return Either(some)
        return characters(kind, value)


class Either:
    """One of several alternatives."""

    def __init__(self, names):
        self.names = names
        self.size = sum(one.size for one in names)

    def __getitem__(self, number):
        for one in self.names:
            if number < one.size:
                return one[number]
            number -= one.size
        raise IndexError(number)


def characters(kind, value):
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "RANGE":
        return [chr(c) for c in range(value[0], value[1] + 1)]
    if kind == "IN" and str(value[0][0]) != "NEGATE":
        return [c for k, v in value for c in characters(str(k), v)]
    return "0123456789" if "DIGIT" in str(value) else LETTERS


def words(pattern):
    return list(itertools.islice(Names(parser.parse(pattern)), 2000))


def counts_of(card):
    counts = card.variants.get(RELEASE.get(card.name), card.counts)
    if counts.emotions:
        return counts, dict(counts.emotions)
    emotions = sorted(set(codes_of(card).values()) - {None})
    share, rest = divmod(counts.utterances, len(emotions))
    return counts, {e: share + (i < rest) for i, e in enumerate(emotions)}


def codes_of(card):
    """Lists each code of an emotion with its meaning."""
    meaning = {}
    for code, emotion in card.emotion.words.items():
        for word in words(code):
            meaning.setdefault(word, emotion and re.sub(r"^\\1$", word, emotion))
    return meaning or {"angry": "angry", "happy": "happy", "sad": "sad"}


def code_for(card, emotion):
    return next(code for code, means in codes_of(card).items() if means == emotion)


def files_of(card):
    """Lists paths without suffix and their emotions: as many as published."""
    counts, emotions = counts_of(card)
    tree = parser.parse(card.path)
    group = tree.state.groupdict
    said = dict(_groups(tree))
    speakers = [""]
    if "speaker" in group:
        wanted = counts.speakers or 1
        mapped = {}
        for word in itertools.islice(Names(said[group["speaker"]]), 2000):
            fits = card.speaker.words if card.speaker and card.speaker.words else {}
            means = [m for form, m in fits.items() if re.fullmatch(form, word)]
            mapped.setdefault(means[0] if means else word, word)
        speakers = list(mapped.values())[:wanted]
        assert len(speakers) == wanted
    for order, (emotion, number) in enumerate(emotions.items()):
        code = code_for(card, emotion)
        each = -(-number // len(speakers))
        stride = -(-max(emotions.values()) // len(speakers))
        made = []
        for speaker in speakers:
            given = {group["emotion"]: [code]}
            if "speaker" in group:
                given[group["speaker"]] = [speaker]
            names = Names(tree, given)
            # Other texts than for the previous emotion, if there are enough.
            first = order * stride if names.size >= stride * len(emotions) else 0
            made += [names[i] for i in range(first, first + each)]
        # In turn, so that each speaker occurs.
        ordered = [made[i::each] for i in range(each)]
        flat = [name for some in ordered for name in some][:number]
        assert len(set(flat)) == number, (card.name, emotion, len(set(flat)), number)
        yield from ((name, emotion) for name in flat)


def _groups(tree):
    for kind, value in tree:
        if str(kind) == "SUBPATTERN":
            number, *_, inner = value
            yield number, inner
            yield from _groups(inner)
        elif str(kind) == "BRANCH":
            for inner in value[1]:
                yield from _groups(inner)
        elif "REPEAT" in str(kind):
            yield from _groups(value[2])


def write_tables(card, folder):
    """Writes the card's tables, and returns the paths without suffix that they name."""
    counts, emotions = counts_of(card)
    templates = [card.audio, *(f.of for f in card.fields.values())]
    columns = {c for t in templates for c in re.findall(r"\{(\w+)", t)}
    files, rows = [], {table.file: [] for table in card.tables}
    fixed = {name for table in card.tables for name in table.values}
    labels = [e for e, number in emotions.items() for _ in range(number)]
    for i, emotion in enumerate(labels):
        table = card.tables[i % len(card.tables)]
        row = {column: str(i) for column in columns - fixed}
        row |= {"Gender": "Female", "gender": "Female", "Split_Set": "Train"}
        row[card.emotion.of.strip("{}") or "emotion"] = code_for(card, emotion)
        if card.speaker:
            row[card.speaker.of.strip("{}")] = f"s{i % (counts.speakers or 300)}"
        rows[table.file].append(row)
        cells = {k: cards._Cell(v) for k, v in (row | table.values).items()}
        files.append((card.audio.format_map(cells), emotion))
    for table in card.tables:
        path = folder / table.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(
                file, rows[table.file][0], delimiter=table.delimiter
            )
            writer.writeheader()
            writer.writerows(rows[table.file])
    return files


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """Returns a function that simulates audio files in a folder, and reads them."""
    real = cards.walk

    def read(card, files, **options):
        names = [f"{tmp_path}/copy/{n}{s}" for n, s in files]
        (tmp_path / "copy").mkdir(exist_ok=True)
        monkeypatch.setattr(
            cards, "walk", lambda folder: [*sorted(names), *real(folder)]
        )
        monkeypatch.setattr(
            "speechbrain_ser_cl.corpora.checks.read_durations",
            lambda paths: [1 + i % 3 for i in range(len(paths))],
        )
        return CardReader(card)(tmp_path, **options)

    return read


@pytest.mark.parametrize("name", READABLE)
def test_a_whole_copy_one_file_less_and_one_of_another_kind(name, disk, tmp_path):
    card = READABLE[name]
    suffix = card.media[0] if card.media else ".flac"
    made = list(
        write_tables(card, tmp_path) if card.tables else dict(files_of(card)).items()
    )
    files = [(path, suffix) for path, _ in made]
    counts, emotions = counts_of(card)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = disk(card, files)
    assert Counter(u.emotion for u in found) == emotions
    assert len({u.id for u in found}) == len(found)
    of_path = {f"copy/{path}{suffix}": emotion for path, emotion in made}
    root = str(tmp_path)
    assert all(of_path[str(u.path)[len(root) + 1 :]] == u.emotion for u in found)
    if counts.speakers:
        assert len({u.speaker for u in found}) == counts.speakers
    if len(files) > 5000:  # the following is checked on smaller copies
        return

    told = "missing audio files .1: " if card.tables else "instead of"
    with pytest.raises(CorpusError, match=told):
        disk(card, files[1:])
    if card.path:
        stray = str(Path(files[0][0]).with_name("merged"))
        with pytest.raises(CorpusError, match=r"1: merged|instead of|unknown label"):
            disk(card, [*files, (stray, suffix)])


@pytest.mark.parametrize("name", READABLE)
def test_a_wrong_folder(name, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CorpusError, match=rf"{name}: .*Looked for.*holiday\.jpg"):
        CORPORA.get(name)(tmp_path, allow_missing=True)


@pytest.mark.parametrize("name", [n for n, card in READABLE.items() if card.path])
def test_the_example_means_what_the_card_says(name, disk):
    card = READABLE[name]
    path = Path(card.example.path)
    with pytest.warns(UserWarning, match="continuing with 1 utterances"):
        (found,) = disk(
            card, [(str(path.with_suffix("")), path.suffix)], allow_missing=True
        )
    assert found.emotion == card.example.emotion
    for field in ("speaker", "gender", "text", "intensity"):
        value = getattr(found, "text_id" if field == "text" else field)
        if field in ("speaker", "text") and value is not None:
            value = value.removeprefix(f"{name}_")
        said = getattr(card.example, field)
        assert value == said, field


MINE = """
title: Mine
languages: [en, de]
page: https://example.org
licence: {name: CC BY-NC 4.0, allows: non-commercial}
citation: Me 2026
counts: {utterances: 2, speakers: 1}
checked: by me
path: (?P<language>en|de)/(?P<speaker>[a-z]+)_(?P<emotion>[a-z]+)_(?P<text>\\d)
"""


def write_mine(folder, card=MINE):
    for name in ("en/ann_joy_1.wav", "de/ann_sadness_1.wav"):
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(800, 16000))
    (folder / "my_card.yaml").write_text(card)
    return {"card": str(folder / "my_card.yaml"), "folder": folder / "data"}


def test_a_card_of_the_user(tmp_path):
    english, german = read_corpus("mine", write_mine(tmp_path))
    assert (german.id, german.emotion, german.language) == (
        *("mine_ann_sadness_1", "sad", "de"),
    )
    assert english.emotion == "happy"
    # The same number in another language is another sentence.
    assert (german.text_id, english.text_id) == ("mine_de_1", "mine_en_1")
    assert german.duration == 0.05


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("page: https", "pag: https", "pag: .*did you mean .page"),
        ("utterances: 2,", "utterances: two,", r"counts.utterances: .*integer"),
        ("(?P<speaker>", "(?P<speaker", "no regular expression"),
        ("(?P<emotion>[a-z]+)", "[a-z]+", "expected the place of the emotion"),
        ("speakers: 1}", "emotions: {sad: 1}}", "add up to 1, not to 2"),
        ("allows: non-commercial", "allows: much", "allows"),
        ("checked: by me", "checked: I\nunchecked: [pag]", "did you mean 'page'"),
        ("title: Mine", "title: [", "not YAML"),
    ],
)
def test_a_wrong_card_is_refused(old, new, told, tmp_path):
    entry = write_mine(tmp_path, MINE.replace(old, new))
    with pytest.raises(CorpusError, match=rf"my_card.yaml: .*{told}"):
        read_corpus("mine", entry)


def test_a_relative_card_may_lie_beside_the_yaml(tmp_path, monkeypatch):
    entry = write_mine(tmp_path) | {"card": "my_card.yaml"}
    monkeypatch.chdir(tmp_path / "data")
    found = look_up_folders({"mine": entry}, tmp_path / "my.yaml")
    assert len(read_corpus("mine", found["mine"])) == 2
    entry["card"] = "none.yaml"
    with pytest.raises(ValueError, match=r"no card none.yaml, neither in .*data nor"):
        look_up_folders({"mine": entry}, tmp_path / "my.yaml")


def test_a_bad_file_that_is_known_is_left_out_and_not_missed(tmp_path, caplog):
    entry = write_mine(tmp_path, MINE + "bad: {ann_joy_1: has no signal}\n")
    assert len(read_corpus("mine", entry)) == 2
    (tmp_path / "data/en/ann_joy_1.wav").write_bytes(b"")
    caplog.set_level("INFO")
    (left,) = read_corpus("mine", entry)
    assert left.emotion == "sad"
    assert "has no signal" in caplog.text


def test_another_release_is_reported(tmp_path, caplog):
    counts = "counts: {utterances: 1}\nvariants: {late: {utterances: 2, note: More.}}"
    text = MINE.replace("counts: {utterances: 2, speakers: 1}", counts)
    caplog.set_level("INFO")
    assert len(read_corpus("mine", write_mine(tmp_path, text))) == 2
    assert "mine: late. More." in caplog.text


def test_msp_podcast_leaves_the_second_test_part_out(tmp_path):
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Audios").mkdir()
    rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    parts = ("Train", "Development", "Test1", "Test2")
    for n, part in enumerate(parts):
        rows.append(f"MSP-PODCAST_0001_000{n}.wav,H,5,6,5,Unknown,Unknown,{part}")
        path = tmp_path / "Audios" / f"MSP-PODCAST_0001_000{n}.wav"
        path.write_bytes(wav_bytes(800, 16000))
    (tmp_path / "Labels" / "labels_consensus.csv").write_text("\n".join(rows))
    with pytest.warns(UserWarning, match="3 instead of 207135"):
        found = CORPORA.get("msp_podcast")(tmp_path, allow_missing=True)
    assert [u.split for u in found] == ["train", "valid", "test"]
    assert {(u.speaker, u.gender) for u in found} == {(None, None)}
    known = {"arousal": 5, "valence": 6, "dominance": 5}
    assert all(u.dimensions == known for u in found)
    labels = tmp_path / "Labels" / "labels_consensus.csv"
    labels.write_text(labels.read_text().replace("H,5,6", "H,7.5,6"))
    with pytest.raises(CorpusError, match=r"arousal outside its scale, 1 to 7 \(3: "):
        CORPORA.get("msp_podcast")(tmp_path, allow_missing=True)
    labels.write_text(labels.read_text().replace("H,7.5,6", "H,five,6"))
    with pytest.raises(CorpusError, match="_0001_0000: arousal is 'five'"):
        CORPORA.get("msp_podcast")(tmp_path, allow_missing=True)


def test_names_and_headers_of_wav_and_flac(tmp_path):
    """The package's header reader agrees with libsndfile."""
    import soundfile

    from speechbrain_ser_cl.corpora.checks import read_durations

    paths = []
    for n, (form, subtype) in enumerate(
        [
            *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW")),
            *(("WAVEX", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")),
        ]
    ):
        for channels in (1, 2):
            path = (
                tmp_path / f"{n}_{channels}.{form.lower()[:4].replace('wave', 'wav')}"
            )
            samples = numpy.zeros((1000 + n, channels))
            soundfile.write(path, samples, 22050, format=form, subtype=subtype)
            paths.append(path)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(paths[0].read_bytes()[:1044])
    paths.append(cut)
    infos = [soundfile.info(path) for path in paths]
    assert read_durations(paths) == [info.frames / info.samplerate for info in infos]


def test_terms_come_from_the_card(tmp_path):
    card = load_card(write_mine(tmp_path)["card"], "mine")
    assert CardReader(card).licence.source == "Mine, Me 2026"
    assert licence_of("ravdess").allows == "non-commercial"
