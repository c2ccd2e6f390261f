"""Kills at random moments, and hostile input: nothing is lost or executed.

``python -m tests.endurance --kills 30 --hostile 500`` tries many;
``tests/test_hostile.py`` is a fast share. A kill is SIGKILL of a whole run, a training,
a training on cached features or a cross-validation; the same command goes on until it
ends, and its predictions have to be those of a run that was not killed. Hostile input
is one of ``HOSTILE`` for a loader: it has to be read or refused by one of the package's
errors in time, and must not leave the file ``executed`` in the working folder.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from tests.fuzz import outcome

ROOT = Path(__file__).resolve().parents[1]
OWN = ROOT / "recipes" / "own_corpus"
TINY = ROOT / "tests" / "sweeps" / "recipe" / "tiny.yaml"
SECONDS = 20  # seconds for one hostile input
BOMB = "touch executed"
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)
YAMLS = (
    f"a: !!python/object/apply:os.system ['{BOMB}']\n",
    f"a: !!python/object/new:os.system ['{BOMB}']\n",
    "a: !!python/object/apply:subprocess.check_output [['touch', 'executed']]\n",
    "a: !!python/name:os.system\n",
    "a: !!python/module:os\n",
    f"a: !new:os.system ['{BOMB}']\n",
    f"a: !apply:os.system ['{BOMB}']\n",
    f"a: !name:os.system ['{BOMB}']\n",
    f"a: !apply:builtins.eval [\"__import__('os').system('{BOMB}')\"]\n",
    f"<<: !apply:os.system ['{BOMB}']\n",
    f"? !apply:os.system ['{BOMB}']\n: 1\n",
    "a: !include:/etc/passwd\n",
    "a: !ref <a>\n",
    "a: !ref <b>\nb: !ref <a>\n",
    "a: &a [*a]\n",
    "a: !copy <b>\n",
    "a: !tuple (1, 2\n",
    ALIASES,
    "a: " + "[" * 5000,
    "a: " + "9" * 100_000 + "\n",
    "--- {}\n--- {}\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: \x07\n",
    "output_folder: ../executed\n",
    "\ufeffa: 1\na: 2\n",
    "{" * 50 + "}" * 50,
)
PATHS = (
    *("../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/mem"),
    *("|touch executed", "$(touch executed)", "`touch executed`", "; touch executed"),
    *("a" * 255 + ".wav", "a" * 5000, "\u202egpj.wav", "a\x00b.wav", "CON", "~root/x"),
    *("file:///etc/passwd", "http://127.0.0.1/x.wav", "\\\\host\\share\\x.wav", ".."),
    *("%00", "{0.__class__}", "{__import__}", "%s%n", "<script>alert(1)</script>", " "),
)


class _Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, (BOMB,)


def _header(value: object) -> bytes:
    """Makes a safetensors file with this header and no data."""
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


def hostile(folder: Path) -> dict[str, tuple[Callable[[object], object], list]]:
    """Returns, for each loader, its call and its hostile inputs."""
    import torch

    from speechbrain_ser_cl import cli
    from speechbrain_ser_cl.backbones import WeightedSSL
    from speechbrain_ser_cl.corpora import read_synthetic, read_table, write_synthetic
    from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
    from speechbrain_ser_cl.demo import DemoServer
    from speechbrain_ser_cl.inference import EmotionRecognizer
    from speechbrain_ser_cl.model_folder import write_model
    from speechbrain_ser_cl.nnet import ClassifierHead, EmotionClassifier, MeanPooling
    from speechbrain_ser_cl.sweeps.recipe import Recipe
    from speechbrain_ser_cl.training import AtomicCheckpointer
    from speechbrain_ser_cl.utils.audio import load_audio
    from speechbrain_ser_cl.utils.settings import read_plain_yaml

    config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 1}
    config |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 40}
    head = ClassifierHead(16, n_classes=2)
    model = EmotionClassifier(WeightedSSL(config), [head], MeanPooling())
    write_model(folder / "model", model, ["x", "y"])
    description = json.loads((folder / "model" / "model.json").read_text())
    weights = (folder / "model" / "model.safetensors").read_bytes()
    corpus = write_synthetic(
        folder / "corpus", "synthetic_source", n_speakers=2, utterances_per_speaker=2
    )
    write_manifest(read_synthetic(corpus), folder / "manifest.json", corpus)
    manifest = json.loads((folder / "manifest.json").read_text())
    soundfile.write(folder / "a.wav", np.full(1600, 0.1), 16000)
    sound = (folder / "a.wav").read_bytes()
    checkpointer = AtomicCheckpointer(folder / "save", {"a": torch.nn.Linear(1, 1)})
    saved = checkpointer.save_checkpoint()
    pickled = io.BytesIO()
    torch.save({"weight": _Bomb()}, pickled)
    binary = [
        *(b"", b"\0" * 100, b"{}", b"\xff" * 4096, pickle.dumps(_Bomb())),
        *(pickled.getvalue(), b"#!/bin/sh\n" + BOMB.encode(), b"PK\x03\x04" * 100),
        *(b"\x1f\x8b" + b"\0" * 50, b"%PDF-1.4", b"MZ" * 100, b"\x7fELF" + b"\0" * 99),
        *(weights[:20], weights[: len(weights) // 2], weights * 2, weights[::-1]),
        *(struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 10**9) + b"{" * 99),
    ]
    tensor = {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}
    binary += [
        _header(one)
        for one in (
            *(
                {"a": tensor},
                {"a": tensor | {"shape": [-1]}},
                {"../../executed": tensor},
            ),
            *({"a": tensor | {"data_offsets": [10**18, 0]}}, [], {"a": 1}, "x"),
            {"a": tensor | {"dtype": "O"}, "__metadata__": {"x": [1]}},
            {"__metadata__": {"format": "pt"}, "a": tensor | {"shape": "1"}},
        )
    ]
    sounds = [
        *binary[:18],
        *(sound[:k] for k in (4, 12, 20, 36, 44, 45)),
        sound[:4] + b"\xff\xff\xff\xff" + sound[8:],
        sound[:24] + struct.pack("<I", 0) + sound[28:],
        sound[:24] + struct.pack("<I", 2**32 - 1) + sound[28:],
        sound[:22] + struct.pack("<H", 65535) + sound[24:],
        sound[:40] + struct.pack("<I", 2**32 - 1) + sound[44:],
        b"fLaC\x00\x00\x00\x22" + b"\xff" * 34,
        b"OggS" + b"\xff" * 200,
        b"ID3\x04" + b"\x7f" * 300,
    ]

    def changed(value: dict, many: int) -> list[bytes]:
        """Returns JSON with one value replaced by a hostile one."""
        found = []
        for k in range(many):
            rng, copy = random.Random(k), json.loads(json.dumps(value))
            one = copy
            while isinstance(one, dict | list) and one:
                keys = list(one) if isinstance(one, dict) else range(len(one))
                key = rng.choice(keys)
                if not isinstance(one[key], dict | list) or rng.random() < 0.2:
                    one[key] = rng.choice([*PATHS, *YAMLS[:10], 10**30, -1, None, [[]]])
                    break
                one = one[key]
            found.append(json.dumps(copy).encode())
        return found + [one.encode() for one in YAMLS] + binary[:8]

    def file(name: str, load: Callable[[Path], object]) -> Callable[[object], object]:
        """Writes the input to a file and loads it."""

        def use(content: object) -> object:
            path = folder / name
            before = path.read_bytes() if path.exists() else None
            text = content.encode() if isinstance(content, str) else content
            path.write_bytes(text)  # type: ignore[arg-type]
            try:
                return load(path)
            finally:
                path.unlink() if before is None else path.write_bytes(before)

        return use

    def ser_cl(*words: object) -> None:
        """Runs a command, which must print its error in one line."""
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            status = cli.main([str(word) for word in words])
        assert "Traceback" not in err.getvalue()
        if status:
            raise ValueError(err.getvalue())

    def table(cells: str) -> str:
        return f"file,emotion,speaker\n{cells},joy,A\na.wav,{cells},{cells}\n"

    def ask(body: object) -> None:
        """Sends an upload to the page."""
        import http.client

        port = server.server_address[1]
        for path in ("/classify", f"/classify?window={body!r:.200}".replace(" ", "")):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
            try:
                kind = {"Content-Type": "application/octet-stream"}
                connection.request("POST", path, body, kind)  # type: ignore[arg-type]
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status < 500, f"{answer.status} {text[:200]!r}"
            except (http.client.InvalidURL, UnicodeEncodeError):
                pass
            finally:
                connection.close()

    recognizer = EmotionRecognizer.from_pretrained(folder / "model", device="cpu")
    server = DemoServer(recognizer, "model", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def load_model(path: Path) -> object:
        return EmotionRecognizer.from_pretrained(path.parent, device="cpu")

    def beside(name: str) -> Callable[[object], object]:
        (folder / name).mkdir()
        for one in (folder / "model").iterdir():
            os.link(one, folder / name / one.name)
        return file(f"{name}/hyperparams.yaml", load_model)

    (folder / "train.py").touch()
    predict = ("predict", "--model", folder / "model")
    return {
        "model.json": (
            file("model/model.json", load_model),
            changed(description, 30),
        ),
        "model.safetensors": (file("model/model.safetensors", load_model), binary),
        "a model's hyperparams.yaml": (beside("with_yaml"), list(YAMLS)),
        "a recipe's YAML": (
            file("my.yaml", lambda p: Recipe(p, p, ()).values),
            list(YAMLS),
        ),
        "overrides": (
            lambda text: Recipe(TINY, TINY, ("--noise", str(text))).values,
            [*YAMLS, *PATHS],
        ),
        "plain YAML": (file("plain.yaml", read_plain_yaml), list(YAMLS)),
        "manifest": (
            file("manifest.json", lambda p: read_manifest(p, corpus)),
            changed(manifest, 30),
        ),
        "table": (
            file("t/t.csv", lambda p: read_table(p)),
            [*map(table, PATHS), *YAMLS, *binary[:12]],
        ),
        "JSON lines": (
            file("j/t.jsonl", lambda p: read_table(p)),
            [
                *(json.dumps({"file": x, "emotion": x}) for x in PATHS),
                *YAMLS,
                *binary[:12],
            ],
        ),
        "Excel": (file("x/t.xlsx", lambda p: read_table(p)), binary),
        "audio": (file("b.wav", load_audio), sounds),
        "checkpoint": (
            file(
                f"save/{saved.path.name}/a.ckpt",
                lambda p: checkpointer.recover_if_possible(),
            ),
            binary,
        ),
        "CKPT.yaml": (
            file(
                f"save/{saved.path.name}/CKPT.yaml",
                lambda p: checkpointer.recover_if_possible(),
            ),
            [*YAMLS, *binary[:8]],
        ),
        "names to ser-cl predict": (
            lambda name: ser_cl(*predict, "--", str(name).replace("\0", "")),
            list(PATHS),
        ),
        "files to ser-cl predict": (
            file("c.wav", lambda p: ser_cl(*predict, p)),
            sounds,
        ),
        "the page": (ask, [*sounds, *PATHS, *map(str.encode, YAMLS[:5])]),
    }


def try_hostile(most: int | None = None, seed: int = 0) -> dict:
    """Tries hostile inputs; counts those read and refused, lists all others.

    Arguments
    ---------
    most : int, optional
        How many for each loader; None: all.
    seed : int
        Which.

    Returns
    -------
    dict
        Counters ``tried``, ``refused``, ``read``; ``findings``.
    """
    counts = {"read": Counter(), "refused": Counter(), "found": Counter()}
    findings = []
    home = Path.cwd()
    outside = Path(tempfile.mkdtemp(prefix="hostile-"))
    folder = outside / "here"
    folder.mkdir()
    for name in "tjx":
        (folder / name).mkdir()
    try:
        os.chdir(folder)
        for kind, (load, inputs) in hostile(folder).items():
            some = list(enumerate(inputs))
            if most is not None:
                some = random.Random(seed).sample(some, min(most, len(some)))
            for number, content in some:
                what, told = outcome(load, content, SECONDS)
                counts[what][kind] += 1
                if told:
                    findings.append((kind, number, told))
                for path in outside.rglob("executed"):
                    findings.append((kind, number, "EXECUTED"))
                    path.unlink()
    finally:
        os.chdir(home)
        shutil.rmtree(outside, ignore_errors=True)
    tried = sum(counts.values(), Counter())
    return {"tried": tried, "findings": findings} | counts


def jobs(folder: Path) -> dict[str, list[str]]:
    """Lists commands that can be killed; ``OUT`` stands for their output folder."""
    from speechbrain_ser_cl.backbones import write_untrained_encoder
    from speechbrain_ser_cl.corpora import write_synthetic

    corpus = write_synthetic(
        folder / "corpus", "synthetic_source", n_speakers=6, utterances_per_speaker=8
    )
    config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2}
    config |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    write_untrained_encoder(config, folder / "encoder")
    own = [
        "--corpora",
        f"{{synthetic_source: {{reader: synthetic, folder: {corpus}}}}}",
    ]
    own += ["--ssl_source", str(folder / "encoder"), "--ssl_revision", "null"]
    own += ["--n_epochs", "6", "--batch_size", "8", "--device", "cpu"]
    own += ["--data_folder", "OUT_data", "--output_folder", "OUT"]
    folds = "{kind: speaker_kfold, n_folds: 5, leaks: [session, text_id]}"
    own += ["--protocol", folds]
    train = [sys.executable, str(OWN / "train.py")]
    crossval = [sys.executable, "-m", "speechbrain_ser_cl.cli", "crossval", str(TINY)]
    crossval += [
        "--corpora",
        f"{{synthetic: {corpus}}}",
        "--epochs",
        "5",
        "--jobs",
        "2",
    ]
    return {
        "training": [*train, "hparams/finetune.yaml", *own, "--freeze", "none"],
        "feature cache": [
            *(*train, "hparams/frozen.yaml", *own),
            *("--features_folder", "OUT_features"),
        ],
        "cross-validation": [*crossval, "--output_folder", "OUT", "--resume"],
    }


def predictions(out: Path) -> dict[str, bytes]:
    """Returns the predictions of a run or of all of its folds."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("predictions.csv"))
    }


def _started(command: list[str], out: Path) -> subprocess.Popen:
    words = [word.replace("OUT", str(out)) for word in command]
    with open(f"{out}.log", "ab") as log:
        return subprocess.Popen(
            words, stdout=log, stderr=log, cwd=out.parent, start_new_session=True
        )


def kill_and_resume(kills: int, seed: int = 0) -> Iterator[tuple[str, int, str]]:
    """Kills runs and resumes them until this number of kills is reached.

    Arguments
    ---------
    kills : int
        In all.
    seed : int
        Of the moments.

    Yields
    ------
    kind : str
        Of the run.
    killed : int
        How often it was killed.
    verdict : str
        ``"same"`` where its predictions are those of a run that was not killed.
    """
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="endurance-"))
    expected, seconds, left = {}, {}, kills
    commands = jobs(folder)
    for kind, command in commands.items():
        begun = time.monotonic()
        out = folder / f"{kind.replace(' ', '_')}_whole"
        assert _started(command, out).wait() == 0, Path(f"{out}.log").read_text()[
            -3000:
        ]
        seconds[kind], expected[kind] = time.monotonic() - begun, predictions(out)
        assert expected[kind]
    for number in range(10 * kills):
        if left <= 0:
            break
        kind = list(commands)[number % len(commands)]
        out = folder / f"{kind.replace(' ', '_')}_{number}"
        killed, planned = 0, min(left, rng.randint(1, 4))
        for _ in range(planned):
            process = _started(commands[kind], out)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.05, 0.7) * seconds[kind])
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        status = _started(commands[kind], out).wait()
        left -= killed
        verdict = "same" if predictions(out) == expected[kind] else "OTHER PREDICTIONS"
        if status:
            verdict = f"status {status}: {Path(f'{out}.log').read_text()[-1500:]}"
        yield kind, killed, verdict
    shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Runs the requested tests and prints counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hostile", type=int, help="for each loader; all by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    bad = 0
    found = try_hostile(options.hostile, options.seed)
    for kind, count in found["tried"].items():
        print(
            f"{kind:28}{count:6} tried{found['refused'][kind]:6} refused"
            f"{found['read'][kind]:6} read"
        )
    for finding in found["findings"]:
        print(*finding)
    bad += len(found["findings"])
    print(f"{found['tried'].total()} hostile inputs, {bad} findings", flush=True)
    kills = 0
    for kind, killed, verdict in kill_and_resume(options.kills, options.seed):
        kills += killed
        bad += verdict != "same"
        print(f"{kind}: {killed} kills, then {verdict}", flush=True)
    print(f"{kills} kills; {bad} findings in all")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
