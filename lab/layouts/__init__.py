"""The datapath as data: which program sits where, and how its maps look; nothing here acts.

`lab.layouts.attach` says which object and program belong on which device and side (the plan
prints it, the loader executes it). The remaining modules describe keys, values and event records.
"""
