"""uvloop's tests. Each that names both loops runs on uvloop, which is libuv, and on asyncio's."""

from __future__ import annotations

from judges.pypi import PypiSuite

SUITE = PypiSuite(
    "uvloop",
    "0.22.1",
    "6c84bae345b9147082b17371e3dd5d42775bddce91f885499017f4607fdaf39f",
    needs=("psutil==7.2.2", "aiohttp==3.14.5", "pyOpenSSL==26.4.0"),
)
SHORT = ["test_sockets::TestUVSockets", "test_aiohttp", "test_regr1"]
LONG = ["test_tcp", "test_sockets", "test_base", "test_context", "test_signals", "test_dns"]
LONG += ["test_unix", "test_process", "test_pipes"]
WITHOUT_TCP = {"test_base", "test_dns", "test_signals", "test_unix", "test_process", "test_pipes"}
judge = SUITE.judge
