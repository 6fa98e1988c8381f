"""Mininet's prompt and objects, without Mininet's changes to the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]


def prompt(*lines):
    """What `lab mn` prints when these lines are typed."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", "mn", "topologies/two_nodes.py"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_pods_are_hosts_at_the_prompt():
    said = prompt("nodes", "client ping -c1 server")
    assert "client" in said
    assert "1 received" in said


def test_commands_run_in_the_pod():
    assert "10.0.2.10/32" in prompt('py server.cmd("ip -br addr")')


def test_the_lab_ends_with_the_prompt():
    prompt("nodes")
    labs = subprocess.run(
        [sys.executable, "-m", "lab", "ls", "-o", "json"], capture_output=True, text=True, cwd=ROOT
    )
    assert "mininet" not in labs.stdout
