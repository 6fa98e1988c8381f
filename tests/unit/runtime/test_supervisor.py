"""The agent's life: real children that end in every way, on a clock that only the test moves."""

import os
import signal
import socket

import pytest

from lab.runtime.messages import send
from lab.runtime.supervisor import LONGEST_DELAY_S, STEADY_S, Child, Supervisor


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervised(clock):
    """A supervisor whose children wait for a signal; ended and reaped as the keeper would."""
    made = []

    def fork():
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        made.append((pid, theirs))
        return Child(pid, ours.detach())

    one = Supervisor(fork, clock)
    one.start()
    yield one, made
    one.stop()
    for _, theirs in made:
        theirs.close()


def end(supervisor, made, *, says=None):
    """End the last child, and have its supervisor hear of it."""
    pid, theirs = made[-1]
    if says:
        send(theirs, {"error": "LabError", "message": says})
    os.kill(pid, signal.SIGKILL)
    supervisor.reaped(*os.waitpid(pid, 0))


def test_the_next_one_is_started_when_its_time_has_come(supervised, clock):
    one, made = supervised
    end(one, made)
    assert (one.life().running, one.life().next_s) == (False, pytest.approx(0.1))
    one.tick()
    assert not one.life().running, "not yet"
    clock.now += 0.1
    one.tick()
    assert (one.life().running, one.life().restarts, len(made)) == (True, 1, 2)
    assert one.wait_s() is None


def test_it_tells_how_the_last_one_ended(supervised):
    one, made = supervised
    end(one, made)
    assert one.life().ended == "killed by SIGKILL"
    one.start()
    end(one, made, says="KeyError: 'node'")
    assert one.life().ended == "KeyError: 'node'"


def test_one_that_keeps_ending_is_started_ever_later_up_to_a_bound(supervised, clock):
    one, made = supervised
    delays = []
    for _ in range(9):
        end(one, made)
        delays.append(one.life().next_s)
        clock.now += delays[-1]
        one.tick()
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_DELAY_S, 10.0])


def test_one_that_lived_long_is_followed_at_once(supervised, clock):
    one, made = supervised
    for _ in range(3):
        end(one, made)
        clock.now += one.life().next_s
        one.tick()
    clock.now += STEADY_S
    end(one, made)
    assert one.life().next_s == pytest.approx(0.1)


def test_stopped_on_purpose_it_stays_away(supervised, clock):
    one, made = supervised
    one.stop()
    clock.now += 1000
    one.tick()
    assert (one.life().running, one.life().next_s, len(made)) == (False, None, 1)


def test_another_childs_end_is_none_of_its_business(supervised):
    one, made = supervised
    one.reaped(made[0][0] + 1, 0)
    assert one.life().running
