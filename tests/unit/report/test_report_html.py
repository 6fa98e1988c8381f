"""The page as text: self-contained, whatever the packet carries, readable data in it."""

import json
import re
from dataclasses import replace

import pytest
from traces import DELIVERED, PACKET, REFUSED, SERVER, ethernet, frame, hop, ipv4, udp

from lab.errors import InputError
from lab.report.html import page, write_page
from lab.trace import Step, Trace
from topologies.two_nodes import topology


def data_of(text):
    found = re.search(r'<script type="application/json" id="trace">(.*?)</script>', text, re.S)
    return json.loads(found[1])["packets"][0]


def test_nothing_is_fetched_from_anywhere():
    text = page(DELIVERED, topology).replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|src=|@import|url\(|<link", text) == []
    assert "default-src 'none'" in text


def test_every_line_of_the_ladder_is_in_the_page():
    hops = data_of(page(DELIVERED, topology))["hops"]
    assert sum(one["taken"] for one in hops) == len(DELIVERED.taken)
    at_server = [one["step"] for one in hops if one["where"] == "beta · server · eth0"]
    assert at_server == [str(n) for n in range(1, 20)]


def test_an_encapsulated_packet_shows_added_headers_and_a_routed_one_its_new_ttl():
    hops = {one["hook"]: one for one in data_of(page(DELIVERED))["hops"]}
    kinds = [layer["kind"] for layer in hops["tc_egress"]["headers"]]
    assert kinds == ["added"] * 4 + ["same"] * 4
    first = next(one for one in data_of(page(DELIVERED))["hops"]
                 if one["where"] == "beta · server · eth0" and one["headers"])  # fmt: skip
    ttl = next(f for layer in first["headers"] for f in layer["fields"] if f[0] == "ttl")
    assert ttl == ["ttl", "63", "64"]


def test_a_payload_cannot_break_out_of_the_page():
    evil = b"</script><script>alert(1)</script>"
    data = ethernet("02", "02", ipv4("10.0.1.10", "10.0.2.10", udp(1, 2, evil)))
    trace = Trace(packet=PACKET, hops=(hop(0.0, SERVER, step=Step.RECEIVE_SKB, before=data),))
    text = page(replace(trace, topology="<b>x</b>"))
    assert "alert(1)</script>" not in text
    assert "<b>x</b>" not in text


def test_several_packets_are_on_one_page():
    text = page((DELIVERED, REFUSED))
    names = re.findall(r'"name":"(udp [^"]+)"', text)
    assert len(names) == 2
    assert '"end":"✗ dropped at alpha · alpha · lxcclient: Invalid source ip"' in text


def test_no_packet_at_all_is_a_page_too():
    assert '"packets":[]' in page(())


def test_an_empty_trace_is_a_page_too():
    assert data_of(page(replace(DELIVERED, hops=())))["hops"] == []


def test_lost_events_are_announced():
    assert "4 events were lost" in page(replace(DELIVERED, lost=4))


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_page(DELIVERED, tmp_path / "no" / "t.html")


def test_a_hook_above_the_link_layer_removes_no_header():
    hops = (hop(0.0, SERVER, step=Step.RECEIVE_SKB, before=frame()),
            hop(1.0, SERVER, step=Step.IP_RCV, before=frame()[14:], link_layer="ip"))  # fmt: skip
    last = data_of(page(replace(DELIVERED, hops=hops)))["hops"]
    ip = next(one for one in last if one["step"] == "10")
    assert [layer["kind"] for layer in ip["headers"]] == ["same"] * 3
