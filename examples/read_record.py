"""Read a record: which of the draft's guesses were right, and how often each exit was.

foredraft simulate examples/scenarios/robot.toml --policy seed --seed 1 --record session.rec
python examples/read_record.py session.rec
"""

import sys
from collections import Counter

import foredraft


def main(file: str) -> None:
    record = foredraft.read_record(file)
    if record.cut:
        print(f"the record is {record.cut}")
    positions = [position for session in record.sessions for position in session.positions]
    print(f"{len(record.sessions)} session(s), {record.setup.policy}, {len(positions)} tokens")

    ranks = Counter(position.rank for position in positions)
    for rank in range(4):
        print(f"the draft's guess number {rank + 1} is the target's token: {ranks[rank] / len(positions):.0%}")

    told = [position for position in positions if position.predictions]
    for index, layer in enumerate(record.setup.models.exits):
        right = sum(position.right[index] for position in told)
        sure = sum(position.predictions[index][1] for position in told)
        print(f"the exit after layer {layer} is right {right / len(told):.0%}, and claims {sure / len(told):.0%}")


if __name__ == "__main__":
    main(sys.argv[1])
