"""The service of the cloud: one target for any number of edges, and what all of their connections share."""

from collections.abc import Collection
from dataclasses import replace

from foredraft.cloud.connection import Connection
from foredraft.cloud.gallery import Gallery
from foredraft.cloud.pass_times import PassTimes
from foredraft.cloud.quota import Quota
from foredraft.cloud.session import NewDetokenizer, Shared
from foredraft.cloud.state import Limits
from foredraft.errors import RefusedError
from foredraft.keys import SERVE, Key, Keys
from foredraft.protocol import messages
from foredraft.protocol.counters import Counters
from foredraft.protocol.events import Observer
from foredraft.protocol.messages import Drain, Hello, Ready
from foredraft.protocol.ports import Link, NewDrafter, NewGrammar, Target, TargetCard, eyes_of


class CloudService:
    """Serves one target to any number of edges.

    ``new_detokenizer`` makes the detokenizer that finds stop strings after a prompt; without one,
    a request with stop strings is refused. ``new_grammar`` makes the grammar of a text that is held to one; without
    it, such a text is refused. ``new_drafter`` makes a session's drafter in the cloud;
    without one, orders to draft there are refused. ``policy``: the specification that edges without a policy of
    their own are to take up; what the runtime knows of policies is elsewhere (``policies.recommended``).
    """

    def __init__(
        self,
        target: Target,
        *,
        limits: Limits | None = None,
        keys: Keys | None = None,
        new_detokenizer: NewDetokenizer | None = None,
        new_drafter: NewDrafter | None = None,
        new_grammar: NewGrammar | None = None,
        observer: Observer | None = None,
        policy: str = "",
    ) -> None:
        self.limits = limits or Limits()
        if new_drafter is not None:
            self.limits = replace(self.limits, cloud_drafts=target.card.max_pass_nodes)
        pass_times = PassTimes(target.card.passes_s)
        self.shared = Shared(target, new_detokenizer, observer, pass_times, new_drafter, new_grammar)
        self.keys = keys or Keys.of("")
        self.quota = Quota()
        self.gallery = Gallery(eyes_of(target))
        self._policy = policy
        self._connections: list[Connection] = []
        self._met = 0

    @property
    def counters(self) -> Counters:
        """What the service has done since it started."""
        return self.shared.counters

    @property
    def connections(self) -> int:
        """How many edges are connected."""
        return len(self._connections)

    async def handle(self, link: Link) -> None:
        """Serve one connection until it closes. Never raises for what the peer does."""
        self._met += 1
        connection = Connection(self, link, self._met)
        self._connections.append(connection)
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)
            await link.close()

    def drain(self, retry_after_s: float = 0.0) -> None:
        """Tell every edge that this server is going away."""
        for connection in self._connections:
            connection.say(Drain(retry_after_s))

    def make_room(self, links: Collection[Link]) -> bool:
        """Dismiss the first of these connections that carries no text now, for somebody who waits at the door."""
        for connection in self._connections:
            if connection.idle and connection.link in links:
                connection.dismiss(messages.BUSY, "nothing was said, and others need the place")
                return True
        return False

    def turn_out(self) -> None:
        """End the connections whose key has been revoked or has expired."""
        for connection in self._connections:
            if not self.keys.holds(connection.key):
                connection.dismiss(messages.UNAUTHORIZED, "the API key was revoked or has expired")

    def texts_of(self, key: Key) -> int:
        """How many texts are being written for this key."""
        return sum(one.key.name == key.name and one.busy for one in self._connections)

    def key_of(self, hello: Hello) -> Key:
        """Whose handshake it is. Raises RefusedError."""
        key = self.keys.find(hello.api_key)
        if key is None:
            raise RefusedError(messages.UNAUTHORIZED, "the API key is missing or wrong")
        if SERVE not in key.roles:
            raise RefusedError(messages.UNAUTHORIZED, f"the key {key.name!r} lacks the role {SERVE!r}")
        return key

    def card_for(self, key: Key) -> TargetCard:
        """What is served to this key, with what passes take by now."""
        card = self.shared.target.card
        context = min(key.context or card.context, card.context)
        return replace(card, context=context, passes_s=self.shared.pass_times.typical_s)

    def admit(self, hello: Hello) -> Ready:
        """The answer to a handshake. Raises RefusedError."""
        if hello.version != messages.PROTOCOL_VERSION:
            reason = f"protocol {hello.version}; this server speaks {messages.PROTOCOL_VERSION}"
            raise RefusedError(messages.VERSION, reason)
        card = self.card_for(self.key_of(hello))
        return Ready(
            version=messages.PROTOCOL_VERSION,
            model_digest=card.model_digest,
            tokenizer_digest=card.tokenizer_digest,
            vocab_size=card.vocab_size,
            context=card.context,
            layers=card.layers,
            exits=card.exits,
            max_nodes=self.limits.max_nodes,
            max_pass_nodes=card.max_pass_nodes,
            max_chain=self.limits.max_chain,
            stop_tokens=card.stop_tokens,
            pass_s=card.pass_s,
            policy=self._policy,
            cloud_drafts=self.limits.cloud_drafts,
            exact=card.exact,
            image_token=None if self.gallery.eyes is None else self.gallery.eyes.image_token,
            passes_s=card.passes_s,
        )
