"""A real Collector takes the metrics of requests, in both encodings."""

from contextlib import closing

import pytest
from built import Otelcol
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from places import Place, until

PROGRAM = """
import epsagon_fast as epsagon
for number in range(20):
    with epsagon.trace("job"):
        if number == 7:
            epsagon.error("no")
assert epsagon.flush(60)
"""


@pytest.mark.parametrize("scheme", ["otlp+", "otlp-protobuf+"])
def test_histogram_and_errors_are_in_the_collector_s_file(otelcol: Otelcol, scheme: str) -> None:
    application = f"{scheme}metrics"
    with closing(Place(scheme + otelcol.url, EPSAGON_TOKEN="", EPSAGON_APP_NAME=application)) as place:
        place.run(PROGRAM)
        place.until_left()
    lines = until(lambda: [line for line in otelcol.metrics() if application in line], otelcol.output)
    (resource,) = Parse(lines[-1], ExportMetricsServiceRequest(), ignore_unknown_fields=False).resource_metrics
    duration, errors = resource.scope_metrics[0].metrics
    (point,) = duration.histogram.data_points
    assert (duration.name, point.count, sum(point.bucket_counts)) == ("epsagon_fast.request.duration", 20, 20)
    assert (errors.name, errors.sum.data_points[0].as_int) == ("epsagon_fast.request.errors", 1)
