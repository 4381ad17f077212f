"""The benchmarks run, with next to no rows: nobody needs their figures here. The docs show those of a real run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *options: str) -> str:
    done = subprocess.run([sys.executable, BENCHMARKS / script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_purge(tmp_path: Path) -> None:
    few = "--database", "sqlite", "--rows", "400", "--idle", "0.2"
    shown = run("purge/run.py", *few, "--json", str(tmp_path / "purge.json"), "--", "--batch-size=100")
    runs: list[dict[str, Any]] = json.loads((tmp_path / "purge.json").read_text())["runs"]
    assert [run["way"] for run in runs] == ["purgesessions", "DELETE", "clearsessions"]
    for each in runs:
        assert each["seconds"] > 0
        assert each["idle"]["saves"] > 0
        assert f"| 400     | {each['way']}" in shown
    assert run("purge/run.py", "--from-json", str(tmp_path / "purge.json")) == shown


@pytest.mark.parametrize("results", ["engines.json", "cached_db.json"])
def test_the_docs_show_the_results_that_are_kept(tmp_path: Path, results: str) -> None:
    tables = tmp_path / "tables.md"
    run("engines/run.py", "--from-json", str(BENCHMARKS / "results" / results), "--markdown", str(tables))
    page = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    assert len(tables.read_text()) > 1000
    assert tables.read_text().strip() in page


@pytest.mark.slow
def test_moving() -> None:
    found = json.loads(run("moving.py", "--rows", "50", "--calls", "3"))
    assert found["move"]["moved"] >= 50
    assert set(found["multiples"]) == set(found["prices_ms"])


def test_the_docs_show_what_a_move_has_cost() -> None:
    kept = json.loads((BENCHMARKS / "results" / "moving.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "moving.md").read_text()
    times = [kept["multiples"][name] for name in ("prepare", "move")]
    assert all(f"{each} in" in page for each in times)
    assert f"{kept['move']['seconds']:.0f} s for {kept['move']['rows']:,} sessions" in page


@pytest.mark.slow
@pytest.mark.parametrize("part", ["sizes", "growth"])
def test_capacity(tmp_path: Path, part: str) -> None:
    kept = tmp_path / "capacity.json"
    shown = run("capacity.py", "--tiny", "--only", part, "--engine", "Redis", "--json", str(kept))
    found = json.loads(kept.read_text())[part]["Redis"]
    assert set(found) == {"sizes": {"200"}, "growth": {"store", "user", "bytes"}}[part]
    for took in (took for of in ("store", "user") for verbs in found.get(of, {}).values() for took in verbs.values()):
        assert took["wall"] > took["client"] > 0 < took["server"]
    assert "Redis" in shown
    assert run("capacity.py", "--from-json", str(kept)) == shown


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("wrk") or os.environ.get("CI")), reason="wrk is missing: apt-get install wrk")
def test_capacity_under_load(tmp_path: Path) -> None:
    kept = tmp_path / "capacity.json"
    run("capacity.py", "--tiny", "--only", "load", "--engine", "Redis", "--json", str(kept))
    found = json.loads(kept.read_text())["load"]["Redis"]
    assert all(found[server][path]["requests"] > 0 for server in ("gunicorn", "uvicorn") for path in ("read", "write"))


def test_the_docs_show_what_capacity_has_measured() -> None:
    shown = run("capacity.py", "--from-json", str(BENCHMARKS / "results" / "capacity.json"))
    page = (BENCHMARKS.parent / "docs" / "capacity.md").read_text()
    assert len(shown) > 1000
    assert shown.strip() in page
