"""The site's generator: parts made from the code, staged links, and the check of a built site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from advisor.cli import app
from advisor.observability.metrics import Metrics
from advisor.server.settings import Settings
from docs.generator.links import problems_of
from docs.generator.reference import PARTS
from docs.generator.remedies import REMEDIES
from docs.generator.staging import stage, with_parts
from fslr.advisor.v1 import advisor_service_pb2, error_pb2
from fslr.errors import BY_REASON

ROOT = Path(__file__).parents[3]


def rows(part: str) -> dict[str, list[str]]:
    """Return the rows of a generated table by the first name in their first cell."""
    found = {}
    for line in PARTS[part](ROOT).splitlines()[2:]:
        first, *others = re.split(r"(?<!\\) \| ", line.strip("| "))
        found[first.split("`")[1]] = others
    return found


def leaves(command: Any, path: str) -> list[tuple[str, Any]]:
    """Return all commands that can be run, by what is typed."""
    below = getattr(command, "commands", None)
    if not below:
        return [(path, command)]
    return [leaf for name, each in below.items() for leaf in leaves(each, f"{path} {name}")]


def test_settings_are_listed_with_option_default_and_meaning() -> None:
    table = rows("settings")
    assert set(table) == {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    assert table["--port"] == ["`50051`", Settings.model_fields["port"].description]
    assert all(meaning for _, meaning in table.values())


def test_every_setting_is_an_option_that_states_its_default_and_its_variable() -> None:
    command: Any = get_command(app)
    options = {option.name: option for option in command.commands["serve"].params}
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in options[name].opts
        text, _, variable = options[name].help.rpartition(" ")
        assert (text[-5:], variable) == ("[env:", f"ADVISOR_{name.upper()}]")
        default: Any = field.get_default(call_default_factory=True)
        stated = text.removesuffix(". [env:").rpartition(" Default: ")[2]
        if isinstance(default, bool):
            assert stated == ("on" if default else "off"), name
        elif isinstance(default, int | float):
            assert float(stated) == default, name
        elif default is not None:
            assert stated == str(default), name
        else:
            assert "None" not in text, name


def test_metrics_have_the_names_that_prometheus_sees() -> None:
    table = rows("metrics")
    assert set(table) == set(Metrics().names())
    assert all(kind and meaning for kind, meaning in table.values())


def test_the_metrics_that_the_page_on_monitoring_watches_exist() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text("utf-8")
    named = set(re.findall(r"^\| `((?:advisor|grpc_server)_\w+)` \|", page, re.MULTILINE))
    assert len(named) > 5
    assert named <= set(Metrics().names())


def test_errors_are_listed_with_meaning_and_remedy() -> None:
    table = rows("errors")
    assert set(table) == set(BY_REASON)
    assert all(meaning and remedy for meaning, remedy in table.values())
    assert len(table) == len(error_pb2.ErrorReason.keys()) - 1  # UNSPECIFIED is never sent


def test_a_reason_without_remedy_breaks_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(REMEDIES, "INTERNAL")
    with pytest.raises(ValueError, match=r"differ in \['INTERNAL'\]"):
        PARTS["errors"](ROOT)


def test_every_command_is_shown_with_all_of_its_options() -> None:
    text = PARTS["commands"](ROOT)
    commands = leaves(get_command(app), "advisor")
    assert len(commands) > 20
    for path, command in commands:
        section = re.split(r"\n##+ ", text.split(f"# {path}\n", 1)[1])[0]
        assert command.help.split("\n")[0] in section
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert f"`{option.opts[0]}`" in section, (path, option.name)


def test_the_contract_is_shown_with_its_comments() -> None:
    text = PARTS["protos"](ROOT)
    for name in advisor_service_pb2.DESCRIPTOR.message_types_by_name:
        assert f"### {name}\n" in text
    for name in advisor_service_pb2.DESCRIPTOR.services_by_name:
        assert f"### {name}\n" in text
    assert "buf:lint" not in text
    assert "rpc RecommendLR(stream RecommendLRRequest) returns (stream RecommendLR" in text


def test_every_generated_part_is_on_exactly_one_page() -> None:
    pages = [path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")]
    used = [name for page in pages for name in re.findall(r"<!-- generated: ([\w-]+) -->", page)]
    assert sorted(used) == sorted(PARTS)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        with_parts("a\n\n<!-- generated: nonsense -->\n", ROOT)


def test_links_out_of_the_pages_lead_to_copies(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "docs" / "a").mkdir(parents=True)
    (root / "code").mkdir()
    (root / "code" / "run.py").write_text("run()", "utf-8")
    (root / "CHANGELOG.md").write_text("[page](docs/a/page.md)", "utf-8")
    (root / "docs" / "zensical.toml").touch()
    (root / "docs" / "a" / "page.md").write_text(
        "[run](../../code/run.py#L3) [all](../../code) [gone](../gone.md) "
        "[log](../../CHANGELOG.md)\n"
        "```\n[run](../../code/run.py)\n```\n",
        "utf-8",
    )
    stage(root, target)
    assert (target / "pages" / "a" / "page.md").read_text("utf-8") == (
        "[run](../repository/code/run.py.txt#L3) all (`code/`) [gone](../gone.md) "
        "[log](../changelog.md)\n```\n[run](../../code/run.py)\n```\n"
    )
    assert (target / "pages" / "repository" / "code" / "run.py.txt").read_text("utf-8") == "run()"
    assert (target / "pages" / "changelog.md").read_text("utf-8") == "[page](a/page.md)"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site of two pages without problems."""
    (tmp_path / "other").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="other/#there">x</a> <a href="https://example.com/">y</a>', "utf-8"
    )
    (tmp_path / "other" / "index.html").write_text(
        '<h1 id="there">x</h1> <a href="..">back</a>', "utf-8"
    )
    return tmp_path


def test_a_good_site_has_no_problems(site: Path) -> None:
    assert problems_of(site) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="gone/">x</a>', "new.html: gone/ leads nowhere"),
        ('<img src="gone.png">', "new.html: gone.png leads nowhere"),
        ('<a href="other/#gone">x</a>', "new.html: other/#gone names an anchor that is not there"),
        ('<a href="#gone">x</a>', "new.html: #gone names an anchor that is not there"),
        (
            '<script src="https://cdn.example.com/a.js"></script>',
            "new.html: loads https://cdn.example.com/a.js from another host",
        ),
        (
            '<link rel="stylesheet" href="//fonts.example.com/a.css">',
            "new.html: loads //fonts.example.com/a.css from another host",
        ),
    ],
)
def test_problems_of_a_page_are_reported(site: Path, html: str, problem: str) -> None:
    (site / "new.html").write_text(html, "utf-8")
    assert problems_of(site) == [problem]


def test_a_style_sheet_that_loads_a_font_from_another_host_is_reported(site: Path) -> None:
    (site / "a.css").write_text("@font-face{src:url(https://fonts.example.com/a.woff)}", "utf-8")
    assert problems_of(site) == ["a.css: loads from another host"]
