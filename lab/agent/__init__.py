"""The agent: the lab's control plane, a child of the keeper that the datapath can do without.

It owns what programs only read: endpoints and their programs, identities, the ipcache, policy
maps, service tables; and it removes what conntrack and NAT leave behind. Killed, it takes nothing
along: programs and maps stay attached and pinned, and the next agent adopts them.
"""
