/* plain_sleepers.c - one thread sleeps in epoll_wait or poll on a socket that is plain when it falls
 * asleep; another one sends by it, whereby it is fused. The sleeper hears of every answer. */
#include "two_ends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

enum { CONNECTIONS = 60, ANSWERS = 40, MINE = 42 };

static int connection, set, by_poll;
static _Atomic int answers;

static int wait_until_readable(int timeout)
{
	struct epoll_event event;
	struct pollfd pollfd = {.fd = connection, .events = POLLIN};
	if (by_poll)
		return poll(&pollfd, 1, timeout);
	int n = epoll_wait(set, &event, 1, timeout);
	return n == 1 && event.data.u64 != MINE ? -1 : n;
}

static void *sleep_in_it(void *unused)
{
	char byte;
	while (answers < ANSWERS)
		if (wait_until_readable(answers % 2 ? -1 : 20000) != 1)
			break;
		else if (recv(connection, &byte, 1, MSG_DONTWAIT) == 1)
			answers++;
	return unused;
}

static int send_and_await(void)
{
	for (int i = 0; i < ANSWERS; i++) {
		int64_t deadline = now_ms() + 10000;
		if (send(connection, "x", 1, 0) != 1)
			return 0;
		while (answers <= i)
			if (now_ms() > deadline)
				return 0;
			else
				usleep(i % 4 ? 20 : 300);
	}
	return 1;
}

static void echo(int port)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == -1)
			_exit(1);
		while (recv(fd, &byte, 1, 0) == 1)
			(void)!send(fd, &byte, 1, 0);
		close(fd);
	}
}

static int one(int listener)
{
	pthread_t sleeper;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = MINE};
	connection = accept(listener, NULL, NULL);
	no_delay(connection);
	set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, connection, &event);
	answers = 0;
	pthread_create(&sleeper, NULL, sleep_in_it, NULL);
	int heard = send_and_await();
	int fused = has_a_segment();
	if (!heard)
		say("after %d answers it sleeps on\n", answers);
	if (heard)
		pthread_join(sleeper, NULL);
	close(set);
	close(connection);
	return heard ? fused : -1;
}

static void all(void)
{
	int port, listener = listen_somewhere(&port), fused = 0;
	pid_t child = fork();
	if (child == 0)
		echo(port);
	for (int i = 0; i < CONNECTIONS; i++) {
		int r = one(listener);
		if (r < 0)
			_exit(1);
		fused += r;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	say("every answer was heard\n");
	fprintf(stderr, "%s\n", fused ? "fused" : "plain");
}

static void by_epoll_wait(void)
{
	all();
}

static void by_poll_calls(void)
{
	by_poll = 1;
	all();
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"epoll", by_epoll_wait},
		{"poll", by_poll_calls},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
