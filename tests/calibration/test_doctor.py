"""``foredraft doctor``: what it finds here and at a server, and the way out where something is not right."""

import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api import clouds
from engines.tiny_gguf import needs_llama, tiny_gguf
from foredraft.calibration import doctor
from foredraft.calibration.doctor import Finding, least_acceptance, look_at_server, look_here
from foredraft.cli.main import app

runner = CliRunner()


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {one.what: one for one in found}


def test_here_it_finds_versions_extras_and_devices() -> None:
    found = by_name(look_here())
    assert "Python 3" in found["system"].said
    assert {"processor", "event loop", "extra torch", "extra pictures", "extra tune"} <= found.keys()
    assert all(one.state != "fail" for one in found.values())


def test_an_extra_that_is_missing_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda package: package != "optuna" and installed(package))
    found = by_name(look_here())["extra tune"]
    assert (found.state, found.said) == ("note", "not installed: optuna")
    assert found.way_out == "pip install 'foredraft[tune]'"


async def test_a_server_that_answers_is_described_with_its_link() -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url:
        found = by_name(await look_at_server(url, "ngram", "", None, 0.5))
    assert found["served"].state == "ok"
    assert "round trip" in found["link"].said
    assert found["draft ngram"].state == "ok"


async def test_a_key_that_is_wrong_is_the_finding() -> None:
    async with clouds.cloud(api_key="right") as cloud, cloud.listen() as url:
        (found,) = await look_at_server(url, "", "wrong", None, 0.5)
    assert found.state == "fail"
    assert "API key" in found.said


async def test_a_draft_of_another_family_fails_with_the_way_out() -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url:
        found = by_name(await look_at_server(url, "demo", "", None, 0.5))
    assert found["draft demo"].state == "fail"
    assert "ngram" in found["draft demo"].way_out


async def test_a_gguf_draft_is_compared_with_the_targets_tokenizer(tmp_path: Path) -> None:
    needs_llama()
    words = [text for _, text in clouds.TOKENIZER.tokens()]
    same = tiny_gguf(tmp_path / "same.gguf", words, marks=clouds.TOKENIZER.special_ids())
    other = tiny_gguf(tmp_path / "other.gguf")
    async with clouds.cloud() as cloud, cloud.listen() as url:
        for draft, state in ((same, "ok"), (other, "fail")):
            found = by_name(await look_at_server(url, str(draft), "", None, 0.5))[f"draft {draft}"]
            assert found.state == state, found.said
            assert state == "ok" or "the vocabulary of the draft" in found.said


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody vouches for, and its key."""
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*words.split(), "-keyout", keyfile, "-out", certfile], check=True, capture_output=True)
    return certfile, keyfile


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_a_certificate_that_nobody_vouches_for_fails_and_one_that_is_trusted_tells_its_days(
    certificate: tuple[Path, Path],
) -> None:
    certfile, keyfile = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certfile, keyfile)
    async with clouds.cloud() as cloud, cloud.listen(host="localhost", tls=tls) as url:
        stranger = by_name(await look_at_server(url, "", "", None, 0.5))
        known = by_name(await look_at_server(url, "", "", certfile, 0.5))
    assert stranger["certificate"].state == "fail"
    assert "--ssl-cafile" in stranger["certificate"].way_out
    assert known["certificate"].state != "fail"
    assert "days" in known["certificate"].said
    assert known["link"].state == "ok"


async def test_behind_a_proxy_nothing_is_asked_directly_and_the_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    certificate, server = await look_at_server("https://cloud.example:8471", "", "", None, 0.5)
    assert (certificate.what, certificate.state) == ("certificate", "note")
    assert "http://127.0.0.1:9 (HTTPS_PROXY)" in certificate.said
    assert "through the proxy http://127.0.0.1:9 (HTTPS_PROXY): Connection refused" in server.said


def test_nobody_there_ends_with_1_and_json_says_so() -> None:
    done = runner.invoke(app, ["doctor", "--server", "http://127.0.0.1:9", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert "cannot reach" in told["findings"][-1]["said"]


@pytest.mark.parametrize(
    ("round_trip_s", "least"),
    [(0.0, 0.01), (0.5, 0.34), (1.0, 0.51), (7.0, 0.98), (8.0, None)],
)
def test_the_acceptance_from_which_synchronous_rounds_pay(round_trip_s: float, least: float | None) -> None:
    assert least_acceptance(round_trip_s, 1.0) == least
