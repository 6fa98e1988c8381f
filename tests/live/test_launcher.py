"""``lab.sh`` where people trip: links, foreign folders, no root, a machine that is not Debian 12.

Only with the launcher's own environment in place; these tests never install anything. What a
machine lacks is staged in a mount namespace of the test.
"""

import hashlib
import shlex
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "lab.sh"
STAMP = ROOT / ".venv" / "lab-ready"
NO_MODULES = "mount -t tmpfs none /usr/lib/python3/dist-packages"
"""A machine without Debian's Python modules, as far as this mount namespace goes."""


def set_up_is_complete() -> bool:
    text = f"{ROOT}\n" + "".join(
        (ROOT / name).read_text() for name in ("lab.sh", "requirements.lock", "pyproject.toml")
    )
    wanted = hashlib.sha256(text.encode()).hexdigest()
    return STAMP.exists() and STAMP.read_text().startswith(wanted)


@pytest.fixture(autouse=True)
def installed() -> None:
    if not set_up_is_complete():
        pytest.skip("needs the launcher's environment: run ./lab.sh version once")


def launch(
    *words: str, launcher: Path = LAUNCHER, cwd: Path = ROOT, before: str = "", user: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the launcher, in a mount namespace that the shell line ``before`` has prepared."""
    line = shlex.join([str(launcher), *words])
    if user:
        line = shlex.join(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]) + (
            f" env HOME=/nonexistent {line}"
        )
    script = f"{before}\n{line}"
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", script],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_a_link_with_blanks_in_its_path_works_from_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my lab"
    folder.mkdir()
    (folder / "again").symlink_to(LAUNCHER)
    (folder / "link").symlink_to("again")
    done = launch("version", launcher=folder / "link", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "") and "kernel" in done.stdout


def test_a_folder_called_lab_in_the_way_is_not_the_lab(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("raise SystemExit('the wrong lab')")
    done = launch("version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_words_and_exit_code_are_passed_on() -> None:
    done = launch("explain", "no such word")
    assert done.returncode == 2 and "no such word" in done.stderr


def readable_by_everybody() -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (ROOT, *ROOT.parents))


WITHOUT_ROOT = {
    "help": (["--help"], 0, "explain"),
    "plan": (["plan", "topologies/two_nodes.py"], 0, "ip netns add"),
    "explain": (["explain", "from-container"], 0, "tc ingress"),
    "doctor": (["doctor", "-o", "json"], 3, "only root can try"),
}


@pytest.mark.parametrize(("words", "code", "said"), WITHOUT_ROOT.values(), ids=WITHOUT_ROOT.keys())
def test_an_unprivileged_user_can(words: list[str], code: int, said: str) -> None:
    if not readable_by_everybody():
        pytest.skip("the repository lies where other users may not look")
    done = launch(*words, user="65534")
    assert (done.returncode, done.stderr) == (code, "") and said in done.stdout


def test_another_system_is_told_what_it_would_need(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=fedora\nVERSION_ID="42"\n')
    done = launch("version", before=f"mount --bind {release} /etc/os-release; {NO_MODULES}")
    assert done.returncode == 2 and not done.stdout
    assert "not Debian 12" in done.stderr and "python3 module bcc" in done.stderr
    assert "python3-bpfcc mininet" in done.stderr


def test_another_system_that_has_everything_is_fine(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=fedora\n")
    done = launch("version", before=f"mount --bind {release} /etc/os-release")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_who_may_not_install_is_told_whom_to_ask() -> None:
    if not readable_by_everybody():
        pytest.skip("the repository lies where other users may not look")
    done = launch("plan", "topologies/two_nodes.py", before=NO_MODULES, user="65534")
    assert done.returncode == 2
    assert "error:" in done.stderr and "run once: sudo" in done.stderr
