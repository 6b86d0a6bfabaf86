/* two_ends.h - what C programs need that act as both ends of a connection: the client in a
 * forked child, the server in the parent. What they say on standard output is compared, plain
 * and fused; whether they were fused goes to standard error, as "fused" or "plain".
 */
#ifndef TWO_ENDS_H
#define TWO_ENDS_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Past the library: standard output may be the very thing that is tested. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	(void)!syscall(SYS_write, 1, text, (size_t)n);
}

/* Is that thread asleep? On a busy machine that takes its while. */
static inline int sleeps(pid_t process, pid_t thread)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", process, thread);
	FILE *stat = fopen(path, "r");
	if (stat && !fgets(line, sizeof(line), stat))
		line[0] = 0;
	if (stat)
		fclose(stat);
	const char *state = strrchr(line, ')');
	return state && state[1] == ' ' && state[2] == 'S';
}

static inline int listen_somewhere(int *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	bind(fd, (struct sockaddr *)&address, length);
	listen(fd, 64);
	getsockname(fd, (struct sockaddr *)&address, &length);
	*port = ntohs(address.sin_port);
	return fd;
}

static inline void no_delay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static inline int connect_to(int fd, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	no_delay(fd);
	return connect(fd, (struct sockaddr *)&address, sizeof(address));
}

/* Has this process a segment mapped? */
static inline int has_a_segment(void)
{
	char line[512];
	int found = 0;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && !found && fgets(line, sizeof(line), maps))
		found = strstr(line, "loopfuse-segment") != NULL;
	if (maps)
		fclose(maps);
	return found;
}

static inline void say_whether_fused(void)
{
	fprintf(stderr, "%s\n", has_a_segment() ? "fused" : "plain");
}

/* Rounds of one byte, which the client ends when both have a segment, or not in time: a busy
 * broker takes its while. A last few bring both directions into the ring. */
static inline void warm(int fd, int is_client)
{
	int preloaded = getenv("LD_PRELOAD") != NULL;
	int64_t deadline = now_ms() + (preloaded ? 10000 : 0);
	char mine = 'w', theirs = 'w';
	for (int rest = 20; rest; rest -= theirs == 'm' && mine == 'm') {
		if (is_client)
			mine = now_ms() >= deadline || has_a_segment() ? 'm' : 'w';
		else if (recv(fd, &mine, 1, 0) != 1)
			abort();
		if (is_client) {
			if (send(fd, &mine, 1, 0) != 1 || recv(fd, &theirs, 1, 0) != 1)
				abort();
		} else {
			theirs = !preloaded || has_a_segment() || now_ms() >= deadline ? 'm' : 'w';
			if (send(fd, &theirs, 1, 0) != 1)
				abort();
		}
	}
	say_whether_fused();
}

/* A new client of one that echoes: asks until it is fused, and where nothing is, for `plain_ms`. */
static inline int ask_until_fused(int port, int64_t plain_ms)
{
	int64_t deadline = now_ms() + (getenv("LD_PRELOAD") ? 10000 : plain_ms);
	char byte = 'x';
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect_to(fd, port) == -1)
		abort();
	do
		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			abort();
	while (!has_a_segment() && now_ms() < deadline);
	say_whether_fused();
	return fd;
}

/* Runs both ends, each after `warm_up`, if there is one; the client is killed when the server's
 * part is over. */
static inline void act_with(void (*warm_up)(int, int), void (*client)(int), void (*server)(int))
{
	int port, listener = listen_somewhere(&port);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(listener);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == -1)
			abort();
		if (warm_up)
			warm_up(fd, 1);
		client(fd);
		_exit(0);
	}
	int fd = accept(listener, NULL, NULL);
	close(listener);
	no_delay(fd);
	if (warm_up)
		warm_up(fd, 0);
	server(fd);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static inline void act(void (*client)(int), void (*server)(int))
{
	act_with(warm, client, server);
}

/* The scenario that is named on the command line. */
struct scenario {
	const char *name;
	void (*run)(void);
};

static inline int act_out(const struct scenario *scenarios, int argc, char **argv)
{
	for (; scenarios->name; scenarios++)
		if (argc > 1 && strcmp(argv[1], scenarios->name) == 0) {
			scenarios->run();
			return 0;
		}
	fprintf(stderr, "which scenario?\n");
	return 2;
}

#endif
