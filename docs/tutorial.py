# %% [markdown]
# # Tutorial
#
# From a folder of recordings to a model that classifies new ones: check the data,
# train, change the loss, evaluate, report, export, predict. It takes less than a minute
# on a CPU and needs no data: the recordings are synthetic, and the encoder is small and
# untrained, so **its numbers say nothing about people**. On yours, the commands are the
# same.
#
# It is a script with cells. Run it as a whole with `python docs/tutorial.py`, or cell
# by cell in an editor that knows `# %%` (VS Code, Spyder, PyCharm, Jupyter with
# Jupytext). Everything is written into `results/tutorial`.

# %%
import csv
import json
import os
import shlex
import shutil
from pathlib import Path

from speechbrain_ser_cl.backbones import write_untrained_encoder
from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.cli.train import find_recipes
from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.inference import EmotionRecognizer


def ser_cl(command):
    """What a terminal does with ``ser-cl command``."""
    print(f"\n$ ser-cl {command}", flush=True)
    if status := main(shlex.split(command)):
        raise SystemExit(status)


os.makedirs("results/tutorial", exist_ok=True)
os.chdir("results/tutorial")

# %% [markdown]
# ## 1. A corpus
#
# Recordings in a folder, and a table that describes them. Columns may have any
# names, emotions may be called anything. You have one already; here we make one.

# %%
WORDS = {"neutral": "flat", "happy": "glad", "sad": "sad", "angry": "cross"}

recordings = write_synthetic(
    "calls", "synthetic_source", n_speakers=5, utterances_per_speaker=16
)
with open("calls/labels.csv", "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["recording", "mood", "who"])
    for u in read_synthetic(recordings):
        table.writerow([u.path.relative_to(recordings), WORDS[u.emotion], u.speaker])

# %% [markdown]
# ## 2. Its description
#
# Everything about an experiment is in one YAML: a copy of the recipe's, with the
# lines changed that are about your corpus. Unknown words have to be
# explained; `sad` is known.

# %%
text = find_recipes()["own_corpus/finetune"].read_text("utf-8")
for line, mine in {
    "\nfolder: null": "\nfolder: calls",
    "columns: {}": "columns: {file: recording, emotion: mood, speaker: who}",
    "labels: {}": "labels: {flat: neutral, glad: happy, cross: angry}",
}.items():
    assert text.count(line) == 1, line
    text = text.replace(line, mine)
Path("my.yaml").write_text(text, "utf-8")

# %% [markdown]
# Every recording is checked before training: leaks between training and
# test, the same audio twice, silence, classes that are too small. The protocol in the
# YAML assigns *speakers* to folds: no speaker is in training and test.

# %%
ser_cl("check my.yaml --data_folder data")

# %% [markdown]
# ## 3. Training
#
# Every key of the YAML can be changed on the command line. You would leave out all of
# `SMALL`: the YAML names a pretrained encoder, which is downloaded.

# %%
write_untrained_encoder(
    {
        "model_type": "whisper",
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
    },
    "encoder",
)
SMALL = (
    "--ssl_source encoder --ssl_revision null --freeze none --lr 0.001 --n_epochs 6 "
    "--batches_per_epoch 8 --loader_options '{num_workers: 0}' --data_folder data"
)
ser_cl(f"train my.yaml --output_folder cross_entropy {SMALL}")

# %% [markdown]
# ## 4. Another loss
#
# The recipe has a contrastive term that is switched off: `lambda_supcon: 0.0`. Here
# it is switched on. The YAML also selects the loss (`supcon_loss: !new:...`); use any
# other that takes embeddings and labels, or [your own](plugin.md).

# %%
ser_cl(f"train my.yaml --output_folder supcon --lambda_supcon 0.5 {SMALL}")

# %% [markdown]
# ## 5. Evaluation
#
# A run writes `results.json`, `predictions.csv` and more. UAR is the mean of the
# classes' recalls; the interval says how far other test utterances may move it. Four
# classes: chance is 25 %.

# %%
for run in ("cross_entropy", "supcon"):
    test = json.loads(Path(run, "results.json").read_text("utf-8"))["test"]
    uar, (low, high) = test["uar"]["value"], test["uar"]["interval"]
    print(f"{run:14} UAR {uar:6.1%}, 95 % interval {low:6.1%} to {high:6.1%}")

# %% [markdown]
# With sixteen test utterances the intervals are wide: nothing follows from such a
# difference. [Cross-validation](crossval.md) tests every speaker once.
#
# ## 6. Report
#
# Both runs on one page, compared, with learning curves, confusion matrices and the
# worst mistakes: open `results/tutorial/report.html`. [How to read it](report.md).

# %%
ser_cl("report cross_entropy supcon --output report.html")

# %% [markdown]
# ## 7. Export
#
# A folder for other users: weights, a description, and a model card with the data, the
# results and the limits. Loading it runs no code.

# %%
ser_cl("export supcon model --force")
print(Path("model/README.md").read_text("utf-8")[:600], "[...]")

# %% [markdown]
# ## 8. Prediction
#
# For a recording of somebody new, on the command line and in Python.

# %%
newcomer = write_synthetic(
    "newcomer", "synthetic_source", seed=1, n_speakers=1, utterances_per_speaker=4
)
shutil.copy(read_synthetic(newcomer)[0].path, "new.wav")
ser_cl("predict --model model new.wav")

recognizer = EmotionRecognizer.from_pretrained("model")
found = recognizer.classify_file("new.wav")
print(found.emotion, f"{found.probability:.2f}", found.probabilities)

# %% [markdown]
# ## Next
#
# - [Your corpus](corpus.md): folders in place of a table, splits of your own.
# - [Cross-validation](crossval.md), which makes a result out of a run.
# - [Your loss](plugin.md) and [your encoder](encoder.md).
