"""The side of the builtin runner that does a run: a process of its own for each, forked from a warm host.

Nothing here touches the database or knows the server's secrets; what a run needs comes through a pipe, and what it
wants done or written down goes back through it. `messages` are the words of both sides. Only here is the runtime of
language models imported, by `models` and `servers`. Source: spec/bots.md, sections 9 to 12.
"""
