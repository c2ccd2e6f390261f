"""Cross-validation of a recipe: its folds, their processes, what came out.

``ser-cl crossval --help`` says how to use it. A recipe can be cross-validated with

- seeds alone, if its YAML has ``seed`` and ``output_folder`` and its script writes what
  ``speechbrain_ser_cl.training.write_run`` does;
- folds, if its YAML also has ``corpora`` (name to folder, or to null until it is
  given), ``emotion_map``, ``protocol`` (a mapping, so that the command line can change
  parts of it), ``fold`` and ``split_file``, and its script takes the utterances of
  ``data.experiment.fold_split`` and writes the split's fingerprint as
  ``data.fingerprint`` into ``results.json``.

Such a script runs by itself as well: without ``split_file`` it makes the same fold.
"""
