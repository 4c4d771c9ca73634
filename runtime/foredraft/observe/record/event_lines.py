"""A record's events and messages as lines of JSON, for whoever wants to grep them: what ``--events`` writes.

    {"policy":"sync","seed":1,"request":0,"place":0,"t_s":1.5,"where":"edge","kind":"draft","data":{...}}

``where`` is ``edge`` or ``cloud`` (``place``: which device, which server), or ``uplink`` or ``downlink`` for a
message of that device. In simulated time messages are listed when they arrive, with when they were sent in
their data; on a real link an edge sees its own end alone.
"""

import msgspec

from foredraft.observe.record.reading import Record


def event_lines(record: Record) -> bytes:
    """One object per line, in the order in which it was recorded."""
    encoder, lines = msgspec.json.Encoder(), bytearray()
    head = {"policy": record.setup.policy}
    seeds = {one.number: one.began.seed for one in record.sessions}
    for one in record.noted:
        seed = record.setup.seed if record.setup.simulated else seeds[one.session]
        at = {"seed": seed, "request": one.session, "place": one.place, "t_s": one.t_s, "where": one.where}
        lines += encoder.encode(head | at | {"kind": one.kind, "data": one.data}) + b"\n"
    return bytes(lines)
