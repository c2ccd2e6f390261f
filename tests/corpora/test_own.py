"""Corpora of one's own: tables and folders, laid out as nobody's recipe knows."""

import warnings

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.corpora import CorpusError, read_folders, read_table
from speechbrain_ser_cl.data.experiment import read_corpora, read_corpus
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.utils.audio import load_audio

# German words, none of which anybody knows, and columns to match.
COLUMNS = {"file": "Datei", "emotion": "Gefühl", "speaker": "Person"}
LABELS = {"Wut": "angry", "Freude": "happy", "Stolz": "stolz"}
TABLE = """Datei;Gefühl;Person;Anmerkung
wav/a1.wav;Wut;Anna;"laut; sehr"
wav/a2.wav;Freude;Anna;
wav/b1.wav;Wut;Ben;
wav/b2.wav;Stolz;Ben;
"""


def write_wav(path, seconds=0.5, rate=8000, channels=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels))
    soundfile.write(path, noise, rate)


@pytest.fixture
def calls(tmp_path):
    """A folder with the table above and its four files."""
    folder = tmp_path / "calls"
    for n, name in enumerate(("a1", "a2", "b1", "b2")):
        write_wav(folder / "wav" / f"{name}.wav", seed=n)
    (folder / "calls.csv").write_text(TABLE, encoding="utf-8")
    return folder


def rewrite(folder, old, new, encoding="utf-8"):
    assert old in TABLE
    text = TABLE.replace(old, new)
    (folder / "calls.csv").write_bytes(text.encode(encoding))


def facts(utterances):
    return [(u.id, u.emotion, u.speaker) for u in utterances]


EXPECTED = [
    ("my_calls_wav/a1", "angry", "my_calls_Anna"),
    ("my_calls_wav/a2", "happy", "my_calls_Anna"),
    ("my_calls_wav/b1", "angry", "my_calls_Ben"),
    ("my_calls_wav/b2", "stolz", "my_calls_Ben"),
]


def read(folder, **options):
    options = {"columns": COLUMNS, "labels": LABELS} | options
    return read_table(folder, corpus="my_calls", **options)


# ------------------------------------------------------------------ tables


def test_a_table_with_columns_and_words_of_its_own(calls):
    found = read(calls, language="de")
    assert facts(found) == EXPECTED
    assert {u.duration for u in found} == {0.5}
    assert {(u.corpus, u.language, u.gender) for u in found} == {
        ("my_calls", "de", None)
    }
    # The table itself instead of its folder, and its name.
    assert facts(read(calls / "calls.csv")) == EXPECTED
    (calls / "other.csv").write_text("a,b\n1,2\n")
    assert facts(read(calls, table="calls.csv")) == EXPECTED


@pytest.mark.parametrize(
    ("delimiter", "encoding"),
    [(",", "utf-8"), ("\t", "utf-8-sig"), ("|", "utf-16"), (";", "cp1252")],
)
def test_delimiters_and_encodings(calls, delimiter, encoding):
    text = TABLE.replace("; sehr", " sehr").replace(";", delimiter)
    (calls / "calls.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    given = {} if encoding.startswith("utf-8") else {"encoding": encoding}
    assert facts(read(calls, **given)) == EXPECTED


def test_usual_names_need_no_explanation(tmp_path):
    rows = ["file,emotion,speaker,gender,split,session,text,language"]
    for n, (word, sex, part) in enumerate(
        [("Anger", "F", "training"), ("JOY", "male", "Dev"), ("sad", "", "eval")]
    ):
        write_wav(tmp_path / f"{n}.wav")
        rows.append(f"{n}.wav,{word},s{n},{sex},{part},day1,t{n},en")
    (tmp_path / "labels.tsv").write_text("\n".join(rows).replace(",", "\t"))
    found = read_corpora({"table": tmp_path}, {"a": ["angry", "happy"], "b": ["sad"]})
    utterances = [item.utterance for item in found]
    assert facts(utterances) == [
        ("table_0", "angry", "table_s0"),
        ("table_1", "happy", "table_s1"),
        ("table_2", "sad", "table_s2"),
    ]
    assert [u.gender for u in utterances] == ["female", "male", None]
    assert [u.split for u in utterances] == ["train", "valid", "test"]
    assert {(u.session, u.language) for u in utterances} == {("table_day1", "en")}
    assert utterances[2].text_id == "table_t2"


def test_several_columns_make_one_value_and_suffixes_may_be_left_out(tmp_path):
    write_wav(tmp_path / "wav" / "dia3_utt1.wav")
    write_wav(tmp_path / "wav" / "dia3_utt2.flac")
    (tmp_path / "meld.csv").write_text(
        "Dialogue_ID,Utterance_ID,Emotion,Speaker\n3,1,joy,Joey\n3,2,anger,Joey\n"
    )
    found = read_table(
        tmp_path,
        columns={
            "file": "wav\\dia{Dialogue_ID}_utt{Utterance_ID}",
            "emotion": "Emotion",
            "speaker": "{Speaker}@{Dialogue_ID}",
        },
    )
    assert facts(found) == [
        ("table_wav/dia3_utt1", "happy", "table_Joey@3"),
        ("table_wav/dia3_utt2", "angry", "table_Joey@3"),
    ]


def test_files_may_lie_anywhere(tmp_path):
    write_wav(tmp_path / "audio" / "a.wav")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text(
        f"file,emotion\n{tmp_path / 'audio' / 'a.wav'},sad\n"
    )
    (found,) = read_table(tmp_path / "tables")
    assert found.path == tmp_path / "audio" / "a.wav"
    assert found.speaker is None
    (tmp_path / "audio" / "a.wav").write_bytes(b"no audio")
    with pytest.raises(CorpusError, match=r"corrupt or empty.*audio/a\.wav"):
        read_table(tmp_path / "tables")


def test_rows_are_left_out_by_label_split_and_name(calls, tmp_path):
    assert facts(read(calls, labels=LABELS | {"Wut": None})) == [
        EXPECTED[1],
        EXPECTED[3],
    ]
    rewrite(calls, "Anmerkung", "split")
    (calls / "calls.csv").write_text(
        TABLE.replace("Anmerkung", "split")
        .replace('"laut; sehr"', "K1")
        .replace(";\n", ";K2\n"),
        encoding="utf-8",
    )
    found = read(calls, splits={"K1": None, "k2": "train"})
    assert [u.split for u in found] == ["train"] * 3
    names = tmp_path / "exclude.txt"
    names.write_text("# duplicates\nwav/a1.wav\nmy_calls_wav/b1\n\nwav/a2\n")
    left = read(calls, exclude=names, columns=COLUMNS | {"split": None})
    assert facts(left) == EXPECTED[3:]
    with pytest.raises(CorpusError, match="nowhere.txt is no file"):
        read(calls, exclude="nowhere.txt")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        # A typo in one word, a word of one's own.
        ("a2.wav;Freude", "a2.wav;Freunde", "'Freunde' 1× did you mean 'freude'"),
        ("a2.wav;Freude", "a2.wav;hapy", "'hapy' 1× did you mean 'happy'"),
        ("Gefühl", "Gefuehl", "no column 'Gefühl'; did you mean 'Gefuehl'"),
        ("Freude;Anna;", "Freude;Anna", "header has 4 columns, .*1: line 3 has 3"),
        ("Anmerkung", "Person", "columns of the same name .1: Person"),
        ("wav/a2.wav", "wav/a1.wav", "files in more than one row .1: wav/a1.wav"),
        ("wav/a2.wav", "", "rows that name no file .1: row 2"),
        ("wav/a2.wav", "wav/a3.wav", r"missing audio files .1: wav/a3\)"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(calls, old, new, told):
    rewrite(calls, old, new)
    with pytest.raises(CorpusError, match=told) as error:
        read(calls)
    assert "calls" in str(error.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": {"emotion": "Gefühl"}}, r"columns: \{file: Datei\}"),
        ({"columns": {"emotoin": "Gefühl"}}, "unknown 'emotoin'; did you mean 'emot"),
        ({"columns": "Datei"}, "expected what each is called"),
        ({"labels": ["Wut"]}, r"labels is \['Wut'\], expected what each word means"),
        ({"labels": None}, r'labels: {"Stolz": …}'),
        ({"table": "call.csv"}, r"no table .*did you mean 'calls.csv'"),
        ({"encoding": "ascii"}, "not in the encoding ascii .*cp1252"),
    ],
)
def test_a_wrong_description_is_an_error_that_says_what_to_write(calls, options, told):
    with pytest.raises(CorpusError, match=told):
        read(calls, **options)


def test_a_guess_at_the_columns(tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "t.csv").write_text("id,mood,path\n1,joy,a.wav\n")
    with pytest.raises(CorpusError, match=r"columns: \{file: path, emotion: mood\}"):
        read_table(tmp_path)


def test_a_folder_with_no_table_or_several(tmp_path):
    with pytest.raises(CorpusError, match="found none. Say which: table: labels.csv"):
        read_table(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "ratings.tsv").touch()
    told = "found none but, in its folders, meta/ratings.tsv. .*table: meta/ratings.tsv"
    with pytest.raises(CorpusError, match=told):
        read_table(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(CorpusError, match=r"found a\.csv, b\.csv.*table: a.csv"):
        read_table(tmp_path)
    with pytest.raises(CorpusError, match="the table is empty"):
        read_table(tmp_path, table="a.csv")
    with pytest.raises(CorpusError, match="there is no folder"):
        read_table(tmp_path / "nowhere")


def test_if_no_file_is_found_the_error_says_where_one_is(calls):
    rewrite(calls, "wav/", "")
    with pytest.raises(CorpusError, match="none of its 4 files") as error:
        read(calls)
    hint = str(error.value).split("columns: {file: ")[1].rstrip("}") + "}"
    # What it says to write is right.
    found = read(calls, columns=COLUMNS | {"file": hint.strip('"}') + "}"})
    assert facts(found) == EXPECTED


def test_missing_files_are_counted_where_that_is_allowed(calls):
    (calls / "wav" / "a2.wav").unlink()
    with pytest.raises(CorpusError, match="allow_missing: True"):
        read(calls)
    with pytest.warns(UserWarning, match="missing audio files .1: wav/a2"):
        found = read(calls, allow_missing=True)
    assert facts(found) == [EXPECTED[0], *EXPECTED[2:]]


def test_rows_that_are_parts_of_files(tmp_path):
    write_wav(tmp_path / "call.wav", seconds=4, rate=16000, channels=2)
    (tmp_path / "parts.csv").write_text(
        "file,start,end,emotion,speaker\n"
        "call.wav,0.5,1.25,joy,A\n"
        "call.wav,0 days 00:00:01.500000,0 days 00:00:02.5,anger,B\n"
        "call.wav,0:00:03,NaT,sad,A\n"
    )
    with pytest.raises(CorpusError, match="cut_into: "):
        read_table(tmp_path)
    cut_into = tmp_path / "parts"
    found = read_table(tmp_path, cut_into=cut_into)
    assert [(u.id, u.duration) for u in found] == [
        ("table_call_0.500-1.250", 0.75),
        ("table_call_1.500-2.500", 1.0),
        ("table_call_3.000", 1.0),
    ]
    whole = soundfile.read(tmp_path / "call.wav")[0].mean(axis=1)
    assert len({(u.recording, u.start) for u in found}) == 3
    for utterance, start in zip(found, (0.5, 1.5, 3.0), strict=True):
        assert utterance.start == start
        assert utterance.recording.startswith("table_")
        part = load_audio(utterance.path).numpy()
        first = int(start * 16000)
        assert np.abs(part - whole[first : first + len(part)]).max() < 2e-5

    before = {path: path.stat().st_mtime_ns for path in cut_into.iterdir()}
    assert read_table(tmp_path, cut_into=cut_into) == found
    assert before == {path: path.stat().st_mtime_ns for path in cut_into.iterdir()}
    write_wav(tmp_path / "call.wav", seconds=3.5, rate=16000, seed=1)  # another file
    again = read_table(tmp_path, cut_into=cut_into)
    assert [u.duration for u in again] == [0.75, 1.0, 0.5]
    assert not set(before) & {u.path for u in again}


def test_parts_that_a_file_does_not_have(tmp_path):
    write_wav(tmp_path / "call.wav", seconds=1)
    (tmp_path / "parts.csv").write_text(
        "file,start,end,emotion\n"
        "call.wav,0,0.5,joy\ncall.wav,0.5,2,joy\ncall.wav,0.4,0.2,joy\n"
    )
    with pytest.raises(CorpusError, match=r"cut \(2: .* 0.5 s to 2.0 s of 1.000 s"):
        read_table(tmp_path, cut_into=tmp_path / "parts")
    with pytest.warns(UserWarning, match="missing audio files .2: call_0.400-0.200, "):
        (found,) = read_table(tmp_path, cut_into=tmp_path / "parts", allow_missing=True)
    assert found.duration == 0.5
    with open(tmp_path / "parts.csv", "a") as file:
        file.write("call.wav,early,late,joy\n")
    with pytest.raises(CorpusError, match=r"no time .2: call.wav: 'early', call.wav"):
        read_table(tmp_path, cut_into=tmp_path / "parts")


def test_what_audformat_writes(tmp_path):
    audformat = pytest.importorskip("audformat")
    pandas = pytest.importorskip("pandas")
    write_wav(tmp_path / "wav" / "a.wav")
    write_wav(tmp_path / "wav" / "b.wav")
    files = audformat.filewise_index(["wav/a.wav", "wav/b.wav"])
    db = audformat.Database("calls")
    db.schemes["emotion"] = audformat.Scheme(labels=["anger", "happiness"])
    db.schemes["speaker"] = audformat.Scheme("int")
    db["emotion"] = audformat.Table(files)
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set(["anger", "happiness"])
    db["files"] = audformat.Table(files[::-1])
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set(pandas.Series([3, 8], index=files[::-1]))
    db.save(str(tmp_path), storage_format="csv")
    found = read_table(tmp_path, table=["db.emotion.csv", "db.files.csv"])
    assert facts(found) == [
        ("table_wav/a", "angry", "table_8"),
        ("table_wav/b", "happy", "table_3"),
    ]


def test_tables_that_do_not_belong_together(calls):
    (calls / "more.csv").write_text("Datei,Person\nwav/a1.wav,Anna\n")
    with pytest.raises(CorpusError, match=r"no row for .3: wav/a2\.wav"):
        read(calls, table=["calls.csv", "more.csv"])
    (calls / "more.csv").write_text("name,Person\nwav/a1.wav,Anna\n")
    with pytest.raises(CorpusError, match="do not both have the column 'Datei'"):
        read(calls, table=["calls.csv", "more.csv"])


# ------------------------------------------------------------------ emotions


def test_emotions_of_ones_own_can_be_classes(calls):
    corpora = {"my_calls": {"reader": "table", "folder": calls, "columns": COLUMNS}}
    corpora["my_calls"]["labels"] = LABELS
    items = read_corpora(corpora, {"bad": ["angry"], "good": ["happy", "stolz"]})
    assert [item.label for item in items] == ["bad", "good", "bad", "good"]

    # Nobody notices a class that is lost to a typo, unless it is an error.
    with pytest.raises(ValueError, match=r"'stolz', 1 utterances.*Put them into a cla"):
        read_corpora(corpora, {"bad": ["angry"], "good": ["happy"]})
    corpora["my_calls"]["labels"] = LABELS | {"Freude": "hapy"}
    with pytest.raises(ValueError, match="'hapy', 1 utterances did you mean 'happy'"):
        read_corpora(corpora, {"bad": ["angry"], "good": ["happy", "stolz"]})
    corpora["my_calls"]["labels"] = LABELS
    with pytest.raises(ValueError, match="unknown emotion 'stloz'; did you mean 'sto"):
        read_corpora(corpora, {"bad": ["angry"], "good": ["happy", "stloz"]})


# ------------------------------------------------------------------ folders


@pytest.fixture
def classes(tmp_path):
    for name in (
        *("train/Joy/anna_001.wav", "train/Wut/anna_002.wav"),
        *("dev/Joy/ben-x_001.ogg", "test/Wut/cem_001.flac"),
    ):
        write_wav(tmp_path / name, rate=16000)
    (tmp_path / "train" / "Joy" / "notes.txt").touch()
    (tmp_path / "train" / "Joy" / "._anna_001.wav").write_bytes(b"rubbish")
    (tmp_path / ".cache").mkdir()
    write_wav(tmp_path / ".cache" / "Joy" / "a.wav")
    return tmp_path


PATTERN = "{split}/{emotion}/{speaker}_*"


def test_a_folder_per_class(classes):
    found = read_folders(classes, pattern=PATTERN, labels={"Wut": "angry"})
    assert [(u.id, u.split, u.emotion, u.speaker) for u in found] == [
        ("folders_dev/Joy/ben-x_001", "valid", "happy", "folders_ben-x"),
        ("folders_test/Wut/cem_001", "test", "angry", "folders_cem"),
        ("folders_train/Joy/anna_001", "train", "happy", "folders_anna"),
        ("folders_train/Wut/anna_002", "train", "angry", "folders_anna"),
    ]
    plain = read_folders(classes / "train", labels={"wut": "angry"})
    assert facts(plain) == [
        ("folders_Joy/anna_001", "happy", None),
        ("folders_Wut/anna_002", "angry", None),
    ]
    deep = read_folders(
        classes,
        pattern="**/{emotion}/{speaker}_{text}.wav",
        labels={"Wut": "angry"},
        exclude=["dev/Joy/ben-x_001.ogg"],
        language="de",
    )
    assert [(u.text_id, u.language) for u in deep] == [
        ("folders_001", "de"),
        ("folders_001", "de"),
        ("folders_002", "de"),
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"pattern": "{split}/*/{emotion}_*"},
            r"'anna' 2×.*labels: \{\"anna\": …, \"ben-x\": …, \"cem\": …\}",
        ),
        ({"pattern": "{split}/{emotion}/{person}_*"}, "unknown .person.; known are"),
        ({"pattern": "{split}/{speaker}_*"}, "does not say where the .emotion. stands"),
        ({"pattern": "{split}/{emotion}/anna_*"}, r"does not fit \(2: dev/Joy/ben-x_"),
        ({"splits": {"dev": "fold1"}}, "split 'fold1' is not one of train, valid"),
    ],
)
def test_wrong_patterns_and_words(classes, options, told):
    with pytest.raises(ValueError, match=told):
        read_folders(classes, **{"pattern": PATTERN} | options)


def test_audio_that_cannot_be_read(classes, tmp_path):
    (classes / "train" / "Joy" / "b_1.m4a").touch()
    options = {"pattern": PATTERN, "labels": {"Wut": "angry"}}
    with pytest.raises(CorpusError, match=r"1: train/Joy/b_1\.m4a.*ffmpeg"):
        read_folders(classes, **options)
    assert len(read_folders(classes, allow_missing=True, **options)) == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"no audio files; looked for .*\.mp3"):
        read_folders(tmp_path / "empty")


# ------------------------------------------------------------------ in a YAML


def test_entries_of_corpora(calls, classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_corpus(
            "moods",
            {"reader": "folders", "folder": str(classes / "train")}
            | {"labels": {"Wut": "angry"}},
        )
    assert {u.corpus for u in found} == {"moods"}
    for name, entry, told in (
        ("moods", {"reader": "folders"}, "no folder is given for moods"),
        ("moods", {"folder": "x"}, "unknown corpus 'moods'"),
        ("moods", {"reader": "emodb", "folder": "x"}, "emodb: there is no folder x"),
        (
            *("moods", {"reader": "folders", "folder": "x", "columns": {}}),
            "folders takes no 'columns'; it takes folder, pattern, labels, splits",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            read_corpus(name, entry)


def test_the_split_that_a_corpus_gives(classes):
    options = {"pattern": PATTERN, "labels": {"Wut": "angry"}}
    utterances = read_folders(classes, **options)
    (split,) = make_folds(utterances, "given")
    assert split.train == ["folders_train/Joy/anna_001", "folders_train/Wut/anna_002"]
    assert split.valid == ["folders_dev/Joy/ben-x_001"]
    assert split.test == ["folders_test/Wut/cem_001"]
