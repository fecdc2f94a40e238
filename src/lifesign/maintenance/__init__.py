"""Maintenance windows: times in which silence is expected. Table `maintenance`.

Which heartbeats a window covers and when; what that means for them is decided in `heartbeats`, which is above.
Spec "Heartbeats", section 6.
"""
