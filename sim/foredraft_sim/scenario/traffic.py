"""Traffic: what was asked of some service, row by row: tokens of the prompt and of the text, and when it came.

CSV with a header, or one JSON object to the line. Columns are found by name, whatever their case: those of Azure's
public LLM inference traces, of BurstGPT, and plain ones. Times are numbers (seconds) or dates; a file of lengths alone,
as of ShareGPT, has none.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from foredraft_sim.errors import ScenarioError

MOST_ROWS: Final = 1_000_000
MOST_TOKENS: Final = 10_000_000

_PROMPT: Final = ("ContextTokens", "prompt_tokens", "input_tokens", "Request tokens", "prompt_len")
_NEW: Final = ("GeneratedTokens", "new_tokens", "output_tokens", "completion_tokens", "Response tokens", "output_len")
_TIME: Final = ("TIMESTAMP", "arrived_s", "time")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests in the order in which they came. ``arrived_s``: since the first; empty where the file tells no times."""

    lengths: Sequence[tuple[int, int]]
    arrived_s: Sequence[float]
    longest: tuple[int, int]

    def lengths_of(self, request: int) -> tuple[int, int]:
        """Tokens of a request's prompt and text: row by row, and again from the first."""
        return self.lengths[request % len(self.lengths)]

    def arrives_s(self, request: int) -> float:
        """When it comes; after the last row it begins again, as long after it as rows are apart."""
        laps, row = divmod(request, len(self.arrived_s))
        last_s = self.arrived_s[-1]
        return laps * (last_s + last_s / max(1, len(self.arrived_s) - 1)) + self.arrived_s[row]


def read_traffic(path: Path) -> Traffic:
    """The traffic in a file. Raises ScenarioError naming file, row and column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _json_rows(path, file) if path.suffix == ".jsonl" else _csv_rows(path, file)
            return _traffic(path, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


_Row = tuple[int, Mapping[str, Any]]
"""The number of its line, from 1, and its columns."""


def _csv_rows(path: Path, file: Any) -> Iterator[_Row]:
    reader = csv.DictReader(file)
    for row in reader:
        yield reader.line_num, row


def _json_rows(path: Path, file: Any) -> Iterator[_Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ScenarioError(f"{path}: line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ScenarioError(f"{path}: line {number}: an object is needed, with prompt_tokens and output_tokens")
        yield number, row


def _traffic(path: Path, rows: Iterator[_Row]) -> Traffic:
    lengths: list[tuple[int, int]] = []
    times_s: list[float] = []
    columns: tuple[str, str, str | None] | None = None
    for line, row in rows:
        columns = columns or _columns(path, row)
        prompt, new, time = columns
        lengths.append((_tokens(path, line, prompt, row.get(prompt)), _tokens(path, line, new, row.get(new))))
        if time is not None:
            times_s.append(_seconds(path, line, time, row.get(time)))
            if len(times_s) > 1 and times_s[-1] < times_s[-2]:
                raise ScenarioError(
                    f"{path}: line {line}: {time} = {row[time]!r} is before the line above: sort the file by {time}"
                )
        if len(lengths) > MOST_ROWS:
            raise ScenarioError(f"{path}: more than {MOST_ROWS:,} rows; keep a part of it: head -n {MOST_ROWS}")
    if not lengths:
        raise ScenarioError(f"{path}: no request in it: a header and a row for each request are needed")
    if times_s and len(times_s) > 1 and times_s[-1] == times_s[0]:
        times_s = []  # all at once tells no pace
    prompts, news = zip(*lengths, strict=True)
    return Traffic(lengths, [one - times_s[0] for one in times_s], (max(prompts), max(news)))


def _columns(path: Path, row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """What the columns of prompt, text and time are called here."""
    known = {_plain(name): name for name in row if isinstance(name, str)}

    def called(names: Sequence[str]) -> str | None:
        return next((known[_plain(name)] for name in names if _plain(name) in known), None)

    prompt, new = called(_PROMPT), called(_NEW)
    if prompt is None or new is None:
        wanted = " or ".join(_PROMPT if prompt is None else _NEW)
        there = ", ".join(known.values()) or "none"
        raise ScenarioError(f"{path}: line 1: no column {wanted}; there are: {there}; rename that which it is")
    return prompt, new, called(_TIME)


def _plain(name: str) -> str:
    return name.replace(" ", "").replace("_", "").lower()


def _tokens(path: Path, line: int, column: str, value: Any) -> int:
    try:
        tokens = float(value)
    except (TypeError, ValueError):
        tokens = math.nan
    if not (1 <= tokens <= MOST_TOKENS and tokens == int(tokens)):
        raise ScenarioError(
            f"{path}: line {line}: {column} = {value!r}: a whole number of tokens from 1 is needed; mend the line or "
            "leave it out"
        )
    return int(tokens)


def _seconds(path: Path, line: int, column: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            date = datetime.fromisoformat(str(value))
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            seconds = math.nan
    if not math.isfinite(seconds):
        raise ScenarioError(
            f"{path}: line {line}: {column} = {value!r}: seconds or a date are needed, such as 12.5 or 2023-11-16 "
            "18:15:46; mend the line or leave it out"
        )
    return seconds
