"""OTLP in JSON: read as the specification has it, which is quick, and anything else leniently."""

from lifesign.telemetry.otlp import lenient, strict
from lifesign.telemetry.otlp.spans import Batch


def decode_json(body: bytes, *, arrival_ns: int) -> Batch:
    """The spans of a request. arrival_ns: stands in for times that are missing. Raises InvalidOtlp."""
    request = strict.well_formed(body)
    is_clean = request is not None
    if request is None:
        request = lenient.request_of(body)
    return strict.batch_of(request, arrival_ns=arrival_ns, is_clean=is_clean)
