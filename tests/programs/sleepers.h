/* sleepers.h - threads that wait in a call or a set of their own, and what is said of one that is
 * not woken. */
#ifndef SLEEPERS_H
#define SLEEPERS_H

#include "shared_page.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/epoll.h>

enum { PATIENCE_MS = 3000 };

static int set = -1;

static inline void enter_set(int fd, uint32_t events)
{
	struct epoll_event event = {.events = events};
	if (set == -1)
		set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
}

static inline void let_it_go_cold(void)
{
	struct epoll_event event;
	for (int i = 0; i < 30; i++)
		epoll_wait(set, &event, 1, 5);
}

static inline struct call sleeper(void (*make)(struct call *), int fd)
{
	return (struct call){.make = make, .fd = fd};
}

static inline void say_of(struct call *call)
{
	for (int64_t end = now_ms() + PATIENCE_MS; !call->over && now_ms() < end; usleep(5000))
		;
	say("%s\n", call->over ? "woken" : "asleep with the bytes there");
	if (!call->over)
		_exit(0);
	end_call(call);
}

/* One CPU, before all others on it: where that is allowed it decides a race. */
static inline void take_cpu(unsigned cpu, bool first)
{
	struct sched_param priority = {.sched_priority = first ? 10 : 0};
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	sched_setscheduler(0, first ? SCHED_FIFO : SCHED_OTHER, &priority);
}

static inline void pause_as_client(int fd)
{
	(void)fd;
	shared->client = getpid();
	pause();
}

static const char *way; /* to wait: recv, send, poll or epoll */

/* A scenario's name, and perhaps behind a comma the way. */
static inline int act_out_in_a_way(const struct scenario *scenarios, int argc, char **argv, const char *usual)
{
	char *comma = argc > 1 ? strchr(argv[1], ',') : NULL;
	way = comma ? comma + 1 : usual;
	if (comma)
		*comma = 0;
	share();
	alarm(30);
	return act_out(scenarios, argc, argv);
}

#endif
