import subprocess
import sys

from genie.distributed.claims import claim, release
from tests.conftest import ROOT

SECOND = """
import sys
from pathlib import Path
from genie.distributed.claims import claim
claim(Path(sys.argv[1]))
print("claimed", flush=True)
"""


def test_a_second_run_waits_for_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = tmp_path / "resume" / "abc"
    claim(folder)
    claim(folder)  # a stage that trains twice does not wait for itself
    command = [sys.executable, "-c", SECOND, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        line = second.stderr.readline()
        assert line == f"another run with the same params is at work in {folder}: waiting for it\n"
        assert second.poll() is None
        release(folder)
        assert second.stdout.readline() == "claimed\n"
    assert second.returncode == 0


def test_a_run_that_ended_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    command = [sys.executable, "-c", SECOND, str(tmp_path / "abc")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    claim(tmp_path / "abc")
    release(tmp_path / "abc")
