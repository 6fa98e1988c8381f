"""What libbpf says becomes part of our errors, thread by thread, and never reaches stderr."""

import ctypes
import errno
import threading

import pytest

from lab.errors import BuildError, KernelError, PrerequisiteError
from lab.kernel import libbpf
from lab.kernel.bpf import declared_maps


def warn_about_a_bad_object():
    """libbpf refuses ten bytes that are no ELF file and says so."""
    junk = b"0123456789"
    options = libbpf.OpenOpts(object_name=b"junk")
    return libbpf.lib().bpf_object__open_mem(junk, len(junk), ctypes.byref(options))


def test_a_warning_is_kept_until_asked_for_and_then_forgotten(capfd):
    libbpf.said()
    assert not warn_about_a_bad_object()
    assert any("elf" in line for line in libbpf.said())
    assert libbpf.said() == ()
    assert capfd.readouterr().err == ""


def test_each_thread_hears_its_own_warnings():
    heard = {}

    def listen(name, speak):
        libbpf.said()
        if speak:
            warn_about_a_bad_object()
        heard[name] = libbpf.said()

    threads = [threading.Thread(target=listen, args=(n, n == "loud")) for n in ("loud", "quiet")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard["loud"]
    assert heard["quiet"] == ()


ERRORS = {
    "no permission": (-errno.EPERM, "EPERM", "sudo"),
    "a full map": (-errno.E2BIG, "E2BIG", "full"),
    "no such device": (-errno.ENODEV, "ENODEV", "network namespace"),
    "anything else": (-errno.EILSEQ, "EILSEQ", "dmesg"),
    "an error number without a name": (-524, "524", "dmesg"),
}


@pytest.mark.parametrize(("code", "name", "hint"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_names_operation_number_and_next_action(code, name, hint):
    with pytest.raises(KernelError, match=f"loading x: .*{name}") as caught:
        libbpf.check(code, "loading x")
    assert hint in caught.value.hint


def test_libbpfs_own_words_end_the_message():
    libbpf.said()
    warn_about_a_bad_object()
    with pytest.raises(KernelError, match="opening junk: .*: .*elf"):
        libbpf.check(-errno.EINVAL, "opening junk")


def test_success_passes_the_value_through():
    assert libbpf.check(7, "counting") == 7
    assert libbpf.check_pointer(4096, "making") == 4096
    with pytest.raises(KernelError, match="making"):
        libbpf.check_pointer(None, "making")


def test_without_the_library_the_package_is_named(monkeypatch):
    def absent(name, **_):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(PrerequisiteError, match="libbpf.so.1") as caught:
        libbpf.lib.__wrapped__()
    assert "apt install libbpf1" in caught.value.hint


def test_a_file_that_is_no_object_is_named(tmp_path):
    (tmp_path / "x.o").write_text("hello")
    with pytest.raises(BuildError, match="not a 64-bit little-endian ELF"):
        declared_maps(tmp_path / "x.o")
