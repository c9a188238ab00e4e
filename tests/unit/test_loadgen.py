"""Early stopping against MLPerf's own LoadGen, on the latencies that LoadGen measured."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.measure.percentiles import percentile, tolerated

pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has wheels from Python 3.11 on")

PROGRAM = """
import random, sys, time
import mlperf_loadgen as lg
count, out, rng = int(sys.argv[1]), sys.argv[2], random.Random(int(sys.argv[1]))
def issue(queries):
    for query in queries:
        ends = time.perf_counter_ns() + int(rng.expovariate(1 / 1e5))
        while time.perf_counter_ns() < ends:
            pass
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])
sut = lg.ConstructSUT(issue, lambda: None)
samples = lg.ConstructQSL(64, 64, lambda _: None, lambda _: None)
settings = lg.TestSettings()
settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
settings.min_query_count = settings.max_query_count = count
settings.min_duration_ms, settings.single_stream_expected_latency_ns = 0, 100000
logs = lg.LogSettings()
logs.log_output.outdir, logs.enable_trace = out, True
lg.StartTestWithLogSettings(sut, samples, settings, logs)
lg.DestroyQSL(samples)
lg.DestroySUT(sut)
"""


@pytest.mark.parametrize("count", [64, 200, 662, 1024, 4096])
def test_the_bound_equals_what_loadgen_reports_for_the_same_latencies(count: int, tmp_path: Path):
    subprocess.run([sys.executable, "-c", PROGRAM, str(count), str(tmp_path)], check=True)
    trace = (tmp_path / "mlperf_log_trace.json").read_text()
    spans = re.findall(r'"issue_start_ns":(\d+),"complete_ns":(\d+)', trace)
    latencies = [(int(b) - int(a)) / 1e6 for a, b in spans]
    assert len(latencies) == count
    said = {}
    for line in (tmp_path / "mlperf_log_detail.txt").read_text().splitlines():
        row = json.loads(line.removeprefix(":::MLLOG "))
        said[row["key"]] = row["value"]
    assert percentile(latencies, 0.9).bound_ms == pytest.approx(
        said["early_stopping_latency_ss"] / 1e6, rel=1e-12
    )
    if count >= 662:
        assert percentile(latencies, 0.99).bound_ms == pytest.approx(
            said["early_stopping_latency_ms"] / 1e6, rel=1e-12
        )
    else:
        assert percentile(latencies, 0.99).bound_ms is None
    discarded = re.search(r"discard (\d+) highest", said["early_stopping_result"])
    assert (int(discarded[1]) if discarded else 0) == tolerated(count, 0.9) - 1
