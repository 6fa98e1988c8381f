"""Kubernetes manifests in: strict reading of YAML into pods, services, policies and a topology.

* :func:`lab.k8s.read.read_files` and ``read_text``: manifests -> :class:`lab.k8s.objects.Objects`.
* :mod:`lab.k8s.place`: objects -> nodes, placed pods, addresses: a topology and a cluster.
* :mod:`lab.k8s.servers`: what a container's image stands for in the lab.
"""
