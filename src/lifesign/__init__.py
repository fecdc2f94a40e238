"""Lifesign knows whether everything you run is alive, and makes sure somebody finds out when it is not."""

__version__ = "0.1.0"
