"""Following packets: a collector inside the lab, and the assembly of its records into traces."""
