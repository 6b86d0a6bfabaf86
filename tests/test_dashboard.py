"""contrib/grafana: the dashboard asks for metrics that there are, and a real Prometheus answers.
Grafana itself is not run."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker_fixtures import eventually
from conftest import tool
from sessions import free_port

pytest.importorskip("prometheus_client")

from loopfuse._broker_state.exposition import Exposition, Now
from loopfuse._broker_state.tally import Tally
from loopfuse._control import order_defuse
from loopfuse._segments import READER, TAIL
from test_metrics import Fused, Metrics

PATH = Path(__file__).parent.parent / "contrib" / "grafana" / "loopfuse.json"
BOARD: dict[str, Any] = json.loads(PATH.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    (f"{panel['title']}: {target['refId']}", target["expr"])
    for panel in PANELS
    for target in panel["targets"]
]


def _served() -> dict[str, set[str]]:
    """Every name that can be asked for, and its labels."""
    text = Exposition(Tally(), lambda: Now(0, 0, 0), "1").text().decode()
    names: dict[str, set[str]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})?", line).groups()  # type: ignore[union-attr]
            names.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    return names


@pytest.mark.parametrize("expression", [q[1] for q in QUERIES], ids=[q[0] for q in QUERIES])
def test_each_query_asks_for_what_is_served(expression: str) -> None:
    served = _served()
    names = re.findall(r"\bloopfuse_\w+", expression)
    assert names
    known = {"job", "instance"}.union(*(served[name] for name in names))
    labels = set(re.findall(r'(\w+)=~?"', expression))
    labels |= {
        label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")
    }
    assert labels <= known


def test_every_metric_has_a_place_on_it() -> None:
    asked = " ".join(query for _, query in QUERIES) + json.dumps(BOARD["annotations"])
    asked += json.dumps(BOARD["templating"])
    for name in _served():
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        assert base in asked, base


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_each_panel_has_a_unit_words_and_the_data_source_of_the_variable(
    panel: dict[str, Any],
) -> None:
    axis = panel.get("options", {}).get("yAxis", {})
    assert panel["fieldConfig"]["defaults"].get("unit") or axis.get("unit")
    assert panel["description"]
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_panels_do_not_overlap_and_fit_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query_{i}", "expr": query.replace("$__rate_interval", "1m")}
        for i, (_, query) in enumerate(QUERIES)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [tool("promtool"), "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A real one, that scrapes a broker every half second."""

    def __init__(self, folder: Path, broker: Metrics) -> None:
        self._port = free_port()
        settings = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [
                {
                    "job_name": "loopfuse",
                    "static_configs": [{"targets": [f"127.0.0.1:{broker.port}"]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
        command = [tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self._port}"]
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, query: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": query})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{words}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        result: list[dict[str, Any]] = told["data"]["result"]
        return result

    def knows(self, query: str) -> bool:
        try:
            return bool(self.ask(query))
        except OSError:
            assert self.process.poll() is None, self._log.read_text()
            return False  # it is starting

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has seen a connection come, carry something and go back."""
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        broker = Metrics(folder / "broker.sock")
        stack.callback(broker.stop)
        served = Prometheus(folder, broker)
        stack.callback(served.stop)
        eventually(lambda: served.knows("loopfuse_build_info"), "it has scraped")
        fused = Fused(broker.path)
        stack.callback(fused.close)
        fused.write(0, "=Q", 5000)
        fused.write(0x30, "=Q", 70)
        fused.write(READER + 8, "=Q", 4)
        fused.write(TAIL + 8, "=QQQQ8I", 11, 12, 5, 150_000, 0, 0, 1, 0, 2, 0, 0, 1)
        order_defuse(broker.path, [1])
        fused.write(8, "=I", 2)
        fused.write(0x20, "=I", 32)
        eventually(lambda: served.knows("loopfuse_defused_total > 0"), "it has seen it go")
        # A rate takes two samples with the news between them.
        eventually(lambda: served.knows("rate(loopfuse_defused_total[30s]) > 0"), "it has a rate")
        yield served


EMPTY_HERE = {"Errors by kind: A", "Fused, declined, defused: B"}
"""They show what is above zero only, and neither has happened."""


@pytest.mark.parametrize(("name", "expression"), QUERIES, ids=[q[0] for q in QUERIES])
def test_a_real_prometheus_answers_each_query(
    prometheus: Prometheus, name: str, expression: str
) -> None:
    query = expression.replace("$__rate_interval", "30s")
    query = query.replace("$job", "loopfuse").replace("$instance", ".*")
    assert "$" not in query
    assert bool(prometheus.ask(query)) == (name not in EMPTY_HERE)


def test_its_variables_and_annotations_are_answered(prometheus: Prometheus) -> None:
    (annotation,) = [a for a in BOARD["annotations"]["list"] if "expr" in a]
    query = annotation["expr"].replace("$__rate_interval", "30s")
    prometheus.ask(query.replace("$job", "loopfuse").replace("$instance", ".*"))
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            wanted = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert wanted, variable
            found = prometheus.ask(wanted[1].replace("$job", "loopfuse"))
            assert all(wanted[2] in one["metric"] for one in found) and found
