"""What is asked and answered: names that tests rely on, honesty without root."""

import os

import pytest

from lab.errors import InputError, UnsupportedError
from lab.kernel import abilities, probe


@pytest.fixture
def fresh():
    """Answers of this test only."""
    probe.abilities.cache_clear()
    yield
    probe.abilities.cache_clear()


def test_every_subject_is_named_once_and_says_what_to_do() -> None:
    names = [subject.name for subject in abilities.SUBJECTS]
    assert len(names) == len(set(names))
    assert all(s.title and s.purpose and s.without for s in abilities.SUBJECTS)


def test_without_root_kernel_abilities_are_unknown_not_absent(
    fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert probe.ability("tp_btf").answer is probe.Answer.UNKNOWN
    assert probe.ability("root").answer is probe.Answer.NO
    assert {found.name for found in probe.missing_requirements()} >= {"root", "tc_clsact"}


def test_unknown_ability_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="warp_drive") as caught:
        probe.has("warp_drive")
    assert "fentry" in caught.value.hint


def test_missing_ability_is_an_error_of_the_kernel_with_what_to_do(
    fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(probe, "_kernel_reasons", lambda: {"esp": "Not supported", "veth": ""})
    probe.require("veth")
    with pytest.raises(UnsupportedError, match="IPsec ESP state.*Not supported") as caught:
        probe.require("esp")
    assert "lab vm" in caught.value.hint and caught.value.exit_code == 3


def test_missing_program_is_found_missing(fresh, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probe.process, "SBIN", ())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert probe.ability("clang").answer is probe.Answer.NO
