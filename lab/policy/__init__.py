"""Network policy as values: what users write, what the datapath is told, what ought to happen.

Three parts that can be read on their own:

* :mod:`lab.policy.objects`: NetworkPolicy and CiliumNetworkPolicy as frozen data.
* :mod:`lab.policy.compiler`: objects and pods -> identities, ipcache and policy-map entries.
* :mod:`lab.policy.oracle`: objects and pods -> the verdict of one packet, written from the
  specification and sharing no code with the compiler, so that each can prove the other wrong.
"""
