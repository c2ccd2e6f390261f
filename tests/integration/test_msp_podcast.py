"""The recipe of MSP-Podcast on a generated copy: parts, classes, attributes."""

from functools import partial
from pathlib import Path

import pytest

from speechbrain_ser_cl.corpora import CorpusError
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.data.targets import dimension_table
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.training import Launch
from tests.hollow import wav_bytes

HPARAMS = Path(__file__).parents[2] / "recipes" / "MSP-Podcast" / "hparams"
CLASSES = {
    "A": "angry",
    "C": "contempt",
    "D": "disgusted",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "U": "surprised",
}
PARTS = {"Train": "train", "Development": "valid", "Test1": "test", "Test2": None}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Makes a turn for each part and code, by two speakers, one of them unknown."""
    folder = tmp_path_factory.mktemp("MSP-Podcast")
    (folder / "Labels").mkdir()
    (folder / "Audios").mkdir()
    rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    audio = wav_bytes(800, 16000)
    for p, part in enumerate(PARTS):
        for c, code in enumerate([*CLASSES, "O", "X"]):
            name = f"MSP-PODCAST_{p:04d}_{c:04d}.wav"
            who = "Unknown" if c % 2 else f"{p}"
            rows.append(f"{name},{code},{1 + c / 2},{7 - c / 2},4,{who},Male,{part}")
            (folder / "Audios" / name).write_bytes(audio)
    (folder / "Labels" / "labels_consensus.csv").write_text("\n".join(rows))
    lines = [f"{row.rpartition(',')[2]}; {row.partition(',')[0]}" for row in rows[1:]]
    (folder / "Partitions.txt").write_text("\n".join(["Partitions", "", *lines]))
    return folder


def prepared(name, corpus, folder):
    overrides = {"msp_folder": str(corpus), "data_folder": str(folder)}
    overrides["allow_missing"] = True
    launch = Launch(HPARAMS / f"{name}.yaml", None, overrides)
    with pytest.warns(UserWarning, match="30 instead of 207126"):
        return launch.values, prepare(launch.values)


def test_both_lists_of_parts_say_the_same(corpus):
    parts = corpus / "Partitions.txt"
    text = parts.read_text()
    read = partial(CORPORA.get("msp_podcast"), corpus, allow_missing=True)
    told = r"_0000_0002 is in 'Test1', expected 'Train', .*\(1 turns differ\)"
    try:
        wrong = text.replace(
            "Train; MSP-PODCAST_0000_0002", "Test1; MSP-PODCAST_0000_0002"
        )
        parts.write_text(wrong)
        with pytest.raises(CorpusError, match=rf"Partitions.txt, line 5: .*{told}"):
            read()
        parts.write_text(text.replace("Train; MSP-PODCAST_0000_0002.wav\n", ""))
        with pytest.raises(CorpusError, match=r"no line for .*_0000_0002"):
            read()
        # Another word for the same part; a list of parts that we do not have.
        more = text.replace("Development", "Validation") + "\nTest3; other.wav\n"
        parts.write_text(more)
        with pytest.warns(UserWarning, match="30 instead of"):
            assert len(read()) == 30
    finally:
        parts.write_text(text)


def test_categories_are_the_eight_of_the_challenge(corpus, tmp_path):
    values, experiment = prepared("categories", corpus, tmp_path)
    assert experiment.class_names == list(CLASSES.values())
    assert experiment.left_out == {"other": 6}
    for part in experiment.parts.values():
        assert [item.label for item in part] == list(CLASSES.values())
    ids = [item.utterance.id for item in experiment.parts["test"]]
    assert ids[0] == "msp_podcast_MSP-PODCAST_0002_0000"
    assert values["n_classes"][0]["angry"] == ["angry"]


def test_attributes_have_all_turns(corpus, tmp_path):
    values, experiment = prepared("attributes", corpus, tmp_path)
    names = values["dimensions"]
    assert names == ["arousal", "valence", "dominance"]
    for part in experiment.parts.values():
        table = dimension_table(part, names)
        assert table.tolist() == [[1 + c / 2, 7 - c / 2, 4] for c in range(10)]
