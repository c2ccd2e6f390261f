"""Trackers: logged values of each epoch, folds in one group, after a resume."""

import struct
import sys

import pytest
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_ser_cl.training.trackers import (
    check_trackers,
    log_results,
    make_logger,
)


def end(folder, loggers):
    """What the end of a recipe logs."""
    told = {"report": "results/report.html"}
    log_results({"loggers": loggers}, folder, {"test/uar": 0.75}, told)


def train(folder, epochs, loggers):
    folder.mkdir(parents=True, exist_ok=True)
    logger = make_logger({"loggers": loggers, "seed": 1, "model": object()}, folder)
    for epoch in epochs:
        logger.log_stats(
            {"epoch": epoch, "phase": "train", "lr head": 0.1 / epoch},
            train_stats={"loss": 1 / epoch},
            valid_stats={"uar": 0.5 + epoch / 10},
        )


def test_tensorboard_has_each_fold_and_goes_on_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for fold in (0, 1):
        train(tmp_path / "mine" / f"fold-{fold}" / "seed-3", (1, 2), ["tensorboard"])
    train(tmp_path / "mine" / "fold-1" / "seed-3", (3,), ["tensorboard"])
    folder = tmp_path / "mine" / "tensorboard" / "fold-1" / "seed-3"
    found = EventAccumulator(str(folder)).Reload()
    assert set(found.Tags()["scalars"]) == {
        "epoch",
        "lr head",
        "loss/train",
        "uar/valid",
    }
    told = [(one.step, one.value) for one in found.Scalars("uar/valid")]
    assert told == [(k, pytest.approx(0.5 + k / 10)) for k in (1, 2, 3)]
    end(tmp_path / "mine" / "fold-1" / "seed-3", "tensorboard")
    found.Reload()
    assert [one.value for one in found.Scalars("test/uar")] == [0.75]
    (report,) = found.Tensors("report/text_summary")
    assert report.tensor_proto.string_val == [b"results/report.html"]
    text = (tmp_path / "mine" / "fold-1" / "seed-3" / "train_log.txt").read_text()
    assert "phase: train" in text and text.count("epoch:") == 3


def test_mlflow_has_one_experiment_and_a_run_that_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # restored after the test
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    for epochs in ((1, 2), (3,)):
        train(tmp_path / "mine" / "fold-1", epochs, ["mlflow"])
    client = MlflowClient(tracking_uri=(tmp_path / "mine" / "mlruns").as_uri())
    number = client.get_experiment_by_name("mine").experiment_id
    (run,) = client.search_runs([number])
    assert run.info.run_name == "fold-1" and run.data.params == {"seed": "1"}
    history = client.get_metric_history(run.info.run_id, "uar/valid")
    assert [one.step for one in history] == [1, 2, 3]
    end(tmp_path / "mine" / "fold-1", ["mlflow"])
    (run,) = client.search_runs([number])
    assert run.info.status == "FINISHED" and run.data.metrics["test/uar"] == 0.75
    (report,) = (tmp_path / "mine").rglob("report.txt")
    assert report.read_text() == "results/report.html"


def records(path):
    """What a file of Weights & Biases holds: pieces in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        at += 7 + size
        whole += data[at - size : at]
        if kind in (1, 4):  # the whole of it, or its last piece
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_has_a_run_for_each_fold_and_stage_in_one_group(
    tmp_path, monkeypatch
):
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = {"test/uar": 0.75}, {"report": "results/report.html"}
    for k in (0, 1):
        fold = tmp_path / "mine" / f"fold-{k}"
        train(fold, (1, 2), ["wandb"])
        values = {"loggers": "wandb", "output_folder": fold}
        log_results(values, fold / "refit", *told)
        log_results(values, fold, *told)
    wandb.teardown()  # waits until all is on the disk
    runs = []
    for path in (tmp_path / "mine" / "wandb").glob("offline-run-*/*.wandb"):
        found = list(records(path))
        (run,) = {(r.run.display_name, r.run.run_group) for r in found if r.run.run_id}
        runs.append(
            (*run, sum(r.WhichOneof("record_type") == "history" for r in found))
        )
        told = {
            u.key or ".".join(u.nested_key): u.value_json
            for r in found
            for u in r.summary.update
        }
        assert told["test/uar"] == "0.75" and "results/report.html" in told["report"]
    assert sorted(runs) == [
        (name, "mine", n)
        for k in (0, 1)
        for name, n in ((f"fold-{k}", 2), (f"fold-{k}/refit", 0))
    ]


def test_without_trackers_there_is_the_text_alone(tmp_path, monkeypatch):
    assert type(make_logger({}, tmp_path)) is FileTrainLogger
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        make_logger({"loggers": ["tensorbord"]}, tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[mlflow\]"):
        check_trackers({"loggers": "mlflow"})
