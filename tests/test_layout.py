"""Folders that must stay as they are for everything to import."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("folder", ["operator", "router_sidecar", "core", "simulator", "cli"])
def test_a_folder_that_only_holds_a_package_is_none_itself(folder: str) -> None:
    """`operator/__init__.py` would shadow the standard library's `operator`; the others would nest the packages."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_standard_librarys_operator_is_found_beside_ours() -> None:
    code = "import operator, trimtab_operator; assert operator.add(1, 2) == 3; print(operator.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT / "operator") not in done.stdout
