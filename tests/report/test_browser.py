"""The report in a browser: no console messages, and accessible by eye and keyboard."""

import json
import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from speechbrain_ser_cl.report import write_report
from speechbrain_ser_cl.results.embeddings import read_embeddings

DARK = "--blink-settings=preferredColorScheme=0"
WAIT = "--virtual-time-budget=4000"  # ms for scripts

READER = Path(__file__).with_name("reader.js").read_text(encoding="utf-8")
HARNESS = """
<script>
{READER}
(async () => {
  let seen;
  try { seen = await {ACTION}(); } catch (error) { seen = { error: String(error) }; }
  const pre = document.createElement("pre");
  pre.id = "seen";
  pre.textContent = JSON.stringify(seen);
  document.body.append(pre);
})();
</script>
</body>
"""


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("page") / "report.html"
    write_report([trained], output, audio=True)
    return output


@pytest.fixture
def look(chromium, page, tmp_path):
    """Calls a function of reader.js in the page and returns the result."""

    def look(action, *options):
        prepared = tmp_path / "prepared.html"
        harness = HARNESS.replace("{ACTION}", action).replace("{READER}", READER)
        prepared.write_text(page.read_text().replace("</body>", harness))
        dom = chromium.open(prepared, "--dump-dom", WAIT, *options)
        text = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)[1]
        seen = json.loads(text.replace("&amp;", "&").replace("&lt;", "<"))
        assert not (isinstance(seen, dict) and "error" in seen), seen
        assert chromium.console == []
        return seen

    return look


def test_errors_would_be_noticed(chromium, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<!DOCTYPE html><title>broken</title><script>nothing()</script>")
    chromium.open(broken, "--dump-dom")
    assert "nothing is not defined" in chromium.console[0]


def test_it_opens_without_messages_and_shows_every_figure(look):
    seen = look("charts", "--window-size=520,900")
    names = [name for name, _, _ in seen["charts"]]
    for name in ("Test results on", "emotion", "Recall of each class", "Map of the"):
        assert any(chart.startswith(name) for chart in names), name
    assert all(width > 150 and height > 60 for _, width, height in seen["charts"])
    assert seen["tables"] >= 10
    assert seen["wide"] <= 0  # no horizontal scrolling in a narrow window


def test_the_map_describes_points_by_keyboard_and_pointer(look, trained):
    found = read_embeddings(trained / "embeddings.npz")
    seen = look("map")
    assert seen["focused"]
    for told in seen["told"]:
        words = dict(part.split(" ", 1) for part in told.split(", "))
        i = found.ids.index(words["utterance"])
        assert words["class"] == found.labels[i]
        assert words["speaker"] == found.speakers[i]
    assert seen["told"][0] != seen["told"][1]
    assert (seen["chosen"], seen["left"]) == (1, 0)
    assert seen["pointed"].startswith("utterance ")
    for colours, values in (
        (seen["before"], found.labels),
        (seen["after"], found.speakers),
    ):
        names = sorted(set(values))
        assert colours == [f"f{names.index(value) % 8}" for value in values]
    shown = [field for field, hidden in seen["legends"] if not hidden]
    assert shown == ["speaker"] and len(seen["legends"]) == 4
    # Two speakers have different colours.
    assert not seen["dimmed"]
    assert 0 < seen["alike"] < len(found.ids)


@pytest.mark.parametrize("mode", [(), (DARK,)], ids=["light", "dark"])
def test_text_has_enough_contrast(look, mode):
    contrast = look("contrast", *mode)
    assert contrast.pop(".f1") >= 3  # not text: WCAG 2.2, 1.4.11
    assert len(contrast) == 13
    low = {name: ratio for name, ratio in contrast.items() if ratio < 4.5}
    assert low == {}


@pytest.mark.parametrize(("mode", "bright"), [((), True), ((DARK,), False)])
def test_a_screenshot_is_light_or_dark_as_asked(chromium, page, tmp_path, mode, bright):
    picture = tmp_path / "page.png"
    size = "--window-size=1000,1500"
    chromium.open(page, f"--screenshot={picture}", size, *mode)
    pixels = imread(picture)[..., :3]
    assert (pixels.mean() > 0.8) if bright else (pixels.mean() < 0.25)
    assert pixels.std() > 0.05


def test_printing_shows_folded_parts(look, chromium, page, tmp_path):
    seen = look("paper")
    assert not any(seen["folded"]) and len(seen["folded"]) >= 3
    assert all(seen["printed"])
    assert seen["again"] == seen["folded"]
    paper = tmp_path / "report.pdf"
    chromium.open(page, f"--print-to-pdf={paper}")
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) >= 3


def test_audio_plays(look):
    assert 0.9 < look("sound") < 2.6  # as long as synthetic utterances are
