"""Telemetry: spans of OpenTelemetry, taken in, read as records, and gathered into sessions.

`otlp` decodes what exporters send, `mapping` makes a record of each span, `sessions` says which records belong
together. Pure so far: nothing here stores or answers. Spec "Telemetry".
"""
