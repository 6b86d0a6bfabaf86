/* handlers.h - signal handlers that only count, and what else programs need in which the client
 * signals the server while that waits. */
#ifndef HANDLERS_H
#define HANDLERS_H

#include "shared_page.h"

#include <stdbool.h>

enum { MOMENT_US = 60000 };

static inline void handler(int number)
{
	(void)number;
	shared->handled++;
}

static inline void handle(int number, int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(number, &action, NULL);
}

static inline void say_result(const char *what, ssize_t r)
{
	say("%s: %zd%s%s\n", what, r, r < 0 ? " " : "", r < 0 ? strerror(errno) : "");
}

static inline void go(int fd) { (void)!send(fd, "g", 1, 0); }

static inline void await_the_other_end_asleep(void)
{
	do
		usleep(MOMENT_US / 2);
	while (!sleeps(getppid(), getppid()));
	usleep(MOMENT_US / 2);
}

static inline void await_go(int fd)
{
	char byte;
	(void)!recv(fd, &byte, 1, 0);
	await_the_other_end_asleep();
}

/* Whether there was room. */
static inline bool fill(int fd)
{
	static char much[1 << 16];
	bool had_room = false;
	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		had_room = true;
	while (send(fd, much, 1, MSG_DONTWAIT) > 0)
		had_room = true;
	return had_room;
}

static inline void fill_for_good(int fd)
{
	for (int full = 0; full < 8; usleep(MOMENT_US)) /* TCP moves on what it had taken */
		full = fill(fd) ? 0 : full + 1;
}

static inline void drain(int fd, int ms)
{
	static char sink[1 << 16];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, ms) == 1 && recv(fd, sink, sizeof(sink), 0) > 0)
		;
}

#endif
