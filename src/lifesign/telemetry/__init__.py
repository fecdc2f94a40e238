"""Telemetry: spans of OpenTelemetry, taken in, read as records, and gathered into sessions.

The pure core: `otlp` decodes what exporters send, `mapping` makes a record of each span, `sessions` says which records
belong together. Around it: `otlp_routes` and `receiver` take spans in, `stores` keep records, in tables of their own.
Spec "Telemetry".
"""
