"""Every block of docs/one_loss.md runs and does what the text says."""

import inspect
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ser_cl import losses
from speechbrain_ser_cl.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(name, language):
    """Returns the fenced blocks of a language of a page, by the heading above them."""
    found = {}
    for section in re.split("^## ", (DOCS / name).read_text("utf-8"), flags=re.M)[1:]:
        title, _, text = section.partition("\n")
        fenced = rf"^```{language}\n(.*?)^```$"
        found[title] = re.findall(fenced, text, re.DOTALL | re.MULTILINE)
    return found


ONE_LOSS = blocks("one_loss.md", "python")


def run(code):
    """Returns the names that a block defines."""
    torch.manual_seed(0)
    names = {"__name__": "one_loss"}
    exec(compile(code, "one_loss.md", "exec"), names)
    return names


def test_every_block_of_the_page_is_run_here():
    counts = {title: len(found) for title, found in ONE_LOSS.items() if found}
    assert counts == {
        "Plain PyTorch": 2,
        "SpeechBrain": 1,
        "Lightning": 1,
        "Several processes": 1,
    }
    text = (DOCS / "one_loss.md").read_text("utf-8")
    assert set(re.findall("^```(.+)$", text, re.M)) == {"python", "yaml", "bash"}


def test_pytorch():
    names = run(ONE_LOSS["Plain PyTorch"][0])
    assert names["loss"].item() > 0
    gradient = names["encoder"].weight.grad
    assert gradient.isfinite().all() and gradient.norm() > 0


def test_pytorch_in_small_batches(capsys):
    names = run(ONE_LOSS["Plain PyTorch"][1])
    found = names["encoder"].weight.grad.clone()
    names["encoder"].zero_grad()
    value = names["ntxent"](*names["encoder"](names["views"]))
    value.backward()
    torch.testing.assert_close(names["loss"], value.detach())
    torch.testing.assert_close(found, names["encoder"].weight.grad)
    assert capsys.readouterr().out


def test_speechbrain(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    names = run(ONE_LOSS["SpeechBrain"][0])
    assert math.isfinite(names["loss"]) and names["loss"] > 0
    assert names["brain"].optimizer_step == 1
    assert isinstance(names["brain"].hparams.contrastive, losses.SupConLoss)


def test_speechbrain_by_name():
    (yaml,) = blocks("one_loss.md", "yaml")["SpeechBrain"]
    assert isinstance(load_hyperpyyaml(yaml)["contrastive"], losses.SupConLoss)
    overridden = load_hyperpyyaml(yaml, {"loss": "triplet"})["contrastive"]
    assert isinstance(overridden, losses.TripletLoss)


# Lightning's messages about the example's size: workers, logging interval, precision.
@pytest.mark.filterwarnings("ignore")
def test_lightning():
    pytest.importorskip("lightning", reason="the extra dev")
    names = run(ONE_LOSS["Lightning"][0])
    assert names["trainer"].global_step == 2
    assert names["trainer"].callback_metrics["contrastive"] > 0
    assert names["model"].encoder.weight.isfinite().all()


def test_several_processes():
    loss = run(ONE_LOSS["Several processes"][0])["contrastive"]
    z, labels = torch.randn(8, 4), torch.arange(8) % 2
    expected = losses.SupConLoss(temperature=0.1)(z, labels)
    torch.testing.assert_close(loss(z, labels), expected)


def test_commands(capsys):
    (commands,) = blocks("one_loss.md", "bash")["Which one"]
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "ser-cl"
        assert main(arguments) == 0
        assert "supcon" in capsys.readouterr().out


def test_the_table_of_calls():
    text = (DOCS / "one_loss.md").read_text("utf-8")
    rows = re.findall(r"^\| `\((.*?)\)` \|.*\| (.*) \|$", text, re.M)
    assert len(rows) == 6
    for call, examples in rows:
        for name in re.findall(r"`(\w+)`", examples):
            forward = inspect.signature(getattr(losses, name).forward)
            names = [
                p.name for p in forward.parameters.values() if p.default is p.empty
            ]
            assert ", ".join(names[1:]) == call, name
