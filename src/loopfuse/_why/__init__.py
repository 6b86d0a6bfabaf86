"""``loopfuse why``: of each TCP connection, is it fused, and if not, what would have to change?

The broker knows only what a library has asked it for, so most connections of a machine have to
be judged from outside: by the kernel's socket tables and /proc, in one look that changes nothing.

causes      what keeps the broker from ever hearing of a connection, in words
namespaces  the socket tables of this network namespace, and of others as /proc shows them
holders     which processes hold a socket, and what they are: one walk through /proc
links       sockets put together to connections, client and server
subject     what a person asked about: a process, a port, a program
judge       from all of that to causes
survey      the look itself
"""
