"""Records in ClickHouse, by way of a spool on the local disk that makes answers durable.

`spool` takes records and keeps quotas, `flusher` carries them over, `tables` and `rows` say how they lie there,
`queries` asks for them, `client` is the one place that knows the driver, `store` is the `SpanStore` of all this.
Spec "Telemetry", section 8.
"""
