"""The README's commands and snippets work as it says."""

import json
import math
import re
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ser_cl.losses import InfoNCELoss

README = Path(__file__).resolve().parents[1] / "README.md"
SET_UP = 'python3 -m venv .venv && .venv/bin/pip install -e ".[{}]" && '


def blocks(language):
    """Returns the README's fenced blocks of one language."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_two_commands():
    demo = ".venv/bin/python recipes/IEMOCAP_MSP/train.py hparams/multitask_da.yaml"
    assert blocks("bash")[:2] == [
        SET_UP.format("recipes") + f"{demo}\n",
        SET_UP.format("dev") + ".venv/bin/python -m pytest\n",
    ]
    # .ci/run takes every line that starts like this.
    assert len(re.findall("^python3 -m venv ", README.read_text(), re.MULTILINE)) == 2


def test_the_snippet_trains_one_step(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    (snippet,) = blocks("python")
    torch.manual_seed(0)
    names = {}
    exec(compile(snippet, str(README), "exec"), names)
    brain, loss = names["brain"], names["loss"]
    assert math.isfinite(loss) and loss > 0
    assert brain.optimizer_step == 1
    assert isinstance(brain.hparams.contrastive, InfoNCELoss)


def test_the_snippet_by_name():
    (yaml,) = blocks("yaml")
    loss = load_hyperpyyaml(yaml)["contrastive"]
    assert isinstance(loss, InfoNCELoss)
    assert loss.temperature == 0.1


def test_files_and_folders_that_it_names_exist():
    text = README.read_text(encoding="utf-8")
    for path in re.findall(
        r"\b((?:recipes|docs)/[\w./-]*\w|CITATION\.cff|LICENSE)", text
    ):
        assert (README.parent / path).exists(), path


def test_the_notebook_is_the_tutorial():
    """Written by ``jupytext --to notebook docs/tutorial.py``."""
    docs = README.parent / "docs"
    script = (docs / "tutorial.py").read_text(encoding="utf-8")
    expected = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, lines = cell.partition("\n")
        if kind.strip() == "[markdown]":
            lines = re.sub("^# ?", "", lines, flags=re.MULTILINE)
        expected.append(lines.strip())
    notebook = json.loads((docs / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert ["".join(cell["source"]).strip() for cell in notebook["cells"]] == expected
    assert not any(cell.get("outputs") for cell in notebook["cells"])
