"""The C interface of libbpf (1.1 and newer), as little of it as the lab needs.

Only declarations, the capture of libbpf's own messages and the translation of its error codes live
here; owners of kernel objects are in `lab.kernel.bpf`, `bpfmap`, `bpfattach` and `bpfring`.
Calls release the GIL, so two threads verify two programs at the same time. Nothing libbpf says
reaches stderr: each thread collects its own warnings and they become part of the error raised.
"""

from __future__ import annotations

import ctypes
import errno as errno_names
import os
import threading
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from lab.errors import KernelError, PrerequisiteError

WARN = 0
_LINE_BYTES = 16384
_KEPT_LINES = 200


class _Opts(ctypes.Structure):
    """An options structure of libbpf: its first field is its own size."""

    def __init__(self, **fields: int | bytes | None) -> None:
        super().__init__(sz=ctypes.sizeof(self), **fields)


# libbpf takes the size for a version: fields that it does not know yet must be zero, those that we
# do not know yet are as if zero
class OpenOpts(_Opts):
    """``struct bpf_object_open_opts``; here only to give the object a name."""

    _fields_ = (
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", c_char_p),
        ("_attach_prog_fd", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
    )


class MapCreateOpts(_Opts):
    """``struct bpf_map_create_opts``."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    )


class BatchOpts(_Opts):
    """``struct bpf_map_batch_opts``."""

    _fields_ = (("sz", c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64))


class TcHook(_Opts):
    """``struct bpf_tc_hook``: one side of one interface's clsact qdisc."""

    _fields_ = (
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_int),
        ("parent", c_uint32),
    )


class TcOpts(_Opts):
    """``struct bpf_tc_opts``: one filter in a hook."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )


class TestRunOpts(_Opts):
    """``struct bpf_test_run_opts``."""

    # pytest collects classes called Test...: this is none
    __test__ = False
    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class ProgInfo(ctypes.Structure):
    """``struct bpf_prog_info`` of the kernel."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
    )


class MapInfo(ctypes.Structure):
    """``struct bpf_map_info`` of the kernel."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_id", c_uint32),
        ("map_extra", c_uint64),
    )


PRINT_FN = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)
SAMPLE_FN = CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_uint32)
LOST_FN = CFUNCTYPE(None, c_void_p, c_int, c_uint64)
RING_FN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

_P, _I, _U, _S = c_void_p, c_int, c_uint32, c_char_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    # name: (result, *arguments)
    "libbpf_set_print": (_P, PRINT_FN),
    "bpf_object__open_mem": (_P, _P, c_size_t, POINTER(OpenOpts)),
    "bpf_object__load": (_I, _P),
    "bpf_object__close": (None, _P),
    "bpf_object__next_program": (_P, _P, _P),
    "bpf_object__next_map": (_P, _P, _P),
    "bpf_program__name": (_S, _P),
    "bpf_program__section_name": (_S, _P),
    "bpf_program__type": (_I, _P),
    "bpf_program__set_type": (_I, _P, _I),
    "bpf_program__set_expected_attach_type": (_I, _P, _I),
    "bpf_program__expected_attach_type": (_I, _P),
    "bpf_program__set_autoload": (_I, _P, ctypes.c_bool),
    "bpf_program__set_log_buf": (_I, _P, _P, c_size_t),
    "bpf_program__set_flags": (_I, _P, _U),
    "bpf_program__fd": (_I, _P),
    "bpf_program__insn_cnt": (c_size_t, _P),
    "bpf_program__attach": (_P, _P),
    "bpf_link__fd": (_I, _P),
    "bpf_link__destroy": (_I, _P),
    "bpf_map__name": (_S, _P),
    "bpf_map__fd": (_I, _P),
    "bpf_map__is_internal": (ctypes.c_bool, _P),
    "bpf_map__type": (_I, _P),
    "bpf_map__key_size": (_U, _P),
    "bpf_map__value_size": (_U, _P),
    "bpf_map__max_entries": (_U, _P),
    "bpf_map__map_flags": (_U, _P),
    "bpf_map__set_max_entries": (_I, _P, _U),
    "bpf_map__set_inner_map_fd": (_I, _P, _I),
    "bpf_map__reuse_fd": (_I, _P, _I),
    "bpf_map__initial_value": (_P, _P, POINTER(c_size_t)),
    "bpf_map_create": (_I, _I, _S, _U, _U, _U, POINTER(MapCreateOpts)),
    "bpf_map_lookup_elem": (_I, _I, _P, _P),
    "bpf_map_update_elem": (_I, _I, _P, _P, c_uint64),
    "bpf_map_delete_elem": (_I, _I, _P),
    "bpf_map_lookup_and_delete_elem": (_I, _I, _P, _P),
    "bpf_map_get_next_key": (_I, _I, _P, _P),
    "bpf_map_freeze": (_I, _I),
    "bpf_map_lookup_batch": (_I, _I, _P, _P, _P, _P, POINTER(_U), POINTER(BatchOpts)),
    "bpf_map_update_batch": (_I, _I, _P, _P, POINTER(_U), POINTER(BatchOpts)),
    "bpf_map_delete_batch": (_I, _I, _P, POINTER(_U), POINTER(BatchOpts)),
    "bpf_obj_pin": (_I, _I, _S),
    "bpf_obj_get": (_I, _S),
    "bpf_obj_get_info_by_fd": (_I, _I, _P, POINTER(_U)),
    "bpf_prog_get_fd_by_id": (_I, _U),
    "bpf_map_get_fd_by_id": (_I, _U),
    "bpf_prog_get_next_id": (_I, _U, POINTER(_U)),
    "bpf_map_get_next_id": (_I, _U, POINTER(_U)),
    "bpf_prog_test_run_opts": (_I, _I, POINTER(TestRunOpts)),
    "bpf_tc_hook_create": (_I, POINTER(TcHook)),
    "bpf_tc_hook_destroy": (_I, POINTER(TcHook)),
    "bpf_tc_attach": (_I, POINTER(TcHook), POINTER(TcOpts)),
    "bpf_tc_detach": (_I, POINTER(TcHook), POINTER(TcOpts)),
    "bpf_tc_query": (_I, POINTER(TcHook), POINTER(TcOpts)),
    "bpf_xdp_attach": (_I, _I, _I, _U, _P),
    "bpf_xdp_query_id": (_I, _I, _I, POINTER(_U)),
    "bpf_link_create": (_I, _I, _I, _I, _P),
    "bpf_link_update": (_I, _I, _I, _P),
    "bpf_link_detach": (_I, _I),
    "bpf_prog_attach": (_I, _I, _I, _I, _U),
    "bpf_prog_query": (_I, _I, _I, _U, POINTER(_U), POINTER(_U), POINTER(_U)),
    "perf_buffer__new": (_P, _I, c_size_t, SAMPLE_FN, LOST_FN, _P, _P),
    "perf_buffer__free": (None, _P),
    "perf_buffer__epoll_fd": (_I, _P),
    "perf_buffer__poll": (_I, _P, _I),
    "perf_buffer__consume": (_I, _P),
    "ring_buffer__new": (_P, _I, RING_FN, _P, _P),
    "ring_buffer__free": (None, _P),
    "ring_buffer__epoll_fd": (_I, _P),
    "ring_buffer__poll": (_I, _P, _I),
    "ring_buffer__consume": (_I, _P),
    "libbpf_num_possible_cpus": (_I,),
}

_said = threading.local()
_libc = ctypes.CDLL(None)
_vsnprintf = _libc.vsnprintf
_vsnprintf.argtypes = (c_void_p, c_size_t, c_void_p, c_void_p)


def _remember(level: int, template: int, arguments: int) -> int:
    """Keep one warning of libbpf for the calling thread; debug and info lines are dropped."""
    if level == WARN:
        line = ctypes.create_string_buffer(_LINE_BYTES)
        # the va_list arrives as a pointer, and only C can walk through it
        _vsnprintf(line, _LINE_BYTES, template, arguments)
        lines = _said.__dict__.setdefault("lines", [])
        lines.append(line.value.decode(errors="replace").rstrip())
        # bounded, for threads that nobody asks what libbpf said
        del lines[:-_KEPT_LINES]
    return 0


# held here for the process's life: libbpf keeps only a pointer to it
_remember_fn = PRINT_FN(_remember)


@cache
def lib() -> ctypes.CDLL:
    """Return libbpf, loaded at the first call so that ``lab --help`` does not need it.

    Raises:
        PrerequisiteError: the shared library is not installed.
    """
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise PrerequisiteError(
            f"libbpf cannot be loaded: {error}", hint="apt install libbpf1"
        ) from error
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    library.libbpf_set_print(_remember_fn)
    return library


def said() -> tuple[str, ...]:
    """Return, and forget, what libbpf warned about in this thread since the last call."""
    return tuple(_said.__dict__.pop("lines", ()))


def failure(
    code: int, what: str, *, hint: str = "", spoken: tuple[str, ...] | None = None
) -> KernelError:
    """Return the error for a negative return code, with libbpf's own words as its end.

    Args:
        code: ``-errno`` as libbpf returns it.
        what: operation and object, as the subject of the message.
        hint: next action; a general one is chosen from the error number if empty.
        spoken: libbpf's words, if they were fetched before; else those of this thread.
    """
    number = abs(code)
    name = errno_names.errorcode.get(number, str(number))
    meaning = os.strerror(number) if number != _ENOTSUPP else "not supported"
    lines = said() if spoken is None else spoken
    words = "; ".join(line.removeprefix("libbpf: ") for line in lines)
    message = f"{what}: {meaning} ({name})" + (f": {words}" if words else "")
    return KernelError(
        message, hint=hint or _HINTS.get(number, "see dmesg for the kernel's reason")
    )


# the kernel's own number, not in errno.h
_ENOTSUPP = 524
_HINTS = {
    errno_names.EPERM: "loading and attaching BPF needs root: sudo",
    errno_names.ENOENT: "the object is gone; was the lab taken down meanwhile?",
    errno_names.ENOMEM: "raise the locked-memory limit (ulimit -l) or make the maps smaller",
    errno_names.E2BIG: "the map is full: raise its max_entries or delete entries",
    errno_names.EEXIST: "the name is taken: remove the old pin first",
    errno_names.ENODEV: "the interface is not in the calling thread's network namespace",
    errno_names.ENOSPC: "a limit of the kernel or of the file system is reached",
}


def check(code: int, what: str, *, hint: str = "") -> int:
    """Return ``code`` if it is not negative.

    Raises:
        KernelError: ``code`` is ``-errno``; the message names ``what`` and carries libbpf's words.
    """
    if code < 0:
        raise failure(code, what, hint=hint)
    return code


def check_pointer(address: int | None, what: str, *, hint: str = "") -> int:
    """Return the address a constructor of libbpf gave.

    Raises:
        KernelError: it is null; the message carries errno and libbpf's words.
    """
    if not address:
        raise failure(ctypes.get_errno(), what, hint=hint)
    return address
