"""LoRA as an option of WeightedSSL."""

import copy
import sys

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from transformers import AutoModel

from speechbrain_ser_cl.backbones import WeightedSSL

WHISPER = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
}
WAVEFORM = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
CONFIGS = {"whisper": WHISPER} | {
    name: WAVEFORM | {"model_type": name} for name in ["wav2vec2", "hubert", "wavlm"]
}


def build(name="wavlm", seed=0, **options):
    torch.manual_seed(seed)
    return WeightedSSL(CONFIGS[name], **options)


def train(backbone, wavs):
    """Trains some steps, so that the updates are not zero."""
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    backbone.train()
    for _ in range(3):
        backbone(wavs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    backbone.eval()


@pytest.fixture
def wavs():
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_updates_and_layer_weights_are_all_that_is_trained(name, wavs):
    plain, backbone = build(name).eval(), build(name, lora={"r": 4}).eval()
    torch.testing.assert_close(backbone(wavs), plain(wavs))  # B starts at 0
    before = copy.deepcopy(backbone.state_dict())
    train(backbone, wavs)
    changed = {n for n, p in backbone.state_dict().items() if (p != before[n]).any()}
    expected = {"layer_weights"}
    for layer in range(3):
        prefix = f"encoder.model.encoder.layers.{layer}.attention"
        if name == "whisper":
            prefix = f"encoder.model.layers.{layer}.self_attn"
        for target in ["q_proj", "v_proj"]:
            update = f"{prefix}.{target}.lora"
            expected |= {f"{update}_A.default.weight", f"{update}_B.default.weight"}
    assert changed == expected
    assert changed == {n for n, p in backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("freeze", ["none", "frontend", 0, 2])
def test_frozen_layers_get_no_updates(freeze, wavs):
    backbone = build(freeze=freeze, lora={"r": 2})
    lowest = freeze if isinstance(freeze, int) else 0
    updates = [n for n, _ in backbone.named_parameters() if "lora" in n]
    adapted = {name.split(".layers.")[1][0] for name in updates}
    assert adapted == {str(layer) for layer in range(lowest, 3)}
    grads = [h.requires_grad for h in backbone.train().hidden_states(wavs)]
    assert grads == [layer > lowest for layer in range(4)]


def test_layers_above_the_sum_get_no_updates():
    backbone = build(layers=[1], lora={"r": 2})
    names = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert len(names) == 5
    assert all("layers.0." in name for name in names if name != "layer_weights")


@pytest.mark.parametrize("name", CONFIGS)
def test_targets_can_be_chosen(name):
    wide = ["intermediate_dense", "output_dense"]
    if name == "whisper":
        wide = ["fc1", "fc2"]
    options = {"r": 2, "lora_alpha": 4, "target_modules": ["out_proj", *wide]}
    backbone = build(name, lora=options)
    updates = [n for n, _ in backbone.named_parameters() if "lora" in n]
    adapted = {name.split(".lora_")[0].split(".")[-1] for name in updates}
    assert adapted == {"out_proj", *wide}


def test_the_update_is_that_of_the_paper(wavs):
    """W' = W + alpha / r B A, written into the weights of a model without LoRA."""
    backbone = build(lora={"r": 2, "lora_alpha": 6})
    train(backbone, wavs)
    state = backbone.state_dict()
    plain = build().eval()
    merged = {n: p for n, p in state.items() if ".lora_" not in n}
    merged = {n.replace(".base_layer", ""): p.clone() for n, p in merged.items()}
    for name in state:
        if name.endswith("lora_A.default.weight"):
            b = state[name.replace("lora_A", "lora_B")]
            weight = name.replace("lora_A.default.", "")
            merged[weight] += 6 / 2 * b @ state[name]
    plain.load_state_dict(merged)
    with torch.no_grad():
        torch.testing.assert_close(backbone(wavs), plain(wavs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_merging_gives_an_ordinary_model_that_can_be_exported(name, wavs, tmp_path):
    backbone = build(name, lora={"r": 4})
    train(backbone, wavs)
    expected = backbone(wavs)
    backbone.merge_lora()
    torch.testing.assert_close(backbone(wavs), expected, rtol=1e-4, atol=1e-4)
    assert backbone.state_dict().keys() == build(name).state_dict().keys()
    backbone.encoder.model.save_pretrained(tmp_path)
    loaded = WeightedSSL(tmp_path).eval()
    loaded.layer_weights = backbone.layer_weights
    torch.testing.assert_close(loaded(wavs), expected, rtol=1e-4, atol=1e-4)
    if name != "whisper":
        _, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
    backbone.merge_lora()  # nothing is left to merge
    torch.testing.assert_close(backbone(wavs), expected, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_speechbrain_brings_the_updates_back(wavs, tmp_path):
    backbone = build(lora={"r": 4})
    train(backbone, wavs)
    Checkpointer(tmp_path, {"backbone": backbone}).save_checkpoint()
    other = build(seed=1, lora={"r": 4}).eval()
    assert not torch.allclose(other(wavs), backbone(wavs))
    Checkpointer(tmp_path, {"backbone": other}).recover_if_possible()
    assert torch.equal(other(wavs), backbone(wavs))


def test_padding_is_invisible_with_lora(wavs):
    backbone = build(lora={"r": 4})
    train(backbone, wavs)
    with torch.no_grad():
        together = backbone(wavs, torch.tensor([1.0, 0.5]))[1, :12]
        alone = backbone(wavs[1:, :4000])[0]
    assert (together - alone).norm() < 1e-5 * alone.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 8}, "LoraConfig has no option rank"),
        ({"target_modules": ["query"]}, "is called query; there are .*q_proj"),
        ({"target_modules": "all"}, "is called all; there are"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(lora=options)


def test_nothing_left_to_update_is_an_error():
    with pytest.raises(ValueError, match="is called q_proj, v_proj; there are none"):
        build(freeze="all", lora={"r": 4})


def test_without_peft_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[peft\]"):
        build(lora={"r": 4})
