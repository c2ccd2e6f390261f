"""Model folders: written models are read back exactly, and other files are refused."""

import json
import os
import pickle
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from speechbrain_ser_cl.backbones import WeightedSSL
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.model_folder import ModelError, read_model, write_model
from speechbrain_ser_cl.nnet import (
    ClassifierHead,
    DomainClassifierHead,
    DomainNorm,
    EmotionClassifier,
    MeanPooling,
    ProjectionHead,
    SelfAttentionPooling,
    StatisticsPooling,
)
from speechbrain_ser_cl.registry import BACKBONES, HEADS, POOLINGS

CLASSES = ["negative", "positive", "neutral"]
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 40,
}
# Values that differ from the defaults, so that a missing one is detected.
WAVEFORM = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_act": "relu",
    "layer_norm_eps": 0.01,
    "conv_dim": [8] * 7,
    "conv_bias": True,
    "feat_extract_activation": "relu",
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
ENCODERS = {
    "whisper": WHISPER,
    "wav2vec2": WAVEFORM | {"model_type": "wav2vec2", "do_normalize": True},
    "hubert": WAVEFORM
    | {"model_type": "hubert", "feat_extract_norm": "layer", "do_normalize": False},
    "wavlm": WAVEFORM
    | {
        "model_type": "wavlm",
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_buckets": 40,
        "max_bucket_distance": 100,
    },
}


def full_model(config=WHISPER, pooling=None, seed=0):
    """Makes a model with every kind of part and random weights."""
    torch.manual_seed(seed)
    backbone = WeightedSSL(config, freeze=1, layers=[0, 2])
    pooling = pooling or StatisticsPooling(16)
    size = pooling.output_size
    heads = [
        ClassifierHead(size, len(CLASSES), hidden_size=5),
        DomainClassifierHead(size, len(CLASSES)),
    ]
    model = EmotionClassifier(backbone, heads, pooling, DomainNorm(size), domain=1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.uniform_(0.1, 0.9)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    """Makes a valid model folder, to be damaged."""
    write_model(tmp_path / "model", full_model(), CLASSES)
    return tmp_path / "model"


def edit(folder, change):
    """Changes the description in place."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as caught:
        EmotionRecognizer.from_pretrained(folder, device="cpu")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_is_written_is_read_back_exactly(encoder, tmp_path):
    config = ENCODERS[encoder]
    model = full_model(config, SelfAttentionPooling(16))
    write_model(tmp_path, model, CLASSES)
    again, classes = read_model(tmp_path)
    assert classes == CLASSES
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    wavs, lengths = torch.randn(2, 8000), torch.tensor([1.0, 0.6])
    with torch.no_grad():
        # Not equal, because rounding depends on memory alignment.
        torch.testing.assert_close(again(wavs, lengths), model(wavs, lengths))
        other_domain = full_model(config, SelfAttentionPooling(16))
        other_domain.encoder._norm_options = {"domain": 0}
        difference = other_domain(wavs, lengths) / model(wavs, lengths) - 1
        assert difference.abs().max() > 0.01
    if "do_normalize" in config:
        assert again.encoder.backbone.encoder.normalize == config["do_normalize"]


def test_what_lora_learned_is_in_the_weights(tmp_path):
    """The model's users need no peft and trust none of its options."""
    backbone = WeightedSSL(WHISPER, lora={"r": 2})
    model = EmotionClassifier(backbone, [ClassifierHead(16, 3)], MeanPooling()).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_()
    before = list(model.state_dict())
    write_model(tmp_path, model, CLASSES)
    assert list(model.state_dict()) == before
    again, _ = read_model(tmp_path)
    assert not any("lora" in name for name in again.state_dict())
    wavs = torch.randn(2, 8000)
    torch.testing.assert_close(again(wavs), model(wavs), rtol=1e-4, atol=1e-5)


def test_a_group_norm_that_counts_padding_still_does(tmp_path):
    config = ENCODERS["wav2vec2"]
    backbone = WeightedSSL(config, padded_group_norm=True)
    model = EmotionClassifier(backbone, [ClassifierHead(16, 3)], MeanPooling()).eval()
    write_model(tmp_path, model, CLASSES)
    again, _ = read_model(tmp_path)
    wavs, lengths = torch.randn(2, 8000), torch.tensor([1.0, 0.4])
    torch.testing.assert_close(again(wavs, lengths), model(wavs, lengths))


SMALL = {
    "spectrogram_crnn": ({"dropout": 0.3, "transformer_dropout": 0.4}, "mean"),
    "mel_cnn": ({"channels": [8, 6], "dropout": 0.3}, "mean"),
    "pointwise_cnn": (
        {"source": WHISPER, "channels": [8, 6], "average": 3, "batch_norm": True},
        "mean",
    ),
    "concatenated_layers": ({"source": WHISPER, "layers": [0, 2]}, "mean"),
    "egemaps_mlp": ({"hidden_sizes": [8, 6], "dropout": 0.3}, None),
    "vocal_mlp": ({"hidden_sizes": [8, 6], "dropout": 0.3}, None),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_small_encoders_are_read_back_exactly(name, tmp_path):
    if name == "egemaps_mlp":
        pytest.importorskip("opensmile")
    arguments, pooling = SMALL[name]
    torch.manual_seed(0)
    backbone = BACKBONES.build(name, **arguments)
    model = EmotionClassifier(
        backbone,
        [ClassifierHead(backbone.output_size, 3)],
        None if pooling is None else POOLINGS.build(pooling),
    ).eval()
    torch.nn.init.normal_(model.head.heads[0].layers[1].weight)
    write_model(tmp_path, model, CLASSES)
    again, _ = read_model(tmp_path)
    wavs, lengths = torch.randn(2, 32000), torch.tensor([1.0, 0.6])
    with torch.no_grad():
        expected = model(wavs, lengths)
        torch.testing.assert_close(again(wavs, lengths), expected)
    assert expected[0].sub(expected[1]).abs().max() > 1e-3
    rebuilt = again.encoder.backbone.arguments()
    given = {key: value for key, value in arguments.items() if key != "source"}
    assert given.items() <= rebuilt.items()
    if name in ("pointwise_cnn", "concatenated_layers"):
        edit(tmp_path, set_source("evil/model"))
        refused(tmp_path, "'source' that is the configuration of an encoder")


def test_the_description_is_readable_json_of_the_architecture(folder):
    description = json.loads((folder / "model.json").read_text())
    assert description["classes"] == CLASSES
    source = description["backbone"]["arguments"]["source"]
    assert WHISPER.items() <= source.items()
    assert description["norm"] == {
        "name": "domain_norm",
        "arguments": {
            "size": 32,
            "n_domains": 2,
            "eps": 1e-5,
            "batch_statistics": True,
        },
    }
    files = {path.name: path for path in folder.iterdir()}
    assert set(files) == {"model.json", "model.safetensors"}
    modes = {path.stat().st_mode for path in files.values()}
    assert len(modes) == 1  # equal read permissions


@pytest.mark.parametrize(
    "part",
    [
        MeanPooling(4),
        StatisticsPooling(4),
        SelfAttentionPooling(4),
        ProjectionHead(4, 3, 2),
        ClassifierHead(4, 2, 3, 0.5),
        ClassifierHead(4, 2),
        DomainClassifierHead(4, 2, 3),
        DomainNorm(4, 3, 0.1),
    ],
    ids=lambda part: type(part).__name__,
)
def test_arguments_build_the_part_again(part):
    registry = POOLINGS if "Pooling" in type(part).__name__ else HEADS
    (name,) = [n for n in registry.names() if registry.get(n) is type(part)]
    arguments = json.loads(json.dumps(part.arguments()))
    again = registry.build(name, **arguments)
    assert again.arguments() == part.arguments()
    shapes = {key: value.shape for key, value in part.state_dict().items()}
    assert {k: v.shape for k, v in again.state_dict().items()} == shapes
    assert str(again) == str(part)
    assert getattr(again, "eps", None) == getattr(part, "eps", None)


def test_parts_that_cannot_be_exported_are_named(tmp_path):
    model = EmotionClassifier(
        WeightedSSL(WHISPER), [nn.Linear(16, 3)], pooling=MeanPooling()
    )
    with pytest.raises(ModelError, match=r"Linear cannot be exported.*arguments\(\)"):
        write_model(tmp_path, model, CLASSES)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="DomainNorm treats each domain"):
        EmotionClassifier(WeightedSSL(WHISPER), [], norm=DomainNorm(16))


def test_names_that_would_not_be_read_are_not_written(tmp_path):
    with pytest.raises(ModelError, match="classes is .*, expected"):
        write_model(tmp_path, full_model(), ["a", "a", "b"])


# Hostile folders


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_is_never_opened(folder, tmp_path):
    marker = tmp_path / "exploded"
    for name in ("model.safetensors", "model.pt", "pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    refused(folder, "model.safetensors: .*(no|not a readable) safetensors file")
    torch.save({"weights": Bomb(marker)}, folder / "model.safetensors")
    refused(folder, "model.safetensors: .*(no|not a readable) safetensors file")
    assert not marker.exists()


def test_no_yaml_is_ever_run(folder, tmp_path):
    marker = tmp_path / "exploded"
    bomb = f"!apply:os.mkdir [{marker}]\n"
    (folder / "hyperparams.yaml").write_text(f"modules: {bomb}")
    EmotionRecognizer.from_pretrained(folder, device="cpu")  # it is not read
    (folder / "model.json").write_text(bomb)
    refused(folder, "model.json: not valid JSON")
    edit_text = json.dumps({"format": 1, "backbone": bomb})
    (folder / "model.json").write_text(edit_text)
    refused(folder, "no classes, sample_rate, .* in this model.json")
    (folder / "model.json").unlink()
    refused(folder, "no model.json in this folder; expected one that `ser-cl export`")
    assert not marker.exists()


def test_folders_similar_to_a_model_give_advice(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    refused(run, f"it is a run, whose model is {run / 'model'}; .*ser-cl export {run}")
    refused(run / "model" / "model.json", "is a file; expected the folder")


def set_source(value):
    def change(description):
        description["backbone"]["arguments"]["source"] = value

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        # Code and places to load from.
        (lambda d: d["backbone"].update(name="os.system"), "unknown backbone"),
        (lambda d: d["backbone"].update(name="supcon"), "unknown backbone"),
        (lambda d: d["heads"][0].update(name="../../x"), "unknown head"),
        (set_source("evil/model"), "'source' that is the configuration"),
        (set_source("/etc"), "'source' that is the configuration"),
        (set_source({"model_type": "bert"}), "model type 'bert' is not supported"),
        (
            set_source(WHISPER | {"attn_implementation": "evil/kernel"}),
            "not part of the architecture of a whisper encoder: attn_implementation",
        ),
        (
            set_source(WHISPER | {"auto_map": {"AutoModel": "evil.Model"}}),
            "not part of the architecture of a whisper encoder: auto_map",
        ),
        (
            lambda d: d["backbone"]["arguments"].update(save_path="/tmp/x"),
            "expected freeze, layers, padded_group_norm, source, found",
        ),
        (
            lambda d: d["heads"][0]["arguments"].update(path="/etc/passwd"),
            "cannot build the head 'classifier'",
        ),
        (lambda d: d.update(weights="../../secret"), "unknown key weights"),
        # Sizes.
        (
            set_source(WHISPER | {"d_model": 10**12}),
            "d_model is 1000000000000, expected at most",
        ),
        (
            set_source(WHISPER | {"encoder_layers": 50_000}),
            "encoder_layers is 50000, expected at most",
        ),
        (
            set_source(WHISPER | {"suppress_tokens": [0] * 10_000}),
            "suppress_tokens has 10000 values",
        ),
        # Shapes and values that fit neither the weights nor each other.
        (set_source(WHISPER | {"num_mel_bins": 90_000}), "at most the 201 frequencies"),
        (set_source(WHISPER | {"d_model": 32}), "has shape .* model.json says"),
        (set_source(WHISPER | {"encoder_layers": 1}), "cannot build the backbone"),
        (set_source(WHISPER | {"encoder_layers": 3}), "missing tensors: encoder"),
        (set_source(WHISPER | {"encoder_layers": "two"}), "cannot build the backbone"),
        (set_source(WHISPER | {"activation_function": "sh"}), "cannot build the"),
        (lambda d: d.update(pooling={"name": "mean", "arguments": {}}), "do not work"),
        (lambda d: d.update(pooling=None), "do not work together"),
        (lambda d: d.update(domain=7), "do not work together"),
        (lambda d: d.update(domain=None), "DomainNorm treats each domain differently"),
        (lambda d: d.update(domain="1"), 'domain is "1", expected'),
        (lambda d: d["classes"].pop(), "2 classes, but the heads have 3"),
        (lambda d: d.update(classes=["a", "\x1b[2J", "c"]), "classes is .*, expected"),
        (lambda d: d.update(classes={"a": 1}), "classes is .*, expected"),
        (lambda d: d.update(sample_rate=8000), "sample_rate is 8000, expected 16000"),
        (lambda d: d.update(format=2), "format is 2, expected 1"),
        (lambda d: d.update(heads=[]), "heads is .*expected at least 1"),
        (lambda d: d.update(heads=[None]), r"heads\[0\] is null, expected"),
        (lambda d: d.update(norm="domain_norm"), 'norm is "domain_norm", expected'),
        (lambda d: d.clear(), "no format, classes"),
        (lambda d: d.update(domain=float("nan")), "domain is NaN, expected"),
    ],
)
def test_a_description_with_other_keys_is_refused(folder, change, match):
    edit(folder, change)
    refused(folder, match)


def test_a_description_of_a_wrong_form_is_refused(folder):
    path = folder / "model.json"
    path.write_text("[]")
    refused(folder, "model.json is .*expected an object")
    path.write_text("[" * 100_000)
    refused(folder, "not valid JSON")
    path.write_text("[" * 500 + "]" * 500)
    refused(folder, "recursion limit")
    path.write_text(" " * 2_000_000)
    refused(folder, "more than 1000000 bytes")
    path.write_bytes(b"\xff\xfe\x00")
    refused(folder, "not valid JSON")
    path.unlink()
    os.mkfifo(path)
    refused(folder, "is a pipe or a device, expected a file")
    path.unlink()
    path.mkdir()
    refused(folder, "is a folder, expected a file")


def test_a_flipped_bit_in_the_weights_is_refused(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    refused(folder, "its checksum is not the one in model.json")
    edit(folder, lambda d: d.pop("sha256"))  # as earlier versions wrote it
    read_model(folder)


def test_an_oversized_header_is_refused(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for size in (len(content), 2**31, 2**63):
        path.write_bytes(struct.pack("<Q", size) + content[8:])
        refused(folder, "its header claims to have")
    path.write_bytes(content[:-4])  # cut off
    refused(folder, "not a readable safetensors file")
    path.write_bytes(b"")
    refused(folder, "its header claims to have 0 bytes")
    path.unlink()
    refused(folder, "there is no such file")


def test_wrong_tensors_are_refused(folder):
    edit(folder, lambda d: d.pop("sha256"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "head.heads.1.bias"

    def refused_with(changed, match):
        save_file(changed, path)
        refused(folder, match)

    refused_with(weights | {name: torch.zeros(2, 4)}, rf"{name} has shape \[2, 4\]")
    refused_with(weights | {name: weights[name].half()}, "of torch.float16, model.json")
    refused_with(weights | {"evil": torch.zeros(1)}, "unknown tensors: evil")
    without = {key: value for key, value in weights.items() if key != name}
    refused_with(without, f"missing tensors: {name}")
    refused_with(weights | {name: weights[name] + torch.nan}, "not finite")
    many = {f"t{i}": torch.zeros(0) for i in range(5001)}
    refused_with(many, "5001 tensors, too many")


def test_memory_is_not_taken_before_shapes_are_checked(folder):
    """A description of 20 GB of weights is refused at once."""
    edit(folder, set_source(WHISPER | {"d_model": 20_000, "encoder_ffn_dim": 20_000}))
    refused(folder, "has shape")


def test_a_plug_in_that_was_not_made_for_it_is_not_built(folder, monkeypatch):
    built = []

    class Eager(nn.Module):
        def __init__(self):
            built.append(self)

    monkeypatch.setitem(HEADS._entries, "eager", Eager)
    monkeypatch.setitem(HEADS._sources, "eager", "somewhere")
    edit(folder, lambda d: d["heads"].append({"name": "eager", "arguments": {}}))
    refused(folder, "the head 'eager' cannot be exported")
    assert not built
