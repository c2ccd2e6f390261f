"""Users' corpora: tables and folders with unusual layouts."""

import sys
import unicodedata
import warnings

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import CorpusError, read_folders, read_table
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.experiment import read_corpora, read_corpus
from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
from speechbrain_ser_cl.data.protocols import make_folds
from speechbrain_ser_cl.data.quality.audio_facts import audio_facts
from speechbrain_ser_cl.utils.audio import load_audio

# German words, none of which is known, and matching columns.
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
    """Makes a folder with the table above and its four files."""
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
    # The table instead of its folder, and its name.
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


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nfile;emotion\r\na.wav;joy\r\nb.wav;Wut\r\n",
        '"sep=|"\nfile|emotion\na.wav|joy\nb.wav|Wut',
        "\n \n# joy, and Wut\nfile,emotion\na.wav,joy\n\nb.wav,Wut\n",
        "file;emotion;\na.wav;joy;\nb.wav;Wut;\n",
        "file\temotion\na.wav\tjoy\t\nb.wav\tWut\t\n",
        ",file,emotion\n0,a.wav,joy\n1,b.wav,Wut\n",  # row numbers of pandas
        '# x\nfile,emotion,note\na.wav,joy,"two\nlines"\nb.wav,Wut,"5"" long"\n',
        "\ufefffile,emotion\na.wav,joy\nb.wav,W\u00fcrde",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "cp1252"])
def test_csv_of_every_kind(tmp_path, text, encoding):
    write_wav(tmp_path / "a.wav")
    write_wav(tmp_path / "b.wav")
    if encoding == "cp1252":
        text = text.replace("\ufeff", "")
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    found = read_table(tmp_path, labels={"W\u00fcrde": "angry"})
    assert facts(found) == [("table_a", "happy", None), ("table_b", "angry", None)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'file,emotion\na.wav,"joy\nb.wav,Wut\n', "t.csv, line 2: a quote is opened"),
        (b'file,emotion\na.wav,joy\nb.wav,"Wut\n', "t.csv, line 3: a quote is opened"),
        (b'file,emotion\n"' + b"a.wav,joy\n" * 20000, "line 2: a quote is opened"),
        (b"file,emotion\na.wav,\xff\x81\n", "t.csv, line 2: not in the encoding utf-8"),
        ("file,emotion\nАнна,joy\n".encode("cp1251"), "line 2: not in the encoding"),
    ],
)
def test_no_csv_is_reported_with_its_line(tmp_path, data, told):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(CorpusError, match=told):
        read_table(tmp_path)


def test_excel_json_lines_and_parquet(calls):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(calls / "calls.csv", sep=";").assign(start=0.0, end=None)
    whole = pandas.to_timedelta(frame["start"], unit="s")
    writers = {
        "calls.jsonl": lambda path: frame.to_json(path, orient="records", lines=True),
        "calls.xlsx": lambda path: frame.to_excel(path, index=False),
        "calls.parquet": lambda path: frame.assign(start=whole).to_parquet(path),
    }
    (calls / "calls.csv").unlink()
    for name, write in writers.items():
        if name == "calls.xlsx":
            pytest.importorskip("openpyxl")
        write(calls / name)
        assert facts(read(calls)) == EXPECTED
        (calls / name).write_bytes(b"PK rubbish")
        with pytest.raises(CorpusError, match=name):
            read(calls)
        (calls / name).unlink()
    (calls / "old.xls").touch()
    with pytest.raises(CorpusError, match=r"found none; save old.xls as .xlsx or .csv"):
        read(calls)


def test_excel_without_its_package_says_what_to_install(calls, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (calls / "calls.csv").rename(calls / "calls.xlsx")
    with pytest.raises(
        ImportError, match=r"speechbrain_ser_cl\[tables\].*save it as CSV"
    ):
        read(calls)


def test_usual_headers_are_recognised_and_told(tmp_path, caplog):
    write_wav(tmp_path / "a.wav")

    def read_header(header, row="a.wav,joy,Anna,test", **options):
        (tmp_path / "t.csv").write_text(f"{header}\n{row}\n")
        caplog.clear()
        (one,) = read_table(tmp_path, **options)
        return one.emotion, one.speaker, one.split

    for header in (
        " File , EMOTION,Speaker,Split",
        "path,Label,spk,set",
        "Filename,label,Speaker ID,partition",
        "wav,emotion,actor,Subset",
        "recording,class,SpkrID,set",
        "id,category,Subject,set",
    ):
        assert read_header(header) == ("happy", "table_Anna", "test")
        first = header.split(",")[0].strip()
        assert f"taken by their names: {first!r} is the file, " in caplog.text
    assert read_header("file,emotion,speaker,split")
    assert not caplog.records
    with pytest.raises(CorpusError, match=r"no column file; .*columns: {file: x}"):
        read_header("x,emotion,speaker,id")  # no names of files in id
    with pytest.raises(CorpusError, match=r"first line, b.wav, sad, B, dev, names a f"):
        read_header("b.wav,sad,B,dev")
    # A is not the name of a part; two columns may be the speaker; the user's choice
    # wins.
    assert read_header("file,emotion,spk,set", "a.wav,joy,1,A")[2] is None
    with pytest.raises(CorpusError, match="spk and actor may both be the speaker. Say"):
        read_header("file,emotion,spk,actor")
    options = {"columns": {"speaker": "Actor", "split": None}}
    assert read_header("file,emotion,spk,actor", **options)[1] == "table_test"
    assert read_header("file,emotion,spk,set", columns={"speaker": None})[1] is None


def test_names_in_both_unicode_forms(tmp_path):
    composed, apart = (unicodedata.normalize(f, "Käthe/Wärme") for f in ("NFC", "NFD"))
    for disk, table, corpus in ((apart, composed, "x"), (composed, apart, "y")):
        folder = tmp_path / corpus
        write_wav(folder / f"{disk}.wav")
        speaker, word = table.split("/")
        rows = f"file,Gefühl,speaker\n{table}.wav,{word},{speaker}\n"
        (folder / "t.csv").write_text(unicodedata.normalize("NFD", rows), "utf-8")
        for one_form in (composed, apart):
            labels = {one_form.split("/")[1]: "calm"}
            (one,) = read_table(folder, columns={"emotion": "Gefühl"}, labels=labels)
            assert facts([one]) == [(f"table_{composed}", "calm", "table_Käthe")]
            assert one.path.samefile(folder / f"{disk}.wav")
            pattern = f"{speaker}/{{emotion}}"
            (one,) = read_folders(folder, pattern=pattern, labels=labels)
            assert (one.id, one.emotion) == (f"folders_{composed}", "calm")
        with pytest.raises(CorpusError, match="no utterance left"):
            read_folders(folder, exclude=[f"{table}.wav"])


def test_one_file_however_it_is_written(tmp_path, caplog):
    write_wav(tmp_path / "wav" / "a.wav")
    ways = ["wav/a.wav", "./wav/a.wav", "wav\\a.wav", "wav/a", "wav//a", "WAV/A.wav"]
    ways.append(str(tmp_path / "wav" / "a.wav"))
    words = ["joy", "joy", "joy", "joy", "sad", "sad", "anger"]
    rows = "\n".join(f"{a},{b}" for a, b in zip(ways, words, strict=True))
    (tmp_path / "t.csv").write_text(f"file,emotion\n{rows}\n")
    with pytest.raises(CorpusError, match="one row .1: wav/a.wav.*raters: plurality"):
        read_table(tmp_path)
    with pytest.raises(CorpusError, match="raters is 'vote', expected plurality"):
        read_table(tmp_path, raters="vote")
    found = read_table(tmp_path, raters="plurality")
    assert facts(found) == [("table_wav/a", "happy", None)]
    assert found[0].votes == {"happy": 4, "sad": 2, "angry": 1}
    (tmp_path / "t.csv").write_text("file,emotion\nwav/a,joy\nwav/a,sad\nwav/a,-\n")
    with pytest.warns(UserWarning, match="1 of 3 have no label"):
        found = read_table(tmp_path, raters="plurality")
    assert facts(found) == [("table_wav/a", "other", None)]
    assert "1 of 1 by the votes of several rows; undecided, now other: 1" in caplog.text
    (tmp_path / "t.csv").write_text("file,emotion\nwav/a,joy\nwav/a,sad\n")
    for way in ways[:4]:
        with pytest.raises(CorpusError, match="no utterance left"):
            read_table(tmp_path, exclude=[way])
    caplog.clear()
    read_table(tmp_path, raters="plurality", exclude=["wav/b.wav", "table_c"])
    assert "exclude matches no utterance (2: table_c, wav/b.wav)" in caplog.text
    (tmp_path / "t.csv").write_text("file,emotion,speaker\nwav/a,joy,A\nwav/a,sad,B\n")
    with pytest.raises(CorpusError, match="rows 1 and 2 of wav/a have speaker 'A' and"):
        read_table(tmp_path, raters="plurality")


def test_paths_of_another_machine(tmp_path):
    folder = tmp_path / "corpus"
    for name in ("s1/001", "s1/002", "s2/001"):
        write_wav(folder / "audio" / f"{name}.wav")

    def read_paths(*paths, **options):
        rows = "".join(f"{path},joy\n" for path in paths)
        (folder / "t.csv").write_text(f"file,emotion\n{rows}")
        return [u.id for u in read_table(folder, **options)]

    windows = "C:\\Users\\anna\\rec"
    ids = ["table_audio/s1/001", "table_audio/s1/002", "table_audio/s2/001"]
    theirs = [f"{windows}\\s1\\001.wav", f"{windows}\\S1\\002.WAV"]
    assert read_paths(*theirs, f"{windows}\\s2\\001.wav") == ids
    assert read_paths("/home/anna/s1/002.wav", "/home/anna/s2/001") == ids[1:]
    # s3/001 is different from both files named 001.
    with pytest.raises(CorpusError, match=r"missing audio files .1: audio/s3/001\)"):
        read_paths(*theirs, f"{windows}\\s3\\001.wav")
    with pytest.raises(CorpusError, match=r"/x/001.wav, fit files in .*/s1 .*/s2; set"):
        read_paths("/x/001.wav")
    # Files elsewhere on this machine are named by the ends of their paths.
    for name in ("x/1", "y/1"):
        write_wav(tmp_path / "else" / f"{name}.wav")
    here = [str(tmp_path / "else" / f"{name}.wav") for name in ("x/1", "y/1")]
    assert read_paths("audio/s1/001.wav", *here) == [ids[0], "table_x/1", "table_y/1"]


def test_ratings_are_no_names_of_emotions(tmp_path):
    rows = "".join(f"{n}.wav,{n / 10 + 1},2.5\n" for n in range(30))
    (tmp_path / "t.csv").write_text(f"file,arousal,valence\n{rows}")
    with pytest.raises(CorpusError, match=r"columns: {emotion: …}"):
        read_table(tmp_path)
    with pytest.raises(CorpusError, match="column arousal: 30 different numbers"):
        read_table(tmp_path, columns={"emotion": "arousal"})


def test_numbers_as_labels(tmp_path):
    write_wav(tmp_path / "a.wav")
    for cell in ("1", "1.0", "01"):
        (tmp_path / "t.csv").write_text(f"file,emotion\na.wav,{cell}\n")
        labels = {1: "sad"} if cell != "01" else {"01": "sad"}
        assert read_table(tmp_path, labels=labels)[0].emotion == "sad"


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
        # A typo in one word, and an unknown word.
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
        (
            {"columns": {"emotoin": "Gefühl"}},
            "unknown key 'emotoin'; did you mean 'emot",
        ),
        ({"columns": "Datei"}, "expected what each is called"),
        ({"labels": ["Wut"]}, r"labels is \['Wut'\], expected what each word means"),
        ({"labels": None}, r'labels: {"Stolz": …}'),
        ({"table": "call.csv"}, r"no table .*did you mean 'calls.csv'"),
        ({"encoding": "ascii"}, "not in the encoding ascii .*cp1252"),
        ({"encoding": True}, "encoding is True, expected a name such as utf-8"),
        ({"table": 0}, "table is 0, expected a file name such as labels.csv"),
        ({"table": []}, "expected a file name"),
        ({"exclude": 3}, "exclude is 3, expected a list of names"),
    ],
)
def test_a_wrong_description_is_an_error_that_says_what_to_write(calls, options, told):
    with pytest.raises(CorpusError, match=told):
        read(calls, **options)


def test_a_guess_at_the_columns(tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "t.csv").write_text("id,mood,where\n1,joy,a.wav\n")
    with pytest.raises(CorpusError, match=r"columns: \{file: where, emotion: mood\}"):
        read_table(tmp_path)


def test_a_folder_with_no_table_or_several(tmp_path):
    for text, table in (("a b\nc d\n", "x.csv"), ("file\temotion\n", "x.txt")):
        (tmp_path / table).write_text(text)
        with pytest.raises(CorpusError, match="tab or bar between|table: x.txt"):
            read_table(tmp_path)
        (tmp_path / table).unlink()
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


def test_names_of_files_in_subfolders(calls, caplog):
    """Some tables name files without their folders."""
    rewrite(calls, "wav/", "")
    assert facts(read(calls)) == EXPECTED
    assert f"a1.wav is {calls / 'wav' / 'a1.wav'}" in caplog.text
    write_wav(calls / "raw" / "A1.wav")
    with pytest.raises(CorpusError, match="may be .*/raw/A1.wav or .*/wav/a1.wav; set"):
        read(calls)


def test_if_no_file_is_found_the_error_says_where_one_is(calls):
    rewrite(calls, "wav/", "~/")
    with pytest.raises(
        CorpusError, match="of its 4 files.*a1.wav: correct the column, or set folder"
    ):
        read(calls)


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
    parts = {"cut_into": tmp_path / "parts"}

    def read_parts(*rows, **options):
        text = "\n".join(
            ["file;start;end;emotion", *(f"call.wav;{r};joy" for r in rows)]
        )
        (tmp_path / "parts.csv").write_text(text)
        return read_table(tmp_path, **parts, **options)

    with pytest.raises(CorpusError, match=r"cut \(1: row 2: .* 0.5 s to 2.0 s of 1.00"):
        read_parts("0;0.5", "0.5;2")
    with pytest.warns(UserWarning, match="missing audio files .1: call_0.500-2.000"):
        (found,) = read_parts("0;0.5", "0.5;2", allow_missing=True)
    assert found.duration == 0.5
    for row, told in (
        ("early;late", "no time .2: row 1, call.wav: 'early', row 1, call.wav: 'late'"),
        ("0.4;0.2", "row 1, call.wav: end 0.2 is not after 0.4"),
        ("0;1e308", "row 1, call.wav: '1e308'"),
        ("-1;1", "row 1, call.wav: '-1'"),
    ):
        with pytest.raises(CorpusError, match=told):
            read_parts(row, allow_missing=True)
    # Less than a frame too long; to the end, as Excel, numpy and pandas write it.
    rows = ("0,5;1,015", "0,25;inf", "0 days 00:00:00.750000;NaT", "0:00:00.6;nan")
    assert [(u.id, u.duration) for u in read_parts(*rows)] == [
        ("table_call_0.250", 0.75),
        ("table_call_0.500-1.015", 0.5),
        ("table_call_0.600", 0.4),
        ("table_call_0.750", 0.25),
    ]

    def read_columns(*names):
        text = f"file,emotion,{','.join(names)}\ncall.wav,joy,0.25,0.5\n"
        (tmp_path / "parts.csv").write_text(text)
        return read_table(tmp_path, **parts)[0]

    for names, span in (
        (("onset", "duration"), (0.25, 0.75)),
        (("onset", "offset"), (0.25, 0.5)),
        (("dur", "start"), (0.5, 0.75)),
        (("note", "duration"), (None, None)),
    ):
        assert (read_columns(*names).start, read_columns(*names).end) == span
    for names, told in (
        (("offset", "duration"), r"offset may be where .* starts or ends"),
        (("start_ms", "end_ms"), "start_ms and end_ms seem to be times in millis"),
    ):
        with pytest.raises(CorpusError, match=told):
            read_columns(*names)
    # Nothing to cut: a folder for parts is not needed.
    parts.clear()
    assert facts(read_parts("0 days;NaT")) == [("table_call", "happy", None)]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_audformat_database_with_segments(tmp_path, form):
    audformat = pytest.importorskip("audformat")
    for name in ("wav/a", "wav/b"):
        write_wav(tmp_path / f"{name}.wav", seconds=2)
    files, end = ["wav/a.wav", "wav/b.wav"], float("nan")
    rows = audformat.segmented_index([files[0], *files], [0, 0.25, 0], [0.25, 1.5, end])
    whole = audformat.filewise_index(files[::-1])
    db = audformat.Database("calls")
    for table, index, column, values in (
        ("emotion", rows, "emotion", ["anger", "happiness", "anger"]),
        ("files", whole, "speaker", ["B", "A"]),
    ):
        db.schemes[column] = audformat.Scheme(labels=sorted(set(values)))
        db[table] = audformat.Table(index)
        db[table][column] = audformat.Column(scheme_id=column)
        db[table][column].set(values)
    db.save(str(tmp_path), storage_format=form)
    tables = [f"db.emotion.{form}", f"db.files.{form}"]
    with pytest.raises(CorpusError, match=rf"table: \[{', '.join(tables)}\], first"):
        read_table(tmp_path)
    found = read_table(tmp_path, table=tables, cut_into=tmp_path / "parts")
    assert [
        (*fact, u.duration) for fact, u in zip(facts(found), found, strict=True)
    ] == [
        ("table_wav/a_0.000-0.250", "angry", "table_A", 0.25),
        ("table_wav/a_0.250-1.500", "happy", "table_A", 1.25),
        ("table_wav/b", "angry", "table_B", 2.0),
    ]


def test_columns_of_votes_and_dimensions(tmp_path):
    rows = ["file,emotion,aro,n_joy,n_sad", "a.wav,happy,2.5,3,1", "b.wav,sad,,0,0"]
    for name in "ab":
        write_wav(tmp_path / f"{name}.wav")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    options = {
        "dimensions": {"arousal": "aro"},
        "votes": {"Joy": "n_joy", "sad": "n_sad"},
    }
    a, b = read_table(tmp_path, **options)
    assert (a.dimensions, a.votes) == ({"arousal": 2.5}, {"happy": 3, "sad": 1})
    assert (b.dimensions, b.votes) == (None, None)
    with pytest.raises(CorpusError, match="no column 'arou'; did you mean 'aro'"):
        read_table(tmp_path, dimensions={"arousal": "arou"})
    table.write_text("\n".join(rows).replace("2.5", "much"))
    with pytest.raises(
        CorpusError, match="row 1, a.wav: dimensions: arousal is 'much'"
    ):
        read_table(tmp_path, **options)


def test_ratings_of_several_rows_are_averaged(tmp_path):
    write_wav(tmp_path / "a.wav")
    rows = ["file,emotion,aro", "a.wav,happy,2", "a.wav,happy,3", "a.wav,sad,"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (a,) = read_table(tmp_path, raters="plurality", dimensions={"arousal": "aro"})
    assert (a.emotion, a.votes) == ("happy", {"happy": 2, "sad": 1})
    assert a.dimensions == {"arousal": 2.5}


def test_tables_that_do_not_belong_together(calls):
    (calls / "more.csv").write_text("Datei,Person\nwav/a1.wav,Anna\n")
    with pytest.raises(CorpusError, match=r"no row for .3: wav/a2\.wav"):
        read(calls, table=["calls.csv", "more.csv"])
    (calls / "more.csv").write_text("name,Person\nwav/a1.wav,Anna\n")
    with pytest.raises(CorpusError, match="do not both have the column 'Datei'"):
        read(calls, table=["calls.csv", "more.csv"])


# ------------------------------------------------------------------ emotions


def test_emotions_of_the_user_can_be_classes(calls):
    corpora = {"my_calls": {"reader": "table", "folder": calls, "columns": COLUMNS}}
    corpora["my_calls"]["labels"] = LABELS
    items = read_corpora(corpora, {"bad": ["angry"], "good": ["happy", "stolz"]})
    assert [item.label for item in items] == ["bad", "good", "bad", "good"]

    # A class that is lost by a typo must be an error.
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
        ({"pattern": "{split}/{speaker}_*"}, "has no .emotion."),
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
        (
            *("moods", {"reader": "folders", "folder": "x", "raters": "plurality"}),
            r"takes no 'raters'.*only a table \(reader: table\) takes that",
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


def test_ratings_alone_are_reported_to_be_no_classes(tmp_path):
    rows = "file,Arousal,valence,speaker\na.wav,3.2,1.1,s\n"
    (tmp_path / "labels.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"Arousal, valence, which are ratings and no "
    ):
        read_table(tmp_path, corpus="calls")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_of_any_characters(tmp_path, form):
    odd = unicodedata.normalize(form, "Kä the [1] {fold} *? #%$'\"")
    folder = tmp_path / odd
    write_wav(folder / "joy" / f"{odd} 1.wav")
    name = unicodedata.normalize("NFC", odd)
    quoted = odd.replace('"', '""')
    (folder / "t.csv").write_text(f'file,emotion\n"joy/{quoted} 1",joy\n')
    for found in (
        read_folders(folder),
        read_table(folder),
    ):
        assert [u.id.split("_", 1)[1] for u in found] == [f"joy/{name} 1"]
        write_manifest(found, tmp_path / "m.json", folder)
        assert read_manifest(tmp_path / "m.json", folder) == found
        (converted,) = convert_to_16k_mono(found, tmp_path / odd[::-1])
        assert converted.path.exists() and converted.duration == found[0].duration


def test_links_in_circles_and_names_of_255_bytes(tmp_path, caplog):
    folder = tmp_path / "corpus"
    name = "ü" * 125 + "a.wav"
    assert len(name.encode()) == 255
    write_wav(folder / "joy" / name)
    for link, to in (("joy/up", ".."), ("joy/again", "."), ("joy/dir", "dir")):
        (folder / link).symlink_to(to)
    (one,) = read_folders(folder)
    assert one.id == f"folders_joy/{name[:-4]}"
    (converted,) = convert_to_16k_mono([one], tmp_path / "converted")
    assert len(converted.path.name) < 255
    rows = f"file,emotion,start,end\nC:\\x\\joy\\{name},joy,0.1,0.2\n"
    (folder / "t.csv").write_text(rows)
    (cut,) = read_table(folder, cut_into=tmp_path / "cut")
    assert (cut.duration, cut.recording) == (0.1, f"table_joy/{name[:-4]}")
    (folder / "joy" / "b.wav").symlink_to("b.wav")
    with pytest.raises(
        CorpusError, match=r"corrupt or empty audio files .1: joy/b.wav"
    ):
        read_folders(folder)


def test_nothing_is_ever_written_into_a_corpus(calls, tmp_path, capsys):
    def listing():
        paths = sorted([calls, *calls.rglob("*")])
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]

    before = listing()
    found = read(calls)
    convert_to_16k_mono(found, tmp_path / "converted")
    audio_facts(found, tmp_path / "facts.jsonl")
    options = (
        f"{{folder: {calls}, reader: table, columns: {COLUMNS}, labels: {LABELS}}}"
    )
    emotions = "{bad: [angry], good: [happy, stolz]}"
    yaml = tmp_path / "my.yaml"
    yaml.write_text(
        f"corpora: {{my_calls: {options}}}\nemotion_map: {emotions}\nseed: 1\n"
        f"protocol: {{kind: random_kfold, n_folds: 2, valid: none}}\n",
        encoding="utf-8",
    )
    assert main(["check", str(yaml)]) in (0, 1)
    assert "Gefühl" in capsys.readouterr().out
    manifest = str(tmp_path / "manifest.json")
    assert main(["prepare", "table", str(calls), manifest]) == 2  # other columns
    assert main(["probe", str(calls), "--encoder", "no/such"]) == 2
    assert listing() == before
