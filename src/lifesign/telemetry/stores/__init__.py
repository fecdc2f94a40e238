"""Where records are kept: one module or package for each kind of store. The protocol is `telemetry.store`."""
