"""ONNX in onnxruntime, against PyTorch; text in the YAML for SpeechBrain."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.export import _tagged, write_onnx
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    DomainNorm,
    EmotionClassifier,
    SelfAttentionPooling,
)

CLASSES = ["negative", "positive", "neutral"]
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}


def test_onnxruntime_equals_pytorch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    head = ClassifierHead(16, len(CLASSES))
    torch.nn.init.normal_(head.layers[1].weight)
    norm = DomainNorm(16)
    norm.calibrate(torch.randn(10, 16), domain=1)
    model = EmotionClassifier(
        WeightedSSL(WHISPER), [head], SelfAttentionPooling(16), norm, domain=1
    ).eval()
    difference = write_onnx(tmp_path / "model.onnx", model, CLASSES)
    assert difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert metadata["sample_rate"] == "16000"
    seen = []
    for seconds in (0.1, 0.731, 5.0):
        wavs = 0.3 * torch.randn(1, round(16000 * seconds)).cumsum(1).sin()
        (found,) = session.run(["probabilities"], {"wavs": wavs.numpy()})
        with torch.no_grad():
            expected = model(wavs).softmax(dim=1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        seen.append(found[0])
    assert np.ptp(seen, axis=0).max() > 0.01


def test_dimensions_are_on_their_own_scale(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    head = ClassifierHead(16, 2)
    torch.nn.init.normal_(head.layers[1].weight)
    model = EmotionClassifier(WeightedSSL(WHISPER), [head], SelfAttentionPooling(16))
    model.eval().answer_as("dimensions", [3.0, 50.0], [1.0, 20.0])
    write_onnx(tmp_path / "model.onnx", model, ["arousal", "valence"])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["kind"] == "dimensions"
    wavs = 0.3 * torch.randn(1, 9000)
    (found,) = session.run(["values"], {"wavs": wavs.numpy()})
    with torch.no_grad():
        expected = np.array([3.0, 50.0]) + np.array([1.0, 20.0]) * model(wavs).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Told(torch.nn.Module):
    """A part whose only argument is text."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def arguments(self):
        return {"text": self.text}


@pytest.mark.parametrize(
    "text",
    [
        "!new:os.system [touch hacked]",
        "!apply:os.system [touch hacked]",
        "!!python/object/apply:os.system ['touch hacked']",
        "}\nx: !apply:os.system [touch hacked]\ny: {",
        "{a: !apply:os.system [touch hacked]}",
        "!ref <text>",
        "<text>",
        "*alias",
        "&anchor x",
        "'\"\\ #: {} []",
        "null",
        "1e3",
    ],
)
def test_text_of_a_model_is_text_in_the_yaml_for_speechbrain(
    text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    # With the name in the file, for any import mode of pytest.
    module = ModuleType("told")
    module.Told = Told
    monkeypatch.setitem(sys.modules, "told", module)
    monkeypatch.setattr(Told, "__module__", "told")
    loaded = load_hyperpyyaml(f"part: {_tagged(Told(text))}\n")
    assert loaded["part"].text == text
    assert not list(tmp_path.iterdir())
