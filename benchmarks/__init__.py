"""Benchmarks: what the specs promise in figures, measured on this machine, beside a reference of the same run.

`python -m benchmarks [NAME...] [--quick] [--json]`. Everything listens on 127.0.0.1 and is ended by its process id.
"""
