"""Each row of tests/recipes runs with its debug flags and leaves the files it names."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from speechbrain_ser_cl.backbones import WeightedSSL

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    row
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small encoder, in place of the one that the YAML names on the hub."""
    torch.manual_seed(0)
    config = {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
    }
    folder = tmp_path_factory.mktemp("encoder")
    WeightedSSL(config).encoder.model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Hparam_file"])
def test_debug_flags(row, encoder, tmp_path):
    command = [sys.executable, row["Script_file"], row["Hparam_file"]]
    command += shlex.split(row["test_debug_flags"])
    command += ["--output_folder", tmp_path / "run"]
    if "_corpus synthetic" in row["test_debug_flags"]:
        command += ["--ssl_source", encoder, "--ssl_revision", "null"]
    subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
    )
    checks = row["test_debug_checks"]
    files = checks.removeprefix("file_exists=[").removesuffix("]").split(",")
    assert files
    for file in files:
        assert (tmp_path / "run" / file).is_file()
