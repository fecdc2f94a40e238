"""A project as a file: read, compared with what a server has, made equal to it; and written from it.

Owns no tables: everything goes through the HTTP API of a server, which may be anywhere. `document` reads files, `kinds`
knows what objects of each kind may say, `rules` compares and plans, `apply` does what a plan says, `export` writes.
Spec "Import, export, apply".
"""
