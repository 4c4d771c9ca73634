"""``foredraft report``: the page shows the figures of its input, fetches nothing, and bad files are one clear error."""

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from foredraft.cli.main import app
from foredraft.observe.record.reading import read_record
from foredraft.observe.report import read_sources, report_page
from foredraft.observe.report.charts import axis, letter, percent, plain, seconds
from foredraft.observe.report.recorded import swept
from sim.scenario.scenario_files import workload, write

TINY = workload(prompt_tokens=8, new_tokens=48)


def foredraft(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


class Page(HTMLParser):
    """What a page says: its tables as rows of (text, exact value), and every attribute that names something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, float | None]]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._value: float | None = None
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell, said = [], given.get("data-value")
            self._value = None if said is None else float(said)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append(("".join(self._cell), self._value))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def figures(self) -> dict[str, dict[str, float | None]]:
        """The first table, by policy and heading."""
        heads = [name for name, _ in self.rows[0]]
        found = {}
        for row in self.rows[1:]:
            if len(row) != len(heads):
                break
            found[row[0][0]] = dict(zip(heads, (value for _, value in row), strict=True))
        return found


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    done = foredraft("simulate", write(folder, TINY), "--json")
    file = folder / "simulated.json"
    file.write_text(done.stdout)
    return file


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Records of two policies, two sessions each."""
    folder = tmp_path_factory.mktemp("recorded")
    scenario = write(folder, workload(prompt_tokens=8, new_tokens=48, requests=2))
    files = []
    for policy in ("cloud", "seed"):
        files.append(folder / f"{policy}.rec")
        done = foredraft("simulate", scenario, "--policy", policy, "--seed", "1", "--record", files[-1])
        assert done.exit_code == 0, done.output
    return files


def session(**other: Any) -> dict[str, Any]:
    """What ``generate --json`` prints."""
    said: dict[str, Any] = {"text": "x", "tokens": [1], "policy": "sync", "finish_reason": "length", "draft": "ngram"}
    said |= {
        "ttft_s": 0.5,
        "tpot_s": 0.1,
        "e2e_s": 10.4,
        "new_tokens": 100,
        "passes": 40,
        "drafted": 160,
        "accepted": 60,
    }
    said |= {"hints": 0, "hints_right": 0, "predraft_hits": 0, "predraft_misses": 0, "bytes_up": 500, "bytes_down": 900}
    said |= {"target_s": 4.0, "queue_s": 0.0, "draft_s": 3.0, "reconnects": 0, "pace": "", "emulated_links": []}
    return said | other


def page_of(*files: Path) -> tuple[str, Page]:
    text = report_page(read_sources(files))
    return text, Page(text)


def test_a_simulations_figures_can_be_read_back_from_the_page(simulated: Path) -> None:
    _, page = page_of(simulated)
    shown = page.figures()
    said = json.loads(simulated.read_text())["policies"]
    assert [name[1:] for name in shown] == [one["policy"] for one in said]
    for (name, row), one in zip(shown.items(), said, strict=True):
        assert row["first token"] == one["ttft_s"], name
        assert row["per token"] == one["tpot_s"]
        assert row["end to end"] == one["e2e_s"]
        assert row["accepted"] == (one["accepted"] / one["drafted"] if one["drafted"] else None)
        assert row["hints right"] == (one["hints_right"] / one["hints"] if one["hints"] else None)
        assert row["USD per million tokens"] == pytest.approx(one["cost_busy_usd"] / one["new_tokens"] * 1e6)
        assert row["edge J per token"] == one["edge_j_per_token"]


def test_a_records_figures_are_those_of_its_sessions(recorded: list[Path]) -> None:
    _, page = page_of(*recorded)
    for (name, row), file in zip(page.figures().items(), recorded, strict=True):
        figures = [one.figures for one in read_record(file).sessions]
        assert name[1:] == file.stem
        assert row["texts"] == 2
        assert row["per token"] == pytest.approx(sum(float(one["tpot_s"]) for one in figures) / 2)
        assert row["target per token"] == pytest.approx(sum(float(one["target_s"]) for one in figures) / 96)


def test_where_the_time_went_adds_up_to_all_of_it(recorded: list[Path]) -> None:
    for file, source in zip(recorded, read_sources(recorded), strict=True):
        (subject,) = source.subjects
        e2e_s = sum(float(one.figures["e2e_s"]) for one in read_record(file).sessions)
        assert sum(subject.parts.values()) == pytest.approx(e2e_s / 96, rel=1e-6)
        target_s = sum(subject.parts[part] for part in ("prefill", "pass", "pass and draft"))
        assert target_s == pytest.approx(subject.figures["target_s"] / 96, rel=1e-6)
    assert read_sources(recorded)[0].subjects[0].parts["draft"] == 0.0  # the cloud alone drafts nothing
    assert read_sources(recorded)[1].subjects[0].parts["pass and draft"] > 0.0  # seed drafts ahead


def test_acceptance_by_position_and_exits_come_from_the_record(recorded: list[Path]) -> None:
    (seed,) = read_sources(recorded)[1].subjects
    shares = [accepted / offered for offered, accepted in seed.chain]
    assert len(seed.chain) == 4
    assert shares == sorted(shares, reverse=True)
    assert sum(accepted for _, accepted in seed.chain) == seed.figures["accepted"]
    assert [one.layer for one in seed.exits] == [8, 16, 24]
    assert seed.exits[0].right < seed.exits[2].right
    assert seed.exits[0].said == 96


def test_a_private_record_gives_the_same_page(recorded: list[Path], tmp_path: Path) -> None:
    scenario = write(tmp_path, workload(prompt_tokens=8, new_tokens=48, requests=2))
    private = tmp_path / "seed.rec"
    done = foredraft("simulate", scenario, "--policy", "seed", "--seed", "1", "--record", private, "--private")
    assert done.exit_code == 0, done.output
    assert page_of(private)[0] == page_of(recorded[1])[0]


def test_every_section_that_the_files_know_of_is_there(recorded: list[Path], simulated: Path) -> None:
    text, page = page_of(*recorded, simulated)
    for heading in ("Latency", "Where the time went", "Acceptance", "Hint precision", "Cost against latency"):
        assert f"<h2>{heading}</h2>" in text
    assert "svg" in page.tags
    assert "ASSUMED" in text


def test_the_page_refers_to_nothing_outside_and_runs_nothing(recorded: list[Path], simulated: Path) -> None:
    text, page = page_of(*recorded, simulated)
    assert page.addresses == []
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"https?:|@import|url\(|//[a-z]", text)


def test_it_is_made_for_phones_and_for_the_dark(simulated: Path) -> None:
    text, _ = page_of(simulated)
    assert '<meta name="viewport" content="width=device-width' in text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"width:\s*\d{3,}px", text)


def test_sessions_of_one_policy_are_taken_together_one_object_per_line(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    runs = [session(), session(ttft_s=1.5), session(policy="cloud", drafted=0, accepted=0)]
    file.write_text("".join(json.dumps(one) + "\n" for one in runs))
    text, page = page_of(file)
    assert page.figures()["Async"]["first token"] == 1.0
    assert page.figures()["Async"]["texts"] == 2
    assert page.figures()["Bcloud"]["accepted"] is None
    assert "draft: ngram" in text


def test_the_same_policy_of_two_files_is_told_apart_by_the_file(tmp_path: Path) -> None:
    for name in ("home", "office"):
        (tmp_path / f"{name}.json").write_text(json.dumps(session()))
    _, page = page_of(tmp_path / "home.json", tmp_path / "office.json")
    assert list(page.figures()) == ["Async (home.json)", "Bsync (office.json)"]


def test_what_was_emulated_is_said(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(session(pace="jetson-nano", emulated_links=[{}])))
    text, _ = page_of(file)
    assert "EMULATED device of the draft: jetson-nano" in text
    assert "EMULATED link" in text


def test_a_benchmarks_promises_and_rows_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    rows = [
        {"policy": name, "ms_per_token": ms, "target_s": 0.1, "draft_s": 0.2, "energy_j": None}
        for name, ms in (("cloud", 620.0), ("auto", 284.5))
    ]
    figures: list[Mapping[str, Any]] = [
        {"name": "of cloud", "value": 0.458, "unit": "x", "bound": 0.5, "at_least": False},
        {"name": "share", "value": 90.0, "unit": "%", "bound": 95.0, "at_least": True},
    ]
    file.write_text(json.dumps({"robot": {"says": "a place", "figures": figures, "rows": rows}}))
    text, page = page_of(file)
    assert [value for _, value in page.rows[2]] == [None, 284.5, 0.1, 0.2]
    assert text.count("✓ held") == text.count("✗ missed") == 1
    assert 'data-value="0.458"' in text
    assert "Cost against latency" in text


def test_names_from_files_are_text_and_never_markup(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(session(policy="<script>alert(1)</script>", draft='"><img src=x>')))
    text, page = page_of(file)
    assert not page.tags & {"script", "img"}
    assert "&lt;script&gt;" in text


def test_the_command_writes_the_page(simulated: Path, tmp_path: Path) -> None:
    done = foredraft("report", simulated, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "3 policies of 1 files" in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not whole JSON"),
        (b'{"policy": "sync", "finish_', "it is cut off, or something else"),
        (b"<html></html>", "it should be a record, or what generate, simulate, tune or bench policies print"),
        (b"[1, 2]", "no object"),
        (b"{}", "no object"),
        (b"3", "no object"),
        (b'{"a": 1}', "JSON, but not what Foredraft writes"),
        (b"\xff\xfe\x00", "neither a record, or what"),
        (b"foredraft record 9\n", "a record of version 9"),
        (b"foredraft record 1\n", "nothing is recorded"),
        (json.dumps(session(tpot_s=None)).encode(), "tpot_s: a number is missing"),
        (json.dumps(session(e2e_s=float("nan"))).encode(), "e2e_s: a number is missing"),
        (json.dumps(session(passes=True)).encode(), "passes: a number is missing"),
        (
            json.dumps({"scenario": "x", "policies": [], "seeds": [1]}).encode(),
            "policies",
        ),
        (json.dumps({"scenario": "x", "policies": 1, "seeds": [1]}).encode(), "policies"),
        (json.dumps({"robot": {"says": "", "figures": [1], "rows": []}}).encode(), "robot: figures"),
        (json.dumps({"robot": {"says": "", "figures": [], "rows": [1]}}).encode(), "robot: rows"),
        (json.dumps({"robot": {"says": "", "figures": 7, "rows": []}}).encode(), "robot: figures"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_file_of_something_else_is_one_error_and_nothing_is_written(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "input"
    file.write_bytes(content)
    done = foredraft("report", file, "--out", tmp_path / "page.html")
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert str(file) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


def test_a_record_that_was_cut_off_says_so_or_is_refused(recorded: list[Path], tmp_path: Path) -> None:
    whole, cut = recorded[1].read_bytes(), tmp_path / "cut.rec"
    for size in range(len(whole), 0, -500):  # until the second session's end is gone
        cut.write_bytes(whole[:size])
        if [one.ended is not None for one in read_record(cut).sessions] == [True, False]:
            break
    text, page = page_of(cut)
    assert "cut off at byte" in text
    assert "1 session(s) were cut off and are left out" in text
    assert page.figures()["Aseed"]["texts"] == 1
    cut.write_bytes(whole[: len(whole) // 8])
    done = foredraft("report", cut, "--out", tmp_path / "page.html")
    assert done.exit_code == 2
    assert "no session in it has ended (cut off at byte" in done.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "none.json: cannot be read: No such file"),
        (["run.json", "run.json"], "run.json is there twice"),
        (["run.json", "--out", "none/page.html"], "there is no folder none"),
        ([], "Missing argument"),
    ],
)
def test_bad_arguments_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(session()))
    done = foredraft("report", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_moment_belongs_to_one_part_alone() -> None:
    busy = {"pass": [(1.0, 3.0)], "draft": [(0.0, 1.5), (2.5, 4.0)], "prefill": [(0.5, 1.0)], "link": [(2.0, 5.0)]}
    parts = swept(busy, 0.0, 6.0)
    assert parts == {"prefill": 0.5, "pass": 1.0, "pass and draft": 1.0, "draft": 1.5, "link": 1.0, "other": 1.0}
    assert sum(swept(busy, 0.75, 2.75).values()) == 2.0


def test_axes_hold_their_values_in_round_steps() -> None:
    assert axis([0.62, 0.1]).ticks == pytest.approx((0.0, 0.2, 0.4, 0.6, 0.8))
    assert axis([0.99], most=1.0).high == 1.0
    assert axis([0.0]).high > 0.0
    assert axis([]).high > 0.0


def test_numbers_are_said_for_people() -> None:
    assert [seconds(value) for value in (1.234, 0.0123, 4.5e-5, 0.0)] == ["1.23 s", "12.3 ms", "45 µs", "0"]
    assert [plain(value) for value in (0.0, 12.345, 1234.5)] == ["0", "12.3", "1,234"]
    assert percent(0.456) == "45.6%"
    assert [letter(index) for index in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]
