"""The engine of the docs is one: outside of this repository it keeps what the contract promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..test_docs import DOCS, blocks

ROOT = Path(__file__).parents[2]
PAGE = DOCS / "writing-an-engine.md"


def test_it_keeps_the_contract_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mysite").mkdir()
    shutil.copy(ROOT / "tests" / "file_engine.py", tmp_path / "mysite" / "sessions.py")
    written = {match[1]: code for code in blocks(PAGE, "python") if (match := re.match(r"# (\S+\.py)\n", code))}
    assert set(written) == {"conftest.py", "test_sessions.py"}
    for name, code in written.items():
        (tmp_path / name).write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django", "-W", "error", "."]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # this run's own
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [summary] = re.findall(r"^(\d+) passed in .*$", done.stdout, re.MULTILINE)
    assert int(summary) > 100
