"""What exits say in a fitted pair's texts: right in runs, as in the records, however sure the draft was."""

from itertools import pairwise
from pathlib import Path

from foredraft import read_record
from foredraft.observe.record.reading import Record
from foredraft_sim.fit.fit import fit
from foredraft_sim.fit.pair_file import render
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.tokens.fitted import OTHER, RIGHT, FittedPair, Outcome, Topic
from foredraft_sim.tokens.recorded import Replays
from sim.fit.test_fitted_pair import write

SAID = (0.6, 0.2)
SEEN = (Outcome(3.0, 0, SAID, ((RIGHT, 0.9),)), Outcome(2.0, 1, SAID, ((RIGHT, 0.9),)))
UNSEEN = (Outcome(3.0, 0, SAID, ((OTHER, 0.4),)), Outcome(2.0, 1, SAID, ((OTHER, 0.4),)))
STAYS = ((0.9, 0.1), (0.1, 0.9))
TOPIC = Topic(share=1.0, states=(SEEN, UNSEEN), after_wrong=STAYS, after_right=STAYS, head=((0.5, 0.5),))
PAIR = FittedPair(topics=(TOPIC,), layers=32, exits=(16,), vocab_size=1000)


def recorded(folder: Path, texts: int, tokens: int) -> Record:
    """Texts of which the draft says the same everywhere, and is right as often; the exit has good and bad times."""
    file = write(folder, pair=render(PAIR, []))
    text = file.read_text().replace("requests = 3", f"requests = {texts}")
    file.write_text(text.replace("new_tokens = 24", f"new_tokens = {tokens}"))
    read = read_scenario(file)
    done = replicate(read, "cloud", 1, log=True)
    (folder / "r.rec").write_bytes(complete(read, done.record, done.recorded))
    return read_record(folder / "r.rec")


def right_again(texts: list[list[bool]]) -> float:
    """How much more often an exit is right after it was right than after it was not."""
    pairs = [pair for text in texts for pair in pairwise(text)]
    again, anew = ([after for before, after in pairs if before == right] for right in (True, False))
    return sum(again) / len(again) - sum(anew) / len(anew)


def test_an_exit_that_was_right_is_right_again_as_often_as_in_the_records(tmp_path: Path) -> None:
    record = recorded(tmp_path, texts=20, tokens=50)
    pair = fit([record])
    theirs = [[one.right[0] for one in text.positions] for text in Replays(record).texts]
    ours = []
    for seed in range(200):
        said = pair.spoken(seed, 8)
        ours.append([said.predict(16, at)[0] == said.truth(at) for at in range(8, 58)])
    assert right_again(theirs) > 0.6
    assert abs(right_again(ours) - right_again(theirs)) < 0.15
