/* sockmap.c - see sockmap.h.
 *
 * A send while the other map is still empty fails, so the two ends join in turns: the server
 * says so with one byte by plain TCP and joins; the client joins when it has the byte, and
 * gives the server time to have done it too.
 */
#define _GNU_SOURCE
#include "sockmap.h"
#include "measure.h"

#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TURN_MS = 100, BYTES_ACKED = 120 /* in the kernel's struct tcp_info */ };

static void join(int map, int fd)
{
	uint32_t key = 0, value = (uint32_t)fd;
	union bpf_attr attr;
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)&key;
	attr.value = (uintptr_t)&value;
	if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr)))
		measure_fail("joining the sockmap");
}

void sockmap_join_as_server(int map, int fd)
{
	char turn = 't';
	if (send(fd, &turn, 1, MSG_NOSIGNAL) != 1)
		measure_fail("send before joining the sockmap");
	join(map, fd);
}

void sockmap_join_as_client(int map, int fd)
{
	char turn;
	if (recv(fd, &turn, 1, 0) != 1)
		measure_fail("recv before joining the sockmap");
	join(map, fd);
	nanosleep(&(struct timespec){.tv_nsec = TURN_MS * 1000000L}, NULL);
}

uint64_t sockmap_bytes_by_tcp(int fd)
{
	char info[256] = {0};
	socklen_t length = sizeof(info);
	uint64_t bytes = 0;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length) == 0)
		memcpy(&bytes, info + BYTES_ACKED, sizeof(bytes));
	return bytes;
}
