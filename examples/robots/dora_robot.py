"""The robot's own node, in the place of a real one: it sends a goal, does what the command says, and sends the next."""

import dora
import pyarrow

GOALS = ("go to the red chair", "turn to the door", "stop in front of the box")


def main() -> None:
    """Have a command for each goal."""
    node, goals = dora.Node(), iter(GOALS)
    node.send_output("goal", pyarrow.array([next(goals)]))
    pieces = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        if event["id"] == "progress":
            pieces += 1
            continue
        print(f"does {bytes(event['value'].to_pylist()).decode()} after {pieces} pieces", flush=True)
        pieces, goal = 0, next(goals, None)
        if goal is None:
            break
        node.send_output("goal", pyarrow.array([goal]))


if __name__ == "__main__":
    main()
