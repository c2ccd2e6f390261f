"""docs/tutorial.py goes from recordings to a prediction."""

import csv
import json

from speechbrain_ser_cl.inference import EmotionRecognizer


def test_it_writes_the_files_that_it_names(tutorial):
    folder, printed = tutorial
    results = {
        run: json.loads((folder / run / "results.json").read_text("utf-8"))
        for run in ("cross_entropy", "supcon")
    }
    assert results["cross_entropy"]["setting"] == "cross-entropy"
    assert results["supcon"]["setting"] == "cross-entropy + 0.5 SupCon"
    history = json.loads((folder / "supcon" / "history.json").read_text("utf-8"))
    # Epoch 0 is the probe from which training starts.
    assert history[0]["train"] == {} and len(history) > 1
    assert all(epoch["train"]["supcon"] > 0 for epoch in history[1:])
    for run, result in results.items():
        assert f"{run:14} UAR {result['test']['uar']['value']:6.1%}" in printed
        # It is better than guessing, even with this little data.
        assert result["test"]["uar"]["value"] > result["test"]["chance"]
        assert result["data"]["shared_between_parts"]["speaker"]["train/test"] == 0
    page = (folder / "report.html").read_text("utf-8")
    assert "cross-entropy + 0.5 SupCon" in page
    card = (folder / "model" / "README.md").read_text("utf-8")
    assert card[:600] in printed


def test_the_model_is_that_of_the_run(tutorial):
    folder, printed = tutorial
    recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
    found = recognizer.classify_file(folder / "new.wav")
    assert printed.splitlines()[-1].startswith(
        f"{found.emotion} {found.probability:.2f}"
    )
    with open(folder / "supcon" / "utterances.csv", encoding="utf-8") as file:
        path_of = {row["id"]: row["wav"] for row in csv.DictReader(file)}
    with open(folder / "supcon" / "predictions.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert recognizer.classify_file(path_of[row["id"]]).emotion == row["prediction"]
