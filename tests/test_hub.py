"""``ser-cl push`` and loading by id, with a small local server in place of the hub."""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import soundfile
import yaml

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.splits import Labelled, fingerprint
from speechbrain_ser_cl.evaluate import load_classifier
from speechbrain_ser_cl.hub import licence_id
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.training import History, write_run
from speechbrain_ser_cl.training.record import read_results
from tests.test_inference import CLASSES, classifier, speech

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's interface that upload and download use."""

    def log_message(self, *_):
        """Prints nothing."""

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        hub, path = self.server, self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer({"error": "no token"}, 401)
        elif path == "/api/repos/create":
            hub.created = json.loads(body)
            self._answer({"url": f"{hub.address}/anna/voices", "id": "anna/voices"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [one["path"] for one in json.loads(body)["files"]]
            answer = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": name} | answer for name in files]})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    found = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = found
            told = {"commitUrl": f"{hub.address}/anna/voices/commit/{SHA}"}
            self._answer({"success": True, "commitOid": SHA} | told)

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if "/resolve/" in path and name in hub.files:
            mark = hashlib.sha1(hub.files[name]).hexdigest()
            self._answer(hub.files[name], ETag=f'"{mark}"', X_Repo_Commit=SHA)
        elif path.startswith("/api/models/anna/voices") and "/tree/" in path:
            rows = [
                {"type": "file", "path": k, "size": len(v), "oid": SHA}
                for k, v in hub.files.items()
            ]
            self._answer(rows)
        elif path.startswith("/api/models/anna/voices"):
            siblings = [{"rfilename": name} for name in hub.files]
            told = {"id": "anna/voices", "sha": SHA, "siblings": siblings}
            self._answer({"private": False, "tags": [], "downloads": 0} | told)
        else:
            self._answer({"error": "nothing here"}, 404)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.created = {}, None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    # HF_ENDPOINT sets this when the package is imported.
    constants = huggingface_hub.constants
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + template
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Makes a finished run of an untrained model, with its predictions of the test."""
    root = tmp_path_factory.mktemp("hub")
    corpus = write_synthetic(
        root / "c", "synthetic_source", n_speakers=2, utterances_per_speaker=4
    )
    names = {"sad": "negative", "angry": "negative", "neutral": "neutral"}
    items = [
        Labelled(u, names.get(u.emotion, "positive")) for u in read_synthetic(corpus)
    ]
    parts, model = {"train": items[:2], "test": items[2:]}, classifier()
    recognizer = EmotionRecognizer(model, CLASSES, device="cpu")
    paths = [item.utterance.path for item in items[2:]]
    found = [
        list(one.probabilities.values()) for _, one in recognizer.classify_files(paths)
    ]
    history = History()
    history.end_epoch(1, valid={"uar": 0.5}, lr=0.1)
    history.tested = history.epochs[-1]
    predictions = {
        "id": [item.utterance.id for item in items[2:]],
        "label": np.array([CLASSES.index(item.label) for item in items[2:]]),
        "prediction": np.argmax(found, 1),
        "probability": np.array(found),
    }
    about = {"recipe": "toy", "setting": "none", "encoder": "toy", "seed": 0}
    about |= {"demo": False, "data": {"fingerprint": fingerprint(parts)}}
    write_run(
        root / "run", about, predictions, parts, CLASSES, history, model, figures=False
    )
    return root / "run"


@pytest.fixture(scope="module")
def exported(run):
    """The run as an exported folder, and its results."""
    folder = run.parent / "exported"
    assert main(["export", str(run), str(folder)]) == 0
    (folder / "private_notes.txt").write_text("not for others")
    return folder, read_results(run / "results.json")


def test_push_and_predict_by_id(exported, hub, tmp_path, capsys):
    folder, results = exported
    assert main(["push", str(folder), "anna/voices", "--private"]) == 0
    told = capsys.readouterr().out
    assert f"{hub.address}/anna/voices/commit/{SHA}" in told
    assert hub.created["name"] == "voices" and hub.created["organization"] == "anna"
    assert hub.created.get("visibility") == "private" or hub.created.get("private")
    assert set(hub.files) == {"README.md", "model.json", "model.safetensors"}
    assert hub.files["model.json"] == (folder / "model.json").read_bytes()
    soundfile.write(tmp_path / "a.wav", speech(0.5), 16000)
    words = ["predict", str(tmp_path / "a.wav"), "--format", "json", "--model"]
    assert main([*words, "anna/voices"]) == 0
    by_id = capsys.readouterr().out
    assert main([*words, str(folder)]) == 0
    assert capsys.readouterr().out == by_id
    # As the hub reads it.
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert data.pipeline_tag == "audio-classification" and data.language == ["zxx"]
    assert data.datasets == ["synthetic_source"]
    values = {one.metric_type: one.metric_value for one in data.eval_results}
    assert values == {
        kind: pytest.approx(results["test"][key]["value"], abs=1e-4)
        for kind, key in (("recall", "uar"), ("accuracy", "wa"), ("f1", "macro_f1"))
    }


def test_an_export_for_speechbrain_is_pushed_and_loaded_by_id(
    run, hub, tmp_path, capsys
):
    folder, wav = tmp_path / "model", tmp_path / "a.wav"
    assert main(["export", str(run), str(folder), "--format", "speechbrain"]) == 0
    assert main(["push", str(folder), "anna/voices"]) == 0
    assert "README.md says how to use it" in capsys.readouterr().out
    assert set(hub.files) == {path.name for path in folder.iterdir()}
    soundfile.write(wav, speech(0.5), 16000)
    heard = EmotionRecognizer(classifier(), CLASSES, device="cpu").classify_file(wav)
    (found,) = load_classifier("anna/voices").outputs([SimpleNamespace(path=wav)])
    np.testing.assert_allclose(found, list(heard.probabilities.values()), atol=1e-4)
    assert main(["predict", "--model", "anna/voices", str(wav)]) == 2
    assert "no model.json" in capsys.readouterr().err


def test_an_onnx_file_is_pushed_and_loaded_by_id(exported, hub, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from tests.test_evaluate import write_tiny_onnx

    write_tiny_onnx(tmp_path / "model.onnx")
    shutil.copy(exported[0] / "README.md", tmp_path)
    assert main(["push", str(tmp_path), "anna/voices"]) == 0
    assert set(hub.files) == {"README.md", "model.onnx"}
    soundfile.write(tmp_path / "a.wav", speech(0.5), 16000, subtype="FLOAT")
    mean = speech(0.5).mean()
    (found,) = load_classifier("anna/voices").outputs(
        [SimpleNamespace(path=tmp_path / "a.wav")]
    )
    assert found[0] == pytest.approx(1 / (1 + np.exp(-400 * mean)), abs=1e-3)


def test_what_is_no_export_and_a_wrong_token(
    exported, hub, tmp_path, capsys, monkeypatch
):
    folder, _ = exported
    assert main(["push", str(tmp_path), "anna/voices"]) == 2
    assert "expected what `ser-cl export" in capsys.readouterr().err
    assert main(["push", str(folder), "voices"]) == 2
    assert "owner/name" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(folder), "anna/voices"]) == 2
    assert "token has write access" in capsys.readouterr().err
    assert main(["push", str(folder), "anna/voices", "--dry-run"]) == 0
    assert not hub.files
    (tmp_path / "model.json").touch()
    (tmp_path / "README.md").write_text("# No metadata")
    assert main(["push", str(tmp_path), "anna/voices"]) == 2
    assert "no model card with metadata" in capsys.readouterr().err


def test_licence_of_the_card(exported):
    front = (exported[0] / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(front)["license"] in ("other", "apache-2.0", "cc0-1.0")
    assert licence_id("sources disagree") is None
    assert licence_id("CC BY-NC-ND 4.0") == "cc-by-nc-nd-4.0"
