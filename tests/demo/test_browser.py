"""The demo's page in a browser, controlled like a user does."""

import re
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from speechbrain_ser_cl.inference import EmotionRecognizer
from tests.demo.conftest import CLASSES, serving, untrained

READER = Path(__file__).parents[1] / "report" / "reader.js"
HEARD = "!document.getElementById('result').hidden"
COMPLAINT = "document.getElementById('error').textContent"


@pytest.fixture
def page(driven, server):
    """Returns the page, just opened."""
    driven.console()
    driven.resize(1000, 1300)
    driven.prefer("light")
    driven.open(server.url)
    return driven


def texts(page, selector):
    script = (
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
    )
    return page.run(script, selector)


def press(page, key):
    page.run(
        "document.getElementById('timeline').dispatchEvent("
        "new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))",
        key,
    )


def test_a_file_is_classified_and_shown(page, recognizer, speech):
    page.type("#file", str(speech))
    page.wait(HEARD)
    found = recognizer.classify_file(speech)
    share = f"{100 * found.probability:.1f} %"
    assert texts(page, "#verdict") == [f"a tone.wav, 5.2 s: {found.emotion}, {share}"]
    assert share in texts(page, "#status")[0]
    assert texts(page, "#classes th") == CLASSES
    shown = [float(text) for text in texts(page, "#classes .number")]
    expected = [100 * p for p in found.probabilities.values()]
    np.testing.assert_allclose(shown, expected, atol=0.0501)
    page.wait("Math.abs(document.getElementById('player').duration - 5.2) < 0.01")
    assert page.console() == []


def test_the_timeline_is_accessible(page, recognizer, speech):
    page.type("#file", str(speech))
    page.wait(HEARD)
    timeline = recognizer.classify_file(speech, 2).timeline
    rows = page.run(
        "return [...document.querySelectorAll('.cells')].map((row) =>"
        " [...row.children].map((cell) => [cell.style.getPropertyValue('--share'),"
        " cell.classList.contains('first')]))"
    )
    for name, row in zip(CLASSES, rows, strict=True):
        for (share, first), window in zip(row, timeline, strict=True):
            assert float(share) == pytest.approx(window.probabilities[name], abs=6e-4)
            assert first == (window.emotion == name)
    # The cells are adjacent, from start to end.
    edges = page.run(
        "const row = document.querySelector('.cells');"
        "return [...row.children, row].map((cell) => cell.getBoundingClientRect())"
        ".map(({left, right}) => [left, right])"
    )
    *cells, (left, right) = edges
    assert [cells[0][0], cells[-1][1]] == pytest.approx([left, right], abs=0.1)
    np.testing.assert_allclose(
        [cell[0] for cell in cells[1:]], [cell[1] for cell in cells[:-1]], atol=0.1
    )
    # Each row is beside its name, and the selected window covers all rows.
    boxes = page.run(
        "return ['.name', '.cells', '.over', '.chosen'].map((name) =>"
        " [...document.querySelectorAll(name)].map((e) => e.getBoundingClientRect())"
        ".map(({left, right, top, bottom}) => [left, right, top, bottom]))"
    )
    names, rows, (over,), (box,) = boxes
    for name, row in zip(names, rows, strict=True):
        assert name[1] < row[0]
        np.testing.assert_allclose(
            [name[2:], row[:2]], [row[2:], [left, right]], atol=1
        )
    np.testing.assert_allclose(over, [left, right, rows[0][2], rows[-1][3]], atol=1)
    second = (right - left) / 5.2
    np.testing.assert_allclose(box[:2], [left, left + 2 * second], atol=1)

    value = "document.getElementById('timeline').getAttribute('aria-valuetext')"
    last = len(timeline) - 1
    for key, i in [("ArrowLeft", 0), ("ArrowRight", 1), ("End", last), ("Home", 0)]:
        press(page, key)
        told = page.run(f"return {value}")
        window = timeline[i]
        assert told.startswith(f"{window.start:.1f} to {window.end:.1f} s: ")
        assert f": {window.emotion} {100 * window.probability:.1f} %," in told
        assert texts(page, "#now") == [told]
    press(page, "End")
    press(page, "Enter")
    player = "document.getElementById('player')"
    assert page.run(f"return {player}.currentTime") >= timeline[last].start - 0.1
    page.click("summary")
    assert len(texts(page, "#windows tr")) == len(timeline)

    page.run(
        "const s = document.getElementById('window'); s.value = '5';"
        "s.dispatchEvent(new Event('change'))"
    )
    page.wait("document.querySelectorAll('.cells')[0].children.length === 2")
    assert page.console() == []


def test_each_speaker_has_rows(page, speech, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("from,to\n1,2\n")
    good = tmp_path / "talk.csv"
    good.write_text("start,end,speaker\n0,3,anna\n2,5,bea & <b>\n0.5,1,\n")
    page.type("#turns", str(bad))
    page.type("#file", str(speech))
    assert page.wait(COMPLAINT).startswith("bad.csv: the columns are from, to, ")
    page.type("#turns", str(good))
    page.wait(HEARD)
    assert texts(page, ".speaker") == ["anna", "unnamed speaker", "bea & <b>"]
    assert texts(page, ".timeline .name") == 3 * CLASSES
    counts = "[...document.querySelectorAll('.cells')].map((e) => e.children.length)"
    assert page.run(f"return {counts}") == [2] * 3 + [1] * 3 + [2] * 3
    page.click("summary")
    who = ["anna", "anna", "", "bea & <b>", "bea & <b>"]
    assert texts(page, "#windows td:nth-child(3)") == who
    # What is pointed at: the speaker by the row, the window by the time.
    point = (
        "const box = document.querySelectorAll('.over')[arguments[0]]"
        ".getBoundingClientRect();"
        "document.getElementById('timeline').dispatchEvent(new PointerEvent("
        "'pointermove', {clientX: box.left + box.width * arguments[1],"
        " clientY: box.top + 5, bubbles: true}))"
    )
    for row, share, words in [(0, 0.9, "anna, 1.0 to 3.0"), (2, 0.1, "bea & <b>, 2.0")]:
        page.run(point, row, share)
        assert texts(page, "#now")[0].startswith(words)
    page.click("#no-turns")
    page.wait("document.querySelectorAll('.cells').length === 3")
    assert texts(page, ".speaker") == []
    assert all("Failed to load resource" in line for line in page.console())


def test_dimensions_are_shown_as_numbers(driven, speech):
    model = untrained()
    model.answer_as("dimensions", [3.0, 50.0, 0.0], [1.0, 20.0, 0.5])
    recognizer = EmotionRecognizer(model, ["arousal", "valence", "third"], "cpu")
    with serving(recognizer) as server:
        driven.open(server.url)
        driven.type("#file", str(speech))
        driven.wait(HEARD)
    found = recognizer.classify_file(speech).values
    told = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    assert texts(driven, "#verdict") == [f"a tone.wav, 5.2 s: {told}"]
    assert texts(driven, "#classes .number") == [f"{v:.2f}" for v in found.values()]
    driven.click("summary")
    first = [float(text) for text in texts(driven, "#windows tr:first-child td")]
    window = recognizer.classify_file(speech, 2).timeline[0]
    expected = [window.start, window.end, *window.values.values()]
    np.testing.assert_allclose(first, expected, atol=0.0051)
    assert driven.console() == []


def test_a_dropped_file_is_taken(page, speech):
    """As from a browser; chromedriver cannot drag files."""
    drop = """
        const data = new DataTransfer();
        const wav = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        for (const name of arguments[1]) data.items.add(new File([wav], name));
        const event = { dataTransfer: data, bubbles: true, cancelable: true };
        for (const kind of ["dragover", "drop"]) {
          const unhandled = document.body.dispatchEvent(new DragEvent(kind, event));
          if (unhandled) throw Error("the browser would leave the page");
        }
    """
    wav = b64encode(speech.read_bytes()).decode()
    page.run(drop, wav, ["a.wav", "b.wav"])
    assert "One file at a time" in page.wait(COMPLAINT)
    page.run(drop, wav, ["dropped.wav"])
    page.wait(HEARD)
    assert texts(page, "#verdict")[0].startswith("dropped.wav, 5.2 s")
    assert page.run(f"return {COMPLAINT}") == ""
    assert page.console() == []


def test_recorded_audio_is_classified(page):
    page.click("#record")
    page.wait("parseFloat(document.getElementById('recorded').textContent) > 1.5")
    assert texts(page, "#record") == ["Stop and classify"]
    page.click("#record")
    page.wait(HEARD)
    name, length = re.match(r"(.*), ([\d.]+) s: ", texts(page, "#verdict")[0]).groups()
    assert name == "your recording" and 1.4 < float(length) < 10
    assert texts(page, "#record") == ["Record"]
    # It is an ordinary wav file that contains the beep.
    page.run(
        "fetch(document.getElementById('player').src).catch(() => 0);window.peak = 0"
    )
    page.wait(f"document.getElementById('player').duration > {float(length) - 0.2}")
    assert page.run("return document.getElementById('level').hidden")


def test_every_refused_file_is_reported_in_the_page(page, bad, speech):
    for path, told in bad.items():
        page.type("#file", str(path))
        complaint = page.wait(f"{COMPLAINT}.startsWith({path.name!r}) && {COMPLAINT}")
        assert told in complaint
        assert not page.run(f"return {HEARD}")
    # The browser's own messages about refused requests; no script failed.
    assert all("Failed to load resource" in line for line in page.console())
    page.type("#file", str(speech))
    page.wait(HEARD)
    assert page.run(f"return {COMPLAINT}") == ""


def test_a_server_that_is_gone_is_reported(page, speech):
    page.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.type("#file", str(speech))
    assert "Does “ser-cl demo” still run" in page.wait(COMPLAINT)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page, speech, bad, scheme, tmp_path):
    page.prefer(scheme)
    page.type("#file", str(next(iter(bad))))
    page.wait(COMPLAINT)
    contrast = READER.read_text("utf-8") + "\nreturn contrast();"
    seen = page.run(contrast)
    assert seen.pop(".warning") >= 4.5
    page.type("#file", str(speech))
    page.wait(HEARD)
    page.run("document.querySelector('details').open = true")
    seen = page.run(contrast)
    assert {"body", ".kicker", "p", ".caption", "th", "summary"} <= set(seen)
    assert {name: ratio for name, ratio in seen.items() if ratio < 4.5} == {}
    page.screenshot(tmp_path / "page.png")
    pixels = imread(tmp_path / "page.png")[..., :3]
    assert (pixels.mean() > 0.8) if scheme == "light" else (pixels.mean() < 0.25)


def test_a_narrow_window_needs_no_scrolling_sideways(page, speech):
    page.resize(500, 900)
    page.type("#file", str(speech))
    page.wait(HEARD)
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.run(f"return {wide}") <= 0


def test_everything_has_a_name_and_can_be_reached_by_tab(page, speech):
    page.type("#file", str(speech))
    page.wait(HEARD)
    unnamed = page.run(
        "const named = (e) => e.labels?.length || e.textContent.trim() ||"
        " e.getAttribute('aria-label') || e.getAttribute('aria-labelledby');"
        "return [...document.querySelectorAll("
        "'button, input, select, audio, meter, [role=slider], section')]"
        ".filter((e) => !named(e)).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    wanted = ["file", "record", "window", "player", "timeline"]
    reachable = page.run(
        "return arguments[0].filter((id) => {"
        " const e = document.getElementById(id); e.focus();"
        " return document.activeElement === e && e.tabIndex >= 0 })",
        wanted,
    )
    assert reachable == wanted
    levels = page.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)"
    )
    assert levels == ["H1", "H2", "H2", "H3"]


def test_a_long_file_is_drawn(page, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.flac", rng.normal(0, 0.1, 16000 * 40), 16000)
    page.type("#file", str(tmp_path / "long.flac"))
    page.wait(HEARD)
    assert texts(page, ".axis span")[:3] == ["0 s", "5", "10"]
