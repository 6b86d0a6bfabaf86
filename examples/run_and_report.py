"""Runs a command with its connections fused, then says which were and which were not.

    python examples/run_and_report.py redis-benchmark -p 7000 -n 10000 -q

Shows `run` and the rows of closed connections, which the broker keeps for a minute.
"""

import sys

import loopfuse


def main(argv: list[str]) -> int:
    before = {connection.id for connection in loopfuse.connections()}
    done = loopfuse.run(argv, eager=True)
    new = [one for one in loopfuse.connections() if one.id not in before]
    for one in new:
        carried = one.bytes_to_server + one.bytes_to_client
        print(f"port {one.server.port}: {carried} bytes went through shared memory", end="")
        print(f", not fused at the end: {one.reason}" if one.reason else "")
    print(f"{len(new)} connections the broker heard of")
    return done.returncode


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("Usage: run_and_report.py PROGRAM [ARGUMENT]...")
    try:
        sys.exit(main(sys.argv[1:]))
    except loopfuse.LoopfuseError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
