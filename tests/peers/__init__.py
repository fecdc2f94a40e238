"""Servers that stand in for what lies outside: real sockets, processes of their own, faults by script."""
