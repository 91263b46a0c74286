"""The dashboard and the alerts use existing metrics, and the dashboard shows all of them."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from advisor.observability.metrics import Metrics
from advisor.rpc.method_metrics import create_method_metrics
from advisor.server.bootstrap import SERVICES
from tests.deployment import DEPLOY, load

DASHBOARD = json.loads((DEPLOY / "grafana" / "advisor.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
VARIABLES = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
RULES = [rule for group in load("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]
EXPRESSIONS = [*QUERIES, *VARIABLES, *(rule["expr"] for rule in RULES)]
PROMETHEUS_LABELS = {"job", "instance", "le"}


def series() -> dict[str, tuple[str, set[str]]]:
    """Return metric and labels by the name of each time series."""
    metrics = Metrics()
    found: dict[str, tuple[str, set[str]]] = {}
    collectors: dict[Any, list[str]] = dict(metrics.registry._collector_to_names)
    for collector, names in collectors.items():
        labels: set[str] = set(collector._labelnames)
        for described in collector.describe():
            metric = described.name + ("_total" if described.type == "counter" else "")
            stored = [metric]
            if described.type == "histogram":
                stored = [metric + suffix for suffix in ("_bucket", "_sum", "_count")]
            assert {*stored} <= {*names}
            found |= dict.fromkeys(stored, (metric, labels))
    return found


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:advisor|grpc_server)_\w+", expression))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_use_existing_metrics_and_labels(expression: str) -> None:
    known = series()
    assert used(expression)
    assert used(expression) <= set(known)
    for name, selector in re.findall(r"\b((?:advisor|grpc_server)_\w+)\{([^}]*)\}", expression):
        assert (
            set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            <= known[name][1] | PROMETHEUS_LABELS
        )
    labels = set().union(*(known[name][1] for name in used(expression))) | PROMETHEUS_LABELS
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.replace(" ", "").split(",")) <= labels


def test_counters_of_failed_calls_start_at_zero_for_each_method() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "AdvisorDefect")
    codes = re.findall(r'grpc_code=~"([^"]*)"', rule["expr"])[0].split("|")
    metrics = Metrics()
    create_method_metrics(SERVICES, metrics)
    methods = [method for service in SERVICES for method in service.methods]
    assert methods
    for code in (*codes, "OK"):
        for method in methods:
            kind = {
                (False, False): "unary",
                (False, True): "server_stream",
                (True, True): "bidi_stream",
            }[method.client_streaming, method.server_streaming]
            labels = {
                "grpc_type": kind,
                "grpc_service": method.containing_service.full_name,
                "grpc_method": method.name,
                "grpc_code": code,
            }
            assert metrics.registry.get_sample_value("grpc_server_handled_total", labels) == 0


def test_the_alert_on_refused_calls_names_every_limit() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "AdvisorRefusesCalls")
    for limit in ("max_calls", "max_streams", "max_token_streams", "max_token_messages_per_s"):
        assert limit in rule["annotations"]["action"]


def test_every_metric_is_on_the_dashboard() -> None:
    displayed = {series()[name][0] for query in QUERIES for name in used(query)}
    assert displayed == set(Metrics().names())


def test_every_panel_has_a_title_a_description_a_unit_and_a_data_source() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert target["datasource"]["uid"] == "${datasource}"
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        cells = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_has_a_severity_and_an_action() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}
