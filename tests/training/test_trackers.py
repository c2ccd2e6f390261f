"""Trackers: logged values of each epoch, folds in one group, after a resume."""

import pytest
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_ser_cl.training.trackers import MLflowLogger, make_logger, place


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


def test_without_trackers_there_is_the_text_alone(tmp_path, monkeypatch):
    assert type(make_logger({}, tmp_path)) is FileTrainLogger
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        make_logger({"loggers": ["tensorbord"]}, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    with pytest.raises(ImportError, match=r"speechbrain_ser_cl\[mlflow\]"):
        MLflowLogger(place(tmp_path), {})
