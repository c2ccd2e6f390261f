"""What the Brains of several recipes share."""

from speechbrain_ser_cl.training.brain import SERBrain, unwrap
from speechbrain_ser_cl.training.checkpointer import AtomicCheckpointer
from speechbrain_ser_cl.training.epochs import RoundCounter
from speechbrain_ser_cl.training.frozen import (
    FrozenSSL,
    encode,
    keep_frames,
    keep_states,
    waveform,
)
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.launch import (
    find_hparams,
    plain_values,
    refuse_other_experiment,
    resolved_values,
    start_run,
)
from speechbrain_ser_cl.training.optim import parameter_groups
from speechbrain_ser_cl.training.record import machine, package_versions, write_run
from speechbrain_ser_cl.training.views import View, ViewFeatures, take_unusable

__all__ = [
    "AtomicCheckpointer",
    "FrozenSSL",
    "History",
    "RoundCounter",
    "SERBrain",
    "View",
    "ViewFeatures",
    "encode",
    "find_hparams",
    "keep_frames",
    "keep_states",
    "machine",
    "package_versions",
    "parameter_groups",
    "plain_values",
    "refuse_other_experiment",
    "resolved_values",
    "start_run",
    "take_unusable",
    "unwrap",
    "waveform",
    "write_run",
]
