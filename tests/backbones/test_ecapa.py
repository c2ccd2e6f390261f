"""ECAPA-TDNN: equal to SpeechBrain's, alone in any batch, frozen, exported."""

import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from speechbrain_ser_cl.backbones import ECAPAEncoder
from speechbrain_ser_cl.model_folder import read_model, write_model
from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier

SIZES = {"n_mels": 8, "channels": [16] * 4 + [48], "attention_channels": 8, "size": 6}


@pytest.fixture(scope="module")
def peer():
    torch.manual_seed(0)
    model = ECAPA_TDNN(
        8,
        channels=[16] * 4 + [48],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=8,
        lin_neurons=6,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def encoder(peer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ecapa")
    torch.save(peer.state_dict(), folder / "embedding_model.ckpt")
    return ECAPAEncoder(folder)


def test_as_speechbrain_computes_it_and_alone_in_any_batch(encoder, peer):
    wavs = torch.randn(3, 8000)
    lengths = torch.tensor([1.0, 0.6, 0.3])
    found = encoder.train()(wavs, lengths)
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    for row, wav, length in zip(found, wavs, lengths, strict=True):
        x = Fbank(n_mels=8)(wav[None, : round(float(length) * 8000)])
        with torch.no_grad():
            expected = peer(norm(x, torch.ones(1)))[0, 0]
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)
    assert not found.requires_grad and not encoder.model.training


def test_in_a_model_folder(encoder, tmp_path):
    model = EmotionClassifier(encoder, [ClassifierHead(6, 2)]).eval()
    write_model(tmp_path, model, ["a", "b"])
    again, _ = read_model(tmp_path)
    wavs = torch.randn(2, 4000)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(wavs), model(wavs))


def test_what_is_no_ecapa_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"could not load embedding_model\.ckpt"):
        ECAPAEncoder(tmp_path)
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "embedding_model.ckpt")
    with pytest.raises(ValueError, match="contains no ECAPA-TDNN"):
        ECAPAEncoder(tmp_path)
    for wrong in ({"canals": 1}, {"size": 10**9}, {"channels": [8]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ECAPAEncoder(wrong)
    with pytest.raises(ValueError, match="expected a 'source'"):
        ECAPAEncoder.from_arguments({"source": "owner/name"})
    assert ECAPAEncoder.from_arguments({"source": SIZES}).output_size == 6
