"""Projects: the tenant. Every other row belongs to one, and `default` always exists; others make themselves.

Owns the tables `projects`, `project_names` and `limited_calls`. Spec "Telemetry", section 2.
"""
