/* held_clock.c - bytes that their sender holds back (MSG_MORE) are shown after a time; here that time
 * is over at each look at the clock, in turn, between two looks at the bytes or within one. */
#include "shared_page.h"

#include <sys/epoll.h>
#include <sys/select.h>

enum { LOOKS = 8, JUMP_MS = 300, PATIENCE_S = 5 };

static int is_receiver, looks_left;
static int64_t jumped_ms;

/* The library's clock, too. */
int clock_gettime(clockid_t clock, struct timespec *t)
{
	int r = (int)syscall(SYS_clock_gettime, clock, t);
	if (r == -1 || clock != CLOCK_MONOTONIC || !is_receiver)
		return r;
	if (shared->stage && looks_left && --looks_left == 0)
		jumped_ms = JUMP_MS;
	int64_t ns = t->tv_nsec + jumped_ms * 1000000;
	*t = (struct timespec){t->tv_sec + ns / 1000000000, ns % 1000000000};
	return r;
}

static void send_when_asked(int fd)
{
	char byte;
	while (recv(fd, &byte, 1, 0) == 1) {
		usleep(5000); /* it sleeps by then, if it can */
		shared->stage = 1;
		send(fd, "x", 1, MSG_MORE);
	}
}

static void by_recv(int fd) { (void)fd; }

static void by_poll(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	poll(&p, 1, -1);
}

static void by_select(int fd)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	select(fd + 1, &set, NULL, NULL, NULL);
}

static void by_epoll_of(int fd, uint32_t events)
{
	static int set = -1;
	struct epoll_event event = {.events = events};
	if (set == -1) {
		set = epoll_create1(0);
		epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	}
	epoll_wait(set, &event, 1, -1);
}

static void by_epoll(int fd) { by_epoll_of(fd, EPOLLIN); }
static void by_edge(int fd) { by_epoll_of(fd, EPOLLIN | EPOLLET); }

static void (*wait_for_input)(int fd);

static void receive_at_each_look(int fd)
{
	char byte;
	is_receiver = 1;
	for (int look = 1; look <= LOOKS; look++) {
		jumped_ms = 0;
		shared->stage = 0;
		looks_left = look;
		alarm(PATIENCE_S);
		send(fd, "g", 1, 0);
		wait_for_input(fd);
		say("%zd ", recv(fd, &byte, 1, 0));
	}
	say("\n");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*wait)(int fd);
	} ways[] = {
		{"recv", by_recv}, {"poll", by_poll}, {"select", by_select},
		{"epoll", by_epoll}, {"edge", by_edge},
	};
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (argc > 1 && strcmp(argv[1], ways[i].name) == 0)
			wait_for_input = ways[i].wait;
	if (!wait_for_input) {
		fprintf(stderr, "wait in which way?\n");
		return 2;
	}
	share();
	act(send_when_asked, receive_at_each_look);
	return 0;
}
