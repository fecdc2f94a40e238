"""OTLP in JSON: read as the specification has it, which is quick, and anything else leniently."""

from collections.abc import Callable

from lifesign.telemetry.otlp import lenient, strict
from lifesign.telemetry.otlp.pieces import pieces_of_json, without_pause
from lifesign.telemetry.otlp.spans import Batch


def decode_json(body: bytes, *, arrival_ns: int, give_way: Callable[[], None] = without_pause) -> Batch:
    """The spans of a request. arrival_ns: stands in for times that are missing. Raises InvalidOtlp.

    give_way: called again and again, by whoever lets others work in between.
    """
    batch = Batch()
    for piece in pieces_of_json(body):
        request = strict.well_formed(piece)
        is_clean = request is not None
        if request is None:
            request = lenient.request_of(piece)
        strict.add_spans(batch, request, arrival_ns=arrival_ns, is_clean=is_clean)
        give_way()
    return batch
