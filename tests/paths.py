"""Where things lie in the checkout, for tests in folders of any depth."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCENARIOS = EXAMPLES / "scenarios"
PROFILES = ROOT / "hardware_profiles"
SHARED = ROOT.parent / "shared" / "data"
"""Link traces and prompts, where they lie beside the checkout."""
