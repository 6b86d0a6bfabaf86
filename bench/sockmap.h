/* sockmap.h - a socket whose sends the kernel redirects to the peer's receive queue by eBPF. */
#ifndef BENCH_SOCKMAP_H
#define BENCH_SOCKMAP_H

#include <stdint.h>

/* Each end puts its socket into the map that it was given: from then on a program that is
 * attached to that map redirects what the socket sends to the one in the other's map. */
void sockmap_join_as_server(int map, int fd);
void sockmap_join_as_client(int map, int fd);

/* Payload bytes that really went through TCP on this socket, out, and were acknowledged. */
uint64_t sockmap_bytes_by_tcp(int fd);

#endif
