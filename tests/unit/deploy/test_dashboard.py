"""The dashboard and the alerts speak of metrics that the service has, and the dashboard of all."""

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
ADDED = {"job", "instance", "le"}  # by Prometheus


def series() -> dict[str, tuple[str, set[str]]]:
    """Return the metric and its labels, by the name of each series that Prometheus stores."""
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
def test_metrics_and_labels_exist(expression: str) -> None:
    known = series()
    assert used(expression)
    assert used(expression) <= set(known)
    for name, selector in re.findall(r"\b((?:advisor|grpc_server)_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= known[name][1] | ADDED
    labels = set().union(*(known[name][1] for name in used(expression))) | ADDED
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.replace(" ", "").split(",")) <= labels


def test_the_first_defect_of_each_method_is_a_rise_from_zero() -> None:
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


def test_the_alert_of_refused_calls_names_every_limit_that_refuses() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "AdvisorRefusesCalls")
    for limit in ("max_calls", "max_streams", "max_token_streams", "max_token_messages_per_s"):
        assert limit in rule["annotations"]["action"]


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {series()[name][0] for query in QUERIES for name in used(query)}
    assert shown == set(Metrics().names())


def test_every_panel_says_what_it_is_in_which_unit_and_from_which_source() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert target["datasource"]["uid"] == "${datasource}"
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"


def test_panels_lie_side_by_side() -> None:
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


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}
