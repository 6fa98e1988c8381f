"""The only part that changes the machine: namespaces, links, cgroups, programs, processes."""
