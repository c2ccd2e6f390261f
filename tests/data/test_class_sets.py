"""Sets of classes that corpora share, and YAMLs that name one."""

import pytest

from speechbrain_ser_cl.corpora import CorpusError, get_card
from speechbrain_ser_cl.data.class_sets import CLASS_SETS, common_map, with_classes
from speechbrain_ser_cl.utils.settings import SettingsError, read_yaml, resolve


def test_sets_that_corpora_share():
    emodb, ravdess = (get_card(name).counts.emotions for name in ("emodb", "ravdess"))
    assert list(common_map("six", set(emodb) & set(ravdess))) == [
        *("angry", "disgusted", "fearful", "happy", "neutral", "sad"),
    ]
    assert common_map("polarity", ravdess) == {
        "negative": ["angry", "sad"],
        "positive": ["neutral", "calm", "happy"],
    }
    assert list(common_map("all", emodb)) == [*emodb]
    with pytest.raises(CorpusError, match="did you mean 'four'"):
        common_map("fuor", emodb)
    for name, number in {
        "four": 4,
        "five": 5,
        "six": 6,
        "seven": 7,
        "eight": 8,
    }.items():
        assert len(CLASS_SETS[name]) == number


YAML = """
source_corpus: iemocap
corpora:
    source: {reader: !ref <source_corpus>, folder: null}
    casia: null
    calls: {reader: table, folder: /data}
sets: four
emotion_map: polarity
n_classes: !apply:len [!ref <emotion_map>]
"""
IEMOCAP_FOUR = {"angry": ["angry"], "happy": ["happy", "excited"]}
IEMOCAP_FOUR |= {"neutral": ["neutral"], "sad": ["sad"]}


@pytest.mark.parametrize(
    ("said", "classes"),
    [
        ("!ref <sets>", IEMOCAP_FOUR),
        (
            "{source: four, casia: seven, calls: {low: [sad], high: [joy]}}",
            {
                "source": IEMOCAP_FOUR,
                "casia": {e: [e] for e in get_card("casia").counts.emotions},
                "calls": {"low": ["sad"], "high": ["joy"]},
            },
        ),
        ("{low: [sad], high: [joy]}", {"low": ["sad"], "high": ["joy"]}),
    ],
)
def test_a_yaml_names_a_set_for_all_or_for_each(said, classes, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(YAML.replace("emotion_map: polarity", f"emotion_map: {said}"))
    found = resolve(path, with_classes(read_yaml(path), {}, path))[1]
    assert found["emotion_map"] == classes
    assert list(found["emotion_map"]) == list(classes)
    assert list(found["n_classes"][0]) == list(classes)


def test_a_set_on_the_command_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(YAML)
    own = {"emotion_map": {"a": ["sad"], "b": ["joy"]}}
    assert with_classes(read_yaml(path), own, path) == own
    given = {"corpora": {"ravdess": None, "emodb": None}}
    assert with_classes(read_yaml(path), given, path)["emotion_map"]["positive"] == [
        *("neutral", "calm", "happy"),
    ]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("forty", "my.yaml: emotion_map is .*forty.*lists of emotions.*polarity, four"),
        ("{low: sad, high: [joy]}", "emotion_map.low is .*sad.*lists of emotions"),
        ("{source: four, casia: sevn}", "emotion_map.casia is .*sevn"),
    ],
)
def test_no_such_set(said, told, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(YAML.replace("emotion_map: polarity", f"emotion_map: {said}"))
    with pytest.raises(SettingsError, match=told):
        with_classes(read_yaml(path), {}, path)
