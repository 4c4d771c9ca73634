"""An edge and a cloud in one process, with scripted engines: how to try out what surrounds the models.

The target says the numbers of a sequence; its exits and the draft are wrong now and then. Nothing
is downloaded, nothing waits, and every figure but the times is the same in each run.
"""

import asyncio

import foredraft
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol.ports import Guess


def truth(position: int) -> int:
    return position * position % 97


async def main() -> None:
    target = ScriptedTarget(
        truth, exit_script=lambda layer, position: (truth(position), 0.9) if position % 4 else (0, 0.6), exits=(4,)
    )
    draft = ScriptedDrafter(lambda position, width: [Guess(truth(position) if position % 5 else 1, 0.8)])
    async with foredraft.Cloud(target) as cloud, foredraft.connect(cloud, draft=draft) as edge:
        for policy in ("cloud", "sync", "seed"):
            report = await edge.generate([1, 2, 3], policy=policy, max_new_tokens=60).finish()
            assert report.tokens == [truth(position) for position in range(3, 63)]
            print(f"{policy}: {report.passes} passes, {report.hints_right} of {report.hints} hints right")


if __name__ == "__main__":
    asyncio.run(main())
