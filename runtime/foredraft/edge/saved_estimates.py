"""What sessions learn of link, devices and models, for the sessions after them: from profiles, or from a file.

The file is JSON with a version. It belongs to one device, one link and one pair of models: another's does no
harm, it is unlearned within a few rounds, but it makes a bad beginning.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from foredraft.edge.estimates import BINS, Estimates
from foredraft.errors import EstimatesError
from foredraft.files import written_together
from foredraft.profiles import DraftProfile, LinkProfile, TargetProfile, seconds
from foredraft.profiles.compute import pass_times
from foredraft.profiles.strict import convert, read_text
from foredraft.protocol.averages import ENOUGH, KEPT, WIDTHS, Average, Rate, Typical

VERSION: Final = 1
SAMPLES: Final = 8
"""A profile's figures count as much as so many samples."""

_CONTEXT: Final = 256  # at which the profiles' passes and steps are taken

_NotNegative = Annotated[float, Meta(ge=0.0)]
_Share = Annotated[float, Meta(ge=0.0, le=1.0)]
_Count = Annotated[int, Meta(ge=0)]


class _Mean(msgspec.Struct, forbid_unknown_fields=True):
    mean: _NotNegative
    variance: _NotNegative
    samples: _Count


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    """How often something was right."""

    mean: _Share
    samples: _Count


_Bins = Annotated[list[_Rate], Meta(min_length=BINS, max_length=BINS)]


class _Hints(msgspec.Struct, forbid_unknown_fields=True):
    """How often one layer's hints were right, by confidence."""

    layer: Annotated[int, Meta(ge=1)]
    right: _Bins


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    """The file. ``passes_s``: by ``edge.estimates.WIDTHS``, the last samples of each."""

    version: Literal[1]
    round_trip_s: _Mean
    draft_step_s: _Mean
    round_s: _Mean
    tokens: _Mean
    drafted: _Mean
    ranks: list[_Rate]
    passes_s: Annotated[
        list[Annotated[list[_NotNegative], Meta(max_length=KEPT)]], Meta(min_length=len(WIDTHS), max_length=len(WIDTHS))
    ]
    right: _Bins
    hints: list[_Hints]


_MEANS: Final = ("round_trip_s", "draft_step_s", "round_s", "tokens", "drafted")


def save_estimates(estimates: Estimates, file: str | Path) -> None:
    """Write what was learned; a file of that name is replaced. Raises ConfigError."""
    plain = estimates_as_plain(estimates)
    written_together({Path(file): msgspec.json.format(msgspec.json.encode(plain), indent=1) + b"\n"})


def estimates_as_plain(estimates: Estimates) -> dict[str, Any]:
    """What was learned, as plain values."""
    saved = _Saved(
        version=VERSION,
        **{name: _mean(getattr(estimates, name)) for name in _MEANS},
        ranks=_plain(estimates.ranks),
        passes_s=[[] if seen.stale(estimates.passes) else list(seen.last) for seen in estimates.passes_s],
        right=_plain(estimates.right),
        hints=[_Hints(layer, _plain(bins)) for layer, bins in estimates.hints.items()],
    )
    plain: dict[str, Any] = msgspec.to_builtins(saved)
    return plain


def load_estimates(file: str | Path) -> Estimates:
    """What was learned before. Raises EstimatesError naming the file, the key and the value."""
    path = Path(file)
    try:
        plain = msgspec.json.decode(read_text(path, EstimatesError))
    except (msgspec.DecodeError, RecursionError) as error:
        raise EstimatesError(f"{path}: not JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("version") != VERSION:
        said = plain.get("version") if isinstance(plain, dict) else plain
        raise EstimatesError(
            f"{path}: not what `--estimates` writes: version {said!r}, where this Foredraft knows {VERSION}; "
            "remove the file to begin anew"
        )
    return estimates_from_plain(plain, path)


def estimates_from_plain(plain: dict[str, Any], where: Path) -> Estimates:
    """What ``estimates_as_plain`` made of them. Raises EstimatesError naming ``where``, the key and the value."""
    saved = convert(plain, _Saved, where, EstimatesError)
    estimates = Estimates()
    for name in _MEANS:
        mean: _Mean = getattr(saved, name)
        average: Average = getattr(estimates, name)
        average.mean, average.variance, average.samples = mean.mean, mean.variance, mean.samples
    estimates.ranks = _rates(saved.ranks)
    estimates.passes_s = [Typical(list(last)) for last in saved.passes_s]
    estimates.right = _rates(saved.right)
    estimates.hints = {one.layer: _rates(one.right) for one in saved.hints}
    return estimates


def estimates_from_profiles(
    draft: DraftProfile | None = None,
    target: TargetProfile | None = None,
    link: LinkProfile | None = None,
    ranks: Sequence[float] = (),
) -> Estimates:
    """What the profiles say: draft step, passes by width, round trip.

    ``ranks``: how often the drafter's 1st, 2nd, ... guess is right, where that is known of the pair; without it,
    and without any of the three, policies still see for themselves before they wait for anything.
    """
    estimates = Estimates()
    if draft is not None:
        _tell(estimates.draft_step_s, seconds(draft.draft_step, 1, _CONTEXT))
    if link is not None:
        _tell(estimates.round_trip_s, link.round_trip_s, link.up.jitter_s**2 + link.down.jitter_s**2)
    if target is not None:
        taken_s = pass_times(target.target_pass, WIDTHS, _CONTEXT)
        estimates.passes_s = [Typical([pass_s] * ENOUGH if pass_s else []) for pass_s in taken_s]
        _tell(estimates.round_s, taken_s[0])
        _tell(estimates.tokens, 1.0)
    if any(not 0.0 <= rank <= 1.0 for rank in ranks) or sum(ranks) > 1.0 + 1e-9:
        raise EstimatesError(f"ranks must be probabilities that add up to 1 at most, not {list(ranks)}")
    for rank in ranks:
        estimates.ranks.append(Rate(rank, SAMPLES))
    return estimates


def _tell(average: Average, mean: float, variance: float = 0.0) -> None:
    average.mean, average.variance, average.samples = mean, variance, SAMPLES


def _mean(average: Average) -> _Mean:
    return _Mean(average.mean, average.variance, average.samples)


def _plain(rates: Sequence[Rate]) -> list[_Rate]:
    return [_Rate(one.mean, one.samples) for one in rates]


def _rates(plain: Sequence[_Rate]) -> list[Rate]:
    return [Rate(one.mean, one.samples) for one in plain]
