"""What the server tells of its Telemetry API: for people who begin, for programs that read, and as schemas.

No tables. Above the slices whose answers it describes. Spec "Telemetry", section 7.
"""
