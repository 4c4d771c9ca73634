"""``foredraft generate`` against scripted clouds: in one process where possible, in two where signals matter."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api import clouds
from foredraft.api.cloud import Cloud
from foredraft.cli.generate import policy_spec
from foredraft.cli.generated import local_line
from foredraft.cli.main import app
from foredraft.edge.local import Confirmed, Unverified, Withdrawn
from foredraft.edge.session_report import SessionReport

runner = CliRunner()
PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())


@contextmanager
def serving(cloud: Cloud) -> Iterator[str]:
    """The cloud serves over HTTP from a thread of its own."""
    import asyncio

    ready: list[str] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with cloud, cloud.listen() as url:
            ready.append(url)
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(20)
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(clouds.cloud()) as address:
        yield address


def generate(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = runner.invoke(app, ["generate", *arguments], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_the_text_is_streamed_to_stdout_and_the_figures_go_to_stderr(url: str) -> None:
    code, out, err = generate("--server", url, "--prompt", PROMPT, "--policy", "sync", "--max-new-tokens", "70")
    assert (code, out) == (0, clouds.text_between(START, START + 70) + "\n")
    assert "sync, seed " in err
    assert "70 tokens, ended by length" in err


def test_json_is_one_object_with_what_the_session_did(url: str) -> None:
    asked = ("--policy", "seed:gamma=3", "--seed", "9", "--temperature", "0.8", "--max-new-tokens", "40", "--json")
    code, out, _ = generate("--server", url, "--prompt", PROMPT, *asked)
    said = json.loads(out)
    assert code == 0
    assert set(said) >= set(SessionReport.__dataclass_fields__)
    assert said["text"] == clouds.text_between(START, START + 40)
    assert (said["seed"], said["temperature"], said["policy"], said["new_tokens"]) == (9, 0.8, "seed", 40)
    assert (said["emulated_links"], said["exact"]) == ([], False)


def test_the_policy_that_the_server_recommends_is_taken_and_told() -> None:
    with serving(clouds.cloud(policy="sync:gamma=4")) as address:
        asked = ("--server", address, "--prompt", PROMPT, "--max-new-tokens", "30", "--seed", "1")
        code, out, err = generate(*asked, "--explain")
        said = json.loads(generate(*asked, "--json", "--explain")[1])
        own = json.loads(generate(*asked, "--json", "--policy", "sync:gamma=2")[1])
        tuned = json.loads(generate(*asked, "--json", "--cost-weight", "1")[1])
    assert (code, out) == (0, clouds.text_between(START, START + 30) + "\n")
    assert "sync:gamma=4 (recommended by the server), seed 1" in err
    assert "exact up to ties of the target's two best tokens" in err
    assert "policy: sync:gamma=4, recommended by the server" in err
    assert (said["policy"], said["policy_spec"], said["policy_from"]) == ("sync", "sync:gamma=4", "server")
    assert said["explanation"][0] == "policy: sync:gamma=4, recommended by the server"
    assert (own["policy_spec"], own["policy_from"]) == ("sync:gamma=2", "edge")
    assert (tuned["policy_spec"], tuned["policy_from"]) == ("auto:cost_weight=1.0", "edge")


def test_where_nobody_names_a_policy_it_is_auto(url: str) -> None:
    said = json.loads(generate("--server", url, "--prompt", PROMPT, "--max-new-tokens", "8", "--json")[1])
    assert (said["policy"], said["policy_spec"], said["policy_from"]) == ("auto", "auto", "default")


def test_the_prompt_comes_from_a_file_or_from_standard_input(url: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT, encoding="utf-8")
    asked = ("--server", url, "--max-new-tokens", "20")
    from_file = generate(*asked, "--prompt-file", str(file))
    from_stdin = generate(*asked, "--prompt-file", "-", stdin=PROMPT.encode())
    assert from_file[:2] == from_stdin[:2] == (0, clouds.text_between(START, START + 20) + "\n")


def test_an_emulated_link_is_in_between_and_labelled(url: str) -> None:
    asked = ("--server", url, "--prompt", PROMPT, "--max-new-tokens", "8", "--rtt-ms", "20")
    code, out, err = generate(*asked)
    assert (code, out) == (0, clouds.text_between(START, START + 8) + "\n")
    assert "EMULATION: emulated link: round trip 2" in err
    said = json.loads(generate(*asked, "--json")[1])
    assert said["emulated_links"][0]["up"]["delay_p50_s"] >= 0.01
    assert said["ttft_s"] >= 0.02


def test_events_are_written_one_per_line(url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    generate("--server", url, "--prompt", PROMPT, "--max-new-tokens", "12", "--events", str(file))
    events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert sum(len(event["data"]["tokens"]) for event in events if event["kind"] == "commit") == 12


def test_the_text_ends_at_a_stop_string(url: str) -> None:
    code, out, _ = generate("--server", url, "--prompt", PROMPT, "--stop", "Viktor", "--stop", "Deich")
    assert (code, out) == (0, clouds.TEXT[13:].partition("Viktor")[0] + "\n")


def test_a_text_is_held_to_the_rule_that_is_named_or_refused_with_the_reason(url: str, tmp_path: Path) -> None:
    asked = ("--server", url, "--prompt", PROMPT, "--max-new-tokens", "9")
    assert generate(*asked, "--regex", r"(.|\n)*")[:2] == (0, clouds.text_between(START, START + 9) + "\n")
    (schema := tmp_path / "schema.json").write_text('{"type": 3}')
    code, _, err = generate(*asked, "--json-schema", str(schema))
    assert code == 1
    assert "the json_schema '{\"type\": 3}' cannot be followed" in err
    code, _, err = generate(*asked, "--json-schema", str(schema), "--regex", "a")
    assert (code, "json_schema and regex were given" in err) == (2, True)
    code, _, err = generate(*asked, "--grammar", str(tmp_path / "none.lark"))
    assert (code, "cannot read --grammar" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--policy", "sink"], 2, "unknown policy 'sink': did you mean 'sync'?"),
        (["--policy", "cloud", "--gamma", "3"], 2, "unknown parameter of policy cloud 'gamma'"),
        (["--policy", "sync:gamma=0"], 2, "gamma must be 1 or more"),
        (["--temperature", "-1"], 2, "temperature must be between 0 and 100"),
        (["--top-p", "2"], 2, "top_p must be above 0"),
        (["--max-new-tokens", "0"], 2, "max_new_tokens must be 1 or more"),
        (["--rtt-ms", "-5"], 2, "delay_s is -0.0025"),
        (["--pace", "robot-6-draft"], 2, "unknown hardware profile 'robot-6-draft': did you mean 'robot-5-draft'?"),
        (["--pace", "robot-5-target"], 2, "a target profile, where a draft profile is needed"),
        (["--prompt-file", "x"], 2, "give one of --prompt TEXT and --prompt-file FILE"),
        (["--draft", "no/such/folder/at/all"], 1, "no local folder"),
        (["--stop", ""], 2, "a stop string must not be empty"),
    ],
)
def test_bad_input_is_refused_with_a_reason(url: str, arguments: list[str], code: int, message: str) -> None:
    refused = generate("--server", url, "--prompt", PROMPT, *arguments)
    assert refused[0] == code
    assert message in refused[2]


def test_a_server_that_is_not_there_is_an_error_after_the_retries() -> None:
    code, _, err = generate("--server", "http://127.0.0.1:9", "--prompt", PROMPT, "--retries", "1")
    assert code == 1
    assert "gave up after 1 retries: cannot reach http://127.0.0.1:9" in err


def test_a_key_is_asked_for_and_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(clouds.cloud(api_key="secret")) as url:
        asked = ("--server", url, "--prompt", PROMPT, "--max-new-tokens", "3")
        assert "does not accept this API key" in generate(*asked)[2]
        monkeypatch.setenv("FOREDRAFT_API_KEY", "secret")
        assert generate(*asked)[0] == 0


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with serving(Cloud(clouds.target(context=8), clouds.TOKENIZER)) as url:
        code, _, err = generate("--server", url, "--prompt", PROMPT)
    assert code == 1
    assert "shorten the prompt" in err


def test_ctrl_c_ends_the_edge_with_130_and_the_server_goes_on() -> None:
    with serving(clouds.cloud()) as url:
        command = [sys.executable, "-m", "foredraft", "generate", "--server", url, "--prompt", PROMPT]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
        endless = subprocess.Popen(
            [*command, "--max-new-tokens", "100000", "--rtt-ms", "20"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        signal.signal(signal.SIGINT, before)
        with endless:
            assert endless.stdout is not None
            assert endless.stderr is not None
            assert endless.stdout.read(8)  # it is generating
            endless.send_signal(signal.SIGINT)
            _, err = endless.communicate(timeout=20)
        assert endless.returncode == 130
        assert b"Traceback" not in err
        assert generate("--server", url, "--prompt", PROMPT, "--max-new-tokens", "5")[0] == 0


@pytest.mark.parametrize(
    ("policy", "gamma", "threshold", "spec"),
    [
        ("sync", None, None, "sync"),
        ("sync", 6, None, "sync:gamma=6"),
        ("seed:gamma=2", None, 0.7, "seed:gamma=2,threshold=0.7"),
        ("my.module:Mine", 3, None, "my.module:Mine:gamma=3"),
        ("my.module:Mine:depth=2", 3, 0.5, "my.module:Mine:depth=2,gamma=3,threshold=0.5"),
    ],
)
def test_gamma_and_threshold_go_into_the_specification(
    policy: str, gamma: int | None, threshold: float | None, spec: str
) -> None:
    assert policy_spec(policy, gamma=gamma, threshold=threshold) == spec


def test_explain_adds_its_lines_to_the_figures(url: str) -> None:
    """Here the target takes next to no time, so what they say depends on the machine."""
    code, _, err = generate("--server", url, "--prompt", PROMPT, "--policy", "sync", "--explain")
    assert code == 0
    assert "measured: round trip" in err or "nothing to explain" in err


def test_explain_in_json_is_a_list_of_lines(url: str) -> None:
    asked = ("--policy", "auto", "--cost-weight", "1", "--max-new-tokens", "2", "--explain", "--json")
    _, out, _ = generate("--server", url, "--prompt", PROMPT, *asked)
    assert json.loads(out)["explanation"][0] == "policy: auto, named at the edge"
    assert json.loads(out)["explanation"][1].startswith("nothing to explain")


def test_a_price_for_a_policy_that_knows_none_is_refused_by_name(url: str) -> None:
    code, _, err = generate("--server", url, "--prompt", PROMPT, "--policy", "sync", "--cost-weight", "1")
    assert code != 0
    assert "cost_weight" in err


def test_what_is_shown_without_a_server_is_marked() -> None:
    said = [
        local_line(told, lambda tokens: "-".join(map(str, tokens))) for told in (Unverified(7, (1, 2)), Confirmed(8))
    ]
    assert said == ["UNVERIFIED from token 7: '1-2' (2 tokens)", "CONFIRMED up to token 8"]
    assert local_line(Withdrawn(8, (2,)), lambda tokens: "x") == "WITHDRAWN from token 8: 'x' (1 tokens)"


def test_local_changes_nothing_while_the_server_is_there(url: str) -> None:
    code, out, err = generate(
        "--server", url, "--prompt", PROMPT, "--policy", "sync", "--max-new-tokens", "20", "--local"
    )
    assert (code, out) == (0, clouds.text_between(START, START + 20) + "\n")
    assert "UNVERIFIED" not in err


def test_what_the_draft_says_after_a_deadline_is_counted_apart(url: str) -> None:
    asked = ("--server", url, "--prompt", PROMPT, "--max-new-tokens", "30000", "--deadline-ms", "300")
    code, out, err = generate(*asked, "--at-deadline", "local")
    assert code == 0
    assert "UNVERIFIED, ended by deadline" in err
    assert out.startswith(clouds.text_between(START, START + 60))
    _, out, _ = generate(*asked, "--json")
    said = json.loads(out)
    assert (said["finish_reason"], said["unverified"]) == ("deadline", [])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--deadline-ms", "0"), "a deadline must lie ahead"),
        (("--deadline-ms", "-5"), "a deadline must lie ahead"),
        (("--deadline-ms", "5", "--at-deadline", "lokal"), "did you mean 'local'?"),
    ],
)
def test_what_cannot_be_a_deadline_is_refused_before_anything_is_tried(asked: tuple[str, ...], said: str) -> None:
    code, out, err = generate("--server", "http://127.0.0.1:1", "--prompt", PROMPT, *asked)
    assert (code, out) == (2, "")
    assert said in err


def test_what_a_text_teaches_is_written_and_read_for_the_next(url: str, tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    asked = ("--server", url, "--prompt", PROMPT, "--max-new-tokens", "40", "--estimates", str(file))
    assert generate(*asked)[0] == 0
    first = json.loads(file.read_text("utf-8"))
    assert generate(*asked)[0] == 0
    second = json.loads(file.read_text("utf-8"))
    assert second["round_trip_s"]["samples"] > first["round_trip_s"]["samples"] > 0


def test_a_file_of_estimates_that_is_none_is_refused_and_left_alone(url: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("buy milk", encoding="utf-8")
    code, out, err = generate("--server", url, "--prompt", PROMPT, "--estimates", str(file))
    assert (code, out) == (2, "")
    assert "notes.txt: not JSON" in err
    assert file.read_text("utf-8") == "buy milk"


def test_the_policy_is_auto_where_none_is_named(url: str) -> None:
    _, out, _ = generate("--server", url, "--prompt", PROMPT, "--max-new-tokens", "20", "--json")
    assert json.loads(out)["policy"] == "auto"
