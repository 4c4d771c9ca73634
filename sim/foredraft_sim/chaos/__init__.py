"""Chaos in simulated time: worlds in which things go wrong, and what must hold in every one of them.

What runs is what is deployed: ``foredraft.Edge`` on the devices, and on the servers the door, the service, the keys,
the pool of blocks and the shares of the device. Emulated are the links, which misbehave, the models, whose text is
known, and the time. ``plan`` draws what befalls a world from a seed; ``live`` lets it happen; ``invariants`` says what
was broken; ``shrink`` finds the least that breaks it.

What of the world's ills cannot happen here:

- The loop's clock never jumps, as the monotonic clock of a machine does not. What jumps is the servers' wall clock,
  on which the expiry of keys depends.
- Nothing is lost on a link that stays whole, and no byte of it changes: TCP and TLS see to that below. Messages are
  delayed, doubled, repeated late, and overtake each other as far as the protocol bears it; links are cut.
- A forward fails as the thread of a torch device reports it: the errors are those that ``engines.worker`` translates
  to, and one that it does not know. The thread itself, and torch, are not there.
- A process that is killed ends between two turns of the loop, never within one.
"""
