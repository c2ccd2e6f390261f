"""Cross-validation, sweeps, benches and searches: their runs, processes and results.

See ``ser-cl crossval --help``. A recipe can be cross-validated with

- seeds only, if its YAML has ``seed`` and ``output_folder`` and its script writes the
files of ``speechbrain_ser_cl.training.write_run``;
- folds, if its YAML also has ``corpora`` (name to folder, or to null until it is
given), ``emotion_map``, ``protocol`` (a mapping, so that the command line can change
parts of it), ``fold`` and ``split_file``, and its script uses
``data.experiment.fold_split`` and writes the split's fingerprint as
``data.fingerprint`` into ``results.json``.

Such a script also runs alone: without ``split_file`` it makes the same fold.
"""
