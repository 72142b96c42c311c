"""What is counted; names follow Prometheus' habits. No label ever holds an id of a person or a record."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One process's figures, in a registry of their own so that tests do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("c360_requests_total", "GraphQL requests by outcome.", ["outcome"], registry=self.registry)
        self.duration = Histogram(
            "c360_request_duration_seconds", "Time to answer a GraphQL request.", registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )  # fmt: skip
        self.in_flight = Gauge("c360_requests_in_flight", "GraphQL requests being answered.", registry=self.registry)
        self.subscribers = Gauge("c360_subscriptions", "Subscriptions that are being followed.", registry=self.registry)
        self.cut_off = Counter(
            "c360_subscriptions_cut_off_total",
            "Subscriptions ended because their events were not taken in time.",
            registry=self.registry,
        )
        self.redis_failures = Counter(
            "c360_redis_failures_total", "Operations that Redis did not serve.", ["part"], registry=self.registry
        )

        self.outbound = Counter(
            "c360_outbound_webhooks_total", "Webhooks sent to users' endpoints, by outcome of the send.", ["outcome"], registry=self.registry
        )  # fmt: skip
        self.webhooks = Counter("c360_webhooks_total", "Webhook deliveries by outcome.", ["outcome"], registry=self.registry)
        self.changes = Counter(
            "c360_changes_total", "Changes heard of, by what became of them.", ["outcome", "origin"], registry=self.registry
        )
        self.feeds = Counter("c360_feed_passes_total", "Passes of change feeds.", ["system", "outcome"], registry=self.registry)

    def text(self) -> bytes:
        """Return the Prometheus exposition."""
        return generate_latest(self.registry)
