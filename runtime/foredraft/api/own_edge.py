"""A cloud's own edge, for OpenAI's routes: each text is its requester's, as though the key had come from outside."""

from typing import TYPE_CHECKING

from foredraft.api.edge import MOST_IDLE, Edge
from foredraft.api.loading import NGRAM, ModelOptions
from foredraft.edge.connections import Connections, Retry
from foredraft.edge.images import Shows
from foredraft.keys import EVERYBODY, Keys
from foredraft.server.door import key_of_request

if TYPE_CHECKING:
    from foredraft.api.cloud import Cloud
    from foredraft.observe.spans import Spans


class OwnEdge(Edge):
    """An edge in the cloud's process, which has connections for each key: its limits, its caches and its images are
    a key's."""

    def __init__(self, cloud: "Cloud", keys: Keys, spans: "Spans | None" = None) -> None:
        super().__init__([cloud], NGRAM, ModelOptions(), keys.vouch(EVERYBODY), Retry(), None, spans=spans)
        self._keys = keys
        self._by_key: dict[str, Connections] = {}
        self._images_by_key: dict[str, Shows] = {}

    def _links(self) -> Connections:
        key = key_of_request.get()
        if key.name not in self._by_key:
            vouched = self._keys.vouch(key)
            self._by_key[key.name] = Connections(self._servers.connect, vouched, most_idle=MOST_IDLE)
        return self._by_key[key.name]

    def _known_images(self) -> Shows:
        return self._images_by_key.setdefault(key_of_request.get().name, Shows())

    async def _close_links(self) -> None:
        for connections in (self._connections, *self._by_key.values()):
            await connections.close()
