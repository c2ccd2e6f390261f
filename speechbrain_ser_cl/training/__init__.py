"""Training code that several recipes share."""

from speechbrain_ser_cl.data.dataset import waveform
from speechbrain_ser_cl.training.baseline import (
    begin_with,
    names_weighted_ssl,
    run_probe,
    write_baseline,
)
from speechbrain_ser_cl.training.brain import SERBrain, unwrap
from speechbrain_ser_cl.training.checkpointer import AtomicCheckpointer
from speechbrain_ser_cl.training.cross_entropy import (
    class_weights,
    labelled_cross_entropy,
)
from speechbrain_ser_cl.training.embeddings import write_embedding_test
from speechbrain_ser_cl.training.epochs import RoundCounter
from speechbrain_ser_cl.training.frozen import (
    is_frozen,
    keep_features,
    keep_frames,
    keep_frozen,
    keep_states,
    trained_parts,
)
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.launch import (
    Launch,
    check_choices,
    check_entries,
    closing_table,
    find_hparams,
    main,
    refuse_other_experiment,
)
from speechbrain_ser_cl.training.optim import parameter_groups
from speechbrain_ser_cl.training.record import (
    machine,
    package_versions,
    read_results,
    write_numbers_test,
    write_run,
    write_test,
)
from speechbrain_ser_cl.training.similarity import layer_similarities
from speechbrain_ser_cl.training.staged import (
    check_stages,
    fit_once,
    setting_title,
    stage_folder,
)
from speechbrain_ser_cl.training.stages import (
    cost_of,
    make_brain,
    shared_folder,
    title_of,
)
from speechbrain_ser_cl.training.utterance_features import keep_pooled
from speechbrain_ser_cl.training.views import ViewFeatures, take_unusable

__all__ = [
    "AtomicCheckpointer",
    "History",
    "Launch",
    "RoundCounter",
    "SERBrain",
    "ViewFeatures",
    "begin_with",
    "check_choices",
    "check_entries",
    "check_stages",
    "class_weights",
    "closing_table",
    "cost_of",
    "find_hparams",
    "fit_once",
    "is_frozen",
    "keep_features",
    "keep_frames",
    "keep_frozen",
    "keep_pooled",
    "keep_states",
    "labelled_cross_entropy",
    "layer_similarities",
    "machine",
    "main",
    "make_brain",
    "names_weighted_ssl",
    "package_versions",
    "parameter_groups",
    "read_results",
    "refuse_other_experiment",
    "run_probe",
    "setting_title",
    "shared_folder",
    "stage_folder",
    "take_unusable",
    "title_of",
    "trained_parts",
    "unwrap",
    "waveform",
    "write_baseline",
    "write_embedding_test",
    "write_numbers_test",
    "write_run",
    "write_test",
]
