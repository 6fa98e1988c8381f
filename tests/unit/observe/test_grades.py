"""A kernel that lacks a source of evidence is told which steps lose which grade."""

import pytest

from lab.observe.functions import FUNCTIONS, told_without
from lab.observe.grades import FALLS
from lab.observe.programs import PROBES, left_out, missing

PROBE = {probe.name: probe for probe in PROBES}
SAID = {
    "the route": ("on_route", "steps 10 and 12 fall from stack to program, "
                  "step 13 falls from tracepoint to nothing"),
    "the poll": ("on_napi_poll", "step 1 falls from tracepoint to stack"),
    "a verdict only": ("on_queue_full", "no step loses its grade"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), SAID.values(), ids=SAID.keys())
def test_the_loss_of_one_source_names_the_steps(name: str, words: str) -> None:
    (said,) = missing(lambda need: need != PROBE[name].needs)
    assert said.startswith(PROBE[name].gives)
    assert said.endswith(f"; {words}")


def test_a_kernel_that_lacks_nothing_is_told_nothing() -> None:
    assert missing(lambda _: True) == ()


def test_every_fall_is_of_a_probe_there_is() -> None:
    assert FALLS.keys() <= PROBE.keys()


def test_a_light_trace_says_what_it_gives_up() -> None:
    assert any("step 11 falls from program to implied" in said for said in left_out(lambda _: True))


def test_a_function_that_cannot_be_probed_names_its_step() -> None:
    (said,) = told_without(["packet_rcv: not there"])
    assert said == ("packet_rcv: not there; step 7 keeps the grade probe where tpacket_rcv "
                    "is called")  # fmt: skip
    both = told_without(["packet_rcv: not there", "tpacket_rcv: inlined"])
    assert [line.endswith("step 7 loses the grade probe") for line in both] == [True, True]
    other = next(function.name for function in FUNCTIONS if function.step is None)
    assert told_without([f"{other}: inlined"])[0].endswith("no step loses its grade")
