"""The seed paper's claims beside what its policies do here, in simulated time.

    python examples/seed_report.py

Two machines: its robot, of which three times are published, and a Jetson Nano with an A100, of which
none is; for that one, a search says which machines would be consistent with the claims.
"""

from pathlib import Path

from foredraft_sim.bench.seed_report import nano_lines, robot_lines
from foredraft_sim.scenario.scenario import read_scenario

SCENARIOS = Path(__file__).parent / "scenarios"


def main() -> None:
    for line in robot_lines(read_scenario(SCENARIOS / "robot.toml")):
        print(line)
    print("\n" + "-" * 100 + "\n")
    for line in nano_lines(read_scenario(SCENARIOS / "nano-a100.toml")):
        print(line)


if __name__ == "__main__":
    main()
