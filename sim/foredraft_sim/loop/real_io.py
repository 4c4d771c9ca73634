"""What a simulated loop refuses: every method of an event loop that does real I/O."""

from collections.abc import Callable
from typing import Final, NoReturn

from foredraft_sim.errors import RealIOError

_REAL_IO: Final = (
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendto",
    "sock_sendfile",
    "sock_connect",
    "sock_accept",
    "sendfile",
    "start_tls",
    "getaddrinfo",
    "getnameinfo",
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "create_datagram_endpoint",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "subprocess_exec",
    "subprocess_shell",
    "add_signal_handler",
    "remove_signal_handler",
)


class NoRealIO:
    """Base of a loop that has no real I/O: each such method raises RealIOError."""


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: NoRealIO, *args: object, **kwargs: object) -> NoReturn:
        raise RealIOError(
            f"loop.{name}() is real I/O, which a simulated loop does not do: "
            "connect the two ends by foredraft_sim.sim_link, or run this on asyncio's own loop"
        )

    return refuse


for _name in _REAL_IO:
    setattr(NoRealIO, _name, _refusal(_name))
