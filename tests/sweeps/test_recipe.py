"""Finding the script of a YAML."""

import shutil
from pathlib import Path

import pytest

from speechbrain_ser_cl.sweeps.recipe import find_script
from speechbrain_ser_cl.training.launch import find_hparams

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "recipes" / "own_corpus"


def test_a_copy_of_a_yaml_names_its_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SER_CL_RECIPES", raising=False)
    mine = Path(shutil.copy(OWN / "hparams" / "finetune.yaml", tmp_path / "mine.yaml"))
    assert find_script(mine) == OWN / "train.py"

    # A user's recipes are used before those of the package, and a script beside the
    # YAML before both.
    own = tmp_path / "elsewhere" / "own_corpus"
    own.mkdir(parents=True)
    (own / "train.py").touch()
    monkeypatch.setenv("SER_CL_RECIPES", str(own.parent))
    assert find_script(mine) == own / "train.py"
    (tmp_path / "train.py").touch()
    assert find_script(mine) == tmp_path / "train.py"


def test_a_twin_names_the_script_of_another_recipe(tmp_path, monkeypatch):
    """The script is found in the twin's own recipes folder, also for nested names."""
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "checkout" / "recipes"
    yaml = theirs / "TWIN" / "method" / "hparams" / "my.yaml"
    script = theirs / "IEMOCAP" / "pairwise_cl" / "train.py"
    for path in (yaml, script):
        path.parent.mkdir(parents=True)
        path.touch()
    yaml.write_text("recipe: IEMOCAP/pairwise_cl")
    assert find_script(yaml) == script
    script.unlink()
    assert find_script(yaml) == OWN.parent / "IEMOCAP" / "pairwise_cl" / "train.py"


def test_a_twins_yaml_is_found_from_the_scripts_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = OWN.parent / "IEMOCAP_MSP" / "train.py"
    yaml = "../EmoDB_RAVDESS/hparams/multitask_da.yaml"
    assert find_hparams(yaml, script).samefile(script.parent / yaml)


def test_a_yaml_that_belongs_to_nothing_is_an_error(tmp_path):
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("seed: 1")
    with pytest.raises(ValueError, match=r"mine\.yaml: looked in .*as recipe$"):
        find_script(yaml)
    yaml.write_text("recipe: no_such_recipe")
    with pytest.raises(ValueError, match="recipes/no_such_recipe.*SER_CL_RECIPES"):
        find_script(yaml)
