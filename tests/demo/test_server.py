"""The demo's server by plain HTTP: the model's answers, and refusals."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlencode

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.cli import main
from speechbrain_ser_cl.demo.answers import answer
from speechbrain_ser_cl.demo.server import MOST_UPLOADS, DemoServer
from speechbrain_ser_cl.inference import EmotionRecognizer
from speechbrain_ser_cl.recordings import EmotionStream, Turn, follow_file
from tests.demo.conftest import CLASSES, untrained

UPLOAD = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def ask(server):
    """Sends a request; returns status, headers and body."""

    def ask(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    return ask


@pytest.fixture
def classify(ask):
    """Sends a file; returns status and JSON."""

    def classify(path, window=None, **headers):
        query = "" if window is None else f"?window={window}"
        body = path.read_bytes()
        found = ask("POST", f"/classify{query}", body, UPLOAD | headers)
        assert found[1]["Content-Type"].startswith("application/json")
        return found[0], json.loads(found[2])

    return classify


@pytest.mark.parametrize("window", [0.5, 1, 3, 30])
def test_it_returns_the_recognizers_answer(classify, recognizer, speech, window):
    status, found = classify(speech, window)
    assert status == 200
    timeline = recognizer.classify_file(speech, window).as_dict()["timeline"]
    assert found == recognizer.classify_file(speech).as_dict() | {"timeline": timeline}
    assert (len(timeline) > 0) == (window < 5)


def test_a_time_line_of_speech_alone(ask, recognizer, tmp_path):
    rng = np.random.default_rng(0)
    wav = 3e-4 * rng.normal(size=16000 * 8)
    wav[16000 * 2 : 16000 * 4] += rng.normal(0, 0.1, 16000 * 2)
    soundfile.write(tmp_path / "call.wav", wav, 16000)
    body = (tmp_path / "call.wav").read_bytes()
    words = "/classify?window=0.5&activity="
    status, _, found = ask("POST", f"{words}energy", body, UPLOAD)
    stream = EmotionStream(recognizer, 0.5)
    heard = [one.as_dict() for one in follow_file(stream, tmp_path / "call.wav")]
    assert status == 200 and json.loads(found)["timeline"] == heard
    assert heard[0]["start"] > 1.8 and heard[-1]["end"] < 4.2
    status, _, told = ask("POST", f"{words}music", body, UPLOAD)
    assert status == 400 and "activity is 'music'" in json.loads(told)["error"]


def test_a_time_line_of_speaker_turns(ask, recognizer, speech):
    def told(turns, turns_name):
        asked = {"turns": len(turns), "turns_name": turns_name, "name": speech.name}
        body = turns.encode() + speech.read_bytes()
        path = f"/classify?window=1&{urlencode(asked)}"
        status, _, found = ask("POST", path, body, UPLOAD)
        return status, json.loads(found)

    line = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n".format
    talk = line("a_tone", 2, 2, "bea") + line("a_tone", 0.5, 2.5, "anna")
    status, found = told(talk + line("other", 0, 1, "x"), "talk.rttm")
    turns = [Turn(0.5, 3.0, "anna"), Turn(2.0, 4.0, "bea")]
    stream = EmotionStream(recognizer, 1.0, turns=turns)
    heard = [one.as_dict() for one in follow_file(stream, speech)]
    assert status == 200
    assert found["timeline"] == sorted(heard, key=lambda one: one["segment"])
    assert [one["speaker"] for one in found["timeline"]] == ["anna"] * 4 + ["bea"] * 3
    table = "start;end;speaker\n0.5;3;anna\n"
    status, found = told(table, "My Talk.CSV")
    assert status == 200 and {one["speaker"] for one in found["timeline"]} == {"anna"}
    for turns, name, why in (
        ("SPEAKER a 1 0\n", "a.rttm", "a.rttm, line 1: 4 fields, expected 8 or more"),
        ("from,to\n1,2\n", "a.csv", "a.csv: the columns are from, to, expected start"),
        ("start,end\n1,two\n", "a.csv", "a.csv, row 2: found 1, two, expected num"),
        ("start,end\n2,1\n", "../x/a.csv", "a.csv: a turn from 2.0 to 1.0 s"),
        ("Dear all,\n", "letter.doc", "letter.doc: no turn"),
        (line("b", 0, 1, "x") + line("c", 0, 1, "x"), "b.rttm", "no turn of a tone"),
        ("start,end\n1500,3000\n", "a.csv", "each turn begins after the end"),
    ):
        status, found = told(turns, name)
        assert status == 400 and why in found["error"], found
        assert "ser-cl-demo" not in found["error"]


def test_dimensions_and_several_emotions(speech):
    model, means, scales = untrained(), [3.0, 50.0, 0.0], [1.0, 20.0, 1e-9]
    model.answer_as("dimensions", means, scales)
    names = ["arousal", "valence", "third"]
    recognizer = EmotionRecognizer(model, names, "cpu")
    found = answer(recognizer, speech, 2.0)
    for one in (found, *found["timeline"]):
        z = (np.array(list(one["values"].values())) - means) / scales
        expected = np.clip(0.5 + z / 4, 0, 1)
        np.testing.assert_allclose(list(one["shares"].values()), expected, atol=1e-6)
    model.answer_as("emotions")
    recognizer = EmotionRecognizer(model, CLASSES, "cpu")
    found = answer(recognizer, speech, 2.0)
    assert set(found["emotions"]) <= set(CLASSES) and len(found["timeline"]) > 1
    with DemoServer(recognizer, "my_model", 0) as server:
        page = server.pages["/"][1].decode()
    assert "Hears none, one or several of: angry" in page
    assert "activity" not in page and "turns" not in page


def test_every_refused_file_is_reported_why(classify, bad):
    for path, told in bad.items():
        status, found = classify(path)
        assert 400 <= status < 500, path
        assert told.replace("it has", "the file has") in found["error"]
        assert "upload" not in found["error"] and "/" not in found["error"]


def test_a_window_out_of_range_is_refused(classify, speech):
    for window in (31, 0, -1, "nan", "two"):
        status, found = classify(speech, window)
        assert status == 400
        assert "window is" in found["error"] or "two" in found["error"]


def test_nothing_is_kept(classify, speech, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert classify(speech)[0] == 200
    assert list(tmp_path.iterdir()) == []


def test_the_page_needs_nothing_from_elsewhere(ask):
    status, headers, page = ask("GET", "/")
    page = page.decode()
    assert status == 200
    assert "happy &amp; &lt;b&gt;" in page and "<b>" not in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        if address != "data:,":
            status, headers, content = ask("GET", address)
            assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
            assert "://" not in content.decode()
    for address in ("/nothing", "/../server.py", "/style.css/../server.py"):
        assert ask("GET", address)[0] == 404


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
@pytest.mark.parametrize("port", ["", ":9999"])
def test_all_names_of_this_machine_and_tunnels_are_accepted(
    classify, speech, name, port
):
    host = name + port
    assert classify(speech, Host=host)[0] == 200
    assert classify(speech, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "[::1]"]
    + ["127.0.0.1@evil.example", "127.0.0.1:80@evil.example", "0.0.0.0", ""],
)
def test_dns_rebinding_is_refused(ask, classify, speech, host):
    status, found = classify(speech, Host=host)
    assert status == 403 and "only" in found["error"]
    status, _, page = ask("GET", "/", headers={"Host": host})
    assert status == 403 and CLASSES[0].encode() not in page


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://127.0.0.1:1", "http://localhost.evil"],
)
def test_requests_of_other_pages_are_refused(ask, classify, server, speech, origin):
    status, found = classify(speech, Origin=origin)
    assert status == 403 and "not answered" in found["error"]
    # Types that a form or a script may send without permission.
    for kind in (
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
    ):
        body = speech.read_bytes()
        assert ask("POST", "/classify", body, {"Content-Type": kind})[0] == 415
    # Permission is refused.
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    status, headers, _ = ask("OPTIONS", "/classify", headers=preflight)
    assert status >= 400
    assert not any(name.startswith("Access-Control") for name in headers)


def test_odd_requests_leave_it_running(ask, server, classify, speech):
    assert ask("POST", "/elsewhere", b"1", UPLOAD)[0] == 404
    chunked = UPLOAD | {"Transfer-Encoding": "chunked"}
    assert ask("POST", "/classify", iter([b"1"]), chunked)[0] == 411
    for request in (
        b"nonsense\r\n\r\n",
        b"POST /classify HTTP/1.0\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST /classify HTTP/1.0\r\nHost: localhost\r\nContent-Length: 50\r\n"
        b"Content-Type: application/octet-stream\r\n\r\nhalf",
    ):
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(10_000)
            assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert classify(speech)[0] == 200


def test_a_length_of_thousands_of_digits_is_too_large(server):
    with socket.create_connection(server.server_address[:2], timeout=10) as client:
        client.sendall(
            b"POST /classify HTTP/1.0\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\n"
            b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"
        )
        client.shutdown(socket.SHUT_WR)
        assert b" 413 " in client.recv(100)


def test_only_so_many_uploads_are_open(server, classify, speech):
    head = (
        b"POST /classify HTTP/1.0\r\nHost: localhost\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 9\r\n\r\n1"
    )
    clients = []

    def open_upload():
        clients.append(socket.create_connection(server.server_address[:2]))
        clients[-1].sendall(head)

    for _ in range(MOST_UPLOADS - 1):
        open_upload()
    assert classify(speech)[0] == 200  # there is room for one more
    for _ in range(3 * MOST_UPLOADS):
        open_upload()
        # It can be 200 more than once: while one file is classified, one of the open
        # uploads is refused if the server comes to it only now.
        if (status := classify(speech)[0]) == 503:
            break
    assert status == 503
    for client in clients:
        client.close()
    deadline = time.monotonic() + 20
    while (status := classify(speech)[0]) == 503 and time.monotonic() < deadline:
        pass
    assert status == 200


def test_it_is_on_loopback_only(server):
    assert server.server_address[0] == "127.0.0.1"


# The command


def test_a_port_in_use_is_one_line(server, model, capsys):
    port = server.server_address[1]
    assert main(["demo", str(model), "--no-browser", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"port {port} of 127.0.0.1 is used by another program" in error
    assert "--port 0" in error


def test_what_is_no_model_and_no_port_is_reported(tmp_path, model, capsys):
    assert main(["demo", str(tmp_path / "none"), "--no-browser"]) == 2
    assert "no folder" in capsys.readouterr().err
    for port in ("70000", "-1", "web"):
        with pytest.raises(SystemExit):
            main(["demo", str(model), f"--port={port}"])
        assert "from 0 to 65535" in capsys.readouterr().err


def test_ctrl_c_stops_it(model, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.flac", rng.normal(0, 0.1, 16000 * 240), 16000)
    command = [sys.executable, "-m", "speechbrain_ser_cl.cli", "demo", str(model)]
    with subprocess.Popen(
        [*command, "--no-browser", "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # If the tests run in the background, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        line = process.stdout.readline()
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/ ", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/")
        assert b"my_model" in connection.getresponse().read()
        # Also in the middle of a file.
        connection = http.client.HTTPConnection("127.0.0.1", port)
        body = (tmp_path / "long.flac").read_bytes()
        connection.request("POST", "/classify?window=0.5", body, UPLOAD)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), error) == (0, "stopping", "")
