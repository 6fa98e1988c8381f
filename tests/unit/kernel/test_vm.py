"""Booting the second kernel: what is shared, what is passed on, what is said when it cannot be."""

from pathlib import Path

import pytest

from lab.errors import PrerequisiteError
from lab.kernel import vm

FOLDERS = {
    "a folder inside the repository needs no share of its own": (
        ("/r/sub", "/r", "/r/.venv"),
        ["/r"],
    ),
    "a working folder elsewhere is shared too": (("/w", "/r", "/r/.venv"), ["/r", "/w"]),
    "an environment elsewhere is shared too": (("/r", "/r", "/opt/env"), ["/opt/env", "/r"]),
    "the system's own Python is not": (("/r", "/r", "/usr"), ["/r"]),
    "the whole machine is never writable": (("/", "/r", "/r/.venv"), ["/r"]),
}


@pytest.mark.parametrize(("folders", "shared"), FOLDERS.values(), ids=FOLDERS.keys())
def test_writable_folders(folders: tuple[str, str, str], shared: list[str]) -> None:
    shares = vm.shared_folders(*map(Path, folders))
    assert [str(share.path) for share in shares] == shared
    assert len({share.tag for share in shares}) == len(shares)


def test_words_with_blanks_and_quotes_reach_the_guest_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAB_NOTE", "it's two words")
    monkeypatch.setenv("UNRELATED", "stays outside")
    script = vm.boot_script(["echo", "a b", "$HOME"], Path("/a folder"), ())
    assert "cd '/a folder'" in script and "echo 'a b' '$HOME'" in script
    assert "LAB_NOTE=it'" in script and "UNRELATED" not in script


def test_no_kernel_to_boot_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vmlinuz-6.1.0").touch()  # an image alone, its modules missing
    monkeypatch.setattr(vm, "BOOT", tmp_path)
    monkeypatch.setattr(vm, "MODULES", tmp_path / "none")
    with pytest.raises(PrerequisiteError, match="no kernel to boot") as caught:
        vm.find_guest()
    assert "linux-image-amd64" in caught.value.hint


def test_newest_kernel_is_chosen_by_number_not_by_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.2.0-1-nomodules"):
        (tmp_path / f"vmlinuz-{release}").touch()
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64"):
        (tmp_path / "modules" / release).mkdir(parents=True)
    monkeypatch.setattr(vm, "BOOT", tmp_path)
    monkeypatch.setattr(vm, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(vm.process, "require", lambda program: program)
    assert vm.find_guest().release == "6.1.0-56-amd64"


def test_kvm_without_processor_support_is_not_usable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = tmp_path / "cpuinfo"
    plain.write_text("processor : 0\nflags\t\t: fpu sse2 avx\n")
    monkeypatch.setattr(vm, "CPUINFO", plain)
    assert not vm.kvm_usable()


def test_folders_of_killed_runs_are_swept_and_living_ones_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vm.tempfile, "gettempdir", lambda: str(tmp_path))
    living, dead = tmp_path / "lab-vm-1-abc", tmp_path / "lab-vm-4194999-abc"
    living.mkdir()
    dead.mkdir()
    vm._sweep()
    assert [living.exists(), dead.exists()] == [True, False]


def test_without_root_it_is_said_before_anything_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm.os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError, match="needs root"):
        vm.require_root()
