"""Calls over real sockets: values there and back, errors by code, and what a method knows about its call."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import pytest
import trio
from rpc_parties import Colour, Parties, Playground, Point, blessed, connected, principal, served, wear

from vanadium_node.errors import CallError, DecodeError, ErrorCode, InputError
from vanadium_node.rpc import Call, Client, Service, Tag, connect, method, serve
from vanadium_node.rpc.types import ANY
from vanadium_node.security.authorization import AuthorizationRequest, Refusal, everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat


async def test_every_type_survives_the_wire(client: Client, family: Parties) -> None:
    """All types that annotations may name arrive as they were, at the method and back."""
    values = (
        True, 1.5, b"\x00", [1, 2], {"k": Colour.BLUE}, (7, "seven"), datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        Point(1, 2, "p"), None, family.client.store.default,
    )  # fmt: skip
    returns = tuple[
        bool, float, bytes, list[int], dict[str, Colour], tuple[int, str], datetime, Point, Point | None,
        Blessings | None,
    ]  # fmt: skip
    assert await client.call("Everything", *values, returns=returns) == values


async def test_a_method_without_a_task_and_defaults(client: Client) -> None:
    """A plain function answers inline; arguments with defaults may be left out."""
    assert await client.call("Quick", "ab", returns=str) == "ab"
    assert await client.call("Quick", "ab", 3, returns=str) == "ababab"


async def test_many_tasks_call_at_once(client: Client) -> None:
    """Answers find their callers, however calls interleave."""
    answers: list[str] = []

    async def ask(number: int) -> None:
        name = "Quick" if number % 2 else "Echo"
        answers.append(await client.call(name, str(number), returns=str))

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(ask, number)
    assert sorted(answers, key=int) == [str(n) for n in range(300)]


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.INTERNAL])
async def test_errors_arrive_by_code(client: Client, code: ErrorCode) -> None:
    """Code, sentence and fields of a method's error reach its caller."""
    with pytest.raises(CallError, match="as you wished") as caught:
        await client.call("Fail", code.value)
    assert caught.value.code is code
    assert caught.value.fields == {"retry_after_ms": 7}


ODD_FIELDS: list[Any] = [
    {"number": 2**64}, {"text": "\ud800"}, {"text": "x" * 2_000_000}, {"none": None}, {"list": [1]}, {"object": object()}, {1: 2}, {"\ud800": 1},
]  # fmt: skip


class Failing(Service):
    """Failing fails with details that no error can have."""

    @method(tag=Tag.READ)
    async def later(self, call: Call, number: int) -> None:
        """Fails in a task."""
        raise CallError(ErrorCode.EXISTS, "it is there", fields=ODD_FIELDS[number])

    @method(tag=Tag.READ)
    def at_once(self, call: Call, number: int) -> None:
        """Fails without one."""
        raise CallError(ErrorCode.EXISTS, "it is there", fields=ODD_FIELDS[number])


@pytest.mark.parametrize("method_name", ["Later", "AtOnce"])
async def test_fields_that_cannot_be_sent_are_left_out(
    family: Parties, method_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The author's mistake costs the details: the error arrives, the log says what was wrong, the connection and the server go on."""
    async with (
        serve(Failing(), family.server, listen=["127.0.0.1:0"]) as server,
        connect(f"/{server.addresses[0]}", family.client) as client,
    ):
        for number in range(len(ODD_FIELDS)):
            caplog.clear()
            with pytest.raises(CallError, match="it is there") as caught:
                await client.call(method_name, number)
            assert caught.value.code is ErrorCode.EXISTS
            assert not caught.value.fields
            assert "fields of an error cannot be sent" in caplog.text


async def test_a_bug_in_a_method_is_logged_and_not_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The caller learns that it failed, the server's log why; the connection goes on."""
    with caplog.at_level(logging.ERROR, "vanadium_node.rpc"), pytest.raises(CallError) as caught:
        await client.call("Fail", "bug")
    assert caught.value.code is ErrorCode.INTERNAL
    assert "ZeroDivisionError" not in str(caught.value)
    assert "ZeroDivisionError" in caplog.text
    assert await client.call("Quick", "still here") == "still here"


@pytest.mark.parametrize(
    ("method_name", "arguments", "code", "said"),
    [
        ("Nothing", [], ErrorCode.UNKNOWN_METHOD, "Nothing"),
        ("Echo", [], ErrorCode.BAD_ARG, "arguments text; 0 were given"),
        ("Echo", ["a", "b"], ErrorCode.BAD_ARG, "2 were given"),
        ("Echo", [1], ErrorCode.BAD_ARG, "'text' is wrong: string is expected, not int"),
        ("Quick", ["a", True], ErrorCode.BAD_ARG, "'times'"),
        ("Take", [None], ErrorCode.BAD_ARG, "none"),
    ],
)
async def test_wrong_calls_are_named(
    client: Client, method_name: str, arguments: list[object], code: ErrorCode, said: str
) -> None:
    """What is wrong with a call is said; the method does not run."""
    with pytest.raises(CallError) as caught:
        await client.call(method_name, *arguments)
    assert caught.value.code is code
    assert said in str(caught.value)


async def test_the_callers_mistakes_stay_local(client: Client) -> None:
    """A value without a wire form, or too large, is refused before it is sent; a wrong result type is named."""
    with pytest.raises(InputError, match="object"):
        await client.call("Echo", object())
    for value in (2**64, [-(2**65)], {datetime(2026, 1, 2, tzinfo=UTC): "x"}):
        with pytest.raises(InputError, match=r"form on the wire|64 bits"):
            await client.call("Echo", value)
    with pytest.raises(InputError, match="larger than the limit"):
        await client.call("Echo", "x" * (2 << 20))
    with pytest.raises(DecodeError, match="the result of Quick"):
        await client.call("Quick", "a", returns=int)
    assert await client.call("Quick", "a", returns=str) == "a"


async def test_what_a_method_knows_of_its_call(client: Client, family: Parties) -> None:
    """Names, key and address of the peer, the method, its tags, the deadline, the trace and the server's own names."""
    await client.call("Echo", "x", timeout=5, trace_id="00-abc-def-01")
    (call,) = family.service.calls
    assert call.peer.names == ("root:server:client",)
    assert call.peer.public_key == family.client.public_key
    assert call.peer.address.startswith("127.0.0.1:")
    assert (call.method, call.tags, call.suffix) == ("Echo", frozenset({"Read"}), "")
    assert call.local_names == ("root:server",)
    assert isfinite(call.deadline)
    assert call.trace_id == "00-abc-def-01"
    assert client.server.names == ("root:server",)


async def test_a_method_sees_the_names_that_do_not_count(family: Parties) -> None:
    """Of several names that a caller shows, each one that was rejected is there with the reason; only the others authorize."""
    elsewhere = await principal("elsewhere")
    own, unknown = family.client.store.default, elsewhere.store.default
    assert own is not None
    assert unknown is not None
    foreign = await elsewhere.bless(family.client.public_key, unknown, "friend", [Caveat.unconstrained()])
    expired = Caveat.expiry(family.clock() - timedelta(hours=1))
    root = family.root.store.default
    assert root is not None
    late = await family.root.bless(family.client.public_key, root, "late", [expired])
    await wear(family.client, Blessings.union(own, foreign, late))
    async with connected(family) as client:
        await client.call("Echo", "x")
    peer = family.service.calls[0].peer
    assert peer.names == ("root:server:client",)
    assert peer.presented == ("root:server:client", "elsewhere:friend", "root:late")
    reasons = {each.name: each.reason for each in peer.rejected}
    assert set(reasons) == {"elsewhere:friend", "root:late"}
    assert "its root" in reasons["elsewhere:friend"]
    assert "expired" in reasons["root:late"]


async def test_blessings_granted_on_a_call(client: Client, family: Parties) -> None:
    """They reach the method when they are for the server's key; others are refused."""
    own = family.client.store.default
    assert own is not None
    given = await family.client.bless(family.server.public_key, own, "gift", [Caveat.unconstrained()])
    assert await client.call("Take", granted=given) == ["root:server:client:gift"]
    with pytest.raises(CallError, match="not to this server's") as caught:
        await client.call("Take", granted=own)
    assert caught.value.code is ErrorCode.BAD_ARG


async def test_reserved_methods_describe_the_server_and_the_caller(client: Client, family: Parties) -> None:
    """`__signature` lists interfaces with types and comments; `__identify` says who the caller is taken for."""
    interfaces = await client.call("__signature")
    assert interfaces[0][0] == "Playground"
    assert any(entry[0] == "Everything" for entry in interfaces[0][3])
    names, rejected, key, address = await client.call("__identify")
    assert (names, rejected) == (["root:server:client"], [])
    assert key == family.client.public_key.fingerprint
    assert address.startswith("127.0.0.1:")


async def test_objects_by_suffix(family: Parties) -> None:
    """Each suffix has an object of its own, and an unknown one is named."""

    class Other(Service):
        """Other is another service."""

        @method(tag=Tag.READ)
        async def hello(self, call: Call) -> str:
            """Returns the suffix."""
            return call.suffix

    async with serve({"": Playground(), "o/1": Other()}, family.server, listen=["127.0.0.1:0"]) as server:
        async with connect(f"/{server.addresses[0]}/o/1", family.client) as other:
            assert await other.call("Hello") == "o/1"
        async with connect(f"/{server.addresses[0]}/nothing", family.client) as nothing:
            with pytest.raises(CallError, match="nothing") as caught:
                await nothing.call("Hello")
    assert caught.value.code is ErrorCode.UNKNOWN_OBJECT


class Untrue(Service):
    """Untrue returns other things than it says."""

    @method(tag=Tag.READ)
    def number(self, call: Call) -> int:
        """Returns a text."""
        return "one"  # type: ignore[return-value]

    @method(tag=Tag.READ)
    async def power(self, call: Call, exponent: int) -> int:
        """Returns a power of two, which may have no form on the wire."""
        return int(2**exponent)

    @method(tag=Tag.READ)
    async def numbers(self, call: Call) -> AsyncIterator[int]:
        """Streams a text."""
        yield "one"  # type: ignore[misc]


async def test_a_method_that_breaks_its_own_promise(family: Parties) -> None:
    """That is the server's fault, not the caller's, and is said so."""
    async with (
        serve(Untrue(), family.server, listen=["127.0.0.1:0"]) as server,
        connect(f"/{server.addresses[0]}", family.client) as client,
    ):
        with pytest.raises(CallError, match="returned something that cannot be sent") as caught:
            await client.call("Number")
        assert caught.value.code is ErrorCode.INTERNAL
        with pytest.raises(CallError, match="64 bits") as caught:
            await client.call("Power", 64)
        assert caught.value.code is ErrorCode.INTERNAL
        assert await client.call("Power", 63) == 2**63
        async with client.stream("Numbers", returns=int) as numbers:
            with pytest.raises(CallError, match="yielded something that cannot be sent") as caught:
                await anext(numbers)
        assert caught.value.code is ErrorCode.INTERNAL


class Open(Service):
    """Open is open to everyone."""

    authorizer = staticmethod(everyone)

    @method(tag=Tag.READ)
    def seek(self, call: Call) -> str:
        """Returns a greeting."""
        return "welcome"


class Closed(Service):
    """Closed decides by itself."""

    @method(tag=Tag.ADMIN)
    def rule(self, call: Call) -> str:
        """Returns a command."""
        return "obey"

    def authorizer(self, request: AuthorizationRequest) -> Refusal | None:
        """Allow nobody."""
        return Refusal(f"{request.method} is for nobody")


class Both(Open, Closed):
    """Both combines two interfaces on one object."""


async def test_each_interface_has_its_own_authorizer(family: Parties) -> None:
    """The one of the class that defines the method decides, in place of the server's."""
    stranger = await blessed(family.root, "elsewhere")
    async with (
        serve(Both(), family.server, listen=["127.0.0.1:0"]) as server,
        connect(f"/{server.addresses[0]}", stranger) as client,
    ):
        assert await client.call("Seek") == "welcome"
        with pytest.raises(CallError, match="Rule is for nobody") as caught:
            await client.call("Rule")
    assert caught.value.code is ErrorCode.NO_ACCESS


async def test_a_bug_in_an_authorizer_refuses_the_call(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, nobody gets in, and the server goes on."""

    def broken(_request: AuthorizationRequest) -> Refusal | None:
        raise ZeroDivisionError("authorizer")

    async with (
        serve(Playground(), family.server, listen=["127.0.0.1:0"], authorizer=broken) as server,
        connect(f"/{server.addresses[0]}", family.client) as client,
    ):
        for _ in range(2):
            with pytest.raises(CallError) as caught:
                await client.call("Quick", "x")
            assert caught.value.code is ErrorCode.INTERNAL
    assert "authorizer" in caplog.text


async def test_a_server_may_go_and_come_back(family: Parties) -> None:
    """A call on a connection whose server has gone says so; a new connection works."""
    async with connected(family) as client:
        assert await client.call("Quick", "x") == "x"
    with pytest.raises(Exception, match="is closed"):
        await client.call("Quick", "x")
    async with served(family) as server, connect(f"/{server.addresses[0]}", family.client, now=family.clock) as again:
        assert await again.call("Quick", "y") == "y"


def test_any_is_what_cbor_carries() -> None:
    """A value of no declared type goes as it is."""
    assert ANY.from_wire(ANY.to_wire({"a": [1, None]})) == {"a": [1, None]}
