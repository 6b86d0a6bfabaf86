"""uvloop's tests. Each that names both loops runs on uvloop, which is libuv, and on asyncio's."""

from __future__ import annotations

from judges.pypi import PypiSuite

SUITE = PypiSuite(
    "uvloop",
    "0.23.0",
    "28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27",
    needs=("psutil==7.2.2", "aiohttp==3.14.5", "pyOpenSSL==26.4.0"),
)
SHORT = ["test_aiohttp", "test_regr1"]
LONG = ["test_tcp", "test_sockets", "test_base", "test_context", "test_signals", "test_dns"]
LONG += ["test_unix", "test_process", "test_pipes"]
WITHOUT_TCP = {"test_base", "test_dns", "test_signals", "test_unix", "test_process", "test_pipes"}
judge = SUITE.judge
