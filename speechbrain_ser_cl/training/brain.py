"""The Brain that all recipes extend."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import ddp_broadcast
from speechbrain.utils.train_logger import TrainLogger
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from typing_extensions import override

from speechbrain_ser_cl.data.dataset import UNLABELLED, SpeechBatch
from speechbrain_ser_cl.data.samplers import EpochSampler
from speechbrain_ser_cl.metrics.calibration import fit_temperature
from speechbrain_ser_cl.metrics.classification import METRICS, classification_metrics
from speechbrain_ser_cl.metrics.probes import linear_svm, recall_at_1
from speechbrain_ser_cl.metrics.without_labels import CRITERIA, LEAST, criteria
from speechbrain_ser_cl.nnet import UtteranceEncoder
from speechbrain_ser_cl.training.epochs import RoundCounter
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.optim import parameter_groups

MONITORS = (*METRICS, "loss", "recall_at_1", "svm_uar", *CRITERIA)
"""Scores by which an epoch can be selected."""
_KEPT = ("logits", "embeddings")


class SERBrain(sb.Brain):
    """Trains an emotion classifier; killed runs can be resumed exactly.

    A recipe's subclass implements ``compute_forward``, which returns a dict with
    ``"logits"`` (N, C) at validation and test and optionally ``"embeddings"`` (N, D),
    and ``compute_objectives``, which returns a loss and passes its terms to
    :meth:`log_terms`. This class implements:

    - one optimiser with a group per key of ``hparams.learning_rates``, with gradients
      clipped over all groups together (SpeechBrain clips the first group only);
    - skipping and counting of batches whose gradient is not finite; too many in a row
      are an error;
    - a random state per step that depends only on seed, epoch, step and rank, so that a
      run resumed at any step ends like one that was not killed;
    - validation scores, learning rate schedule, early stopping, history and checkpoints
      at the end of each epoch.

    Arguments
    ---------
    class_names : sequence of str
        Names of the classes 0, 1, …
    sampler : Sampler
        Batch sampler of the training loader, with ``set_epoch``, ``first_batch`` and
        ``phase_name``.
    epoch_counter : RoundCounter
        Receives the score of each epoch.
    learning_rates : mapping of str to float
        See :func:`~speechbrain_ser_cl.training.parameter_groups`.
    lr_scheduler : callable
        Makes a torch scheduler for an optimiser. It steps after each epoch;
        ``ReduceLROnPlateau`` receives the score.
    valid_metric : str
        The score: ``uar``, ``wa`` or ``macro_f1`` of the validation set; without a
        classifier its ``loss`` (lower is better), ``recall_at_1`` of the embeddings or
        ``svm_uar``, the UAR of an SVM fitted on embeddings of ``svm_speech``; or one of
        ``metrics.without_labels.CRITERIA`` on ``unlabelled`` speech.
    train_logger : speechbrain.utils.train_logger.TrainLogger
        Receives the statistics of each epoch.
    **kwargs
        Arguments of ``speechbrain.Brain``; ``hparams`` contains the ``seed``.

    Raises
    ------
    ValueError
        For another ``valid_metric``.

    Attributes
    ----------
    history : History
        Past epochs; saved in the checkpoints. Each row has the temperature that best
        calibrates the epoch's classifier on the validation data.
    calibrated : bool
        Whether to fit a temperature; False if logits are not class scores.
    svm_speech : DataLoader, optional
        Training speech, for ``svm_uar``.
    unlabelled : DataLoader, optional
        Target speech whose labels are not used; with it all criteria without labels
        are in the rows of the history.
    """

    calibrated = True
    svm_speech: DataLoader[Any] | None = None
    unlabelled: DataLoader[Any] | None = None

    def __init__(
        self,
        class_names: Sequence[str],
        sampler: EpochSampler | None,
        epoch_counter: RoundCounter,
        learning_rates: Mapping[str, float],
        lr_scheduler: Callable[..., Any],
        valid_metric: str,
        train_logger: TrainLogger,
        **kwargs: Any,
    ) -> None:
        if valid_metric not in MONITORS:
            raise ValueError(
                f"valid_metric is {valid_metric!r}, expected one of "
                f"{', '.join(MONITORS)}."
            )
        super().__init__(**kwargs)
        self.class_names = class_names
        self.train_sampler = sampler
        self.epoch_counter = epoch_counter
        self.learning_rates = learning_rates
        self.lr_scheduler = lr_scheduler
        self.valid_metric = valid_metric
        self.train_logger = train_logger
        self.history = History()
        self.checkpointer.add_recoverable("history", self.history)
        self.checkpointer.add_recoverable("counter", self.epoch_counter)
        self._skipped_in_a_row = 0

    @override
    def _wrap_distributed(self) -> None:
        # SpeechBrain converts every batch norm to SyncBatchNorm, which works on GPUs
        # only, and which replaces batch norms that ignore padding by some that do not.
        if not self.distributed_launch:
            super()._wrap_distributed()
            return
        on_gpu = torch.device(self.device).type == "cuda"
        for name, module in self.modules.items():
            if not any(p.requires_grad for p in module.parameters()):
                continue
            if on_gpu:
                module = _synchronised(module)
            self.modules[name] = DistributedDataParallel(
                module,
                device_ids=[self.device] if on_gpu else None,
                find_unused_parameters=self.find_unused_parameters,
            )

    def on_fit_start(self) -> None:
        """Refuses a ``valid_metric`` for which there is no speech."""
        speech = {"svm_uar": "svm_speech"} | dict.fromkeys(CRITERIA, "unlabelled")
        needed = speech.get(self.valid_metric)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(
                f"valid_metric is {self.valid_metric}, and there is no {needed} in "
                "this training. Choose one that needs none, such as uar"
            )
        super().on_fit_start()

    def init_optimizers(self) -> None:
        """Makes one optimiser with a group per learning rate, and its schedule."""
        groups = parameter_groups(self.modules, self.learning_rates)
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.scheduler = self.lr_scheduler(self.optimizer)
        self.checkpointer.add_recoverable("optimizer", self.optimizer)
        self.checkpointer.add_recoverable("scheduler", self.scheduler)

    def score_start(self, valid: Iterable[SpeechBatch]) -> None:
        """Scores the initial parameters as epoch 0, which the test may then use.

        Useful if training starts from a good model. Call it before ``fit``; in a
        resumed run it does nothing. Of equal scores the earlier epoch is selected.

        Arguments
        ---------
        valid : iterable of SpeechBatch
            Validation batches.
        """
        if self.checkpointer.find_checkpoint() is None:
            self.init_optimizers()
            self._fit_valid(valid, epoch=0, enable=False)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Continues the epoch of a killed run; clears old predictions."""
        self._stage_start = time.time()
        if stage == sb.Stage.TRAIN:
            assert self.train_sampler is not None
            self.train_sampler.first_batch = self.step
            self._epoch = epoch
        else:
            names = ("id", "label", *_KEPT)
            self._collected: dict[str, list[Any]] = {name: [] for name in names}

    def on_fit_batch_start(self, batch: PaddedBatch, should_step: bool) -> None:
        """Sets the random state of the step."""
        rank = getattr(self, "rank", 0)
        entropy = [self.hparams.seed, self._epoch, self.step, rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._step_is_finite = True

    def check_loss_isfinite(self, loss: Tensor) -> None:
        """Does nothing; :meth:`optimizers_step` checks the gradients of all ranks."""

    def optimizers_step(self) -> None:
        """Clips gradients and steps, or skips gradients that are not finite."""
        optimizer = self.optimizer
        self.scaler.unscale_(optimizer)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.max_grad_norm if self.max_grad_norm >= 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(params, limit)
        # Gradients are averaged over ranks, so all ranks take the same branch.
        self._step_is_finite = bool(torch.isfinite(norm))
        if self._step_is_finite:
            self.scaler.step(optimizer)
            self._skipped_in_a_row = 0
        else:
            self.history.nonfinite_batches += 1
            # Overflows are expected while the loss scale is too high.
            if not self.scaler.is_enabled() or self.scaler.get_scale() <= 1:
                self._skipped_in_a_row += 1
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        if self._skipped_in_a_row > self.nonfinite_patience:
            raise ValueError(
                f"The gradients of {self._skipped_in_a_row} batches in a row were not "
                f"finite (epoch {self._epoch}, step {self.step}). Lower learning_rates "
                "or the temperature, or train with --precision fp32; more patience: "
                "--nonfinite_patience."
            )

    def log_terms(self, terms: dict[str, Tensor]) -> None:
        """Stores the loss terms of the current batch.

        Arguments
        ---------
        terms : dict of str to Tensor
            Name to detached scalar.
        """
        self._terms = terms

    def on_fit_batch_end(
        self, batch: PaddedBatch, outputs: Any, loss: Tensor, should_step: bool
    ) -> None:
        """Adds the batch's terms to the epoch's averages unless it was skipped."""
        if self._step_is_finite and torch.isfinite(loss):
            self.history.add_batch(self._terms)
        now = time.time()
        self.history.seconds += now - self._stage_start
        self._stage_start = now

    def _should_save_intra_epoch_ckpt(
        self, last_ckpt_time: float, steps_since_ckpt: int
    ) -> bool:
        """Prevents a checkpoint between accumulated gradients, which it would lose."""
        between_steps = self.step % self.grad_accumulation_factor
        return not between_steps and super()._should_save_intra_epoch_ckpt(
            last_ckpt_time, steps_since_ckpt
        )

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Loads the checkpoint to test, and the history of the whole training."""
        super().on_evaluate_start(max_key, min_key)
        if not self.history.epochs:
            raise ValueError(
                f"{self.checkpointer.checkpoints_dir}: there is no checkpoint to test. "
                "Train first, that is, without --test_only."
            )
        self.history.tested = self.history.epochs[-1]
        last = self.checkpointer.find_checkpoint()
        self.history.load(last.paramfiles["history"])

    @torch.no_grad()
    def evaluate_batch(self, batch: PaddedBatch, stage: sb.Stage) -> Tensor:
        """Computes outputs and loss; stores logits, and embeddings if there are any."""
        with self.evaluation_ctx:
            outputs = self.compute_forward(batch, stage)
            loss = self.compute_objectives(outputs, batch, stage)
        self._collected["id"] += batch.id
        self._collected["label"].append(batch.label.cpu())
        for name in _KEPT:
            if name in outputs:
                self._collected[name].append(outputs[name].float().cpu())
        detached: Tensor = loss.detach().cpu()
        return detached

    def collected_outputs(self) -> dict[str, Any]:
        """Returns labels, predictions and embeddings of the last validation or test.

        Returns
        -------
        dict
            ``"id"`` (list of N str), ``"label"`` (N,), ``"prediction"`` (N,),
            ``"probability"`` (N, C) and, if the model returns them, ``"embeddings"``
            (N, D), as numpy arrays.
        """
        logits = torch.cat(self._collected["logits"])
        embeddings = self._collected["embeddings"]
        more = {"embeddings": torch.cat(embeddings).numpy()} if embeddings else {}
        return more | {
            "id": self._collected["id"],
            "label": torch.cat(self._collected["label"]).numpy(),
            "prediction": logits.argmax(dim=1).numpy(),
            "probability": logits.softmax(dim=1).numpy(),
        }

    @torch.no_grad()
    def calibrate(
        self, encoder: UtteranceEncoder, loaders: Mapping[int, Iterable[SpeechBatch]]
    ) -> None:
        """Computes the statistics of each domain from whole utterances.

        Arguments
        ---------
        encoder : UtteranceEncoder
            Encoder whose ``norm`` is a ``DomainNorm``.
        loaders : mapping
            Number of the domain to batches of its utterances.
        """
        self.modules.eval()
        for domain, loader in loaders.items():
            with self.evaluation_ctx:
                batches = (batch.to(self.device) for batch in loader)
                h = [encoder.pooled(b.speech, b.lengths) for b in batches]
            norm: Any = encoder.norm
            norm.calibrate(torch.cat(h), domain)

    @torch.no_grad()
    def outputs_of(self, loader: DataLoader[Any]) -> dict[str, Tensor]:
        """Computes the model's outputs for whole utterances.

        Arguments
        ---------
        loader : DataLoader
            Of N utterances.

        Returns
        -------
        dict of str to Tensor
            ``"label"`` (N,), ``"embeddings"`` (N, D) and ``"logits"`` (N, C), if the
            model returns them, in the order of the loader's data set.
        """
        self.modules.eval()
        found: dict[str, list[Tensor]] = {}
        for batch in loader:
            with self.evaluation_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TEST)
            own = {"row": batch.row, "label": batch.label}
            own |= {k: v.float() for k, v in outputs.items() if k in _KEPT}
            for name, values in own.items():
                found.setdefault(name, []).append(values.cpu())
        order = torch.cat(found.pop("row")).argsort()
        return {name: torch.cat(values)[order] for name, values in found.items()}

    def fitted_temperature(self) -> float | None:
        """Fits a temperature to the last validation; None without a classifier."""
        if not (self.calibrated and self._collected["logits"]):
            return None
        logits = torch.cat(self._collected["logits"]).double()
        labels = torch.cat(self._collected["label"])
        known = (labels >= 0) & logits.isfinite().all(dim=1)
        if not known.any():
            return None
        return fit_temperature(logits[known].numpy(), labels[known].numpy())

    def score_epoch(self, loss: float) -> tuple[dict[str, float], float]:
        """Computes the score of the epoch after its validation.

        Arguments
        ---------
        loss : float
            Mean validation loss.

        Returns
        -------
        valid : dict
            Numbers for the log and the history.
        score : float
            Score for checkpoints and early stopping; higher is better.
        """
        if self.valid_metric == "loss":
            return {"loss": loss}, -loss
        if self.valid_metric in ("recall_at_1", "svm_uar"):
            labels, h = (torch.cat(self._collected[k]) for k in ("label", "embeddings"))
            y, x = labels.numpy(), normalize(h).numpy()
            if self.valid_metric == "recall_at_1":
                found = recall_at_1(x, y)
            else:
                assert self.svm_speech is not None
                train = self.outputs_of(self.svm_speech)
                known = normalize(train["embeddings"]).numpy()
                C = self.hparams.svm_C
                guesses = linear_svm(known, train["label"].numpy(), x, C)
                found = classification_metrics(y, guesses, len(self.class_names))["uar"]
            return {"loss": loss, self.valid_metric: found}, found
        seen = self.collected_outputs()
        known = seen["label"] != UNLABELLED
        valid = classification_metrics(
            seen["label"][known], seen["prediction"][known], len(self.class_names)
        )
        if self.unlabelled is not None:
            valid |= self._without_labels(seen, self.unlabelled)
        if self.valid_metric not in valid:
            raise ValueError(
                f"valid_metric is {self.valid_metric}, which needs {LEAST} utterances "
                f"or more for validation (found {len(seen['label'])}) and as many "
                "without labels, and finite outputs"
            )
        return valid | {"loss": loss}, valid[self.valid_metric]

    def _without_labels(
        self, seen: Mapping[str, Any], unlabelled: DataLoader[Any]
    ) -> dict[str, float]:
        """Computes criteria without labels of the target; empty for too few rows."""
        target = self.outputs_of(unlabelled)
        p, x = target["logits"].softmax(dim=1), target["embeddings"]
        few = min(len(p), len(seen["label"])) < LEAST
        if few or not (p.isfinite().all() and np.isfinite(seen["probability"]).all()):
            return {}
        source = [seen[name] for name in ("probability", "label", "embeddings")]
        return criteria(p.numpy(), x.numpy(), *source)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Ends a validation: score, schedule, early stop, history, log, checkpoint."""
        if stage != sb.Stage.VALID:
            return
        valid, score = self.score_epoch(float(stage_loss))
        # All ranks need the same score; otherwise some would stop while others wait.
        score = ddp_broadcast(score)
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(score)
        elif epoch:
            self.scheduler.step()
        self.epoch_counter.end_epoch(score)
        self.history.seconds += time.time() - self._stage_start
        assert epoch is not None and self.train_sampler is not None
        self.history.end_epoch(
            epoch,
            phase=self.train_sampler.phase_name,
            valid=valid,
            lr=max(rates.values()),
            temperature=self.fitted_temperature(),
        )
        row = self.history.epochs[-1]
        self.train_logger.log_stats(
            {"epoch": epoch, "phase": row["phase"]}
            | {f"lr {name}": rate for name, rate in rates.items()},
            train_stats=row["train"],
            valid_stats=valid,
        )
        # Of equal scores the later checkpoint is selected, unless one is the initial
        # state.
        handicap = 0.0 if self.history.epochs[0]["epoch"] else 1e-9 * epoch
        self.checkpointer.save_and_keep_only(
            meta={"score": score - handicap, "epoch": epoch}, max_keys=["score"]
        )


def _synchronised(module: torch.nn.Module) -> torch.nn.Module:
    """Makes plain batch norms use the statistics of all processes."""
    if type(module) in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d):
        found: torch.nn.Module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return found
    for name, child in module.named_children():
        setattr(module, name, _synchronised(child))
    return module


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module without its DistributedDataParallel wrapper."""
    if isinstance(module, DistributedDataParallel):
        inner: torch.nn.Module = module.module
        return inner
    return module
