"""What a service counts, in the form that Prometheus reads. No title and no client's address is a label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from cowbird.service.scanners import ServedScanner, TitleJudgment

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the metrics."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Telemetry:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._titles = Counter("cowbird_titles", "Titles answered, by verdict.", ["tier"], registry=registry)
        self._requests = Counter("cowbird_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._refused = Counter("cowbird_refused", "Requests refused, by reason.", ["reason"], registry=registry)
        self._seconds = Histogram(
            "cowbird_request_seconds", "Seconds until a request was answered.", ["route"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._batch = Histogram("cowbird_batch_titles", "Titles judged at once.", buckets=_SIZES, registry=registry)
        self._judging = Histogram(
            "cowbird_batch_seconds", "Seconds in which a batch was judged.", buckets=_SECONDS, registry=registry
        )
        self._logging = Histogram(
            "cowbird_audit_seconds", "Seconds until verdicts were in the log.", buckets=_SECONDS, registry=registry
        )
        self._waiting = Gauge("cowbird_waiting_titles", "Titles that wait to be judged.", registry=registry)
        self._restarts = Counter("cowbird_restarts", "Processes that ended before their time.", registry=registry)
        self._reloads = Counter("cowbird_reloads", "Scanners opened anew, by outcome.", ["outcome"], registry=registry)
        self._scanner = Info("cowbird_scanner", "The scanner that judges.", registry=registry)

    def record_verdicts(self, found: list[TitleJudgment]) -> None:
        """Count verdicts that are answered."""
        for each in found:
            self._titles.labels(each.tier).inc()

    def record_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def record_refusal(self, reason: str) -> None:
        """Count a request that was refused."""
        self._refused.labels(reason).inc()

    def record_batch(self, titles: int, seconds: float) -> None:
        """Count a batch; see `CrewObserver`."""
        self._batch.observe(titles)
        self._judging.observe(seconds)

    def record_restart(self) -> None:
        """Count a process that ended; see `CrewObserver`."""
        self._restarts.inc()

    def record_logging(self, seconds: float) -> None:
        """Tell how long the log took."""
        self._logging.observe(seconds)

    def record_reload(self, outcome: str) -> None:
        """Count a reload: `done` or `refused`."""
        self._reloads.labels(outcome).inc()

    def show_scanner(self, scanner: ServedScanner) -> None:
        """Tell which scanner judges."""
        self._scanner.info({"label": scanner.label, "sha256": scanner.sha256})

    def render(self, waiting: int) -> bytes:
        """Return all counters as Prometheus reads them.

        Args:
            waiting: Titles that wait to be judged.
        """
        self._waiting.set(waiting)
        return generate_latest(self._registry)
