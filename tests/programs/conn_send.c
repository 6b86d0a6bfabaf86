/* conn_send.c - sending: in which order, and when there is room. */
#include "two_ends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#ifndef TCP_INQ
#define TCP_INQ 36
#endif

enum { WORDS = 512, AT_FIRST = 400 * 1000, AT_ALL = 600 * 1000 };

/* --- one thread sends again by TCP what its peer wants back, and another one sends on --- */

static void *sleep_in_receive(void *fd)
{
	char byte;
	(void)!recv(*(int *)fd, &byte, 1, 0);
	return NULL;
}

/* Counts on from *next to `end`, until there has been no room for `patience_ms`. */
static void send_counting(int fd, uint64_t *next, uint64_t end, int patience_ms)
{
	static uint64_t words[WORDS];
	static size_t offset = sizeof(words);
	for (int64_t last = now_ms(); now_ms() - last < patience_ms;) {
		if (offset == sizeof(words)) {
			if (*next >= end)
				return;
			for (int i = 0; i < WORDS; i++)
				words[i] = (*next)++;
			offset = 0;
		}
		ssize_t n = send(fd, (char *)words + offset, sizeof(words) - offset, MSG_DONTWAIT);
		if (n > 0) {
			offset += (size_t)n;
			last = now_ms();
		}
	}
}

static void send_while_resending(int fd)
{
	pthread_t sleeper;
	int small = 16 * 1024;
	uint64_t next = 0;
	pthread_create(&sleeper, NULL, sleep_in_receive, &fd);
	send_counting(fd, &next, AT_FIRST, 100);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	usleep(300 * 1000);
	send_counting(fd, &next, AT_ALL, 5000);
	pause();
}

static void want_back_and_read(int fd)
{
	static char bytes[1 << 16];
	uint64_t due = 0;
	size_t have = 0;
	int on = 1;
	struct timeval patience = {5, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	usleep(250 * 1000);
	setsockopt(fd, IPPROTO_TCP, TCP_INQ, &on, sizeof(on));
	usleep(350 * 1000);
	while (due < AT_ALL) {
		ssize_t n = recv(fd, bytes + have, sizeof(bytes) - have, 0);
		if (n <= 0)
			break;
		have += (size_t)n;
		size_t at = 0;
		for (; at + sizeof(due) <= have; at += sizeof(due), due++)
			if (memcmp(bytes + at, &due, sizeof(due)) != 0) {
				say("not in order\n");
				return;
			}
		memmove(bytes, bytes + at, have - at);
		have -= at;
	}
	say("%s in order\n", due >= AT_ALL ? "all" : "some");
}

static void resent_first(void)
{
	act(send_while_resending, want_back_and_read);
}

/* --- a writer that sleeps until there is room; its reader reads a part and stops --- */

static _Atomic uint64_t *filled;

static void fill_and_sleep(int fd)
{
	static char bytes[1 << 16];
	uint64_t sum = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct epoll_event event = {.events = EPOLLOUT};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	do
		for (ssize_t n; (n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;)
			sum += (uint64_t)n;
	while (epoll_wait(set, &event, 1, 150) == 1);
	*filled = sum;
	int told = epoll_wait(set, &event, 1, 1000);
	say("%s\n", told == 0 && poll(&p, 1, 0) == 1 ? "room, and a writer that sleeps" : "told");
	*filled = 0;
	pause();
}

static void read_a_part(int fd)
{
	static char bytes[1 << 16];
	while (*filled == 0)
		usleep(1000);
	usleep(50 * 1000);
	for (uint64_t rest = *filled / 100 * 45; rest;) {
		ssize_t n = recv(fd, bytes, rest < sizeof(bytes) ? rest : sizeof(bytes), 0);
		if (n <= 0)
			return;
		rest -= (uint64_t)n;
	}
	for (int64_t end = now_ms() + 5000; *filled && now_ms() < end;)
		usleep(1000);
}

static void room_again(void)
{
	filled = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	act(fill_and_sleep, read_a_part);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"resent-first", resent_first},
		{"room-again", room_again},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
