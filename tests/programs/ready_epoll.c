/* ready_epoll.c - what epoll_wait tells of a fused socket among other things. */
#include "two_ends.h"

#include <sys/epoll.h>

static void watch(int epfd, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == -1)
		say("epoll_ctl: %s\n", strerror(errno));
}

/* A second connection beside the one that act() makes. */
static int second_port, second_listener;

static int second_of_client(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect_to(fd, second_port) == -1)
		abort();
	warm(fd, 1);
	return fd;
}

static int second_of_server(void)
{
	int fd = accept(second_listener, NULL, NULL);
	no_delay(fd);
	warm(fd, 0);
	return fd;
}

/* --- fair --- */

static void fair_client(int fd)
{
	static char bytes[4000];
	int other = second_of_client();
	send(fd, bytes, sizeof(bytes), 0);
	send(other, bytes, sizeof(bytes), 0);
	pause();
}

static void fair_server(int fd)
{
	int other = second_of_server(), ends[2], told[3] = {0};
	if (pipe(ends) == -1 || write(ends[1], "x", 1) != 1)
		abort();
	int epfd = epoll_create1(0);
	int fds[3] = {fd, other, ends[0]};
	for (int i = 0; i < 3; i++)
		watch(epfd, fds[i], EPOLLIN);
	for (int i = 0; i < 2; i++) {
		struct pollfd input = {.fd = fds[i], .events = POLLIN};
		poll(&input, 1, 5000);
	}
	for (int round = 0; round < 300; round++) {
		struct epoll_event event;
		int n = epoll_wait(epfd, &event, 1, 5000);
		for (int i = 0; i < 3; i++)
			told[i] += n == 1 && event.data.fd == fds[i];
	}
	say("%d in all; first %s, second %s, pipe %s\n", told[0] + told[1] + told[2],
	    told[0] > 9 ? "told" : "starved", told[1] > 9 ? "told" : "starved",
	    told[2] > 9 ? "told" : "starved");
}

static void fair(void)
{
	second_listener = listen_somewhere(&second_port);
	act(fair_client, fair_server);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"fair", fair},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
