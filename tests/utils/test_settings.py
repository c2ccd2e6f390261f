"""Wrong YAML and wrong overrides: one clear line before anything starts."""

import os

import pytest

from speechbrain_ser_cl.sweeps.recipe import Recipe
from speechbrain_ser_cl.utils.settings import (
    SettingsError,
    parse_overrides,
    read_yaml,
    resolve,
    split_overrides,
)

RECIPE = """
seed: 1
folder: null
corpora: {emodb: !ref <folder>}
emotion_map: {sad: [sad], happy: [happy]}
protocol: {kind: speaker_kfold, n_folds: 5}
fold: 0
split_file: null
layer: !new:torch.nn.Identity
output_folder: !ref results/<fold>
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(RECIPE)
    return path


def typed(recipe, lines):
    """Writes overrides as typed on a command line, one per line."""
    words = [word for line in lines.split("\n") for word in line.split(": ", 1)]
    words[::2] = [f"--{key.removesuffix(':')}" for key in words[::2]]
    return parse_overrides(split_overrides(words), read_yaml(recipe))


@pytest.mark.parametrize(
    "override, told",
    [
        ("fold: '", '--fold: "\'" is not valid YAML'),
        ("fold: null", "my.yaml: fold is null, expected a whole number from 0"),
        ("fold: True", "fold is true"),
        ("seed: 1.5", "seed is 1.5"),
        ("seed: 1\nseed: 2", "--seed is given twice"),
        ("corpora: ", "corpora is null, expected a mapping"),
        ("corpora: {emodb: 3}", "corpora.emodb is 3"),
        ("emotion_map: ", "emotion_map is null"),
        ("emotion_map: {sad: null}", "emotion_map.sad is null, expected a list"),
        ("emotion_map: {sad: {calm: 3}}", "emotion_map.sad.calm is 3"),
        ("protocol: []", "protocol is [], expected the name of a protocol"),
        ("fodl: 1", "has no key fodl; did you mean 'fold'?"),
        ("layer: !new:os.system", "tag '!new:os.system'"),
        ("fold: &a [*a]", "more than 1000000 values"),
        ("fold: " + "[" * 9999, "not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_used_is_reported(recipe, override, told):
    with pytest.raises(SettingsError) as error:
        resolve(recipe, typed(recipe, override))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_values_are_those_of_the_yaml_with_references_and_overrides(recipe):
    given = typed(recipe, "fold: 3\nfolder: /data/my corpus\nseed: 7")
    _, values = resolve(recipe, given)
    assert values["output_folder"] == "results/3"
    assert values["corpora"]["emodb"] == "/data/my corpus"
    assert values["seed"] == 7


@pytest.mark.parametrize(
    "text, told",
    [
        (b"seed: 1\nseed: 2\n", "my.yaml, line 2: not valid YAML: found duplicate key"),
        (b"seed: 1\nfold: [0\nlr: 1", "my.yaml, line 3: not valid YAML"),
        (b"", "found nothing, expected keys with values"),
        (b"- 1\n", "found a list, expected keys with values"),
        (b"1: 2\n", "the key 1 is a number, expected a text"),
        (b"seed: \xff\n", "byte 7 is not UTF-8 text"),
        (b"a: &a [1]\nb: &b [*a,*a]\nc: [*z]\n", "undefined alias"),
    ],
)
def test_a_yaml_that_cannot_be_used_is_reported(tmp_path, text, told):
    path = tmp_path / "my.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError) as error:
        read_yaml(path)
    assert told in str(error.value)


def test_a_pipe_or_folder_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match="is a pipe or a device, expected a file"):
        read_yaml(tmp_path / "my.yaml")
    with pytest.raises(ValueError, match="is a folder, expected a file"):
        read_yaml(tmp_path)


MAPS = "folder: null\nname: !ref runs/<seed>\nseed: 1\nmap: {a: 1, b: 2}\nlr: 0.1\n"
MAPS += "use_source: True\nsetting: plain\npatience: null\nfreeze: all\n"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("folder", "/data/o #1", "/data/o #1"),
        ("folder", "/data/a: b", "/data/a: b"),
        ("folder", "2024", "2024"),
        ("folder", "null", None),
        ("use_source", "False", False),
        ("name", "a: b #c", "a: b #c"),
        ("setting", "[x", "[x"),
        ("patience", "3", 3),
        ("freeze", "2", 2),
        ("lr", "1e-4", 0.0001),
        ("map", "{c: 3}", {"c": 3}),
    ],
)
def test_a_value_of_the_command_line_is_what_it_was_meant(tmp_path, key, text, value):
    path = tmp_path / "x.yaml"
    path.write_text(MAPS)
    given = parse_overrides(split_overrides([f"--{key}", text]), read_yaml(path))
    assert resolve(path, given)[1][key] == value
    # A sweep reads it in the same way.
    recipe = Recipe(path, path, (f"--{key}={text}",))
    assert recipe.values[key] == value


def test_a_place_that_has_to_be_given_is_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("source_folder: !PLACEHOLDER\n")
    given = parse_overrides({"source_folder": "2024"}, read_yaml(path))
    assert resolve(path, given)[1] == {"source_folder": "2024"}


@pytest.mark.parametrize("opening", ["{", "[{", "{ ", "? "])
def test_keys_within_keys_take_no_time(tmp_path, opening):
    (tmp_path / "my.yaml").write_text(opening * 50)
    with pytest.raises(SettingsError, match="my.yaml: not valid YAML: keys or lists"):
        read_yaml(tmp_path / "my.yaml")
