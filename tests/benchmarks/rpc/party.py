"""One process of the benchmark: `party.py server VARIANT FOLDER`, or `party.py client VARIANT FOLDER PORT CASE SECONDS`.

A client prints its measurement as a line of JSON. Each party is a process of its own, as programs that talk are.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path

import own
from cases import Case, Kind


def main(role: str, variant: str, folder: Path, *more: str) -> None:
    """Be one end."""
    if role == "server":
        if variant in (own.PLAIN, own.ASYNC):
            own.run_server(folder)
        else:
            import grpc_parties

            grpc_parties.run_server(variant, folder)
        return
    port, text, seconds = more
    fields = json.loads(text)
    case = Case(kind=Kind(fields["kind"]), size=fields["size"], in_flight=fields["in_flight"])
    gc.freeze()
    if variant in (own.PLAIN, own.ASYNC):
        measured = own.run_client(variant, folder, int(port), case, float(seconds))
    else:
        import grpc_parties

        measured = grpc_parties.run_client(variant, folder, int(port), case, float(seconds))
    print(json.dumps(asdict(measured)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
