/* herd.c - many threads wait for bytes of one connection, in several ways at once: each byte is
 * answered by one of them, and while none comes they rest.
 */
#include "two_ends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { HERD = 60, ROUNDS = 5, RESTLESS = 1000 };

static int connection, set;
static void (*ways[2])(void);

static void by_recv(void)
{
	char byte;
	if (recv(connection, &byte, 1, 0) == 1)
		send(connection, &byte, 1, 0);
}

static void take_without_waiting(void)
{
	char byte;
	if (recv(connection, &byte, 1, MSG_DONTWAIT) == 1)
		send(connection, &byte, 1, 0);
}

static void by_poll(void)
{
	struct pollfd p = {.fd = connection, .events = POLLIN};
	poll(&p, 1, -1);
	take_without_waiting();
}

static void by_epoll(void)
{
	struct epoll_event event;
	epoll_wait(set, &event, 1, -1);
	take_without_waiting();
}

static void *wait_for_ever(void *way)
{
	for (;;)
		((void (**)(void))way)[0]();
	return NULL;
}

/* How often threads have gone to sleep, or left the CPU to others. */
static long switches(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_nvcsw + usage.ru_nivcsw;
}

static void ask(int fd)
{
	char byte = 'a';
	usleep(300000);
	for (int i = 0; i < ROUNDS; i++, usleep(20000))
		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			return;
	say("each byte was answered\n");
	pause();
}

static void answer(int fd)
{
	connection = fd;
	if (ways[0] == by_epoll || ways[1] == by_epoll) {
		struct epoll_event event = {.events = EPOLLIN};
		set = epoll_create1(0);
		epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	}
	for (int i = 0; i < HERD; i++) {
		pthread_t thread;
		pthread_create(&thread, NULL, wait_for_ever, &ways[i % 2]);
	}
	usleep(1500000);
	long before = switches();
	usleep(1000000);
	long since = switches() - before;
	say("%s\n", since < RESTLESS ? "they rest" : "they do not rest");
	fprintf(stderr, "%ld switches\n", since);
}

static void mixed(void (*one)(void), void (*other)(void))
{
	ways[0] = one;
	ways[1] = other;
	act(ask, answer);
}

static void recv_and_poll(void)
{
	mixed(by_recv, by_poll);
}

static void recv_and_epoll(void)
{
	mixed(by_recv, by_epoll);
}

static void poll_and_epoll(void)
{
	mixed(by_poll, by_epoll);
}

static void poll_alone(void)
{
	mixed(by_poll, by_poll);
}

static void recv_alone(void)
{
	mixed(by_recv, by_recv);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"recv_and_poll", recv_and_poll},   {"recv_and_epoll", recv_and_epoll},
		{"poll_and_epoll", poll_and_epoll}, {"poll_alone", poll_alone},
		{"recv_alone", recv_alone},	    {NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
