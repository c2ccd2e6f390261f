"""``ser-cl evaluate``: models from elsewhere, their labels, and written files."""

import csv
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from sklearn.metrics import balanced_accuracy_score
from speechbrain.inference.classifiers import EncoderClassifier
from transformers import (
    AutoModelForAudioClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
)

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.evaluate import load_classifier, map_labels
from speechbrain_ser_cl.evaluate.run import trained_on
from speechbrain_ser_cl.model_folder import ModelError, write_model
from speechbrain_ser_cl.results.crossval import collect, read_crossval
from speechbrain_ser_cl.results.predictions import read_predictions
from speechbrain_ser_cl.utils.audio import load_audio
from tests.finished_run import write_trained
from tests.test_inference import classifier

LABELS = ["ang", "hap", "neu", "xyz"]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "synthetic_source"
    return write_synthetic(
        folder, "synthetic_source", n_speakers=6, utterances_per_speaker=4
    )


@pytest.fixture(scope="module")
def utterances(corpus):
    return read_synthetic(corpus)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, utterances):
    """Makes a classifier of transformers with an unknown label."""
    folder = tmp_path_factory.mktemp("theirs") / "their_model"
    torch.manual_seed(3)
    config = Wav2Vec2Config(**SMALL, id2label=dict(enumerate(LABELS)))
    model = Wav2Vec2ForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=3)
    with torch.no_grad():  # so that no label is always the most probable
        wavs = [normalised(load_audio(one.path)) for one in utterances]
        logits = torch.cat([model.eval()(wav[None]).logits for wav in wavs])
        model.classifier.bias -= logits.mean(0)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    (folder / "README.md").write_text("Trained on synthetic-source, by us.")
    return folder


def normalised(wav):
    return (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()


def run(capsys, *words):
    status = main(["evaluate", *map(str, words)])
    return status, capsys.readouterr()


def test_transformers_classifier_by_the_naive_formula(
    theirs, corpus, utterances, tmp_path, capsys
):
    output = tmp_path / "out"
    words = (theirs, f"synthetic_source={corpus}", "--output_folder", output)
    status, told = run(capsys, *words)
    assert status == 0, told.err
    assert "xyz  none (not known)" in told.out and "--labels xyz=EMOTION" in told.out
    assert "WARNING: the model's card names synthetic_source" in told.out
    assert "6 sad" in told.out  # the model has no label for them
    # Each alone, normalised, softmax, the three shared classes.
    model = AutoModelForAudioClassification.from_pretrained(theirs)
    classes, truth, answers, strict = ["angry", "happy", "neutral"], [], [], []
    for one in (u for u in utterances if u.emotion in classes):
        with torch.no_grad():
            logits = model(normalised(load_audio(one.path))[None]).logits[0]
        truth.append(classes.index(one.emotion))
        answers.append(int(logits[:3].argmax()))
        strict.append(int(logits.argmax()))
    record = json.loads((output / "results.json").read_text())
    assert record["test"]["uar"]["value"] == pytest.approx(
        balanced_accuracy_score(truth, answers)
    )
    assert record["outside"]["answers"] == strict.count(3) > 0
    recalls = [np.mean(np.array(strict)[np.array(truth) == k] == k) for k in range(3)]
    assert record["outside"]["uar_as_errors"] == pytest.approx(np.mean(recalls))
    assert record["model"]["labels"]["xyz"] is None
    (groups,) = record["groups"]["classes"].values()
    assert set(groups["gender"]["groups"]) == {"female", "male"}
    assert read_predictions(output / "predictions.csv").class_names == classes
    # Killed in the middle of a line: existing outputs are not computed again.
    (outputs,) = output.glob("outputs-*.csv")
    whole = outputs.read_text()
    outputs.write_text("".join(whole.splitlines(True)[:9]) + "synthetic_so")
    status, told = run(capsys, *words, "--labels", "xyz=sad")
    assert status == 0, told.err
    record = json.loads((output / "results.json").read_text())
    assert record["class_names"] == [*classes, "sad"]
    assert len(outputs.read_text().splitlines()) == 1 + 24
    status, told = run(capsys, *words, "--labels", "xyz=none")
    assert "xyz  none (left out)" in told.out and "--labels" not in told.out
    # A report about it.
    assert main(["report", str(output), "--output", str(tmp_path / "r.html")]) == 0
    assert "their_model" in (tmp_path / "r.html").read_text()


def test_weights_that_lack_the_head_are_refused(theirs, tmp_path):
    model = Wav2Vec2Model(Wav2Vec2Config(**SMALL))
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no classifier.bias .* random"):
        load_classifier(tmp_path)


def test_a_table_on_the_folds_of_a_cross_validation(utterances, tmp_path, capsys):
    names = ["angry", "happy", "neutral", "sad"]
    items = [Labelled(u, u.emotion) for u in utterances]
    crossval = tmp_path / "crossval"
    found = []
    for fold in (0, 1):
        test = [i for k, i in enumerate(items) if k % 2 == fold]
        folder = crossval / f"fold-{fold}" / "seed-0"
        folder.mkdir(parents=True)
        write_trained(folder, {"test": test}, names, fold=fold)
        found.append((fold, 0, f"mark{fold}", folder / "results.json"))
    collect(found, {"kind": "speaker_kfold"}).write(crossval / "crossval.json")
    table = tmp_path / "theirs.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "prediction"])
        for k, one in enumerate(utterances):
            writer.writerow([one.path.name, "joy" if k < 3 else one.emotion])
    output = tmp_path / "out"
    words = (table, "--like", crossval, "--output_folder", output)
    status, told = run(capsys, *words)
    assert status == 0, told.err
    wrong = sum(one.emotion != "happy" for one in utterances[:3])
    pooled = read_crossval(output / "crossval.json").summary("synthetic_source")
    assert pooled["pooled"]["wa"]["value"] == pytest.approx(1 - wrong / len(items))
    # On the same folds: compared, with tests.
    assert main(["compare", str(crossval), str(output), "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)
    assert compared["settings"][1]["against_first"]["permutation"] is not None
    # A missing row would make a selection.
    table.write_text("".join(table.read_text().splitlines(True)[:-1]))
    status, told = run(capsys, *words)
    assert status == 2 and "no prediction" in told.err


SB = """
n_mels: 8
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: !ref <n_mels>
    tdnn_blocks: 2
    tdnn_channels: [8, 8]
    tdnn_kernel_sizes: [5, 1]
    tdnn_dilations: [1, 1]
    lin_neurons: 8
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 8
    out_neurons: 3
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
"""
POOLED = """
wav2vec2: !new:speechbrain.lobes.models.huggingface_transformers.wav2vec2.Wav2Vec2
    source: {source}
    save_path: {source}
    freeze: True
avg_pool: !new:speechbrain.nnet.pooling.StatisticsPooling
    return_std: False
output_mlp: !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 3
    bias: False
modules:
    wav2vec2: !ref <wav2vec2>
    avg_pool: !ref <avg_pool>
    output_mlp: !ref <output_mlp>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        wav2vec2: !ref <wav2vec2>
        model: !ref <output_mlp>
        label_encoder: !ref <label_encoder>
"""


def write_speechbrain(folder, text):
    from hyperpyyaml import load_hyperpyyaml

    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(1)
    now = text.replace(
        "lobes.models.huggingface_transformers", "integrations.huggingface"
    )
    loadables = load_hyperpyyaml(now)["pretrainer"].loadables
    encoder = loadables.pop("label_encoder")
    encoder.update_from_iterable(["neu", "ang", "hap"])
    encoder.save(folder / "label_encoder.ckpt")
    for name, part in loadables.items():
        torch.save(part.state_dict(), folder / f"{name}.ckpt")
    return loadables


def test_speechbrain_classifier_as_speechbrain_runs_it(utterances, tmp_path):
    write_speechbrain(tmp_path, SB)
    (found,) = load_classifier(tmp_path).outputs(utterances[:1])
    peer = EncoderClassifier.from_hparams(str(tmp_path), savedir=str(tmp_path / "s"))
    expected = peer.classify_batch(load_audio(utterances[0].path)[None])[0]
    # Its pooling adds noise.
    np.testing.assert_allclose(found, expected.softmax(1)[0], atol=1e-4)
    (tmp_path / "classifier.ckpt").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="weights that cannot be used"):
        load_classifier(tmp_path)


def test_speechbrain_wav2vec2_without_its_interface(theirs, utterances, tmp_path):
    loadables = write_speechbrain(tmp_path, POOLED.format(source=theirs))
    # Code in the folder is not run.
    (tmp_path / "custom_interface.py").write_text("raise SystemExit")
    model = load_classifier(tmp_path)
    assert model.labels == ["neu", "ang", "hap"]
    (found,) = model.outputs(utterances[:1])
    with torch.no_grad():
        frames = loadables["wav2vec2"].eval()(load_audio(utterances[0].path)[None])
        logits = frames.mean(1) @ loadables["model"].w.weight.T
    np.testing.assert_allclose(found, logits.softmax(1)[0], atol=1e-4)  # as above


@pytest.mark.parametrize(
    "line",
    [
        "a: !apply:os.system [touch ran]",
        "a: !new:subprocess.Popen [[touch, ran]]",
        "a: !name:speechbrain.nnet.pooling.torch.hub.load",
        "a: !new:torch.nn.Linear.__init__.__globals__",
        "a: !include:other.yaml",
        "a: {b: [!module:os]}",
        "a: !!python/object/apply:os.system [touch ran]",
        "a: !new:torch.nn.Identity {trust_remote_code: True}",
        "a: !new:speechbrain.lobes.models.fairseq_wav2vec.FairseqWav2Vec2 [x, y]",
    ],
)
def test_yaml_that_does_more_than_build_layers_is_refused(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hyperparams.yaml").write_text(SB + line + "\n")
    with pytest.raises(ValueError, match=r"a(\.b)?|trust_remote_code|YAML"):
        load_classifier(tmp_path)
    assert not (tmp_path / "ran").exists()


def write_tiny_onnx(path):
    """Logits that are 300 and -100 times the mean of the samples."""
    mean = helper.make_node("ReduceMean", ["wavs"], ["m"], keepdims=1, axes=[1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [300.0, -100.0])
    logits = helper.make_node("MatMul", ["m", "w"], ["logits"])
    graph = helper.make_graph(
        [mean, logits],
        "g",
        [helper.make_tensor_value_info("wavs", TensorProto.FLOAT, [1, "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def test_onnx_with_logits_and_without_names(utterances, tmp_path):
    write_tiny_onnx(tmp_path / "m.onnx")
    found = load_classifier(tmp_path / "m.onnx")
    assert found.labels == ["0", "1"]
    (row,) = found.outputs(utterances[:1])
    mean = float(load_audio(utterances[0].path).mean())
    expected = torch.tensor([300 * mean, -100 * mean]).softmax(0)
    np.testing.assert_allclose(row, expected, atol=1e-4)


def test_own_folder_and_a_class_without_a_label(corpus, tmp_path, capsys):
    write_model(tmp_path / "model", classifier(), ["negative", "neutral", "positive"])
    words = [tmp_path, f"synthetic_source={corpus}", "--output_folder", tmp_path / "o"]
    status, told = run(capsys, *words)
    assert status == 2 and "--labels LABEL=EMOTION" in told.err
    words += ["--emotion_map", "{bad: [sad, angry], good: [happy]}"]
    status, told = run(capsys, *words, "--labels", "positive=happy")
    assert status == 2 and "no label of the model means bad" in told.err
    status, told = run(capsys, *words, "--labels", "positive=happy", "negative=sad")
    assert status == 0, told.err
    assert "WARNING: the model has no card" in told.out
    status, told = run(capsys, *words, "--labels", "positives=happy")
    assert status == 2 and "did you mean 'positive'" in told.err


def test_words_of_labels():
    words = ["生气/angry", "male_fear", "HAPPINESS", "not_happy", "sad-angry", "5"]
    found = list(map_labels(words).values())
    assert found == ["angry", "fearful", "happy", None, None, None]
    assert trained_on("MSP data only", ["emodb"]) == []
    assert trained_on("on Emo-DB", ["emodb"])
