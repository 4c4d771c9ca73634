"""What the engine makes of a GPU: passes over the time in which the card reads the weights once."""

import time
from collections.abc import Sequence
from statistics import median

import torch

from foredraft.bench.batching import together_s
from foredraft.bench.result import Figure, Result
from foredraft.calibration.shapes import random_exits, random_model
from foredraft.engines.exact import MOST_PRICE, price
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchSlot, TorchTarget
from foredraft.protocol.ports import Pass
from foredraft.protocol.sampling import Sampling

CONTEXT = 512
ROWS = (1, 5, 33)
SESSIONS, SESSION_ROWS = 32, 5
MOST_OVER_READING, MOST_OVER_ONE = 1.3, 2.0
_COPIED_BYTES = 4 << 30


async def measure(
    shape: str = "llama2-7b", dtype: str = "bfloat16", device: str = "cuda", *, passes: int = 30
) -> Result:
    """Medians of ``passes`` passes of each kind over ``CONTEXT`` tokens. Raises UnknownNameError, ConfigError."""
    model = random_model(shape, dtype, device)
    cache_bytes = (SESSIONS + 1) * (CONTEXT + 512) * model.kv.row_bytes
    target = TorchTarget(model, random_exits(model, ()), cache_bytes=cache_bytes)
    figures = []
    try:
        reading_s = _reading_s(model)
        figures.append(Figure("reading the weights once", reading_s * 1e3, "ms"))
        took_s = {rows: await pass_s(target, 1, rows, passes) for rows in ROWS}
        for rows, seconds in took_s.items():
            figures.append(Figure(f"a pass of {rows} rows", seconds * 1e3, "ms"))
            figures.append(
                Figure(f"a pass of {rows} rows over reading the weights", seconds / reading_s, "x", MOST_OVER_READING)
            )
        together_s = await pass_s(target, SESSIONS, SESSION_ROWS, passes)
        figures.append(Figure(f"{SESSIONS} sessions of {SESSION_ROWS} rows", together_s * 1e3, "ms"))
        figures.append(Figure(f"{SESSIONS} sessions over one", together_s / took_s[SESSION_ROWS], "x", MOST_OVER_ONE))
        with_exits_s = await pass_s(target, 1, SESSION_ROWS, passes, target.card.exits)
        figures.append(Figure("a pass with exits over one without", with_exits_s / took_s[SESSION_ROWS], "x"))
        captured, target.turns.captured = target.turns.captured, None
        eager_s = await pass_s(target, 1, SESSION_ROWS, passes)
        target.turns.captured = captured
        figures.append(Figure("a pass that is not captured over one that is", eager_s / took_s[SESSION_ROWS], "x"))
        for sessions in (1, 8):
            for rows in (1, SESSION_ROWS):
                name = f"a pass of {rows} rows, {sessions} sessions: exact over not, neither captured"
                figures.append(Figure(name, price(model, rows, sessions), "x", MOST_PRICE))
    finally:
        await target.close()
    card = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else device
    method = f"{shape}, random weights, {dtype}, on {card}; medians of {passes} passes over {CONTEXT} tokens"
    return Result("gpu", method, tuple(figures))


def _reading_s(model: LoadedModel) -> float:
    """Seconds to read all weights but the embedding's once, at the bandwidth of a large copy on the device."""
    one, other = (torch.empty(_COPIED_BYTES, dtype=torch.uint8, device=model.device) for _ in range(2))
    times_s = []
    for _ in range(9):
        began_s = _now_s(model.device)
        other.copy_(one)
        times_s.append(_now_s(model.device) - began_s)
    embedding = model.model.get_input_embeddings().weight.nbytes
    weights_bytes = sum(part.nbytes for part in model.model.parameters()) - embedding
    return float(weights_bytes / (2 * _COPIED_BYTES / median(times_s[2:])))


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


async def pass_s(target: TorchTarget, sessions: int, rows: int, passes: int, exits: Sequence[int] = ()) -> float:
    """Median seconds on the device of the one forward of so many sessions with a pass of ``rows`` rows each."""
    vocabulary = target.card.vocab_size
    texts = [[(7 * number + 31 * place) % vocabulary for place in range(CONTEXT)] for number in range(sessions)]
    slots: list[TorchSlot] = []
    for text in texts:
        slots.append(await target.slot([*text, 1], Sampling()))
        await slots[-1].prefill(text[slots[-1].cached :])
    batch = Pass((1,), tuple(range(1, rows)), tuple(range(-1, rows - 2)), tuple(exits))
    times_s = []
    for turn in range(passes + 3):
        took_s = await together_s(slots, batch)
        if turn >= 3:
            times_s.append(took_s)
    for slot in slots:
        slot.close()
    return median(times_s)
