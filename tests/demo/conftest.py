"""A small untrained model, and the demo's server with it."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.demo import DemoServer
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.model_folder import write_model
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier, MeanPooling

WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
}
# A name that would be markup if it were not escaped.
CLASSES = ["angry", "happy & <b>", "sad"]
MOST_BYTES = 2_000_000


def untrained():
    """Returns a model whose answers differ between windows."""
    torch.manual_seed(0)
    head = ClassifierHead(16, len(CLASSES))
    torch.nn.init.normal_(head.layers[1].weight)
    return EmotionClassifier(WeightedSSL(WHISPER), [head], MeanPooling(16))


@contextmanager
def serving(recognizer):
    """A server that runs."""
    with DemoServer(recognizer, "my_model", 0, MOST_BYTES) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of an exported model."""
    folder = tmp_path_factory.mktemp("models") / "my_model"
    write_model(folder, untrained(), CLASSES)
    return folder


@pytest.fixture(scope="session")
def recognizer(model):
    return EmotionRecognizer.from_pretrained(model, device="cpu")


@pytest.fixture(scope="session")
def server(recognizer):
    with serving(recognizer) as server:
        yield server


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """Writes a gliding tone of 5.2 s, in stereo at 22050 Hz."""
    path = tmp_path_factory.mktemp("audio") / "a tone.wav"
    time = np.arange(round(5.2 * 22050)) / 22050
    noise = 0.02 * np.random.default_rng(0).normal(size=len(time))
    tone = 0.3 * np.sin(2 * np.pi * (150 + 80 * time) * time) + noise
    soundfile.write(path, np.stack([tone, tone / 2], axis=1), 22050)
    return path


@pytest.fixture(scope="session")
def bad(tmp_path_factory):
    """Returns files that are refused, and a part of each message."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "letter.wav").write_text("Dear Sir or Madam, " * 100)
    (folder / "empty.wav").touch()
    soundfile.write(folder / "no samples.wav", np.zeros(0), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "large.wav", np.zeros(MOST_BYTES), 16000)
    # Few bytes, but longer than a quarter of an hour.
    soundfile.write(folder / "long.flac", np.zeros(1000 * 8000), 8000)
    soundfile.write(
        folder / "cut.flac", np.random.default_rng(0).normal(size=9999), 16000
    )
    whole = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    return {
        folder / "letter.wav": "not an audio file",
        folder / "empty.wav": "the file is empty",
        folder / "no samples.wav": "the audio file is empty",
        folder / "silent.wav": "no sample is above -60 dB",
        folder / "large.wav": "it has 4.0 MB, and this page takes up to 2 MB",
        folder / "long.flac": "17 min long",
        folder / "cut.flac": "",
    }
