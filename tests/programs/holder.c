/* Goes on with a socket that it was given.
 *
 *     holder inherited FD COUNT     the socket is FD
 *     holder passed FD COUNT        it comes by SCM_RIGHTS over the AF_UNIX socket FD
 *     holder activated COUNT        as systemd has it: a listener or a connection, at 3
 *
 * Reads COUNT bytes, tells their sum, echoes five more, exits. Built dynamic and static.
 */
#include "passing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* sd_listen_fds(3), as far as it is needed here. */
static int activated(void)
{
	const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	int listens = 0;
	socklen_t len = sizeof(listens);
	if (!count || atoi(count) != 1 || !pid || atoi(pid) != getpid())
		return -1;
	getsockopt(3, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len);
	return listens ? accept(3, NULL, NULL) : 3;
}

static void echo_rounds(int fd)
{
	char byte;
	while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1 && byte == 'w')
		;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	const char *how = argv[1];
	long left = atol(argv[argc - 1]);
	int fd = !strcmp(how, "activated") ? activated() :
		 !strcmp(how, "passed")	   ? take_passed(atoi(argv[2])) :
					     atoi(argv[2]);
	if (fd < 0)
		return 3;
	if (getenv("HOLDER_ROUNDS"))
		echo_rounds(fd);
	unsigned sum = 0;
	char buffer[1000];
	while (left > 0) {
		ssize_t n = read(fd, buffer, left < (long)sizeof(buffer) ? (size_t)left : sizeof(buffer));
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			sum = sum * 31 + (unsigned char)buffer[i];
		left -= n;
	}
	int n = snprintf(buffer, sizeof(buffer), "missing %ld, sum %08x\n", left, sum);
	if (write(fd, buffer, (size_t)n) != n)
		return 4;
	for (left = 5; left > 0; left -= n) {
		n = (int)read(fd, buffer, (size_t)left);
		if (n <= 0 || write(fd, buffer, (size_t)n) != n)
			return 5;
	}
	return 0;
}
