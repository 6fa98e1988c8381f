"""How fast policy is: many policies, one label, one large truth table. Prints medians.

Run as root: ``python -m tests.bench.policy``. Nothing here asserts a time.
"""

import statistics
import time
from dataclasses import replace

from lab.k8s import live
from lab.k8s.matrix import PortNumber, expected, measured
from lab.k8s.pods import lab_name
from lab.k8s.read import read_text
from lab.k8s.state import load
from lab.policy.compiler import Compiler

PODS, POLICIES, APPS, ROUNDS = 200, 1000, 40, 7
PORTS = (PortNumber("tcp", 80), PortNumber("tcp", 8080), PortNumber("udp", 53))


def pods(count, waiting="pause"):
    made = ["apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {team: red}}\n"]
    made += [
        f"---\napiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: p{n}, namespace: n, labels: {{app: a{n % APPS}}}}}\n"
        f"spec: {{containers: [{{name: c, image: {waiting}}}]}}\n"
        for n in range(count)
    ]
    return "".join(made)


def policies(count):
    return "".join(
        f"---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: p{n}, namespace: n}}\n"
        f"spec:\n  podSelector: {{matchLabels: {{app: a{n % APPS}}}}}\n  ingress:\n"
        f"  - from: [{{podSelector: {{matchLabels: {{app: a{n * 7 % APPS}}}}}}}]\n"
        f"    ports: [{{port: {1000 + n}}}]\n"
        for n in range(count)
    )


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def say(what, values, limit_s):
    middle = statistics.median(values)
    spread = f"{min(values) * 1e3:.0f} to {max(values) * 1e3:.0f} ms, {len(values)} times"
    print(f"{what:<52} {middle * 1e3:8.1f} ms  (aim {limit_s * 1e3:g} ms; {spread})")


def many_policies():
    text = policies(POLICIES)
    lab, _ = live.up(read_text(pods(PODS)), name="bench-policies", attached=True)
    try:
        objects = read_text(text)
        say("reading 1000 policies", [seconds(lambda: read_text(text))], 10)
        world = load(lab).world(live.settled(lab))
        rules = objects.policies
        say(
            "compiling 1000 policies over 200 pods",
            [seconds(lambda: Compiler().compile(world.cluster, rules)) for _ in range(3)],
            10,
        )
        say(
            "applying 1000 policies over 200 pods",
            [seconds(lambda: live.apply(lab, objects))],
            10,
        )
        in_force, returned = zip(*(change_label(lab, n) for n in range(ROUNDS)), strict=True)
        say("one label change, in force", in_force, 0.05)
        say("one label change, call returned", returned, 0.05)
    finally:
        lab.stop()


def change_label(lab, number):
    """Seconds until the agent has changed all maps and programs, and until the call returned."""
    pod = replace(lab.topology.pod("n/p1"), labels={"app": f"a{(2 + number) % APPS}"})
    answered = []
    ask = lab.agent.ask

    def timed(*words, **arguments):
        result = ask(*words, **arguments)
        answered.append(time.perf_counter())
        return result

    lab.agent.ask = timed
    started = time.perf_counter()
    lab.change_pod(pod)
    ended = time.perf_counter()
    del lab.agent.ask
    return answered[-1] - started, ended - started


def large_table():
    text = pods(50, "nginx") + policies(20)
    lab, _ = live.up(read_text(text), name="bench-table", attached=True)
    try:
        world = load(lab).world(live.settled(lab))
        names = [pod.title for pod in world.cluster.workloads]
        asked = expected(world.cluster, world.objects.policies, PORTS, names=names)
        places = {name: lab.place(lab_name(name)) for name in names}
        differing = []

        def probe():
            differing.append(len(measured(asked, world.cluster, places).differences))

        say("truth table of 50 x 50 x 3 flows", [seconds(probe) for _ in range(3)], 20)
        print(f"  {len(asked.cells)} flows, {differing} differ from the model")
    finally:
        lab.stop()


if __name__ == "__main__":
    many_policies()
    large_table()
