"""The cost of importing, and packages that it does not need."""

import subprocess
import sys


def run(code):
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()


def test_the_package_and_its_registry_import_no_torch():
    heavy = "torch numpy scipy sklearn transformers speechbrain hyperpyyaml"
    assert (
        run(
            "import sys, speechbrain_ser_cl, speechbrain_ser_cl.cli\n"
            f"print(*(set('{heavy}'.split()) & set(sys.modules)))"
        )
        == []
    )


def test_planning_and_reading_corpora_import_no_torch():
    heavy = "torch speechbrain sklearn transformers matplotlib scipy.stats"
    modules = "corpora data.experiment data.quality.report results sweeps.crossval"
    assert (
        run(
            "import sys\n"
            f"for name in '{modules}'.split():\n"
            "    __import__(f'speechbrain_ser_cl.{name}')\n"
            f"print(*(set('{heavy}'.split()) & set(sys.modules)))"
        )
        == []
    )


def test_every_module_imports_without_the_optional_dependencies():
    imported = run(
        """
import importlib, pkgutil, sys
optional = "matplotlib opensmile torch_audiomentations umap distributed ray"
for name in optional.split():
    sys.modules[name] = None  # Importing it is an ImportError from now on.
import speechbrain_ser_cl
for module in pkgutil.walk_packages(speechbrain_ser_cl.__path__, "speechbrain_ser_cl."):
    importlib.import_module(module.name)
    print(module.name)
"""
    )
    assert "speechbrain_ser_cl.losses" in imported
    assert "speechbrain_ser_cl.cli" in imported
