"""What a kernel or a container without a mount says, and where it sends the reader."""

import json
import subprocess
import sys

import pytest

from lab.kernel import mounts, syscalls

pytestmark = pytest.mark.live

ATTEMPT = f"""
import json
from {syscalls.__name__} import mount
from {mounts.__name__} import make_bpffs
from lab.errors import LabError
try:
    %s
except LabError as error:
    print(json.dumps([type(error).__name__, error.message, error.hint, error.exit_code]))
"""
NOT_ALLOWED = ("setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin")
"""Root as a container has it: without the capability that mount(2) asks for."""


def refused(statement: str, *before: str) -> list[str]:
    """Run a statement in a mount namespace of its own; return the error it ends with."""
    argv = ["unshare", "--mount", *before, sys.executable, "-c", ATTEMPT % statement]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_a_container_that_must_not_mount_bpffs_is_named_as_the_cause(tmp_path) -> None:
    kind, message, hint, _ = refused(f"make_bpffs('{tmp_path}/bpf')", *NOT_ALLOWED)
    assert (kind, message) == (
        "PrerequisiteError",
        f"mount bpf at {tmp_path}/bpf: not permitted",
    )
    assert "container" in hint and "--privileged" in hint


def test_a_kernel_without_the_file_system_sends_to_the_other_kernel(tmp_path) -> None:
    kind, message, hint, code = refused(f"mount('none', '{tmp_path}', 'lab_none')")
    assert (kind, code) == ("UnsupportedError", 3)
    assert message.endswith("this kernel has no file system lab_none")
    assert "lab vm" in hint


def test_a_folder_that_is_not_there_keeps_its_own_words(tmp_path) -> None:
    kind, message, *_ = refused(f"mount('none', '{tmp_path}/gone', 'tmpfs')")
    assert kind == "KernelError"
    assert message == f"mount tmpfs at {tmp_path}/gone: No such file or directory"
