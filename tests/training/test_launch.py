"""From a command line to the settings of a run."""

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from speechbrain_ser_cl.training import (
    Launch,
    find_hparams,
    refuse_other_experiment,
)
from speechbrain_ser_cl.training.launch import demo_runs
from speechbrain_ser_cl.utils.settings import read_yaml

YAML = """
# A comment.
seed: 1
lr: 0.1  # and another
output_folder: !ref results/<seed>
gain: !new:torch.nn.Dropout
    p: 0.5
shift: !new:torch.nn.Dropout
    p: 0.25
noise: !new:torch.nn.Dropout
    p: 0.5
pipelines: [!ref <gain>, !ref <shift>]
demo:
    lr: 0.3
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Makes a recipe's folder beside the working folder, each with its own file."""
    folder = tmp_path / "recipe"
    (folder / "hparams").mkdir(parents=True)
    for name in ("theirs.yaml", "both.yaml"):
        (folder / "hparams" / name).write_text("where: recipe")
    work = tmp_path / "work"
    (work / "hparams").mkdir(parents=True)
    for name in ("mine.yaml", "both.yaml"):
        (work / "hparams" / name).write_text("where: work")
    monkeypatch.chdir(work)
    return folder


@pytest.mark.parametrize(
    ("name", "where"), [("theirs", "recipe"), ("mine", "work"), ("both", "work")]
)
def test_a_yaml_is_looked_up_here_and_then_beside_the_script(recipe, name, where):
    found = find_hparams(f"hparams/{name}.yaml", script=recipe / "train.py")
    assert found.read_text() == f"where: {where}"


def test_an_absolute_path_is_taken_as_it_is(recipe):
    path = recipe / "hparams" / "both.yaml"
    assert find_hparams(str(path), script="elsewhere/train.py") == path


def test_a_linked_script_has_its_own_folder(recipe, tmp_path):
    twin = tmp_path / "twin"
    (twin / "hparams").mkdir(parents=True)
    (twin / "hparams" / "theirs.yaml").write_text("where: twin")
    (recipe / "train.py").touch()
    (twin / "train.py").symlink_to(recipe / "train.py")
    found = find_hparams("hparams/theirs.yaml", script=twin / "train.py")
    assert found.read_text() == "where: twin"


def test_a_yaml_in_neither_place_is_an_error_that_lists_what_there_is(recipe):
    with pytest.raises(ValueError) as error:
        find_hparams("hparams/mni.yaml", script=recipe / "train.py")
    says = str(error.value)
    assert "hparams/mni.yaml" in says
    assert str(Path.cwd()) in says
    assert str(recipe) in says
    assert "hparams/both.yaml, hparams/theirs.yaml" in says


def test_read_yaml_makes_nothing(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(YAML + "broken: !new:no.such.Thing\n")
    values = read_yaml(path)
    assert (values["seed"], values["lr"], values["demo"]) == (1, 0.1, {"lr": 0.3})


@pytest.mark.parametrize(
    "typed, runs", [({}, ["a", "b"]), ({"lr": 0.2}, ["b"]), ({"lr": 0.5}, [""])]
)
def test_a_value_of_the_command_line_chooses_the_runs_of_a_demo(tmp_path, typed, runs):
    path, folder = tmp_path / "x.yaml", tmp_path / "demo"
    own = "    output_folder: results\n    runs: {a: {lr: 0.1}, b: {lr: 0.2}}\n"
    path.write_text(YAML.replace("    lr: 0.3\n", own))
    found = demo_runs(Launch(path, None, typed | {"output_folder": str(folder)}))
    assert [run.folder for run in found] == [folder / name for name in runs]
    rates = [run.values["lr"] for run in found]
    assert rates == ([typed["lr"]] if typed else [0.1, 0.2])


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Starts a run like recipes do."""
    monkeypatch.setattr("sys.excepthook", None)  # SpeechBrain sets it; restored here

    def start(yaml=YAML, check=lambda values: None, **overrides):
        path = tmp_path / "x.yaml"
        path.write_text(yaml)
        overrides |= {"output_folder": str(tmp_path / "run")}
        launch = Launch(path, None, overrides)
        check(launch.values)
        return launch.start()

    return start


def test_a_run_starts_with_its_values_and_a_folder(experiment, tmp_path):
    hparams = experiment(lr=0.2)
    assert (hparams["lr"], hparams["gain"].p) == (0.2, 0.5)
    assert "lr: 0.2" in (tmp_path / "run" / "hyperparams.yaml").read_text()


def test_a_run_records_the_packages_of_this_python(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    experiment()
    lines = (tmp_path / "run" / "env.log").read_text().splitlines()
    assert f"Python {sys.version.splitlines()[0]}" in lines[0]
    assert f"torch=={version('torch')}" in lines


def test_the_script_is_kept(experiment, tmp_path, monkeypatch):
    script = tmp_path / "my_train.py"
    script.write_text("# what ran")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    experiment()
    kept = {path.name: path.read_text() for path in (tmp_path / "run").glob("*.py")}
    assert kept == {"my_train.py": "# what ran"}


def test_a_misspelt_key_is_an_error_that_says_which_is_meant(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"x\.yaml has no key sead; did.*'seed'"):
        experiment(sead=2)
    assert not (tmp_path / "run").exists()


def test_a_value_of_a_wrong_type_is_reported_with_its_class(experiment, tmp_path):
    yaml = YAML + "epochs: !new:speechbrain_ser_cl.training.RoundCounter\n"
    yaml += "    n_rounds: many\n    phases: 1\n"
    with pytest.raises(ValueError, match=r"x\.yaml: Invalid argument to class .*Round"):
        experiment(yaml)
    assert not (tmp_path / "run").exists()


def test_values_are_checked_before_any_object_is_made(experiment, tmp_path):
    def check(values):
        if values["lr"] > 0.15:
            raise ValueError(f"lr is {values['lr']}")

    broken = YAML + "broken: !new:no.such.Thing\n"
    with pytest.raises(ValueError, match="lr is 0.2"):
        experiment(broken, check, lr=0.2)
    assert not (tmp_path / "run").exists()


def test_the_same_settings_may_go_on(experiment):
    experiment(lr=0.2)
    experiment(lr=0.2)
    # On the command line or in the file: the result is equal.
    experiment(YAML.replace("lr: 0.1", "lr: 0.2"))


def test_other_settings_are_refused_by_name(experiment):
    experiment(lr=0.2)
    with pytest.raises(ValueError, match="other settings") as error:
        experiment(lr=0.3)
    says = str(error.value)
    assert "- lr: 0.2" in says
    assert "+ lr: 0.3" in says
    assert re.search(r"such as --output_folder \S+-2, or delete", says)
    assert "seed" not in says
    with pytest.raises(ValueError, match=r"- lr: 0\.2.*\+ lr: 0\.1"):
        experiment()


def test_every_change_of_settings_is_found(experiment):
    experiment()
    noise = "noise: !new:torch.nn.Dropout\n    p: 0.5"
    for old, new in (
        # Each of the lines also occurs elsewhere in the file.
        (noise, noise.replace("0.5", "0.25")),
        ("[!ref <gain>, !ref <shift>]", "[!ref <shift>, !ref <gain>]"),
    ):
        assert old in YAML
        with pytest.raises(ValueError, match="other settings"):
            experiment(YAML.replace(old, new))


def test_a_message_lists_up_to_ten_changes(experiment):
    many = "".join(f"key{n}: 1\n" for n in range(30))
    experiment(YAML + many)
    with pytest.raises(ValueError) as error:
        experiment(YAML + many.replace(": 1", ": 2"))
    assert str(error.value).count("key") == 10


def test_a_new_folder_is_fine(tmp_path):
    refuse_other_experiment(tmp_path / "nothing here", YAML)


def test_a_resumed_run_may_have_other_loaders_but_not_another_rate(tmp_path):
    text = "lr: 0.1\nloader_options:\n    num_workers: 4\n"
    (tmp_path / "hyperparams.yaml").write_text(text, encoding="utf-8")
    refuse_other_experiment(tmp_path, text.replace("4", "0"))
    refuse_other_experiment(tmp_path, text + "loggers:\n- tensorboard\n")
    with pytest.raises(ValueError, match="lr: 0.2"):
        refuse_other_experiment(tmp_path, text.replace("0.1", "0.2"))
