/* wait_changes.c - a thread sleeps in epoll_wait or poll; another one of the same process changes
 * what the sleeper's socket is ready for. The kernel wakes it for that.
 */
#include "two_ends.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>

enum { PATIENCE_MS = 10000, LATE_MS = 5000 };

static int connection, set, by_poll;
static short awaited;
static _Atomic pid_t sleeper;

static void *sleep_in_it(void *unused)
{
	struct epoll_event event;
	struct pollfd pollfd = {.fd = connection, .events = awaited};
	int64_t since = now_ms();
	sleeper = (pid_t)syscall(SYS_gettid);
	int n = by_poll ? poll(&pollfd, 1, PATIENCE_MS) : epoll_wait(set, &event, 1, PATIENCE_MS);
	say("%d, %s\n", n, now_ms() - since < LATE_MS ? "in time" : "late");
	return unused;
}

static pthread_t asleep_for(int fd, short events)
{
	pthread_t thread;
	struct epoll_event event = {.events = (uint32_t)events};
	connection = fd;
	awaited = events;
	set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	pthread_create(&thread, NULL, sleep_in_it, NULL);
	for (int64_t end = now_ms() + LATE_MS; !(sleeper && sleeps(getpid(), sleeper)) && now_ms() < end;)
		usleep(1000);
	usleep(100000); /* it may have slept for something else */
	return thread;
}

static void set_option(int fd, int level, int name, int value)
{
	setsockopt(fd, level, name, &value, sizeof(value));
}

static void fill(int fd)
{
	static char bytes[16384];
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int quiet = 0; quiet < 20; quiet++, usleep(2000))
		while (send(fd, bytes, sizeof(bytes), 0) > 0)
			quiet = 0;
}

static void say_nothing(int fd)
{
	(void)fd;
	pause();
}

static void send_some(int fd)
{
	char some[500] = {0};
	send(fd, some, sizeof(some), 0);
	pause();
}

static void shut_down(int fd)
{
	fill(fd);
	pthread_t thread = asleep_for(fd, POLLOUT);
	shutdown(fd, SHUT_WR);
	pthread_join(thread, NULL);
}

static void enlarge_the_buffer(int fd)
{
	set_option(fd, SOL_SOCKET, SO_SNDBUF, 20000);
	fill(fd);
	pthread_t thread = asleep_for(fd, POLLOUT);
	set_option(fd, SOL_SOCKET, SO_SNDBUF, 200000);
	pthread_join(thread, NULL);
}

static void allow_more_unsent(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384);
	fill(fd);
	pthread_t thread = asleep_for(fd, POLLOUT);
	set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4 << 20);
	pthread_join(thread, NULL);
}

static void want_fewer(int fd)
{
	set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 1000);
	pthread_t thread = asleep_for(fd, POLLIN);
	set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	pthread_join(thread, NULL);
}

static void shutdown_in_epoll(void) { act(say_nothing, shut_down); }
static void buffer_in_epoll(void) { act(say_nothing, enlarge_the_buffer); }
static void unsent_in_epoll(void) { act(say_nothing, allow_more_unsent); }
static void low_water_in_epoll(void) { act(send_some, want_fewer); }
static void shutdown_in_poll(void) { by_poll = 1, shutdown_in_epoll(); }
static void buffer_in_poll(void) { by_poll = 1, buffer_in_epoll(); }
static void unsent_in_poll(void) { by_poll = 1, unsent_in_epoll(); }
static void low_water_in_poll(void) { by_poll = 1, low_water_in_epoll(); }

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"shutdown-epoll", shutdown_in_epoll},
		{"buffer-epoll", buffer_in_epoll},
		{"unsent-epoll", unsent_in_epoll},
		{"low-water-epoll", low_water_in_epoll},
		{"shutdown-poll", shutdown_in_poll},
		{"buffer-poll", buffer_in_poll},
		{"unsent-poll", unsent_in_poll},
		{"low-water-poll", low_water_in_poll},
		{NULL, NULL},
	};
	alarm(50);
	return act_out(scenarios, argc, argv);
}
