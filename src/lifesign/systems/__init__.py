"""Systems: machines with credentials, each watched by a heartbeat underneath that only the system itself checks in.

Owns the table `systems`. Spec: "Systems".
"""
