"""Numbers are shown in Prometheus' text format."""

from csm.serving.metrics import Metrics


def test_histograms_are_cumulative_and_counters_count() -> None:
    metrics = Metrics()
    metrics.count("underruns_total")
    metrics.set("sessions", 2)
    for seconds in (0.05, 0.1, 0.15, 9.0):
        metrics.observe("gap_seconds", seconds)
    lines = metrics.text().splitlines()
    assert "csm_underruns_total 1" in lines and "csm_sessions 2" in lines
    buckets = [line for line in lines if line.startswith("csm_gap_seconds_bucket")]
    assert buckets[:2] == ['csm_gap_seconds_bucket{le="0.1"} 2', 'csm_gap_seconds_bucket{le="0.2"} 3']
    assert buckets[-1] == 'csm_gap_seconds_bucket{le="+Inf"} 4' and "csm_gap_seconds_count 4" in lines
    assert all(line.startswith("#") or len(line.split(" ")) == 2 for line in lines)


def test_a_histogram_has_limits_of_its_own() -> None:
    metrics = Metrics()
    for speeches in (1, 2, 3):
        metrics.observe("batch_size", speeches)
    lines = metrics.text().splitlines()
    buckets = [line for line in lines if line.startswith("csm_batch_size_bucket")]
    expected = [f'csm_batch_size_bucket{{le="{n}"}} {count}' for n, count in ((1, 1), (2, 2), (4, 3))]
    assert buckets[:3] == expected
    assert "csm_batch_size_sum 6" in lines
