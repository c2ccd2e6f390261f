"""README tables from ``results.json`` files."""

import json
import statistics
import subprocess
import sys

import pytest
from scipy.stats import sem
from scipy.stats import t as student

from speechbrain_ser_cl.results.tables import (
    build_table,
    collect_results,
    fill_readme,
    main,
)

README = """# Results

<!-- results: begin runs -->
<!-- results: end -->

The end.
"""
UAR = {0: 0.871, 1: 0.882, 2: 0.860}


def run(seed=0, uar=0.87, speakers=(0.8, 0.9), **changes):
    def entry(value):
        return {
            "value": value,
            "interval": [value - 0.01, value + 0.01],
            "interval_speakers": speakers and list(speakers),
        }

    return {
        "setting": "full, 5 % labels",
        "source": "ravdess",
        "target": "crema_d",
        "encoder": "whisper-tiny.en-encoder",
        "target_split": "random",
        "seed": seed,
        "demo": False,
        "test": {
            "uar": entry(uar),
            "wa": entry(0.7),
            "macro_f1": entry(0.6),
            "chance": 0.5,
        },
        "wall_time_s": 100.0,
    } | changes


def save(folder, *runs):
    for i, content in enumerate(runs):
        path = folder / "runs" / f"run{i}" / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def rows(table):
    """Returns the cells of every line of every table, including titles."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ") and "---" not in line
    ]


def test_mean_deviation_and_intervals():
    runs = [run(0, 0.871, (0.80, 0.90)), run(1, 0.882), run(2, 0.860, (0.83, 0.93))]
    values = [87.1, 88.2, 86.0]
    low, high = student.interval(0.95, 2, statistics.mean(values), sem(values))
    titles, cells = rows(build_table(runs))
    found = dict(zip(titles, cells, strict=True))
    assert found == {
        "setting": "full, 5 % labels",
        "seeds": "3",
        "UAR %": f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}",
        "95 % over seeds": f"{low:.1f} to {high:.1f}",
        "95 % over speakers": "81.0 to 91.0",
        "WA %": "70.0 ± 0.0",
        "macro-F1 %": "60.0 ± 0.0",
    }


def test_one_seed_has_no_deviation_and_no_interval_over_seeds():
    titles, cells = rows(build_table([run(speakers=None)]))
    assert cells == ["full, 5 % labels", "1", "87.0", "–", "70.0", "60.0"]
    assert "95 % over speakers" not in titles


def test_another_main_metric():
    titles, cells = rows(build_table([run()], metric="macro_f1"))
    assert titles[2:] == [
        "macro-F1 %",
        "95 % over seeds",
        "95 % over speakers",
        "UAR %",
        "WA %",
    ]
    assert cells[2] == "60.0"
    with pytest.raises(ValueError, match="unknown metric 'war'"):
        build_table([run()], metric="war")


def test_settings_stand_in_their_order():
    runs = [
        run(setting="full", order=3),
        run(setting="source only", order=1),
        run(setting="b"),
        run(setting="a"),
    ]
    names = [cells[0] for cells in rows(build_table(runs))[1:]]
    assert names == ["source only", "full", "a", "b"]


def test_one_table_per_corpora_encoder_and_split():
    text = build_table(
        [
            run(),
            run(target_split="speaker"),
            run(encoder="whisper-base"),
            run(source="emodb", target="ravdess"),
        ]
    )
    assert text.count("| setting |") == 4
    assert (
        "**ravdess → crema_d, whisper-base, random target split** "
        "(chance: UAR 50.0 %)" in text
    )
    assert "speaker target split" in text
    assert "emodb → ravdess" in text


def test_a_paper_beside_our_runs():
    paper = [
        {"setting": "full, 5 % labels", "uar": 69.25, "note": "Ahn et al. 2023"},
        {"setting": "no labels", "uar": 59.39, "note": "Ahn et al. 2023"},
    ]
    titles, ours, theirs = rows(build_table([run()], paper))
    assert titles[-1] == "printed"
    assert ours[-1] == "69.25 (Ahn et al. 2023)"
    assert theirs[:3] == ["no labels", "–", "not run here"]
    assert theirs[-1] == "59.39 (Ahn et al. 2023)"
    assert len(titles) == len(ours) == len(theirs)


def test_a_paper_without_runs_of_ours():
    paper = [{"setting": "full", "uar": 69.25, "note": "Ahn et al. 2023"}]
    text = build_table([], paper)
    assert "**As printed**" in text
    assert rows(text)[1][2] == "not run here"
    elsewhere = [paper[0] | {"source": "iemocap", "target": "msp_improv"}]
    text = build_table([run()], elsewhere)
    assert "**iemocap → msp_improv**" in text
    assert "printed" not in rows(text)[-1]
    assert text.count("not run here") == 1


def test_bars_in_names_do_not_break_the_table():
    assert r"full \| frozen" in build_table([run(setting="full | frozen")])


def test_runs_that_do_not_fit_one_table_are_refused():
    with pytest.raises(ValueError, match="one seed has several runs"):
        build_table([run(), run()])
    other = run(seed=1)
    other["test"]["chance"] = 0.25
    with pytest.raises(ValueError, match=r"chance levels \[0.25, 0.5\]"):
        build_table([run(), other])
    with pytest.raises(ValueError, match="neither results"):
        build_table([])


def test_readme_is_filled_once_and_the_rest_is_left_alone(tmp_path):
    save(tmp_path, *[run(seed, uar) for seed, uar in UAR.items()])
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert fill_readme(readme)
    text = readme.read_text()
    assert text.startswith("# Results\n\n<!-- results: begin runs -->\n")
    assert text.endswith("<!-- results: end -->\n\nThe end.\n")
    assert "87.1 ± 1.1" in text
    assert not fill_readme(readme)
    assert readme.read_text() == text
    save(tmp_path, run(0, 0.5))
    assert fill_readme(readme)
    assert "87.1 ± 1.1" not in readme.read_text()


def test_several_blocks_and_a_papers_file(tmp_path):
    save(tmp_path, run())
    paper = {"rows": [{"setting": "theirs", "wa": 60.5, "note": "them"}]}
    (tmp_path / "printed").mkdir()
    (tmp_path / "printed" / "paper.json").write_text(json.dumps(paper))
    readme = tmp_path / "README.md"
    second = README.replace("begin runs", "begin printed metric=wa")
    readme.write_text(README + second)
    fill_readme(readme)
    assert "| full, 5 % labels | 1 | 87.0 |" in readme.read_text()
    assert "60.5 (them)" in readme.read_text()
    readme.write_text(README.replace("begin runs", "begin printed"))
    with pytest.raises(ValueError, match="paper.json: rows: uar is null"):
        fill_readme(readme)


@pytest.mark.parametrize(
    "text",
    [
        "no marker",
        "<!-- results: begin runs -->\n",
        "<!-- results: end -->\n",
        README + "<!-- results: begin runs -->\n",
        "<!-- results: begin runs -->\n" + README,
        README.replace(" -->\n", " colour=red -->\n", 1),
    ],
)
def test_markers_that_do_not_pair_up_are_refused(tmp_path, text):
    save(tmp_path, run())
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="README.md: .*expected pairs"):
        fill_readme(readme)
    assert readme.read_text() == text


def test_bad_results_are_refused_with_their_file(tmp_path):
    save(tmp_path, run(), run(seed=1, demo=True))
    with pytest.raises(ValueError, match="run1.results.json is from a demo run"):
        collect_results(tmp_path)
    broken = run(seed=1)
    del broken["encoder"], broken["test"]["wa"], broken["test"]["chance"]
    save(tmp_path, run(), broken)
    with pytest.raises(
        ValueError, match="run1.*missing encoder, test.wa.value, test.chance"
    ):
        collect_results(tmp_path)
    (tmp_path / "runs" / "run1" / "results.json").write_text("{")
    with pytest.raises(ValueError, match="run1.*not valid JSON"):
        collect_results(tmp_path)


def test_command_line(tmp_path, capsys):
    save(tmp_path, run())
    readme = tmp_path / "README.md"
    readme.write_text(README)
    command = [sys.executable, "-m", "speechbrain_ser_cl.results.tables"]
    check = subprocess.run(
        [*command, str(readme), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 1
    assert "not those of the results.json files" in check.stderr
    assert "Warning" not in check.stderr
    assert readme.read_text() == README
    assert main([str(readme)]) == 0
    assert main([str(readme), "--check"]) == 0
    readme.write_text("no marker")
    assert main([str(readme), "--check"]) == 2
    assert "expected pairs" in capsys.readouterr().err
