/* shared_page.h - what both ends of a scenario know of each other without a byte between them,
 * and a call in a thread of its own, at which another one may look. */
#ifndef SHARED_PAGE_H
#define SHARED_PAGE_H

#include "two_ends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

struct shared {
	_Atomic int stage;
	_Atomic pid_t client;
	_Atomic long sent, got;
	_Atomic int handled; /* signals, by who counts them */
	char words[64];
};
static struct shared *shared;

static inline void share(void)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static inline void await_stage(int stage)
{
	for (int64_t end = now_ms() + 10000; shared->stage < stage && now_ms() < end;)
		usleep(1000);
}

static inline void await_queued(int fd, int least)
{
	int queued = 0;
	for (int64_t end = now_ms() + 5000; queued < least && now_ms() < end; usleep(1000))
		ioctl(fd, FIONREAD, &queued);
}

struct call {
	void (*make)(struct call *);
	int fd;
	ssize_t result;
	int error;
	char words[64];
	pthread_t thread;
	_Atomic pid_t tid;
	_Atomic int over;
};

static inline void *make_call(void *argument)
{
	struct call *call = argument;
	call->tid = (pid_t)syscall(SYS_gettid);
	call->make(call);
	call->over = 1;
	return NULL;
}

static inline void begin_call(struct call *call)
{
	pthread_create(&call->thread, NULL, make_call, call);
}

static inline void end_call(struct call *call)
{
	pthread_join(call->thread, NULL);
}

/* Until the call sleeps, for longer than between two looks, or is over. */
static inline void await_sleep(struct call *call)
{
	int64_t end = now_ms() + 5000;
	for (int times = 0; times < 5 && !call->over && now_ms() < end; usleep(4000))
		times = call->tid && sleeps(getpid(), call->tid) ? times + 1 : 0;
}

#endif
