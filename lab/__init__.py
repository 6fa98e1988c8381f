"""A network emulation testbed and teaching lab for the eBPF datapath of Kubernetes."""
