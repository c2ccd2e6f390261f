"""Every block of the pages runs; for other blocks the names in them are checked.

A block with ``<!-- not run: why -->`` above it trains, installs or needs a licensed
corpus. Its keys have to exist all the same; test_commands.py tries its commands.

The tutorial, from whose files the pages start, goes from recordings to a prediction. It
is tested here too, because another file may be tested in another process, which would
run it again.
"""

import csv
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ser_cl import cli
from speechbrain_ser_cl.data.experiment import read_corpus
from speechbrain_ser_cl.data.protocols import resolve_protocol
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.registry import BACKBONES, LOSSES, Registry
from speechbrain_ser_cl.training import Launch, parameter_groups
from speechbrain_ser_cl.utils.settings import read_yaml
from tests.docs.pages import DOCS, ROOT, WRITTEN, blocks, commands

HPARAMS = ROOT / "recipes" / "own_corpus" / "hparams" / "finetune.yaml"
PAGES = [page for page in WRITTEN if blocks(page)]


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """Returns the folder that docs/tutorial.py wrote, and its output."""
    folder = tmp_path_factory.mktemp("tutorial")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, DOCS / "tutorial.py"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return folder / "results" / "tutorial", run.stdout


@pytest.fixture
def here(tutorial, tmp_path, monkeypatch):
    """Makes a copy of the tutorial's folder, for tests that write files."""
    folder = tmp_path / "here"
    shutil.copytree(tutorial[0], folder)
    shutil.copy(ROOT / "README.md", folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for registry in (LOSSES, BACKBONES):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    write_corpora_of_the_page(folder)
    yield folder
    for name in ("my_encoders", "my_losses"):
        sys.modules.pop(name, None)


def write_corpora_of_the_page(folder):
    """Writes the two corpora of corpus.md, with the tutorial's recordings."""
    words = {"angry": "Wut", "happy": "Freude", "sad": "Trauer", "neutral": "Ruhe"}
    rooms = {"angry": "anger", "happy": "joy", "sad": "sad", "neutral": "calmly"}
    rows = ["Nr;Wer;Stimmung"]
    (folder / "band" / "audio").mkdir(parents=True)
    for n, wav in enumerate(sorted((folder / "calls" / "wav").glob("*.wav"))):
        speaker, _, emotion = wav.stem.split("_")
        shutil.copy(wav, folder / "band" / "audio" / f"{n:04d}.wav")
        rows.append(f"{n:04d};{speaker};{words[emotion]}")
        part = {"s00": "test", "s01": "dev"}.get(speaker, "train")
        room = folder / "voices" / part / rooms[emotion]
        room.mkdir(parents=True, exist_ok=True)
        shutil.copy(wav, room / f"{speaker}_{n:04d}.wav")
    rows[-1] = rows[-1].rpartition(";")[0] + ";unklar"
    (folder / "band" / "takes.csv").write_text("\n".join(rows), encoding="utf-8")


class Reader:
    """Follows the page like a reader, block after block, in one folder."""

    def __init__(self):
        self.names = {"__name__": "page"}
        self.hparams = HPARAMS.read_text(encoding="utf-8")

    def python(self, code):
        torch.manual_seed(0)
        file = re.match(r"# (\w+)\.py\n", code)
        if file:
            Path(f"{file[1]}.py").write_text(code, encoding="utf-8")
            importlib.invalidate_caches()
            importlib.import_module(file[1])
        else:
            exec(compile(code, "page", "exec"), self.names)

    def bash(self, code):
        for command in commands(code):
            program, *arguments = shlex.split(command)
            assert program == "ser-cl", f"{program} is not run by this test"
            try:
                status = cli.main(arguments)
            except SystemExit as end:  # --help
                status = end.code
            assert status == 0, command

    def yaml(self, code):
        """Replaces the keys in the recipe's YAML."""
        if "rows" in mapping(code):  # a sweep file
            Path("my.yaml").write_text(self.hparams, encoding="utf-8")
            Path("sweep.yaml").write_text(code, encoding="utf-8")
            return
        if set(mapping(code)) <= set(read_yaml(HPARAMS)):
            self.hparams = edited(self.hparams, code)
            overrides = {"ssl_source": "encoder", "ssl_revision": None}
            overrides["layers"] = None  # the recipe selects the best one
            values = load_hyperpyyaml(self.hparams, overrides)
            modules = torch.nn.ModuleDict(values["modules"])
            parameter_groups(modules, values["learning_rates"])
        else:
            values = load_hyperpyyaml(code)
        resolve_protocol(values.get("protocol", "random_kfold"))
        for name, entry in values.get("corpora", {}).items():
            if entry["folder"] is not None:
                assert read_corpus(name, entry)
        Path("my.yaml").write_text(self.hparams, encoding="utf-8")


def mapping(code):
    """Returns the keys of a YAML block, without tags."""
    return yaml.safe_load(re.sub(r"!\w+(:[\w.]+)?", "", code))


def edited(text, code):
    """Returns a YAML with some of its top-level keys replaced, as in an editor."""
    for key in mapping(code):
        section = rf"^{key}:.*\n(?:[ #].*\n|\n(?=[ #]))*"
        (mine,) = re.findall(section, code, re.MULTILINE)
        assert len(re.findall(section, text, re.MULTILINE)) == 1, key
        text = re.sub(section, lambda _, mine=mine: mine, text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_names_what_there_is(page):
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.language in ("bash", "python", "text", "toml", "yaml"), where
        if not block.why_not_run:
            continue
        assert block.language in ("bash", "yaml"), f"{where}: run it"
        if block.language == "yaml":
            assert set(mapping(block.code)) <= set(read_yaml(HPARAMS)), where


@pytest.mark.parametrize(
    "page",
    # test_one_loss.py runs the blocks of that page.
    [
        page
        for page in PAGES
        if page.name != "one_loss.md"
        and any(not block.why_not_run for block in blocks(page))
    ],
    ids=name_of,
)
@pytest.mark.filterwarnings("ignore")  # messages about small examples
def test_blocks_run_one_after_the_other(page, here):
    reader = Reader()
    for block in blocks(page):
        if not block.why_not_run and block.language not in ("text", "toml"):
            getattr(reader, block.language)(block.code)


def test_corpora_of_the_page_are_checked_and_classes_are_those_of_the_map(here, capsys):
    reader = Reader()
    table, folders, classes, _ = (
        block.code for block in blocks(DOCS / "corpus.md") if block.language == "yaml"
    )
    n_files = len(list(Path("calls/wav").glob("*.wav")))
    # A row of the table has a word that the block omits.
    for corpora, n_utterances in ((table, n_files - 1), (folders, n_files)):
        reader.yaml(corpora)
        capsys.readouterr()
        assert cli.main(["check", "my.yaml", "--json"]) == 0
        parts = json.loads(capsys.readouterr().out)["parts"]
        assert parts["all"]["utterances"] == n_utterances
        assert parts["train"]["speakers"] == 3
    text = (DOCS / "corpus.md").read_text(encoding="utf-8")
    assert Path("band/takes.csv").read_text().splitlines()[0] in text
    reader.yaml(classes)
    assert cli.main(["check", "my.yaml"]) == 0
    assert re.search("^positive +", capsys.readouterr().out, re.MULTILINE)


def test_an_encoder_and_a_loss_of_the_user_are_trained_and_exported(here, capsys):
    reader = Reader()
    for name in ("encoder.md", "plugin.md"):
        python, _, hparams, *_ = (
            block.code
            for block in blocks(DOCS / name)
            if block.language in ("python", "yaml")
        )
        reader.python(python)
        reader.yaml(hparams)
    spec = importlib.util.spec_from_file_location(
        "own_corpus_train", HPARAMS.parents[1] / "train.py"
    )
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    settings = {
        "corpora": {
            "my_corpus": {
                "folder": "calls",
                "reader": "table",
                "columns": {"file": "recording", "emotion": "mood", "speaker": "who"},
                "labels": {"flat": "neutral", "glad": "happy", "cross": "angry"},
            }
        },
        "n_epochs": 1,
        "batches_per_epoch": 2,
        "loader_options": {"num_workers": 0},
        "data_folder": "data",
        "output_folder": "mine",
    }
    options = RunOptions.from_dictionary({"device": "cpu", "noprogressbar": True})
    (results,) = recipe.run(Launch(Path("my.yaml"), options, settings))
    assert results["encoder"] == "band_mlp"
    assert results["setting"] == "cross-entropy + 0.1 Centre"
    assert cli.main(["export", "mine", "exported"]) == 0
    assert cli.main(["predict", "--model", "exported", "new.wav"]) == 0
    assert "new.wav" in capsys.readouterr().out


def test_the_plug_in_of_the_page_is_found_by_its_name(here, tmp_path):
    package, target = tmp_path / "package", tmp_path / "target"
    package.mkdir()
    page = blocks(DOCS / "plugin.md")
    (package / "my_losses.py").write_text(page[0].code)
    (toml,) = (block.code for block in page if block.language == "toml")
    (package / "pyproject.toml").write_text(toml)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", target, package]
    subprocess.run(command, check=True)
    sys.path.insert(0, str(target))
    try:
        fresh = Registry("loss", "losses", "speechbrain_ser_cl.losses")
        assert fresh.names() == ["centre"]
        assert fresh.source("centre") == "my-losses"
        loss = fresh.build("centre", weight=2.0)
        assert loss(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0])) == 2
    finally:
        sys.path.remove(str(target))


def test_every_section_of_a_report_is_explained(tutorial):
    page = (tutorial[0] / "report.html").read_text(encoding="utf-8")
    titles = set(re.findall("<h3 id=[^>]*>([^<:]*)", page))
    assert len(titles) >= 8
    explained = (DOCS / "report.md").read_text(encoding="utf-8")
    for title in titles | {"Comparison"}:
        assert re.search(rf"\*\*{title}\.?\*\*", explained), title


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_no_measured_number_is_typed(page):
    text = page.read_text(encoding="utf-8")
    # benchmarks/tables.py writes these.
    text = re.sub(r"(?s)<!-- (\w+): begin -->.*?<!-- \1: end -->", "", text)
    assert not re.search(r"\d\.\d+ ?%|\d ?±|UA[R ]* [0-9.]+\b", text)


def test_it_writes_the_files_that_it_names(tutorial):
    folder, printed = tutorial
    results = {
        run: json.loads((folder / run / "results.json").read_text("utf-8"))
        for run in ("cross_entropy", "supcon")
    }
    assert results["cross_entropy"]["setting"] == "cross-entropy"
    assert results["supcon"]["setting"] == "cross-entropy + 0.5 SupCon"
    history = json.loads((folder / "supcon" / "history.json").read_text("utf-8"))
    # Epoch 0 is the probe from which training starts.
    assert history[0]["train"] == {} and len(history) > 1
    assert all(epoch["train"]["supcon"] > 0 for epoch in history[1:])
    for run, result in results.items():
        assert f"{run:14} UAR {result['test']['uar']['value']:6.1%}" in printed
        # It is better than guessing, even with this little data.
        assert result["test"]["uar"]["value"] > result["test"]["chance"]
        assert result["data"]["shared_between_parts"]["speaker"]["train/test"] == 0
    page = (folder / "report.html").read_text("utf-8")
    assert "cross-entropy + 0.5 SupCon" in page
    card = (folder / "model" / "README.md").read_text("utf-8")
    assert card[:600] in printed


def test_the_model_is_that_of_the_run(tutorial):
    folder, printed = tutorial
    recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
    found = recognizer.classify_file(folder / "new.wav")
    assert printed.splitlines()[-1].startswith(
        f"{found.emotion} {found.probability:.2f}"
    )
    with open(folder / "supcon" / "utterances.csv", encoding="utf-8") as file:
        path_of = {row["id"]: row["wav"] for row in csv.DictReader(file)}
    with open(folder / "supcon" / "predictions.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert recognizer.classify_file(path_of[row["id"]]).emotion == row["prediction"]
