"""The servers that tests run as Debian ships them: how each is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import tool

NGINX = """
daemon off; worker_processes 1; {user} pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1000; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{ listen 127.0.0.1:{port}; root {dir}; }} }}
"""


def nginx_command(directory: Path, port: int) -> list[str]:
    """Serves the files of the directory."""
    user = "user root;" if os.getuid() == 0 else ""
    text = NGINX.format(dir=directory, port=port, user=user)
    config = directory / "nginx.conf"
    config.write_text(text)
    return [tool("nginx"), "-e", str(directory / "error.log"), "-c", str(config)]


def redis_command(directory: Path, port: int) -> list[str]:
    options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    return [tool("redis-server"), "--port", str(port), *options]


def memcached_command(port: int) -> list[str]:
    command = [tool("memcached"), "-l", "127.0.0.1", "-p", str(port)]
    return command + ["-u", "root"] * (os.getuid() == 0)


def postgresql_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else Path(tool("initdb")).parent


@contextmanager
def postgresql_cluster() -> Iterator[Path]:
    """A fresh cluster; initdb refuses root, so root makes it for the user postgres."""
    # Not below pytest's folder, which is closed to others.
    home = Path(tempfile.mkdtemp(prefix="loopfuse-pg-", dir="/tmp"))
    if os.getuid() == 0:
        shutil.chown(home, "postgres")
    data = home / "data"
    initdb = [str(postgresql_binaries() / "initdb"), "-D", str(data), "-A", "trust"]
    command = [*as_postgres(), *initdb, "-U", "postgres"]
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/tmp")
        yield data
    finally:
        shutil.rmtree(home)


def postgresql_command(cluster: Path, port: int) -> list[str]:
    """It listens before it has recovered: pg_isready tells."""
    server = [*as_postgres(), str(postgresql_binaries() / "postgres"), "-D", str(cluster), "-k", ""]
    return [*server, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]


def postgresql_is_ready(port: int) -> bool:
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    command = [str(postgresql_binaries() / "pg_isready"), "-q", *where]
    return subprocess.run(command, check=False).returncode == 0


def as_postgres() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] * (
        os.getuid() == 0
    )
