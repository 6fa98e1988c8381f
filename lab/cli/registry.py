"""Which commands exist, what each is for, and where it is written.

A new command is one module ``lab/cli/NAME.py`` that exports a typer application called ``app``
(or whatever follows the colon) and one row here. Nothing of the module is imported until the
command is used, so ``lab --help`` stays fast whatever a command needs.
"""

from __future__ import annotations

from dataclasses import dataclass

START = "Start here"
LABS = "Labs"
LOOK = "Look"
DATAPATH = "Datapath"
MACHINE = "This machine"


@dataclass(frozen=True, slots=True)
class Row:
    """One command of the top level.

    Attributes:
        name: what is typed after ``lab``.
        target: ``module`` in ``lab.cli`` exporting ``app``, or ``module:attribute``.
        help: one line for ``lab --help``.
        panel: heading under which the line appears.
    """

    name: str
    target: str
    help: str
    panel: str


ROWS: tuple[Row, ...] = (
    Row("demo", "demo", "Two nodes, one packet, every hook: the whole walk in one go.", START),
    Row("test", "test", "Run the project's tests on this machine and on the second kernel.", START),
    Row("run", "run", "Run scenarios and print which of their sentences hold.", START),
    Row("notebook", "notebook", "Notebooks: list them, run one without Jupyter.", START),
    Row("plan", "plan", "Print what a topology would do, as ip, tc and bpftool lines.", LABS),
    Row("up", "lifecycle:up", "Build a lab from a topology and keep it up.", LABS),
    Row("down", "lifecycle:down", "Take a lab down.", LABS),
    Row("ls", "lifecycle:ls", "List the labs that are up.", LABS),
    Row("exec", "lifecycle:exec_", "Run a command inside a pod or a node.", LABS),
    Row("shell", "lifecycle:shell", "Open a shell inside a pod or a node.", LABS),
    Row("clean", "lifecycle:clean", "Sweep what ended labs left behind.", LABS),
    Row("mn", "mn", "Open a topology at the mininet> prompt.", LABS),
    Row("bench", "bench", "Print figures, measured side by side in one run.", MACHINE),
    Row("bpf", "bpf", "Read the datapath's maps: ct, nat, lb, ipcache, policy ...", DATAPATH),
    Row("configure", "configure", "Write a BPF object with its constants filled in.", DATAPATH),
    Row("endpoint", "endpoint", "Endpoints: list, get, regenerate, log.", DATAPATH),
    Row("identity", "identity", "Security identities and who has them.", DATAPATH),
    Row("service", "service", "Services: list, get, add, delete.", DATAPATH),
    Row("node", "node", "Nodes and the parameters of their set-up.", DATAPATH),
    Row("agent", "node:agent", "The control plane: status, kill, start, collect.", DATAPATH),
    Row("graph", "graph", "Draw a topology: text, SVG, a page, Mermaid.", LOOK),
    Row("trace", "trace", "Follow one packet hook by hook.", LOOK),
    Row("why", "why", "Why a packet does not arrive, in one paragraph.", LOOK),
    Row("monitor", "monitor", "Print what the datapath tells, as it happens.", LOOK),
    Row("explain", "explain", "What a hook, drop reason, map or step is.", LOOK),
    Row("doctor", "doctor", "What this kernel can load, attach, create and shape.", MACHINE),
    Row("vm", "vm", "Run a command on Debian's kernel, in a virtual machine.", MACHINE),
    Row("apply", "manifests:apply", "Create or change Kubernetes objects of a lab.", LABS),
    Row("delete", "manifests:delete", "Take Kubernetes objects out of a lab.", LABS),
    Row("get", "manifests:get", "List pods, services, policies, identities of a lab.", LABS),
    Row("conformance", "conformance", "Run Cilium's connectivity tests by name.", DATAPATH),
    Row("policy", "policy", "Who reaches whom, why, and what a change would do.", DATAPATH),
    Row("version", "version", "Versions of the lab, the kernel and the tools it uses.", MACHINE),
)
