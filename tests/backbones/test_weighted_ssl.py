"""WeightedSSL against transformers, on small random and real models."""

import copy
import json
import math
import pickle
import warnings
import weakref
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_ser_cl.backbones import WeightedSSL, packing
from speechbrain_ser_cl.backbones.speech_encoder import masked_spans
from speechbrain_ser_cl.nnet import MeanPooling, length_mask
from speechbrain_ser_cl.nnet.lengths import steps_mask
from speechbrain_ser_cl.registry import BACKBONES

WHISPER = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
}


def waveform_config(model_type, norm="layer", stable=False, **changes):
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": [32] * 7,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": stable,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    } | changes


LAYER_NORM = {
    f"{model_type}-{'stable' if stable else 'post'}": waveform_config(
        model_type, "layer", stable
    )
    for model_type in ["wav2vec2", "hubert", "wavlm"]
    for stable in [False, True]
}
GROUP_NORM = {
    f"{model_type}-group": waveform_config(model_type, "group")
    for model_type in ["wav2vec2", "hubert", "wavlm"]
}
ALL = LAYER_NORM | {"whisper": WHISPER} | GROUP_NORM
# No published model has this combination, but transformers supports it.
STABLE_GROUP_NORM = {
    f"{model_type}-group-stable": waveform_config(model_type, "group", True)
    for model_type in ["wav2vec2", "hubert", "wavlm"]
}
WAVEFORM = LAYER_NORM | GROUP_NORM | STABLE_GROUP_NORM
EVERY_KIND = WAVEFORM | {"whisper": WHISPER}
DATA2VEC = waveform_config(
    "data2vec-audio", num_conv_pos_embeddings=2, conv_pos_kernel_size=5
)
del DATA2VEC["feat_extract_norm"], DATA2VEC["do_stable_layer_norm"]
BERT = {
    "model_type": "wav2vec2-bert",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 3,
}
# Other families than the first four, and MMS, whose layers have adapters.
MORE_FAMILIES = {
    "data2vec-audio": DATA2VEC,
    "unispeech": waveform_config("unispeech", "group"),
    "unispeech-sat": waveform_config("unispeech-sat", "layer", True),
    "sew": waveform_config("sew", "group", conv_dim=[16] * 6 + [32])
    | {
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
        "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    },
    "wav2vec2-bert": BERT,
    "mms": waveform_config("wav2vec2", "layer", True, adapter_attn_dim=8),
}


def build(config, **options):
    torch.manual_seed(0)
    return WeightedSSL(config, **options)


def speech(*counts, seed=0):
    """Makes noise of several lengths with different means and levels, one by one."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (0.1 + i) * torch.randn(n, generator=generator) + 0.05 * i
        for i, n in enumerate(counts)
    ]


def pad(utterances, garbage=0.0):
    """Returns a padded batch and its relative lengths."""
    longest = max(map(len, utterances))
    wavs = torch.full((len(utterances), longest), garbage)
    for row, utterance in zip(wavs, utterances, strict=True):
        row[: len(utterance)] = utterance
    return wavs, torch.tensor([len(u) / longest for u in utterances])


@pytest.fixture(params=ALL)
def any_config(request):
    return ALL[request.param]


@pytest.fixture(params=["wav2vec2-stable", "wavlm-post", "whisper"])
def one_config(request):
    return ALL[request.param]


# The sum and its parts


@pytest.mark.parametrize(
    "name", [*WAVEFORM, "data2vec-audio", "unispeech", "unispeech-sat", "mms"]
)
def test_equals_the_weighted_sum_of_transformers_hidden_states(name, tmp_path):
    torch.manual_seed(1)
    config = AutoConfig.for_model(**(WAVEFORM | MORE_FAMILIES)[name])
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():  # adapters and norms that change nothing would hide an error
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(tmp_path)
    backbone = WeightedSSL(str(tmp_path)).eval()
    with torch.no_grad():
        backbone.layer_weights.normal_()

    (wav,) = speech(9000)
    inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        expected = sum(
            w * state for w, state in zip(backbone.weights, states, strict=True)
        )
        ours = backbone(wav[None])
        each = list(backbone.hidden_states(wav[None]))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for one, state in zip(each, states, strict=True):
        torch.testing.assert_close(one, state, rtol=1e-5, atol=1e-5)


def test_sew_gives_the_states_between_squeezing_and_upsampling(tmp_path):
    torch.manual_seed(1)
    config = AutoConfig.for_model(**MORE_FAMILIES["sew"])
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    backbone = WeightedSSL(tmp_path).eval()
    assert (backbone.hop, backbone.encoder.receptive_field) == (640, 720)
    states = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(
            lambda module, inputs, output: states.append(output)
        )
    for n_samples in (9000, 9300):  # an even and an odd number of frames
        states.clear()
        (wav,) = speech(n_samples)
        with torch.no_grad():
            model(wav[None])
            ours = list(backbone.hidden_states(wav[None]))[1:]
        for one, state in zip(ours, states, strict=True):
            torch.testing.assert_close(one, state, rtol=1e-5, atol=1e-5)


def test_wav2vec2_bert_equals_transformers_on_a_batch():
    torch.manual_seed(1)
    backbone = build(BERT).eval()
    utterances = speech(16000, 7777)
    inputs = SeamlessM4TFeatureExtractor()(
        [u.numpy() for u in utterances], sampling_rate=16000, return_tensors="pt"
    )
    wavs, lengths = pad(utterances)
    counts = torch.tensor([len(u) for u in utterances])
    ours = backbone.encoder.filterbanks(wavs, counts)
    mask = inputs.attention_mask.bool()
    torch.testing.assert_close(
        ours[mask], inputs.input_features[mask], rtol=1e-3, atol=1e-3
    )
    with torch.no_grad():
        states = backbone.encoder.model(
            **inputs, output_hidden_states=True
        ).hidden_states
        for one, state in zip(
            backbone.hidden_states(wavs, lengths), states, strict=True
        ):
            torch.testing.assert_close(one[mask], state[mask], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MORE_FAMILIES)
def test_the_other_families_are_frozen_trained_and_described_alike(name):
    config = MORE_FAMILIES[name]
    wavs, lengths = pad(speech(8000, 5000))
    backbone = build(config, freeze=2).train()
    backbone(wavs, lengths).square().sum().backward()
    for parameter in backbone.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    assert torch.equal(*(backbone.frozen_states(wavs, lengths) for _ in range(2)))
    other = WeightedSSL.from_arguments(backbone.arguments()).eval()
    other.load_state_dict(backbone.state_dict())
    assert torch.equal(other(wavs, lengths), backbone.eval()(wavs, lengths))


def test_whisper_on_30_seconds_equals_transformers():
    backbone = build(WHISPER).eval()
    with torch.no_grad():
        backbone.layer_weights.normal_()
        backbone.encoder.model.layer_norm.weight.uniform_(0.5, 2)
    wav = torch.zeros(480000)
    wav[:470000] = speech(470000)[0]
    features = WhisperFeatureExtractor()(
        wav.numpy(), sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        states = backbone.encoder.model(
            features.input_features, output_hidden_states=True
        ).hidden_states
        expected = sum(
            w * state for w, state in zip(backbone.weights, states, strict=True)
        )
        torch.testing.assert_close(backbone(wav[None]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_equals_whispers_feature_extractor(n_mels):
    backbone = build(WHISPER | {"num_mel_bins": n_mels})
    utterances = speech(16000, 7777, 40123)
    utterances[1][2000:6000] = 0  # silence, where the limit below the maximum matters
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    wavs, lengths = pad(utterances)
    counts = torch.tensor([len(u) for u in utterances])
    ours = backbone.encoder.log_mel(wavs, counts)
    assert ours.shape == (3, n_mels, 250)
    for mel, utterance in zip(ours, utterances, strict=True):
        n = len(utterance) // 160
        expected = extractor(utterance.numpy(), sampling_rate=16000).input_features[0]
        np.testing.assert_allclose(mel[:, :n], expected[:, :n], atol=1e-4)
        assert not mel[:, n:].any()


def test_another_attention_in_the_configuration_changes_nothing():
    wavs, lengths = pad(speech(8000, 5000))
    expected = build(WHISPER).eval()(wavs, lengths)
    eager = build(WHISPER | {"attn_implementation": "eager"}).eval()
    assert torch.equal(eager(wavs, lengths), expected)


def test_weights_start_equal_and_are_learned():
    backbone = build(WHISPER, freeze="all")
    assert torch.equal(backbone.weights, torch.full((4,), 0.25))
    backbone(torch.randn(2, 8000)).square().sum().backward()
    assert backbone.layer_weights.grad.isfinite().all()
    assert backbone.layer_weights.grad.abs().min() > 0


def test_sizes(any_config):
    backbone = build(any_config)
    assert (backbone.output_size, backbone.hop, backbone.n_layers) == (32, 320, 3)
    assert BACKBONES.get("weighted_ssl") is WeightedSSL
    n = 16000
    frames = backbone(torch.randn(2, n)).shape[1]
    assert abs(frames - n / backbone.hop) <= 1


# Padding


@pytest.mark.parametrize("group_cost", [0, 10**6])
@pytest.mark.parametrize(
    ("name", "garbage"),
    [
        *product(EVERY_KIND | MORE_FAMILIES, [0.0]),
        ("wav2vec2-group", math.nan),
        ("whisper", 3.0),
        ("wav2vec2-bert", 3.0),
    ],
)
def test_padding_is_invisible(name, garbage, group_cost, monkeypatch):
    """Each utterance alone, or all together."""
    monkeypatch.setitem(packing._GROUP_COST, "cpu", group_cost)
    backbone = build((EVERY_KIND | MORE_FAMILIES)[name]).eval()
    utterances = speech(12345, 3000, 8159, 8160, 450)
    wavs, lengths = pad(utterances, garbage)
    frame_lengths = backbone.frame_lengths(lengths, wavs.shape[1])
    with torch.no_grad():
        together = backbone(wavs, lengths)
        for i, utterance in enumerate(utterances):
            alone = backbone(utterance[None])[0]
            mask = length_mask(frame_lengths, together.shape[1])[i]
            assert mask.sum() == len(alone)
            assert (together[i][mask] - alone).norm() < 1e-5 * alone.norm()
        pooled = MeanPooling()(together, frame_lengths)
        alone = MeanPooling()(backbone(utterances[1][None]))
        assert (pooled[1] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("name", WAVEFORM)
def test_padding_has_no_effect_on_gradients(name):
    utterances = speech(8000, 3000, 8159)
    wavs, lengths = pad(utterances, garbage=3.0)
    backbone = build(WAVEFORM[name]).eval()
    frame_lengths = backbone.frame_lengths(lengths, wavs.shape[1])
    together = backbone(wavs, lengths)
    mask = length_mask(frame_lengths, together.shape[1]).unsqueeze(-1)
    noise = torch.randn_like(together) * mask
    (together * noise).sum().backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters()}
    backbone.zero_grad()
    for utterance, part in zip(utterances, noise, strict=True):
        alone = backbone(utterance[None])[0]
        (alone * part[: len(alone)]).sum().backward()
    for n, p in backbone.named_parameters():
        if p.grad is not None:
            difference = (gradients[n] - p.grad).norm()
            assert difference <= 1e-4 * p.grad.norm() + 1e-5, n


# Two layers of each kind, because compilation takes seconds for each.
SHALLOW = {"num_hidden_layers": 2, "conv_dim": [32] * 3}
SHALLOW |= {"conv_kernel": [10, 8, 8], "conv_stride": [10, 8, 4]}


def assert_compiled_gives_the_same(backbone, compiled, batches):
    """Compares frames and gradients with eager mode, from the same random state."""
    for counts in batches:
        wavs, lengths = pad(speech(*counts))
        results = []
        for run in (backbone, compiled):
            torch.manual_seed(1)
            backbone.zero_grad()
            frames = run(wavs, lengths)
            frames.square().mean().backward()
            gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
            results.append([frames.detach(), *(g.clone() for g in gradients)])
        for mine, expected in zip(*results, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        EVERY_KIND["wav2vec2-group"] | SHALLOW,
        EVERY_KIND["wavlm-post"] | SHALLOW,
        WHISPER | {"encoder_layers": 2},
    ],
    ids=lambda config: config["model_type"],
)
def test_compiled_it_gives_the_same_for_any_batch(config):
    torch.compiler.reset()
    backbone = build(config).eval()
    compiled = torch.compile(backbone, backend="aot_eager")
    batches = [(8000, 5000), (9000, 3000, 8159), (4000,), (6000, 6000, 6000)]
    assert_compiled_gives_the_same(backbone, compiled, batches)


def test_inductor_trains_like_the_encoder_itself(inductor):
    """Equal to eager mode, with random masks and dropout of attention weights.

    Dropout of features is off: compiled, it draws other random numbers.
    """
    torch.compiler.reset()
    config = EVERY_KIND["wav2vec2-group"] | SHALLOW
    config |= {"hidden_dropout": 0.0, "activation_dropout": 0.0, "mask_time_prob": 0.3}
    backbone = build(config).train()
    # For any shape at once; by default it is compiled for the first shape before.
    compiled = torch.compile(backbone, backend=inductor, dynamic=True)
    with torch._inductor.config.patch(fallback_random=True):
        batches = [(8000, 5000), (9000, 3000, 8159)]
        assert_compiled_gives_the_same(backbone, compiled, batches)


@pytest.mark.parametrize("name", GROUP_NORM)
def test_group_norm_counts_padding_where_that_is_asked_for(name):
    """Equal to transformers on the zero-padded batch and its mask."""
    backbone = build(GROUP_NORM[name], padded_group_norm=True).eval()
    utterances = speech(16000, 4000)
    wavs, lengths = pad(utterances)
    mask = length_mask(lengths, wavs.shape[1])
    with torch.no_grad():
        ours = backbone(wavs, lengths)
        states = backbone.encoder.model(
            wavs, attention_mask=mask.long(), output_hidden_states=True
        ).hidden_states
        expected = torch.stack(states).mean(dim=0)
        torch.testing.assert_close(ours[0], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[1, :12], expected[1, :12], rtol=1e-5, atol=1e-5)
        alone = backbone(utterances[1][None])[0]
    assert (ours[1, :12] - alone).norm() / alone.norm() > 0.05


# WavLM's attention


def transformers_layers(backbone, x, mask):
    """Runs the layers of transformers' WavLM on frames (B, T', D) in order."""
    bias = None
    for layer in backbone.encoder.model.encoder.layers:
        x, bias = layer(x, attention_mask=mask, position_bias=bias)
    return x


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize(
    ("counts", "dropout"),
    # With padding, dropout draws in another order.
    [([40, 40, 40], 0.0), ([40, 40, 40], 0.5), ([40, 13, 27], 0.0)],
)
def test_wavlm_equals_transformers_in_training_too(
    stable, dropout, counts, monkeypatch
):
    """Output and all gradients, with torch's random numbers also for dropout."""
    monkeypatch.setattr(
        packing,
        "_drawn",
        lambda x, level: F.dropout(torch.ones_like(x), level / 2**16) == 0,
    )
    config = waveform_config("wavlm", "layer", stable, num_buckets=16)
    rates = ["attention_dropout", "hidden_dropout", "activation_dropout"]
    config |= dict.fromkeys(rates, 0.0) | {"attention_dropout": dropout}
    backbone = build(config).train()
    with torch.no_grad():  # initially the gates and biases have little effect
        for name, p in backbone.named_parameters():
            if "gru_rel_pos" in name or "rel_attn_embed" in name:
                p.normal_()
    n_steps = max(counts)
    mask = steps_mask(torch.tensor(counts), n_steps)
    x = torch.randn(3, n_steps, 32).masked_fill(~mask.unsqueeze(-1), 0)
    noise = torch.randn(3, n_steps, 32) * mask.unsqueeze(-1)
    shape = packing.Packing(counts, n_steps, x.device)

    def ours(x):
        *_, last = backbone.encoder.layers_above(0, shape.pack(x), shape)
        return shape.unpack(last)

    results = []
    for run in (ours, lambda x: transformers_layers(backbone, x, mask)):
        backbone.zero_grad()
        leaf = x.clone().requires_grad_()
        torch.manual_seed(0)
        y = run(leaf) * mask.unsqueeze(-1)
        (y * noise).sum().backward()
        gradients = {n: p.grad for n, p in backbone.named_parameters()}
        results.append((y.detach(), leaf.grad, gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
    for name, expected in results[1][2].items():
        if expected is not None:
            torch.testing.assert_close(
                results[0][2][name], expected, rtol=1e-3, atol=1e-4, msg=name
            )


def test_transformers_itself_is_not_modified(any_config):
    """Other models are not changed; checkpoints are compatible both ways."""
    backbone = build(any_config)
    model = backbone.encoder.model
    for module in model.modules():
        assert "forward" not in vars(module)
        assert type(module).__module__.split(".")[0] in {"torch", "transformers"}
    if any_config is not WHISPER:
        reference = AutoModel.from_config(AutoConfig.for_model(**any_config))
        reference.load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", ["wav2vec2-post", "whisper"])
def test_frame_lengths_are_exact_for_every_length(name):
    """The mask of frame_lengths has as many frames as an unpadded waveform gives."""
    backbone = build(ALL[name])
    longest = 4001
    counts = torch.arange(400, longest + 1)
    if name == "whisper":
        expected = -(-(counts // 160) // 2)
    else:
        expected = counts
        for kernel, stride in [(10, 5), *[(3, 2)] * 4, (2, 2), (2, 2)]:
            expected = (expected - kernel) // stride + 1
    n_frames = backbone(torch.zeros(1, longest)).shape[1]
    lengths = backbone.frame_lengths(counts / longest, longest)
    assert torch.equal(length_mask(lengths, n_frames).sum(dim=1), expected)
    for n in [400, 719, 720, 1279, 1280, 4000]:
        assert backbone(torch.zeros(1, n)).shape[1] == expected[n - 400]


@pytest.mark.parametrize("normalize", [True, False])
def test_normalisation_follows_the_preprocessor(normalize, tmp_path):
    config = AutoConfig.for_model(**waveform_config("wav2vec2", "layer"))
    AutoModel.from_config(config).save_pretrained(tmp_path)
    assert WeightedSSL(tmp_path).encoder.normalize  # the default of layer norm
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(tmp_path)
    backbone = WeightedSSL(tmp_path).eval()
    wavs, lengths = pad(speech(8000, 6000))
    different = backbone(wavs, lengths) - backbone(10 * wavs + 1, lengths)
    assert (different.abs().max() < 1e-3) == normalize


def test_group_norm_models_are_not_normalised_by_default():
    config = GROUP_NORM["wav2vec2-group"]
    assert not build(config).encoder.normalize
    assert build(config | {"do_normalize": True}).encoder.normalize


def test_too_short_utterances_are_padded_with_one_warning(any_config):
    backbone = build(any_config).eval()
    (tiny,) = speech(150)
    with pytest.warns(UserWarning, match="150 samples is shorter"):
        alone = backbone(tiny[None])
    assert alone.shape == (1, 1, 32)
    assert alone.isfinite().all()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="an utterance")
        assert torch.equal(backbone(tiny[None]), alone)
    together = backbone(*pad([tiny, *speech(9000)]))
    assert (together[0, 0] - alone[0, 0]).abs().max() < 1e-5


# Freezing


def test_frozen_is_frozen(any_config):
    busy = {
        "hidden_dropout": 0.5,
        "attention_dropout": 0.5,
        "feat_proj_dropout": 0.5,
        "dropout": 0.5,
        "layerdrop": 0.5,
        "mask_time_prob": 0.5,
        "mask_time_length": 2,
        "apply_spec_augment": True,
    }
    backbone = build(any_config | busy, freeze="all")
    wavs, lengths = pad(speech(8000, 5000))
    backbone.train()
    in_training = [backbone(wavs, lengths) for _ in range(2)]
    assert torch.equal(*in_training)
    backbone.eval()
    assert torch.equal(backbone(wavs, lengths), in_training[0])
    trained = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert trained == ["layer_weights"]
    wavs.requires_grad_()
    backbone.train()
    assert not any(h.requires_grad for h in backbone.hidden_states(wavs, lengths))


def test_an_int_freezes_the_front_end_and_the_lowest_layers(one_config):
    backbone = build(one_config, freeze=2).train()
    grads = [h.requires_grad for h in backbone.hidden_states(torch.randn(1, 8000))]
    assert grads == [False, False, False, True]
    before = copy.deepcopy(backbone.state_dict())
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1.0)
    backbone(torch.randn(2, 8000)).square().mean().backward()
    optimizer.step()
    changed = {n for n, p in backbone.state_dict().items() if (p != before[n]).any()}
    parts = {n.removeprefix("encoder.model.").removeprefix("encoder.") for n in changed}
    assert {p for p in parts if p.startswith("layers.2")}
    top = ("layer_weights", "layers.2", "layer_norm")
    assert all(p.startswith(top) for p in parts)


@pytest.mark.parametrize("freeze", ["none", "frontend", 1, "all"])
def test_every_trained_parameter_gets_a_gradient(any_config, freeze):
    """A parameter without a gradient would stop DistributedDataParallel."""
    backbone = build(any_config, freeze=freeze).train()
    backbone(*pad(speech(8000, 5000))).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def trained(config, freeze):
    parameters = build(config, freeze=freeze).named_parameters()
    return {name for name, p in parameters if p.requires_grad}


def test_frontend_freezes_the_convolutions_only(any_config):
    frozen = trained(any_config, "none") - trained(any_config, "frontend")
    parts = {n.removeprefix("encoder.model.").split(".")[0] for n in frozen}
    assert parts in ({"conv1", "conv2"}, {"feature_extractor", "feature_projection"})
    assert trained(any_config, 0) == trained(any_config, "frontend")
    assert trained(any_config, 3) == trained(any_config, "all") == {"layer_weights"}


def test_dropout_is_active_in_trained_parts_only(one_config):
    config = one_config | {"hidden_dropout": 0.5, "dropout": 0.5}
    wavs = torch.randn(2, 8000)
    backbone = build(config, freeze="none").train()
    assert not torch.equal(backbone(wavs), backbone(wavs))
    backbone.eval()
    assert torch.equal(backbone(wavs), backbone(wavs))
    backbone = build(config, freeze=2).train()
    once, again = (list(backbone.hidden_states(wavs)) for _ in range(2))
    equal = [torch.equal(a, b) for a, b in zip(once, again, strict=True)]
    assert equal == [True, True, True, False]


@pytest.mark.parametrize("freeze", ["some", -1, 4, True, None, 1.0])
def test_a_wrong_freeze_is_refused(freeze):
    with pytest.raises(ValueError, match="from 0 to 3; found"):
        build(WHISPER, freeze=freeze)


# Some of the layers


@pytest.mark.parametrize("layers", [[-1], [0], [2], [1, 3], [3, -2]])
def test_a_sum_of_some_layers_leaves_the_others_out(one_config, layers):
    wavs, lengths = pad(speech(8000, 5000))
    whole = build(one_config).eval()
    backbone = build(one_config, layers=layers).eval()
    with torch.no_grad():
        backbone.layer_weights.normal_()
        states = list(whole.hidden_states(wavs, lengths))
        chosen = [states[n] for n in sorted(n % 4 for n in layers)]
        weights = backbone.layer_weights.exp() / backbone.layer_weights.exp().sum()
        expected = sum(w * state for w, state in zip(weights, chosen, strict=True))
        torch.testing.assert_close(backbone(wavs, lengths), expected)


def test_layers_above_the_highest_one_are_not_trained(any_config):
    backbone = build(any_config, layers=[1, 2]).train()
    backbone(*pad(speech(8000, 5000))).square().sum().backward()
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert any(".layers.1." in name for name in trained)
    assert not any(".layers.2." in name for name in trained)
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name


@pytest.mark.parametrize("layers", [[], [4], [-5], [1, 1], [3, -1]])
def test_wrong_layers_are_refused(layers):
    with pytest.raises(ValueError, match="numbers from 0 to 3"):
        build(WHISPER, layers=layers)


FROZEN = [
    (1, None, [0, 1]),
    (2, [-1], [2]),
    (2, [1, 3], [1, 2]),
    (2, [0, 1], [0, 1]),
    (3, [-1], [3]),
    ("all", None, [0, 1, 2, 3]),
    ("all", [1], [1]),
]


@pytest.mark.parametrize(
    ("name", "freeze", "layers", "kept"),
    [(name, *FROZEN[0]) for name in ALL] + [("wavlm-stable", *f) for f in FROZEN[1:]],
)
def test_training_goes_on_from_frozen_states(name, freeze, layers, kept):
    """The same frames and gradients as from waveforms, with any padding."""
    backbone = build(ALL[name], freeze=freeze, layers=layers).eval()
    utterances = speech(8000, 5000)
    wavs, lengths = pad(utterances)
    expected = backbone(wavs, lengths)
    expected[1, 15:].zero_()  # padding
    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters()}
    backbone.zero_grad()

    # One by one, as they are stored, and then padded with meaningless values.
    one, other = (backbone.frozen_states(u[None])[0] for u in utterances)
    assert backbone.kept == kept
    assert one.shape[0] == len(kept)
    states = torch.full((2, *one.shape), 3.0)
    states[0], states[1, :, : other.shape[1]] = one, other
    frames = backbone(states, torch.tensor([1.0, other.shape[1] / one.shape[1]]))
    frames[1, 15:].zero_()
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-5)
    (frames * noise).sum().backward()
    for name, parameter in backbone.named_parameters():
        if gradients[name] is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, gradients[name], rtol=1e-3, atol=1e-4, msg=name
            )


@pytest.mark.parametrize("freeze", ["none", "frontend", 0])
def test_without_a_frozen_layer_there_are_no_states_to_keep(freeze):
    backbone = build(WHISPER, freeze=freeze)
    assert backbone.kept == []
    with pytest.raises(ValueError, match="freeze is below 1"):
        backbone.frozen_states(torch.randn(1, 8000))


def test_states_of_another_number_of_layers_are_refused():
    backbone = build(WHISPER, freeze=2, layers=[-1])
    with pytest.raises(ValueError, match=r"of the representations \[2\], found"):
        backbone(torch.randn(2, 3, 25, 32))


# Sources


def test_a_full_whisper_checkpoint_gives_its_encoder(tmp_path, caplog):
    config = AutoConfig.for_model(**WHISPER, vocab_size=64, pad_token_id=1)
    model = WhisperForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "full")
    model.model.encoder.save_pretrained(tmp_path / "encoder")
    caplog.clear()
    full = WeightedSSL(tmp_path / "full").eval()
    lines = [r.getMessage() for r in caplog.records if "speechbrain_ser_cl" in r.name]
    assert len(lines) == 1 and "left out: decoder (" in lines[0]
    assert not any("UNEXPECTED" in r.getMessage() for r in caplog.records)
    wavs = torch.randn(1, 8000)
    assert torch.equal(full(wavs), WeightedSSL(tmp_path / "encoder").eval()(wavs))
    assert not any("decoder" in name for name, _ in full.named_parameters())
    for ours, theirs in zip(
        full.encoder.model.parameters(), model.model.encoder.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_half_precision_weights_are_loaded_in_float32(tmp_path):
    model = WhisperEncoder(AutoConfig.for_model(**WHISPER)).half()
    model.save_pretrained(tmp_path)
    backbone = WeightedSSL(tmp_path)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    model = WhisperEncoder(AutoConfig.for_model(**WHISPER))
    state = model.state_dict()
    del state["layers.1.fc1.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks 1 weights.*layers\.1\.fc1\.weight"):
        WeightedSSL(tmp_path)


HEADS = {
    Wav2Vec2ForPreTraining: "project_hid (2 tensors), project_q (2 tensors), quantizer",
    Wav2Vec2ForCTC: "lm_head (2 tensors)",
    Wav2Vec2ForSequenceClassification: "classifier (2 tensors), projector (2 tensors)",
    Wav2Vec2ForXVector: "feature_extractor (2 tensors), objective (1 tensors)",
}


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_a_head_is_left_out_in_one_line(head, tmp_path, caplog):
    config = AutoConfig.for_model(**waveform_config("wav2vec2", vocab_size=8))
    head(config).save_pretrained(tmp_path)
    caplog.clear()
    WeightedSSL(tmp_path)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"{tmp_path}: the encoder is used; left out: " in line
    assert HEADS[head] in line and "\n" not in line


WITH_HEADS = [
    *product([AutoModelForCTC], [*MORE_FAMILIES, "hubert-post", "wavlm-post"]),
    *product(
        [AutoModelForAudioClassification],
        [*MORE_FAMILIES, "hubert-post", "wavlm-post", "whisper"],
    ),
]


@pytest.mark.parametrize(("auto", "name"), WITH_HEADS)
def test_a_checkpoint_with_a_head_of_any_family_gives_its_encoder(
    auto, name, tmp_path, caplog
):
    config = (EVERY_KIND | MORE_FAMILIES)[name] | {"vocab_size": 8}
    model = auto.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(tmp_path)
    caplog.clear()
    ours = WeightedSSL(tmp_path).encoder.model.state_dict()
    base = model.encoder if name == "whisper" else model.base_model
    theirs = base.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    head = "lm_head" if auto is AutoModelForCTC else "classifier"
    assert f"left out: {head} (" in line or f", {head} (" in line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 2}, r"more weights than a wav2vec2 .*layers\.2\."),
        ({"num_hidden_layers": 4}, r"lacks 16 weights.*layers\.3\."),
        ({"intermediate_size": 32}, r"another size .* has shape \[64\], .* \[32\]"),
    ],
)
def test_weights_of_another_configuration_are_refused(changes, told, tmp_path):
    config = AutoConfig.for_model(**waveform_config("wav2vec2", vocab_size=8))
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=told) as caught:
        WeightedSSL(tmp_path)
    assert "ignore_mismatched_sizes" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "config.json"]
)
def test_a_git_lfs_pointer_is_reported(name, tmp_path):
    WhisperEncoder(AutoConfig.for_model(**WHISPER)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid 0")
    with pytest.raises(ValueError, match=f"{name}: a Git LFS pointer.*git lfs pull"):
        WeightedSSL(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conv_stride": [1] * 7, "conv_kernel": [1] * 7}, "makes 16000 frames"),
        ({"num_conv_pos_embeddings": 100_000}, "over 100000 frames, expected 1 to"),
        ({"conv_kernel": [16000, 3, 3, 3, 3, 2, 2]}, "need 16390 samples"),
        ({"conv_stride": [0, 2, 2, 2, 2, 2, 2]}, "must be at least 1"),
        ({"num_hidden_layers": 10**9}, "e\\+.* products"),
        ({"num_hidden_layers": 0}, "at least one layer"),
        ({"hidden_size": "x"}, "is invalid .*hidden_size"),
        ({"hidden_dropout": math.nan}, "hidden_dropout is nan"),
        ({"conv_dim": [-1] * 7}, "must be at least 1"),
    ],
)
def test_too_much_work_is_refused_before_anything_is_allocated(changes, told, tmp_path):
    config = waveform_config("wavlm") | changes
    with pytest.raises(ValueError, match=told):
        WeightedSSL(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=told):
        WeightedSSL(tmp_path)


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "a/b/c"])
def test_a_missing_folder_is_named(source):
    with pytest.raises(ValueError, match="no folder .*hub id"):
        WeightedSSL(source)


def test_an_empty_folder_says_what_belongs_in_it(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json and model\.safetensors"):
        WeightedSSL(tmp_path)


def test_a_truncated_checkpoint_is_named(tmp_path):
    WhisperEncoder(AutoConfig.for_model(**WHISPER)).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"could not load {tmp_path}"):
        WeightedSSL(tmp_path)


def test_a_hub_id_without_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"(?s)could not load no/model.*HF_HUB_OFFLINE"
    ):
        WeightedSSL("no/model", save_path=tmp_path)


@pytest.mark.parametrize("source", [{"model_type": "bert"}, {"hidden_size": 8}])
def test_other_model_types_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="supported: wav2vec2, hubert, wavlm, whisper"):
        WeightedSSL(source)


def test_a_folder_of_another_model_type_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="'bert' is not supported"):
        WeightedSSL(tmp_path)


# Input


def test_whisper_takes_30_seconds_and_no_more():
    backbone = build(WHISPER | {"max_source_positions": 50}).eval()
    assert backbone(torch.randn(1, 16159)).shape[1] == 50
    with pytest.raises(ValueError, match=r"1\.01 s is too long.*1\.00 s at most"):
        backbone(torch.randn(1, 16160))


@pytest.mark.parametrize(
    ("wavs", "lengths"),
    [
        (torch.zeros(8000), None),
        (torch.zeros(2, 1, 8000), torch.ones(2)),
        (torch.zeros(2, 8000), torch.ones(3)),
    ],
)
def test_wrong_shapes_are_refused(wavs, lengths):
    with pytest.raises(ValueError, match=r"waveforms \(B, T\)"):
        build(WHISPER)(wavs, lengths)


def test_autocast(one_config):
    backbone = build(one_config).eval()
    wavs, lengths = pad(speech(8000, 5000))
    expected = backbone(wavs, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = backbone(wavs, lengths)
    assert frames.isfinite().all()
    assert (frames - expected).norm() / expected.norm() < 0.05


def test_state_dict_round_trip(one_config):
    first, second = build(one_config), WeightedSSL(one_config)
    with torch.no_grad():
        first.layer_weights.normal_()
    second.load_state_dict(first.state_dict())
    wavs = torch.randn(1, 8000)
    assert torch.equal(first.eval()(wavs), second.eval()(wavs))


@pytest.mark.parametrize("name", EVERY_KIND | MORE_FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_cast_to_half_precision_takes_the_same_waveforms(name, dtype):
    backbone = build((EVERY_KIND | MORE_FAMILIES)[name]).eval()
    half = copy.deepcopy(backbone).to(dtype)
    for counts in [(8000, 4000), (8000, 7600)]:  # groups of one, a group with padding
        wavs, lengths = pad(speech(*counts))
        with torch.no_grad():
            frames, expected = half(wavs, lengths), backbone(wavs, lengths)
        assert frames.dtype == dtype
        assert (frames.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("lengths", [[1.0, 16000.0], [1.0, 0.0], [1.0, math.nan]])
def test_lengths_that_are_not_relative_are_refused(lengths):
    with pytest.raises(
        ValueError, match=r"relative lengths must be in \(0, 1\], found"
    ):
        build(WHISPER)(torch.zeros(2, 16000), torch.tensor(lengths))


class Holder:
    """Keeps a tensor as long as autograd keeps it."""

    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize("name", ["wav2vec2-post", "wavlm-stable", "whisper", "sew"])
def test_gradient_checkpointing_keeps_less_and_gives_the_same(name):
    config = (EVERY_KIND | MORE_FAMILIES)[name]
    wavs, lengths = pad(speech(8000, 5000))
    found = []
    for wanted in (False, True):
        backbone = build(config, gradient_checkpointing=wanted, freeze=1).train()
        kept = weakref.WeakSet()

        def keep(x, kept=kept):
            kept.add(holder := Holder(x))
            return holder

        torch.manual_seed(0)  # from dropout
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda holder: holder.x):
            frames = backbone(wavs, lengths)
        weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
        storages = [holder.x.untyped_storage() for holder in kept]
        sizes = {s.data_ptr(): s.nbytes() for s in storages}
        kept_bytes = sum(sizes[place] for place in sizes.keys() - weights)
        frames.square().sum().backward()
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        found.append((kept_bytes, frames.detach(), gradients))
    (usual, *expected), (less, *ours) = found
    assert less < 0.25 * usual
    torch.testing.assert_close(ours, expected)


def test_copied_and_pickled_encoders_give_the_same_output(any_config):
    backbone = build(any_config, freeze=1).eval()
    wavs, lengths = pad(speech(8000, 5000))
    expected = backbone(wavs, lengths)
    assert torch.equal(copy.deepcopy(backbone)(wavs, lengths), expected)
    given = pickle.dumps((backbone.arguments(), backbone.state_dict()))
    arguments, weights = pickle.loads(given)
    there = WeightedSSL.from_arguments(arguments).eval()
    there.load_state_dict(weights)
    assert torch.equal(there(wavs, lengths), expected)


# SpecAugment


def test_spans_are_as_long_and_as_many_as_asked_for():
    torch.manual_seed(0)
    config = SimpleNamespace(mask_time_prob=0.05, mask_time_length=10)
    mask = masked_spans(config, "time", [1000] * 200 + [30])
    assert mask.shape == (201, 1000) and not mask[200, 30:].any()
    share = mask[:200].float().mean()
    # Spans start anywhere with this probability, and may overlap.
    assert abs(share - (1 - (1 - 5 / 991) ** 10)) < 0.004
    assert mask[:, 500].any() and mask[:200, 0].sum() < 5
    padded = F.pad(mask.float(), (1, 1))
    starts, ends = (padded.diff().eq(sign).nonzero() for sign in (1, -1))
    assert (ends - starts)[:, 1].min() == 10
    config = SimpleNamespace(
        mask_feature_prob=0.0, mask_feature_length=10, mask_feature_min_masks=2
    )
    assert masked_spans(config, "feature", [3, 40])[1].sum() >= 11


@pytest.mark.parametrize("name", ["wav2vec2-post", "wavlm-group", "wav2vec2-bert"])
def test_spec_augment_masks_in_training_only_and_only_what_is_trained(name):
    masks = {
        "mask_time_prob": 0.5,
        "mask_time_length": 5,
        "mask_feature_prob": 0.3,
        "mask_feature_length": 4,
    }
    quiet = dict.fromkeys(("hidden_dropout", "attention_dropout", "dropout"), 0.0)
    quiet |= {"activation_dropout": 0.0, "feat_proj_dropout": 0.0}
    quiet |= {"conformer_conv_dropout": 0.0} if name == "wav2vec2-bert" else {}
    config = (EVERY_KIND | MORE_FAMILIES)[name] | masks | quiet
    wavs, lengths = pad(speech(8000, 5000))
    backbone = build(config, spec_augment=True)
    plain = build(config)
    assert torch.equal(backbone.eval()(wavs, lengths), plain.eval()(wavs, lengths))
    assert torch.equal(*(plain.train()(wavs, lengths) for _ in range(2)))
    backbone.train()
    assert not torch.equal(*(backbone(wavs, lengths) for _ in range(2)))
    backbone(wavs, lengths).square().sum().backward()
    for parameter in backbone.parameters():  # DistributedDataParallel needs all of them
        assert (parameter.grad is not None) == parameter.requires_grad
    assert backbone.encoder.model.masked_spec_embed.requires_grad
    frozen = build(config, spec_augment=True, freeze=1).train()
    assert torch.equal(*(frozen(wavs, lengths) for _ in range(2)))
    assert not frozen.encoder.model.masked_spec_embed.requires_grad


def test_spec_augment_of_whisper_masks_the_spectrogram():
    config = WHISPER | {"mask_time_prob": 0.5, "mask_feature_prob": 0.3, "dropout": 0.0}
    wavs, lengths = pad(speech(16000, 12000))
    backbone = build(config, spec_augment=True).train()
    assert not torch.equal(*(backbone(wavs, lengths) for _ in range(2)))
    backbone.eval()
    assert torch.equal(*(backbone(wavs, lengths) for _ in range(2)))


def test_spec_augment_of_what_masks_nothing_is_refused():
    config = WHISPER | {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    with pytest.raises(ValueError, match="nothing would be masked"):
        build(config, spec_augment=True)


# Real weights


def test_real_whisper_encoder(shared):
    folder = shared / "models" / "whisper-tiny.en-encoder"
    backbone = WeightedSSL(folder, freeze="all")
    assert (backbone.output_size, backbone.n_layers) == (384, 4)
    utterances = speech(30000, 12000)
    wavs, lengths = pad(utterances)
    with torch.no_grad():
        together = backbone(wavs, lengths)
        alone = backbone(utterances[1][None])
    assert together.dtype == torch.float32
    difference = (together[1, : alone.shape[1]] - alone[0]).norm() / alone.norm()
    assert difference < 1e-5
