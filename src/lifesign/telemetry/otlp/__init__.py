"""What exporters send, in JSON and in protobuf, as one plain form: spans with their resource and their scope.

Spec "Telemetry", section 3.1.
"""

from lifesign.telemetry.otlp.encoded_json import decode_json
from lifesign.telemetry.otlp.encoded_protobuf import decode_protobuf
from lifesign.telemetry.otlp.spans import Batch, InvalidOtlp, Span

__all__ = ["Batch", "InvalidOtlp", "Span", "decode_json", "decode_protobuf"]
