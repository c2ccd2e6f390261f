"""Recognition of the corpus in a folder, by the command line."""

import json
import shutil
from dataclasses import replace

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import CardReader, all_cards, get_card
from speechbrain_ser_cl.corpora.cards import recognise
from speechbrain_ser_cl.registry import CORPORA
from tests.hollow import write_emodb, write_ravdess


def test_all_are_listed(capsys):
    assert main(["corpora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(all_cards()) >= 41
    (ravdess,) = (line for line in lines if line.startswith("ravdess "))
    assert ravdess.split()[1:6] == ["en", "1.48", "1440", "24", "8"]
    assert "non-commercial" in ravdess


def test_one_and_its_json(capsys):
    assert main(["corpora", "cremad"]) == 0
    text = capsys.readouterr().out
    assert "ser-cl check /data/crema_d --corpus crema_d" in text
    assert "1076_MTI_SAD_XX: has no signal" in text
    assert main(["corpora", "emodb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["utterances"] == 535
    assert main(["corpora", "emodbb"]) == 2
    assert "did you mean 'emodb'" in capsys.readouterr().err


def test_a_folder_is_recognised_whole_and_in_part(tmp_path, capsys):
    root = write_emodb(tmp_path)
    shutil.move(root, tmp_path / "unknown")
    assert main(["corpora", "--which", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("emodb: 535 of 535 utterances; nothing wrong")
    for path in sorted((tmp_path / "unknown" / "wav").iterdir())[:5]:
        path.unlink()
    assert main(["corpora", "--which", str(tmp_path), "--json"]) == 1
    (found, *_) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["found"]) == ("emodb", 530)
    assert "530 instead of 535" in found["problem"]


def test_a_small_corpus_beside_a_large_one_is_recognised_too(tmp_path):
    write_emodb(tmp_path)
    write_ravdess(tmp_path)
    found = [(one.name, one.problem) for one in recognise(tmp_path)]
    assert sorted(found) == [("emodb", None), ("ravdess", None)]


def test_a_plug_ins_card_is_listed(tmp_path, monkeypatch, capsys):
    card = replace(get_card("emodb"), name="ours", title="Our corpus", aliases=[])
    monkeypatch.setitem(CORPORA._entries, "ours", CardReader(card))
    assert main(["corpora"]) == 0
    assert "\nours " in capsys.readouterr().out
    assert main(["corpora", "ours"]) == 0
    assert "Our corpus (ours)" in capsys.readouterr().out
    write_emodb(tmp_path)
    assert {one.name for one in recognise(tmp_path)} == {"emodb", "ours"}


def test_a_folder_without_a_known_corpus(tmp_path, capsys):
    (tmp_path / "holiday.jpg").touch()
    assert main(["corpora", "--which", str(tmp_path)]) == 1
    assert "no corpus that is known by name" in capsys.readouterr().out
    assert main(["corpora", "--which", str(tmp_path / "nowhere")]) == 2


def test_real_corpora_are_recognised(shared):
    folders = {"emodb": "EmoDB", "ravdess": "RAVDESS", "crema_d": "CREMA-D"}
    for name, folder in folders.items():
        assert recognise(shared / "corpora" / folder)[0].name == name
