"""One request over HTTP."""

import trio


async def exchanged(address: str, request: bytes) -> bytes:
    """Send bytes to `host:port` or `unix:/path`, and return all that comes back before the end."""
    if address.startswith("unix:"):
        stream: trio.SocketStream = await trio.open_unix_socket(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    async with stream:
        await stream.send_all(request)
        return b"".join([part async for part in stream])


async def get(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Return status and content of a page."""
    answer = await exchanged(address, f"{method} {path} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content.decode()
