"""netem, which only the second kernel has: delay, and what happens to every packet alike."""

from lab.wire import Bench, Delay, Drop, Duplicate, Medium, TwoHosts, Way, everything

EVERY = everything(Way.TO_SERVER)


def test_netem_delays_doubles_and_loses_every_packet_of_a_direction() -> None:
    with Bench(TwoHosts(medium=Medium.NETEM, delay_ms=10)) as lab:
        client, server = lab.connect()
        lab.impair(Duplicate(EVERY))
        lab.deliver(client, server, 3000)
        doubled = lab.recording()
        lab.impair(Drop(EVERY))
        client.send(1000)
        arrived = server.wait_readable(0.5)
        cut = lab.recording()
        lab.impair()
        server.receive(1000)
        lab.impair(Delay(EVERY, 90))
        lab.deliver(client, server, 1000, quiet_ms=300)
        late = lab.recording().data()[-1]
    opened = [flight.sent.time_ns for flight in doubled.flights[:3]]
    assert (opened[2] - opened[0]) / 1e6 >= 20
    assert [len(flight.arrived_ns) for flight in doubled.data()] == [2, 2, 2]
    assert not arrived
    assert {flight.sent.seq for flight in cut.lost()} == {3001}
    assert (late.arrived_ns[0] - late.sent.time_ns) / 1e6 >= 100
    assert server.intact
    assert server.received == 5000
