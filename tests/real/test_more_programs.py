"""Servers, proxies and clients as Debian ships them, plain and fused: the same transcript.

With --soak; `scripts/debian more` installs them. Each test says what its programs said, without
what differs from run to run, and how many connections of its servers are to be fused at least.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from broker_fixtures import eventually
from daemons import (
    nginx_command,
    postgresql_cluster,
    postgresql_command,
    postgresql_is_ready,
)
from sessions import Session, free_port, listens, stop_group

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
BIG = 5_000_000
PATIENCE = 120.0


class Stand:
    """A directory, a session, and servers that end with the test."""

    def __init__(self, session: Session, folder: Path, stack: ExitStack) -> None:
        self.folder, self._session, self._stack = folder, session, stack
        self.ports: list[int] = []
        folder.chmod(0o777)  # for servers that drop privileges
        (folder / "big").write_bytes(random.Random(1).randbytes(BIG))
        (folder / "small").write_bytes(b"s" * 2000)

    def port(self, *, held: bool = True) -> int:
        self.ports.append(free_port(held=held))
        return self.ports[-1]

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(textwrap.dedent(text).strip() + "\n")
        return str(path)

    def enter(self, context: AbstractContextManager[Path]) -> Path:
        return self._stack.enter_context(context)

    def serve(self, command: Sequence[str], *ports: int) -> None:
        self._stack.enter_context(self._served(command, ports))

    @contextmanager
    def _served(self, command: Sequence[str], ports: Sequence[int]) -> Iterator[None]:
        log = (self.folder / "server.log").open("ab")
        process = subprocess.Popen(
            command, env=self._session.environment, stdin=subprocess.DEVNULL, cwd=self.folder,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            for port in ports:
                up = lambda port=port: listens(port) or process.poll() is not None  # noqa: E731
                eventually(up, f"{command[0]} listens", PATIENCE)
            assert process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            yield
        finally:
            stop_group(process)
            log.close()

    def say(self, shell: str) -> str:
        """A shell's status and what it wrote, without this run's places."""
        done = subprocess.run(
            ["sh", "-c", shell], env=self._session.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
        )  # fmt: skip
        said = f"[{done.returncode}] {done.stdout}".replace(str(self.folder), "FOLDER")
        for port in self.ports:
            said = said.replace(str(port), "PORT")
        return said

    def fetch(self, port: int, path: str = "/big", options: str = "") -> str:
        scheme = "https" if "-k" in options else "http"
        urls = " ".join([f"{scheme}://127.0.0.1:{port}{path}"] * 6)
        return self.say(f"curl -s {options} {urls} | sha256sum")

    def load(self, port: int, path: str, requests: int, options: str = "") -> str:
        """ab's counts of what went well and what did not."""
        url = f"http://127.0.0.1:{port}{path}"
        said = self.say(f"ab -q -k -c 8 -n {requests} {options} {url}")
        counts = re.findall(r"(Complete requests|Failed requests):\s+(\d+)", said)
        return str(counts) if counts else said

    def web(self, port: int) -> str:
        return self.fetch(port) + self.load(port, "/small", 3000) + self.load(port, "/big", 60)

    def nginx(self) -> int:
        port = self.port()
        self.serve(nginx_command(self.folder, port), port)
        return port


Play = Callable[[Stand], str]


def haproxy(at: Stand) -> str:
    http, tcp, behind = at.port(), at.port(), at.nginx()
    config = f"""
        defaults
          option splice-auto
          timeout client 30s
          timeout server 30s
          timeout connect 5s
        listen http
          mode http
          bind 127.0.0.1:{http}
          server one 127.0.0.1:{behind}
        listen tcp
          mode tcp
          bind 127.0.0.1:{tcp}
          server one 127.0.0.1:{behind}
        """
    at.serve(["haproxy", "-db", "-f", at.write("haproxy.cfg", config)], http, tcp)
    return at.web(http) + at.web(tcp)


def apache2(at: Stand) -> str:
    port, modules = at.port(held=False), "/usr/lib/apache2/modules/mod_"
    config = f"""
        ServerRoot {at.folder}
        ServerName here
        Listen 127.0.0.1:{port}
        PidFile {at.folder}/pid
        ErrorLog {at.folder}/error.log
        LoadModule mpm_event_module {modules}mpm_event.so
        LoadModule authz_core_module {modules}authz_core.so
        DocumentRoot {at.folder}
        MaxKeepAliveRequests 0
        User www-data
        Group www-data
        """
    at.serve(["apache2", "-DFOREGROUND", "-f", at.write("apache.conf", config)], port)
    return at.web(port)


def lighttpd(at: Stand) -> str:
    port = at.port()
    config = f"""
        server.document-root = "{at.folder}"
        server.bind = "127.0.0.1"
        server.port = {port}
        server.max-keep-alive-requests = 100000
        """
    at.serve(["lighttpd", "-D", "-f", at.write("lighttpd.conf", config)], port)
    return at.web(port)


def varnishd(at: Stand) -> str:
    port, behind = at.port(), at.nginx()
    where = ["-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{behind}", "-n", str(at.folder / "v")]
    at.serve(["varnishd", "-F", *where, "-s", "malloc,64m", "-j", "none"], port)
    return at.web(port)


def squid(at: Stand) -> str:
    port, behind = at.port(), at.nginx()
    config = f"""
        http_port 127.0.0.1:{port}
        http_access allow all
        cache_mem 16 MB
        access_log none
        netdb_filename none
        shutdown_lifetime 1 seconds
        pid_filename {at.folder}/squid.pid
        cache_log {at.folder}/cache.log
        coredump_dir {at.folder}
        """
    at.serve(["squid", "-N", "-f", at.write("squid.conf", config)], port)
    proxied = at.fetch(behind, options=f"-x 127.0.0.1:{port}")
    tunnelled = at.fetch(behind, options=f"-p -x 127.0.0.1:{port}")
    return proxied + tunnelled + at.load(behind, "/small", 2000, f"-X 127.0.0.1:{port}")


def stunnel(at: Stand) -> str:
    tls, clear, behind = at.port(), at.port(), at.nginx()
    key = f"{at.folder}/key.pem"
    asked = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {key}.cert -subj /CN=here"
    )
    subprocess.run(asked.split(), check=True, stderr=subprocess.DEVNULL)
    config = f"""
        foreground = yes
        pid =
        [server]
        accept = 127.0.0.1:{tls}
        connect = 127.0.0.1:{behind}
        cert = {key}.cert
        key = {key}
        [client]
        client = yes
        accept = 127.0.0.1:{clear}
        connect = 127.0.0.1:{tls}
        """
    at.serve(["stunnel", at.write("stunnel.conf", config)], tls, clear)
    return at.fetch(tls, options="-k") + at.web(clear)


def puma(at: Stand) -> str:
    """A server that corks, whose header names ab does not know: it takes what comes first."""
    port = at.port()
    app = 'run lambda { |_| [200, {"content-type" => "text/plain"}, ["abc\\n" * 10, "end"]] }'
    bind = ["-b", f"tcp://127.0.0.1:{port}", "-t", "4:4"]
    at.serve(["puma", "-q", *bind, at.write("config.ru", app)], port)
    return at.fetch(port, "/") + at.load(port, "/", 3000)


def mosquitto(at: Stand) -> str:
    port = at.port()
    config = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n"
    at.serve(["mosquitto", "-c", at.write("mosquitto.conf", config)], port)
    to = f"-h 127.0.0.1 -p {port} -q 1"
    lines = f"mosquitto_sub {to} -t l -C 3000 > lines & sleep 0.5"
    lines += f"; seq 3000 | mosquitto_pub {to} -t l -l"
    file = f"mosquitto_sub {to} -t f -C 1 > file & sleep 0.5; mosquitto_pub {to} -t f -f big"
    return at.say(f"{lines}; wait; sha256sum < lines") + at.say(f"{file}; wait; sha256sum < file")


def socat(at: Stand) -> str:
    echo, relay = at.port(), at.port()
    accept = "reuseaddr,fork,bind=127.0.0.1"
    at.serve(["socat", f"TCP-LISTEN:{echo},{accept}", "EXEC:cat"], echo)
    at.serve(["socat", f"TCP-LISTEN:{relay},{accept}", f"TCP:127.0.0.1:{echo}"], relay)
    direct = at.say(f"socat -t 10 - TCP:127.0.0.1:{echo} < big | sha256sum")
    relayed = at.say(f"socat -t 10 - TCP:127.0.0.1:{relay} < big | sha256sum")
    return direct + relayed


def rsync(at: Stand) -> str:
    port, source = at.port(), at.folder / "source"
    (at.folder / "up").mkdir()
    source.mkdir()
    for i in range(300):
        (source / str(i)).write_bytes(random.Random(i).randbytes(i * 331))
    shutil.copy(at.folder / "big", source)
    module = f"uid = root\ngid = root\nuse chroot = no\nread only = no\npath = {at.folder}"
    config = at.write("rsyncd.conf", f"[down]\n{module}/source\n[up]\n{module}/up\n")
    where = ["--port", str(port), "--address", "127.0.0.1"]
    at.serve(["rsync", "--daemon", "--no-detach", "--config", config, *where], port)
    down = at.say(
        f"rsync -a --port={port} 127.0.0.1::down/ here/ && diff -r source here && echo same"
    )
    up = at.say(f"rsync -az --port={port} source/ 127.0.0.1::up/ && diff -r source up && echo same")
    return down + up


def sshd(at: Stand) -> str:
    port, forwarded, behind = at.port(), at.port(), at.nginx()
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        key = ["-q", "-t", "ed25519", "-N", "", "-f", str(at.folder / name)]
        subprocess.run(["ssh-keygen", *key], check=True)
    config = f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {at.folder}/host
        AuthorizedKeysFile {at.folder}/user.pub
        PidFile none
        StrictModes no
        UsePAM no
        PermitRootLogin yes
        """
    at.serve(["/usr/sbin/sshd", "-D", "-f", at.write("sshd.conf", config)], port)
    options = f"-i {at.folder}/user -o UserKnownHostsFile={at.folder}/known -o LogLevel=ERROR"
    ssh = f"ssh {options} -o StrictHostKeyChecking=no -p {port}"
    there = "root@127.0.0.1"
    said = at.say(f"{ssh} {there} sha256sum < big; {ssh} {there} exit 7; echo $?")
    through = f"127.0.0.1:{forwarded}:127.0.0.1:{behind}"
    at.serve([*ssh.split(), "-N", "-L", through, there], forwarded)
    return said + at.web(forwarded)


def mariadbd(at: Stand) -> str:
    port, data = at.port(held=False), at.folder / "data"
    made = ["--no-defaults", f"--datadir={data}", "--user=mysql", "--skip-test-db"]
    subprocess.run(["mariadb-install-db", *made], check=True, stdout=subprocess.DEVNULL)
    where = [f"--datadir={data}", f"--socket={at.folder}/s", f"--pid-file={at.folder}/p"]
    how = ["--user=mysql", "--skip-grant-tables", f"--port={port}", "--bind-address=127.0.0.1"]
    at.serve(["mariadbd", "--no-defaults", *where, *how], port)
    client = f"--no-defaults -h 127.0.0.1 -P {port} -u root --protocol=tcp"
    rows = "select repeat(char(65 + seq % 26), seq) from seq_1_to_3000"
    sums = "select count(*), sum(crc32(b)) from t"
    table = "create table t (i int primary key auto_increment, b longblob)"
    said = at.say(
        f"mariadb {client} -e 'create database d; use d; {table}; insert t (b) {rows}; {sums}'"
    )
    said += at.say(f"mariadb {client} d -e 'select * from t' | sha256sum")
    load = "-a -c 8 --number-of-queries=3000 -i 1"
    said += at.say(f"mariadb-slap {client} {load} | grep -c 'Average number of seconds'")
    return said + at.say(f"mariadb-dump {client} --skip-dump-date --compact d | sha256sum")


def pgbouncer(at: Stand) -> str:
    port, behind = at.port(held=False), at.port()
    config = f"""
        [databases]
        * = host=127.0.0.1 port={behind} user=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        auth_type = any
        unix_socket_dir =
        pool_mode = transaction
        ignore_startup_parameters = extra_float_digits
        """
    cluster = at.enter(postgresql_cluster())
    at.serve(postgresql_command(cluster, behind), behind)
    eventually(lambda: postgresql_is_ready(behind), "PostgreSQL is ready", PATIENCE)
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    at.serve([*as_postgres, "pgbouncer", at.write("pgbouncer.ini", config)], port)
    client = f"-h 127.0.0.1 -p {port} -U postgres"
    said = at.say(f"pgbench -i -q {client} postgres 2>&1 | tail -n 1 | cut -c 1-4")
    said += at.say(f"pgbench -S -c 8 -t 500 {client} postgres | grep transactions")
    everything = "copy pgbench_accounts to stdout"
    return said + at.say(f"psql {client} -Atc '{everything}' postgres | sha256sum")


def java(at: Stand) -> str:
    port = at.port()
    at.write("Echo.java", JAVA)
    subprocess.run(["javac", "Echo.java"], cwd=at.folder, check=True)
    at.serve(["java", "-cp", str(at.folder), "Echo", "server", str(port)], port)
    return at.say(f"java -cp {at.folder} Echo client {port}")


JAVA = """
import java.net.*; import java.nio.*; import java.nio.channels.*; import java.security.*;
import java.util.*;
public class Echo {
  static void serve(int port) throws Exception {
    Selector selector = Selector.open();
    ServerSocketChannel listener = ServerSocketChannel.open();
    listener.bind(new InetSocketAddress("127.0.0.1", port));
    listener.configureBlocking(false);
    listener.register(selector, SelectionKey.OP_ACCEPT);
    ByteBuffer buffer = ByteBuffer.allocateDirect(65536);
    while (true) {
      selector.select();
      for (var keys = selector.selectedKeys().iterator(); keys.hasNext();) {
        var key = keys.next();
        keys.remove();
        if (key.isAcceptable()) {
          var channel = listener.accept();
          channel.configureBlocking(false);
          channel.register(selector, SelectionKey.OP_READ);
          continue;
        }
        var channel = (SocketChannel) key.channel();
        buffer.clear();
        if (channel.read(buffer) < 0) { key.cancel(); channel.close(); continue; }
        buffer.flip();
        while (buffer.hasRemaining()) channel.write(buffer);
      }
    }
  }
  static String ask(int port, int number) throws Exception {
    var digest = MessageDigest.getInstance("SHA-256");
    byte[] bytes = new byte[20000];
    new Random(number).nextBytes(bytes);
    try (var socket = new Socket("127.0.0.1", port)) {
      socket.setTcpNoDelay(true);
      for (int i = 0; i < 2000; i++) {
        int n = i % 10 == 0 ? 1 + i * 37 % bytes.length : 1 + i % 300;
        socket.getOutputStream().write(bytes, 0, n);
        digest.update(socket.getInputStream().readNBytes(n));
      }
    }
    return HexFormat.of().formatHex(digest.digest());
  }
  public static void main(String[] words) throws Exception {
    int port = Integer.parseInt(words[1]);
    if (words[0].equals("server")) serve(port);
    var threads = new ArrayList<Thread>();
    var said = new String[6];
    for (int i = 0; i < said.length; i++) {
      int number = i;
      threads.add(new Thread(() -> {
        try { said[number] = ask(port, number); } catch (Exception e) { said[number] = "" + e; }
      }));
    }
    for (var thread : threads) thread.start();
    for (var thread : threads) thread.join();
    for (var line : said) System.out.println(line);
  }
}
"""

PLAYS: dict[str, tuple[Play, int]] = {
    play.__name__: (play, fused)
    for play, fused in (
        *((haproxy, 30), (apache2, 15), (lighttpd, 15), (varnishd, 15), (squid, 15), (stunnel, 30)),
        *((puma, 2), (mosquitto, 2), (socat, 2), (rsync, 1), (sshd, 5), (mariadbd, 8)),
        *((pgbouncer, 8), (java, 6)),
    )
}
CLIENTS = {"curl", "ab"}


def played(play: Play, session: Session, folder: Path) -> tuple[str, int]:
    folder.mkdir()
    with ExitStack() as stack:
        at = Stand(session, folder, stack)
        said = play(at)
        return said, sum(len(session.fused_rows(port)) for port in at.ports)


@pytest.mark.parametrize("program", PLAYS)
def test_the_transcript_is_the_same(
    plain: Session, lazily_fused: Session, open_folder: Path, program: str
) -> None:
    for needed in {program, *CLIENTS}:
        if not shutil.which(needed, path=os.environ["PATH"] + ":/usr/sbin"):
            pytest.skip(f"{needed} is not installed: scripts/debian more")
    play, least = PLAYS[program]
    said, _ = played(play, plain, open_folder / "plain")
    fused_said, fused = played(play, lazily_fused, open_folder / "fused")
    assert fused_said == said
    assert fused >= least, f"{fused} connections were fused"
    assert hashlib.sha256(b"").hexdigest() not in said, said  # a client that got nothing
