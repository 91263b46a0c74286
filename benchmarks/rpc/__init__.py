"""Throughput and latency of the service, compared with an echo server and with other services."""
