"""SERBrain, tested with a model of two linear layers."""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.utils.train_logger import FileTrainLogger
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader

from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    Phase,
)
from speechbrain_ser_cl.metrics.without_labels import CRITERIA, weighted_risk
from speechbrain_ser_cl.training import AtomicCheckpointer, RoundCounter, SERBrain

BATCHES = {"source": 4, "target": 3}


class Points:
    """Points in the plane; label 1 on the right."""

    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(count, 2, generator=generator)

    def __getitem__(self, draw):
        index = getattr(draw, "index", draw)
        return {
            "id": f"p{index}",
            "row": index,
            "point": self.points[index],
            "label": int(self.points[index, 0] > 0),
        }


class ToyBrain(SERBrain):
    """Linear, dropout, linear; the loss is NaN in the steps ``bad_steps``."""

    bad_steps = ()
    kill_at = None  # (epoch, step)

    def compute_forward(self, batch, stage):
        if stage == sb.Stage.TRAIN and (self._epoch, self.step) == self.kill_at:
            raise KeyboardInterrupt
        h = self.modules.lower(batch.point.data)
        logits = self.modules.upper(self.modules.dropout(h.relu()))
        return {"logits": logits, "embeddings": h}

    def compute_objectives(self, outputs, batch, stage):
        loss = cross_entropy(outputs["logits"], batch.label)
        if stage == sb.Stage.TRAIN:
            if self.optimizer_step in self.bad_steps:
                loss = loss * torch.nan
            self.log_terms({"emotion": loss.detach()})
        return loss


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=0
    )


@pytest.fixture
def make(tmp_path):
    """Makes a brain with its loaders in a folder of a given name."""

    def make(name="run", run_opts=None, cls=ToyBrain, seed=7, **changes):
        torch.manual_seed(0)
        modules = {
            "lower": nn.Linear(2, 16),
            "dropout": nn.Dropout(0.3),
            "upper": nn.Linear(16, 2),
        }
        data, valid = Points(40, seed=1), Points(32, seed=2)
        sampler = AlternatingBatchSampler(
            [
                Phase(phase, range(first, last), stream, BATCHES[phase])
                for phase, first, last, stream in (
                    ("source", 0, 30, LengthBucketedStream(range(1, 31), 8, 1)),
                    ("target", 30, 40, LengthBucketedStream(range(1, 11), 8, 2)),
                )
            ]
        )
        arguments = {
            "class_names": ["left", "right"],
            "sampler": sampler,
            "epoch_counter": RoundCounter(n_rounds=3, phases=2),
            "learning_rates": {"lower": 0.05, "upper": 0.01},
            "lr_scheduler": plateau,
            "valid_metric": "uar",
            "train_logger": FileTrainLogger(str(tmp_path / f"{name}.txt")),
            "modules": modules,
            "opt_class": torch.optim.Adam,
            "hparams": {"seed": seed},
            "run_opts": {"device": "cpu", "noprogressbar": True} | (run_opts or {}),
            "checkpointer": AtomicCheckpointer(
                tmp_path / name,
                {key: module for key, module in modules.items() if key != "dropout"},
            ),
        }
        brain = cls(**arguments | changes)
        brain.train_set = DataLoader(
            data, batch_sampler=sampler, collate_fn=PaddedBatch
        )
        brain.valid_set = DataLoader(
            valid, batch_size=16, sampler=range(32), collate_fn=PaddedBatch
        )
        return brain

    return make


def fit(brain):
    brain.fit(brain.epoch_counter, brain.train_set, brain.valid_set)
    return brain


def parameters(brain):
    return {name: p.detach().clone() for name, p in brain.modules.named_parameters()}


def assert_same_run(one, other):
    """Checks for equal parameters, optimiser and history, bit for bit."""
    theirs = parameters(other)
    for name, parameter in parameters(one).items():
        assert torch.equal(parameter, theirs[name]), name
    assert one.history.epochs == other.history.epochs
    for mine, theirs in zip(
        one.optimizer.state.values(), other.optimizer.state.values(), strict=True
    ):
        assert torch.equal(mine["exp_avg_sq"], theirs["exp_avg_sq"])


# ------------------------------------------------------------------ kill and resume


def killed_and_resumed(make, name, epoch, step, **options):
    brain = make(name, **options)
    brain.kill_at = (epoch, step)
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    return fit(make(name, **options))


@pytest.mark.parametrize(
    ("interval", "epoch", "step"),
    [
        (0, 1, 3),  # before the first checkpoint
        (0, 2, 1),
        (0, 4, 3),
        (1, 1, 2),
        (1, 3, 1),
        (1, 5, 4),
        (2, 3, 4),
        (2, 6, 3),
    ],
)
def test_killed_at_any_step_it_ends_like_an_uninterrupted_run(
    make, interval, epoch, step
):
    options = {"run_opts": {"ckpt_interval_steps": interval}}
    whole = fit(make("whole", **options))
    resumed = killed_and_resumed(make, "killed", epoch, step, **options)
    assert_same_run(resumed, whole)
    assert len(whole.history.epochs) == 6


def test_dropout_makes_a_difference_so_its_state_was_resumed(make):
    # The same run with another seed for the steps, but not for the data.
    class OtherDropout(ToyBrain):
        def on_fit_batch_start(self, batch, should_step):
            super().on_fit_batch_start(batch, should_step)
            torch.manual_seed(torch.initial_seed() + 1)

    one, other = fit(make("one")), fit(make("other", cls=OtherDropout))
    assert not torch.equal(one.modules["lower"].weight, other.modules["lower"].weight)


def test_accumulated_gradients_are_not_lost_by_a_kill(make):
    options = {"run_opts": {"grad_accumulation_factor": 2, "ckpt_interval_steps": 1}}
    whole = fit(make("whole", **options))
    resumed = killed_and_resumed(make, "killed", 1, 4, **options)
    assert_same_run(resumed, whole)
    # 4 source batches are two steps, 3 target batches one.
    assert whole.optimizer_step == 9


# ------------------------------------------------------------------ one step


SGD = {"opt_class": torch.optim.SGD, "learning_rates": {"lower": 1.0, "upper": 1.0}}


def started(brain):
    """Returns the brain in the middle of its first epoch, without dropout."""
    brain.modules["dropout"].p = 0.0
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, epoch=1)
    return brain


def batch_of(brain, first=0):
    dataset = brain.train_set.dataset
    return PaddedBatch([dataset[index] for index in range(first, first + 8)])


def step(brain, batch):
    brain.step += 1
    brain.fit_batch(batch)


def gradient_of(brain, *batches):
    """Computes the gradient of the mean loss of some batches, flat."""
    losses = [
        cross_entropy(brain.compute_forward(b, sb.Stage.VALID)["logits"], b.label)
        for b in batches
    ]
    mean = torch.stack(losses).mean()
    return flat(torch.autograd.grad(mean, list(brain.modules.parameters())))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_the_gradient_of_all_groups_together_is_clipped(make):
    brain = started(make(run_opts={"max_grad_norm": 0.01}, **SGD))
    batch = batch_of(brain)
    gradient = gradient_of(brain, batch)
    before = flat(brain.modules.parameters())
    step(brain, batch)
    change = before - flat(brain.modules.parameters())
    assert len(brain.optimizer.param_groups) == 2
    assert gradient.norm() > 0.1
    assert float(change.norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(
        change, gradient / gradient.norm() * 0.01, atol=1e-6, rtol=1e-3
    )


@pytest.mark.parametrize("max_grad_norm", [1e6, -1.0])
def test_small_gradients_and_a_negative_limit_are_not_clipped(make, max_grad_norm):
    brain = started(make(run_opts={"max_grad_norm": max_grad_norm}, **SGD))
    batch = batch_of(brain)
    gradient = gradient_of(brain, batch)
    before = flat(brain.modules.parameters())
    step(brain, batch)
    torch.testing.assert_close(before - flat(brain.modules.parameters()), gradient)


def test_accumulated_batches_count_by_their_mean(make):
    brain = started(make(run_opts={"grad_accumulation_factor": 2}, **SGD))
    batches = [batch_of(brain, 0), batch_of(brain, 8)]
    gradient = gradient_of(brain, *batches)
    before = flat(brain.modules.parameters())
    step(brain, batches[0])
    assert torch.equal(flat(brain.modules.parameters()), before)
    step(brain, batches[1])
    torch.testing.assert_close(before - flat(brain.modules.parameters()), gradient)
    assert brain.history.averages()["emotion"] > 0


# ------------------------------------------------------------------ not finite


def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(make):
    brain = started(make())
    brain.bad_steps = (1, 2)
    step(brain, batch_of(brain))
    before = flat(brain.modules.parameters())
    state = copy.deepcopy(brain.optimizer.state_dict())
    averages = brain.history.averages()
    for _ in range(2):
        step(brain, batch_of(brain))
    assert brain.history.nonfinite_batches == 2
    assert torch.equal(flat(brain.modules.parameters()), before)
    assert str(brain.optimizer.state_dict()) == str(state)
    assert brain.history.averages() == averages
    step(brain, batch_of(brain))
    assert flat(brain.modules.parameters()).isfinite().all()
    assert not torch.equal(flat(brain.modules.parameters()), before)


def test_too_many_in_a_row_are_an_error(make):
    brain = make(run_opts={"nonfinite_patience": 2})
    brain.bad_steps = (1, 2, 5, 6, 9, 10, 11)
    with pytest.raises(ValueError, match=r"3 batches in a row.*epoch 4, step 1\)"):
        fit(brain)
    # Two in a row are accepted, within or across epochs, any number of times.
    assert brain.history.nonfinite_batches == 7


def test_overflows_of_the_loss_scale_search_are_allowed(make):
    # In half precision the scale starts high, and the first steps overflow.
    brain = started(make(run_opts={"nonfinite_patience": 2}))
    brain.scaler = torch.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    batch = batch_of(brain)
    batch.point = PaddedData(1000 * batch.point.data, batch.point.lengths)
    before = flat(brain.modules.parameters())
    steps = 0
    while torch.equal(flat(brain.modules.parameters()), before):
        step(brain, batch)
        steps += 1
        assert steps < 20
    assert steps - 1 > brain.nonfinite_patience
    assert brain.history.nonfinite_batches == steps - 1


def test_a_scaler_that_finds_no_scale_is_an_error(make):
    brain = started(make(run_opts={"nonfinite_patience": 2}))
    brain.scaler = torch.GradScaler("cpu", init_scale=8.0)
    brain.bad_steps = range(100)
    with pytest.raises(ValueError, match="3 batches in a row"):
        for _ in range(20):
            step(brain, batch_of(brain))
    assert brain.optimizer_step == 6  # 8, 4 and 2 are of the search


# ------------------------------------------------------------------ end of an epoch


class RiggedBrain(ToyBrain):
    """Classifies a given number of the 32 validation points correctly."""

    right = (20, 24, 28, 28, 24, 20)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.after_epoch = {}

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if stage == sb.Stage.VALID:
            self.after_epoch[epoch] = parameters(self)

    def compute_forward(self, batch, stage):
        outputs = super().compute_forward(batch, stage)
        if stage == sb.Stage.VALID:
            is_right = torch.tensor(
                [int(name[1:]) < self.right[self._epoch - 1] for name in batch.id]
            )
            answer = torch.where(is_right, batch.label, 1 - batch.label)
            outputs["logits"] = torch.eye(2)[answer]
        return outputs


def rates(brain, part="lower"):
    """Returns the part's learning rate in each epoch, from the log."""
    lines = Path(brain.train_logger.save_file).read_text().splitlines()
    return [float(re.search(rf"lr {part}: ([^ ,]+)", line)[1]) for line in lines]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        # No rise from epoch 3 to 4: the rate falls after epoch 4, and after 5 and 6.
        (plateau, [0.05, 0.05, 0.05, 0.05, 0.005, 0.0005]),
        (
            partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1),
            [0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005],
        ),
        (
            partial(torch.optim.lr_scheduler.LinearLR, end_factor=0.5, total_iters=2),
            [0.05 / 3, 0.05 * 5 / 12, 0.025, 0.025, 0.025, 0.025],
        ),
    ],
)
def test_schedules_step_once_an_epoch_and_are_resumed(make, scheduler, expected):
    options = {"cls": RiggedBrain, "lr_scheduler": scheduler, "valid_metric": "wa"}
    whole = fit(make("whole", **options))
    assert rates(whole) == pytest.approx(expected, rel=6e-3)
    of_other_group = [rate / 5 for rate in expected]
    assert rates(whole, "upper") == pytest.approx(of_other_group, rel=6e-3)
    assert [e["lr"] for e in whole.history.epochs] == pytest.approx(expected)
    for epoch in (2, 5, 6):
        resumed = killed_and_resumed(make, f"killed{epoch}", epoch, 1, **options)
        assert_same_run(resumed, whole)
        assert rates(resumed) == rates(whole)


def test_training_stops_early_and_not_later_when_resumed(make):
    class NoBetterInRoundTwo(RiggedBrain):
        right = (20, 24, 28, 24, 20, 20)

    def stopping(name):
        counter = RoundCounter(n_rounds=3, phases=2, patience=1)
        return make(name, cls=NoBetterInRoundTwo, epoch_counter=counter)

    whole = fit(stopping("whole"))
    assert len(whole.history.epochs) == 4
    again = fit(stopping("whole"))
    assert_same_run(again, whole)
    assert again.after_epoch == {}


@pytest.mark.parametrize(("max_key", "epoch"), [(None, 6), ("score", 4)])
def test_the_asked_for_epoch_is_tested_and_the_history_is_whole(make, max_key, epoch):
    brain = fit(make(cls=RiggedBrain, valid_metric="wa"))
    trained = copy.deepcopy(brain.history)
    brain.evaluate(brain.valid_set, max_key=max_key)
    # Epochs 3 and 4 are equally good; the later one is selected.
    assert brain.history.tested["epoch"] == epoch
    assert brain.history.tested["valid"]["wa"] == brain.right[epoch - 1] / 32
    for name, parameter in parameters(brain).items():
        assert torch.equal(parameter, brain.after_epoch[epoch][name])
    assert brain.history.epochs == trained.epochs
    assert brain.history.seconds == trained.seconds

    # The same in a process that did not train.
    other = make(cls=RiggedBrain, valid_metric="wa", run_opts={"test_only": True})
    fit(other)
    other.evaluate(other.valid_set, max_key=max_key)
    assert other.history.epochs == trained.epochs
    assert other.history.tested == brain.history.tested
    assert (
        other.collected_outputs()["probability"]
        == brain.collected_outputs()["probability"]
    ).all()


def test_without_a_checkpoint_there_is_nothing_to_test(make):
    brain = make(run_opts={"test_only": True})
    fit(brain)
    with pytest.raises(ValueError, match="no checkpoint"):
        brain.evaluate(brain.valid_set)


def test_what_was_evaluated_is_kept_in_order(make):
    brain = fit(make())
    brain.evaluate(brain.valid_set)
    seen = brain.collected_outputs()
    points = brain.valid_set.dataset
    assert seen["id"] == [f"p{n}" for n in range(32)]
    assert seen["label"].tolist() == [points[n]["label"] for n in range(32)]
    batch = PaddedBatch([points[n] for n in range(32)])
    with torch.no_grad():
        outputs = brain.compute_forward(batch, sb.Stage.TEST)
    logits, embeddings = outputs["logits"], outputs["embeddings"]
    torch.testing.assert_close(
        torch.from_numpy(seen["probability"]), logits.softmax(dim=1)
    )
    assert seen["prediction"].tolist() == logits.argmax(dim=1).tolist()
    torch.testing.assert_close(torch.from_numpy(seen["embeddings"]), embeddings)


def test_a_row_of_the_history_says_what_happened(make):
    brain = fit(make())
    assert [row["epoch"] for row in brain.history.epochs] == [1, 2, 3, 4, 5, 6]
    assert [row["phase"] for row in brain.history.epochs] == ["source", "target"] * 3
    for row in brain.history.epochs:
        assert row["train"].keys() == {"emotion"}
        assert row["valid"].keys() == {"uar", "wa", "macro_f1", "loss"}
    assert brain.history.epochs[-1]["valid"]["uar"] > 0.8  # it learns
    assert brain.history.seconds > 0


def test_an_unknown_metric_is_refused_before_training(make):
    with pytest.raises(ValueError, match="valid_metric.*UAR.*uar, wa, macro_f1"):
        make(valid_metric="UAR")


def more(brain, count, seed):
    """A loader of other points, in another order than the data set's."""
    data = Points(count, seed)
    order = list(range(count))[::-1]
    return DataLoader(data, batch_size=16, sampler=order, collate_fn=PaddedBatch)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_speech_without_labels_can_choose_the_epoch(make, criterion):
    brain = make(valid_metric=criterion)
    with pytest.raises(ValueError, match=f"{criterion}, and there is no unlabelled"):
        fit(brain)
    brain.unlabelled = more(brain, 20, seed=3)
    fit(brain)
    rows = [row["valid"] for row in brain.history.epochs]
    assert all(row.keys() >= {"uar", "loss", *CRITERIA} for row in rows)
    told = [row[criterion] for row in rows]
    best = brain.checkpointer.find_checkpoint(max_key="score")
    assert best.meta["score"] == max(told)

    points = brain.unlabelled.dataset.points
    valid = [brain.valid_set.dataset[n] for n in range(32)]
    with torch.no_grad():
        lower, upper = brain.modules.lower, brain.modules.upper
        x, own = lower(points), lower(torch.stack([one["point"] for one in valid]))
        p, own_p = (upper(h.relu()).softmax(dim=1).double() for h in (x, own))
    if criterion == "mutual_information":
        mean = p.mean(dim=0)
        wanted = (p * p.log()).sum(dim=1).mean() - (mean * mean.log()).sum()
    elif criterion == "neighborhood_density":
        s = torch.cosine_similarity(p[:, None], p[None], dim=2) / 0.05
        others = s[~torch.eye(20, dtype=bool)].view(20, 19).softmax(dim=1)
        wanted = -(others * others.log()).sum(dim=1).mean()
    else:
        losses = -own_p.log()[range(32), [one["label"] for one in valid]]
        wanted = weighted_risk(losses, own, x)
    assert told[-1] == pytest.approx(float(wanted), rel=1e-4)


def test_an_svm_on_the_embeddings_can_choose_the_epoch(make):
    brain = make(valid_metric="svm_uar", hparams={"seed": 7, "svm_C": 10.0})
    with pytest.raises(ValueError, match="there is no svm_speech"):
        fit(brain)
    brain.svm_speech = more(brain, 60, seed=4)
    fit(brain)

    def embedded(data, count):
        items = [data[n] for n in range(count)]
        with torch.no_grad():
            h = brain.modules.lower(torch.stack([one["point"] for one in items]))
        return normalize(h).numpy(), [one["label"] for one in items]

    svm = SVC(kernel="linear", C=10.0).fit(*embedded(brain.svm_speech.dataset, 60))
    x, y = embedded(brain.valid_set.dataset, 32)
    wanted = balanced_accuracy_score(y, svm.predict(x))
    row = brain.history.epochs[-1]["valid"]
    assert row.keys() == {"loss", "svm_uar"}
    assert row["svm_uar"] == pytest.approx(wanted) and wanted > 0.5
