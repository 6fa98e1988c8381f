"""The TCP experiments, each run once for every test that only looks at what came of it."""

from functools import cache

from lab.scenarios import Report, load_scenarios

EXPERIMENTS = {item.name: item for item in load_scenarios(["scenarios/tcp"])}


@cache
def report_of(name: str) -> Report:
    """Return the report of one run of an experiment, shared by all who ask."""
    return EXPERIMENTS[name].run()
