"""A process that writes and records all texts, for the test of a full disk: ``URL FOLDER FILE_BYTES``."""

import asyncio
import json
import resource
import sys
from pathlib import Path

from chaos.crowd import Crowd, edges_of


async def main(url: str, folder: Path) -> None:
    crowd = Crowd()
    async with edges_of(url, drafts=("ngram",)) as edges:
        await crowd.write(edges, folder)
    print(json.dumps([one.shown for one in crowd.sessions]))


if __name__ == "__main__":
    file_bytes = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
