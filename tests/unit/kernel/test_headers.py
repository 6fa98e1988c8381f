"""Which kernel headers bcc is given."""

from pathlib import Path

import pytest

from lab.errors import PrerequisiteError
from lab.kernel import headers
from lab.kernel.headers import find_headers

AUTOCONF = Path("include/generated/autoconf.h")


def install(folder: Path) -> None:
    (folder / AUTOCONF).parent.mkdir(parents=True)
    (folder / AUTOCONF).touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(headers.SOURCE_VARIABLE, raising=False)
    monkeypatch.setattr(headers.platform, "release", lambda: "6.18.0")
    (tmp_path / "modules").mkdir()
    (tmp_path / "src").mkdir()
    return tmp_path


def find(machine: Path) -> headers.Headers:
    return find_headers(machine / "modules", machine / "src")


def test_the_running_kernels_own_come_first(machine: Path) -> None:
    install(machine / "modules" / "6.18.0" / "build")
    install(machine / "src" / "linux-headers-6.1.0-56-amd64")
    found = find(machine)
    assert (found.fit, found.release, found.source) == (True, "6.18.0", None)


def test_else_the_newest_of_debians_with_their_common_part(machine: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-56"):
        install(machine / "src" / f"linux-headers-{version}-amd64")
        (machine / "src" / f"linux-headers-{version}-common").mkdir()
    found = find(machine)
    assert (found.fit, found.release) == (False, "6.1.0-56-amd64")
    assert found.source == machine / "src" / "linux-headers-6.1.0-56-common"
    assert f"-I{machine}/src/linux-headers-6.1.0-56-amd64/include" in found.flags


def test_the_users_variable_decides(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine / "src" / "linux-headers-6.1.0-56-amd64")
    monkeypatch.setenv(headers.SOURCE_VARIABLE, "/somewhere/linux-headers-7.0")
    assert find(machine).source == Path("/somewhere/linux-headers-7.0")


def test_without_any_the_package_is_named(machine: Path) -> None:
    with pytest.raises(PrerequisiteError) as caught:
        find(machine)
    assert "linux-headers-amd64" in caught.value.hint
