"""pyzmq's tests over tcp://127.0.0.1: libzmq does its socket calls in threads of its own."""

from __future__ import annotations

from judges.pypi import PypiSuite

SUITE = PypiSuite(
    "pyzmq",
    "27.1.0",
    "ac0765e3d44455adb6ddbf4417dcce460fc40a05978c08efdf2948072f6db540",
    needs=("pytest-asyncio==1.5.0", "tornado==6.6.1"),
    files=("tests", "pytest.ini"),
)
SHORT = ["test_poll", "test_device", "test_monitor", "test_security", "test_auth"]
SHORT += ["test_zmqstream"]
LONG = ["test_reqrep", "test_pair", "test_socket", "test_asyncio", "test_future", "test_context"]
LONG += ["test_monqueue", "test_pubsub", "test_retry_eintr"]
WITHOUT_TCP: set[str] = set()
judge = SUITE.judge
