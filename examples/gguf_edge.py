"""A conversation over an emulated link of 40 ms, a GGUF draft at the edge: python gguf_edge.py MODEL.gguf [NEW_TOKENS]

EMULATION: passes and draft steps take the times of the robot point divided by 5. Figures are in gguf_edge.md.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import foredraft
from foredraft.api.conversation import Conversation
from foredraft.api.loading import ModelOptions
from foredraft.links.emulation import proxies
from foredraft.links.shaping import Shape

DRAFT_PACE, TARGET_PACE, ONE_WAY_S = "robot-5-draft", "robot-5-target", 0.020
QUESTIONS = ("What is the capital of France?", "And of Spain?", "Tell me a short story about a robot.")


async def talk(url: str, draft: Path, policy: str, new_tokens: int) -> list[str]:
    """The answers, and what each took, in a line."""
    options = ModelOptions(threads=1, pace=DRAFT_PACE)
    async with foredraft.connect(url, draft=draft, options=options) as edge:
        conversation, answers = Conversation(edge, await edge.chat_card()), []
        for question in QUESTIONS:
            answer = conversation.ask(question, policy=policy, temperature=0.7, seed=5, max_new_tokens=new_tokens)
            report = await answer.finish()
            answers.append(conversation.answered(answer))
            print(
                f"{policy:12} first token {report.ttft_s:.2f} s, then {report.tpot_s * 1e3:5.1f} ms a token, "
                f"{report.e2e_s:5.2f} s in all, {report.tokens_per_pass:.2f} tokens a pass: {answers[-1]!r}"
            )
    return answers


def main(model: Path, new_tokens: int = 48) -> None:
    """Serve, and talk with each policy; all have to say the same."""
    serve = [sys.executable, "-m", "foredraft", "serve", "--model", str(model), "--threads", "1"]
    way = Shape(delay_s=ONE_WAY_S)
    with subprocess.Popen([*serve, "--pace", TARGET_PACE, "--port", "0", "--json"], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            with proxies([url], way, way) as [(front, _)]:
                policies = ("cloud", "sync:gamma=4", "seed:gamma=4", "auto")
                said = [asyncio.run(talk(front, model, policy, new_tokens)) for policy in policies]
        finally:
            server.terminate()
    print("all texts are equal" if said.count(said[0]) == len(said) else "TEXTS DIFFER")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
