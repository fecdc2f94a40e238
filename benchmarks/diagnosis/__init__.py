"""How good the diagnosis is: on planted faults, and on labelled runs of agents that others published.

`python -m benchmarks.diagnosis synthetic|convert|score`. Downloads nothing: what others published is read from paths.
"""
