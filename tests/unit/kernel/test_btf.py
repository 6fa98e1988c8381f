"""What a compiled object says about itself, read without libbpf and without root."""

import shutil

import pytest

from lab.errors import BuildError
from lab.kernel import process
from lab.kernel.btf import Btf, Elf, read_object

pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")

SOURCE = """
typedef unsigned int u32;
typedef unsigned char u8;
enum reason { REASON_OK = 0, REASON_BAD = -133 };
struct inner { u8 a[3]; };
struct outer {
    u32 first;
    union { u32 v4; u8 v6[16]; };
    struct inner in;
    u32 low : 3, high : 5;
    const volatile u32 *pointer;
} __attribute__((packed));
const volatile enum reason anchor = REASON_BAD;
const volatile struct outer *other;
const volatile u32 number = 7;
const volatile u8 mac[6] = {1, 2, 3, 4, 5, 6};
__attribute__((section("tc/tail"), btf_decl_tag("tail:cilium_calls/7")))
int tail(void *ctx) { return number; }
"""


@pytest.fixture(scope="module")
def elf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("btf")
    (folder / "t.c").write_text(SOURCE)
    process.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", str(folder / "t.c"), "-o", str(folder / "t")]
    )
    return read_object(folder / "t")


def test_members_have_their_places_and_unnamed_unions_are_seen_through(elf):
    members = {m.name: (m.bit_offset, m.bit_size) for m in elf.btf.struct("outer").members}
    assert members == {
        "first": (0, 32),
        "v4": (32, 32),
        "v6": (32, 128),
        "in": (160, 24),
        "low": (184, 3),
        "high": (187, 5),
        "pointer": (192, 64),
    }
    assert elf.btf.struct("outer").size == 32


def test_negative_constants_keep_their_sign(elf):
    assert elf.btf.enums["reason"] == {"REASON_OK": 0, "REASON_BAD": -133}


def test_declaration_tags_name_their_function(elf):
    assert ("tail", "tail:cilium_calls/7") in elf.btf.decl_tags


def test_an_instruction_knows_its_line_of_c(elf):
    line = elf.source_line("tail", 0)
    assert (line.file, line.text) == ("t.c", "int tail(void *ctx) { return number; }")
    assert SOURCE.splitlines()[line.number - 1] == line.text
    assert elf.source_line("tail", 1000) is None
    assert elf.source_line("nobody", 0) is None


def test_variables_know_section_place_and_size(elf):
    found = {v.name: v for v in elf.variables}
    at = elf.place(".rodata")[0]
    number = found["number"]
    assert elf.data[at + number.offset : at + number.offset + number.size] == b"\7\0\0\0"
    assert (found["mac"].section, found["mac"].size) == (".rodata", 6)


REFUSED = {
    "a text file": (Elf, b"hello"),
    "a BTF with the wrong magic": (Btf, bytes(40)),
    "nothing": (Btf, b""),
}


@pytest.mark.parametrize(("reader", "data"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_object_is_refused(reader, data):
    with pytest.raises(BuildError):
        reader(data)


def test_an_absent_object_is_named(tmp_path):
    with pytest.raises(BuildError, match="no BPF object at .*nothing"):
        read_object(tmp_path / "nothing")
