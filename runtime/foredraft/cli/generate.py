"""``foredraft generate``: one text from a server, drafted here."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.cli.options import Acceptance, Draft, DraftOption, ImageMaxSide, ImageQuality, Translate

if TYPE_CHECKING:
    from foredraft.api.edge import Edge
    from foredraft.api.generation import Generation
    from foredraft.edge.local import LocalText
    from foredraft.links.shaping import Shape
    from foredraft.observe.record.recorder import Recorder


def generate(
    server: Annotated[
        list[str], typer.Option(help="URL of a server; repeat it for others to go on at when one is gone.")
    ],
    prompt: Annotated[str | None, typer.Option(help="The text to go on from.")] = None,
    prompt_file: Annotated[str | None, typer.Option(help="A file with the prompt; - for standard input.")] = None,
    draft: Draft = "ngram",
    draft_option: DraftOption = None,
    translate: Translate = False,
    policy: Annotated[
        str | None,
        typer.Option(
            help="auto, cloud, sync, seed ..., with parameters: sync:gamma=6; or a policy file.",
            show_default="what the server recommends, else auto",
        ),
    ] = None,
    gamma: Annotated[int | None, typer.Option(help="Tokens drafted per round.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least confidence of a hint.")] = None,
    cost_weight: Annotated[
        float | None, typer.Option(help="Price of a second of either device, in seconds of waiting (auto).")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Sample from the k most probable tokens; 0 from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample from the most probable tokens of this mass; 1 from all.")] = 1.0,
    acceptance: Acceptance = "noise",
    seed: Annotated[int | None, typer.Option(help="Seed of the noise; one is drawn and printed if left out.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The text ends after so many tokens.")] = 128,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the text; may be repeated.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help="How long the text may take, in milliseconds.")] = None,
    at_deadline: Annotated[
        str,
        typer.Option(help="What happens then: 'stop' with what is committed, 'local' (the draft ends it), an 'error'."),
    ] = "stop",
    json_schema: Annotated[Path | None, typer.Option(help="Hold the text to the JSON schema in this file.")] = None,
    regex: Annotated[str | None, typer.Option(help="Hold the text to this regular expression.")] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="Hold the text to the grammar (Lark, GBNF) in this file.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="An image (JPEG, PNG, WebP) that the prompt is about; may be repeated.")
    ] = None,
    image_max_side: ImageMaxSide = 0,
    image_quality: ImageQuality = 85,
    rtt_ms: Annotated[float, typer.Option(help="Emulate a link: its round trip, half of it each way.")] = 0.0,
    jitter_ms: Annotated[float, typer.Option(help="Its jitter, each way: uniform within plus or minus this.")] = 0.0,
    rate_mbps: Annotated[float | None, typer.Option(help="Its rate, each way.")] = None,
    pace: Annotated[str, typer.Option(help="Emulate the device of this hardware profile (name or file).")] = "",
    device: Annotated[str, typer.Option(help="Device of the draft model: cpu, cuda ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 leaves the default.")] = 0,
    api_key: Annotated[str, typer.Option(help="The server's key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)] = "",
    ssl_cafile: Annotated[Path | None, typer.Option(help="PEM certificate to trust.")] = None,
    retries: Annotated[int, typer.Option(help="How often to try again in a row, waiting longer each time.")] = 12,
    events: Annotated[Path | None, typer.Option(help="Write what happened, one JSON object per line.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace, for ui.perfetto.dev.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Record the session, for foredraft replay and report; see docs/recording.md.")
    ] = None,
    private: Annotated[bool, typer.Option(help="Record no token ids, only ranks and lengths.")] = False,
    local: Annotated[
        bool, typer.Option(help="While no server is in reach, go on with the draft alone, marked as unverified.")
    ] = False,
    estimates: Annotated[
        Path | None,
        typer.Option(help="What earlier texts taught of link and models: read if there, then written."),
    ] = None,
    explain: Annotated[bool, typer.Option(help="Say what was chosen and why, and what would help.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
) -> None:
    """Generate a text: drafted here, verified by the server, printed as it comes."""
    from contextlib import ExitStack

    from foredraft.api.edge import connect
    from foredraft.api.loading import ModelOptions
    from foredraft.cli.generated import tell, write_views
    from foredraft.edge.connections import Retry
    from foredraft.edge.deadline import Deadline
    from foredraft.edge.saved_estimates import load_estimates, save_estimates
    from foredraft.files import check_folders
    from foredraft.images import image_of
    from foredraft.links.address import trusting
    from foredraft.links.emulation import proxies, shape_of
    from foredraft.policies import make_policy
    from foredraft.protocol.sampling import Sampling, StopRules
    from foredraft.text.constraint import constraint_of

    Sampling(temperature, top_k, top_p, seed or 0)  # what is wrong with them is said before anything is tried
    StopRules(max_new_tokens, strings=tuple(stop or ()))
    Deadline(1.0 if deadline_ms is None else deadline_ms / 1e3, at_deadline)
    text = _read_prompt(prompt, prompt_file)
    schema = None if json_schema is None else _read("--json-schema", json_schema)
    rules = None if grammar is None else _read("--grammar", grammar)
    named = _named(policy, gamma=gamma, threshold=threshold, cost_weight=cost_weight)
    asked: dict[str, Any] = {
        "policy": None if named is None else make_policy(named),
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "stop": stop or (),
        "deadline_s": None if deadline_ms is None else deadline_ms / 1e3,
        "at_deadline": at_deadline,
        "constraint": constraint_of(json_schema=schema, regex=regex, grammar=rules),
        "images": [image_of(file, image_max_side, image_quality) for file in image or ()],
    }
    known = load_estimates(estimates) if estimates is not None and estimates.exists() else None
    shape = shape_of(rtt_ms, jitter_ms, rate_mbps)
    check_folders([file for file in (events, trace, estimates) if file is not None])
    asked["record"] = _recorder(record, private, shape, wanted=bool(record or events or trace))
    with ExitStack() as stack:
        fronts = [] if shape is None else stack.enter_context(proxies(server, shape, shape))
        edge = connect(
            *([url for url, _ in fronts] or server),
            draft=draft,
            options=ModelOptions(device, dtype, threads, pace, draft=tuple(draft_option or ()), translate=translate),
            api_key=api_key,
            retry=Retry(attempts=retries),
            ssl=trusting(ssl_cafile),
            estimates=known,
            acceptance=acceptance,
        )
        if local:
            asked["local"] = _local_text(edge)
        generation = _run(edge, text, asked, quiet=as_json)
        links = [proxy.report() for _, proxy in fronts]
    if estimates is not None:
        save_estimates(edge.estimates, estimates)
    if events or trace:
        write_views(asked["record"].record(), events, trace)
    extra = {"policy_spec": named or generation.policy_spec, "draft": draft, "top_k": top_k, "top_p": top_p}
    extra |= {"pace": pace} | ({"explanation": generation.explanation()} if explain else {})
    tell(generation, extra, links, as_json=as_json)


def _named(policy: str | None, **given: float | None) -> str | None:
    """The policy that the options name; None where they leave it to the server. Options alone are about ``auto``."""
    if policy is None and all(value is None for value in given.values()):
        return None
    return policy_spec(policy or "auto", **given)


def policy_spec(policy: str, **given: float | None) -> str:
    """The policy's specification, with the convenience options among its parameters."""
    from foredraft.policies import policy_names
    from foredraft.policies.policy_file import spec_of

    policy = spec_of(policy)
    extra = [f"{name}={value}" for name, value in given.items() if value is not None]
    if not extra:
        return policy
    name_has_colon = policy.partition(":")[0] not in policy_names()
    separator = "," if policy.count(":") > name_has_colon else ":"
    return policy + separator + ",".join(extra)


def _recorder(record: Path | None, private: bool, shape: "Shape | None", *, wanted: bool) -> "Recorder | None":
    """What records the session, to the file or to memory for other views of it; None where nothing is wanted."""
    from foredraft.errors import ConfigError
    from foredraft.links.emulation import link_profile
    from foredraft.observe.record.recorder import Recorder

    if private and record is None:
        raise ConfigError("--private is about what is recorded: give --record FILE, too")
    link = None if shape is None else link_profile(shape)
    return Recorder(record, private=private, ask=record is not None, link=link) if wanted else None


def _read(what: str, file: str | Path) -> str:
    """The text of a file, or of standard input for ``-``."""
    from foredraft.errors import ConfigError

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {what} from {file}: {error}") from error


def _read_prompt(prompt: str | None, prompt_file: str | None) -> str:
    from foredraft.errors import ConfigError

    if prompt is not None and prompt_file is None:
        return prompt
    if prompt is not None or prompt_file is None:
        raise ConfigError("give one of --prompt TEXT and --prompt-file FILE (- for standard input)")
    return _read("the prompt", prompt_file)


def _run(edge: "Edge", prompt: str, asked: dict[str, Any], *, quiet: bool) -> "Generation":
    import asyncio

    from foredraft.api.conversation import prompt_about
    from foredraft.cli.generated import show
    from foredraft.loop import run

    async def session() -> "Generation":
        async with edge:
            asked_about = await prompt_about(edge, prompt, len(asked["images"]))
            generation = edge.generate(asked_about, **asked)
            async for piece in generation:
                if piece.text and not quiet:
                    await asyncio.to_thread(show, piece.text)  # a pipe may be slow, the link must not wait for it
            if not quiet:
                typer.echo()
            return generation

    return run(session())


def _local_text(edge: "Edge") -> "LocalText":
    """Tells on stderr what is shown without a server, and what became of it."""
    from foredraft.cli.generated import local_line
    from foredraft.edge.local import LocalEvent, LocalText

    def tell(event: LocalEvent) -> None:
        typer.echo(local_line(event, lambda tokens: edge.tokenizer.decode(tokens) if edge.tokenizer else ""), err=True)

    return LocalText(tell)
