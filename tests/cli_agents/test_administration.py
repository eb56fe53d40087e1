"""Administering a cluster agent from the shell: its secrets, its backup, its audit log."""

import json
import stat
from typing import Any


def test_secrets_from_the_shell(walk: Any) -> None:
    """Made with a lifetime, listed, forgotten by name after a dry run; a lifetime beyond the agent's is one sentence."""
    walk.start_cluster_agent("--blessing-ttl=1h")
    secret = walk.do("alice", "secret", "--agent", walk.agent, "new", "shop", "--ttl=90s")
    walk.do("alice", "secret", "--agent", walk.agent, "new", "cart")
    assert "longer than this cluster agent gives, 1h" in walk.refused(
        "alice", "secret", "--agent", walk.agent, "new", "shop", "--ttl=2h"
    )
    listed = json.loads(walk.do("alice", "secret", "--agent", walk.agent, "list", "--json"))
    assert [(each["names"], each["ttlSeconds"], each["uses"]) for each in listed] == [
        (["root:alice:cart"], None, 0),
        (["root:alice:shop"], 90, 0),
    ]
    lines = walk.do("alice", "secret", "--agent", walk.agent, "list").splitlines()
    assert lines[1].startswith(f"{listed[1]['id']} root:alice:shop: made ")
    assert lines[1].endswith("never used, for 1m30s at a time")
    assert secret not in str(listed) + str(lines)
    for dry in (["--dry-run"], []):
        gone = walk.do("alice", "secret", "--agent", walk.agent, "forget", "--name=root:alice:shop", *dry)
        assert gone.startswith(listed[1]["id"])
    assert "unknown here" in walk.refused("bob", "secret", "--agent", walk.agent, "seekblessings", "-", stdin=secret)
    assert walk.do("alice", "secret", "--agent", walk.agent, "forget", "--older-than=30d") == ""
    assert len(json.loads(walk.do("alice", "secret", "--agent", walk.agent, "list", "--json"))) == 1
    assert "root:bob" in walk.refused("bob", "secret", "--agent", walk.agent, "list")
    for wrong in ([], ["x", "--dry-run"], ["x", "--damaged"], ["--dry-run"], ["--older-than=soon"]):
        done = walk.machine.run("secret", "--agent", walk.agent, "forget", *wrong, environment=walk.as_("alice"))
        assert (done.returncode, done.stdout) == (2, "")


def test_backup_and_restore_from_the_shell(walk: Any) -> None:
    """To a file and to standard output, while the agent runs; back from either."""
    walk.start_cluster_agent()
    walk.new_secret()
    walk.do("", "cluster-agent", "backup", "backup.tar", "--root-dir=data")
    assert stat.S_IMODE((walk.folder / "backup.tar").stat().st_mode) == 0o600
    walk.do("", "cluster-agent", "restore", "backup.tar", "--root-dir=new")
    assert (walk.folder / "new" / "secrets.db").exists()
    assert "holds 'secrets.db' already" in walk.refused("", "cluster-agent", "restore", "backup.tar", "--root-dir=new")
    assert "another process uses" in walk.refused("", "cluster-agent", "restore", "backup.tar", "--root-dir=data")
    assert "no cluster agent's database" in walk.refused("", "cluster-agent", "backup", "b", "--root-dir=bob")
    assert "cannot read 'none'" in walk.refused("", "cluster-agent", "restore", "none", "--root-dir=new2")
    assert walk.machine.run("cluster-agent", "backup", "b").returncode == 2
    assert not (walk.folder / "b").exists()


def test_the_audit_log_from_the_shell(walk: Any) -> None:
    """It is sound after a kill and a restart; a changed line is named, with exit status 1."""
    daemon = walk.start_cluster_agent()
    walk.new_secret()
    walk.refused("bob", "secret", "--agent", walk.agent, "new", "foo")
    daemon.process.kill()
    daemon.process.wait(60)
    log = walk.folder / "data" / "audit.jsonl"
    with log.open("ab") as file:
        file.write(b'{"seq":4,"time":"20')
    assert walk.start_cluster_agent().end() == 0
    printed = walk.do("", "audit", "verify", "data/audit.jsonl")
    assert "good lines, 1 to 6, last hash" in printed
    lines = log.read_text().splitlines(keepends=True)
    assert "died in it" in lines[3]
    log.write_text("".join([lines[0], lines[1].replace("root:alice:foo", "root:alice:bar"), *lines[2:]]))
    done = walk.machine.run("audit", "verify", "--json", "data/audit.jsonl")
    assert done.returncode == 1
    assert "broken in line 2 of 'data/audit.jsonl': it was changed" in done.stderr
    [found] = json.loads(done.stdout)
    assert (found["goodLines"], found["brokenLine"]) == (1, 2)
    assert "cannot read 'none'" in walk.refused("", "audit", "verify", "none")
