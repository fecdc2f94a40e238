"""The settings of a project, each of which belongs to the slice that heeds it. `/v1/settings`; no tables.

Spec "Engine", section 6, and "Diagnosis", section 6.
"""
