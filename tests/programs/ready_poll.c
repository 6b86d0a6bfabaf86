/* ready_poll.c - poll and select on a fused socket. */
#include "two_ends.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>

static volatile int handled;

static void count(int signal)
{
	(void)signal;
	handled++;
}

static void stay(int fd)
{
	(void)fd;
	pause();
}

/* --- a mask lets a pending signal in, and there is no time to wait --- */

static void at_once_server(int fd)
{
	struct sigaction action = {.sa_handler = count};
	struct timespec none = {0};
	struct epoll_event event;
	sigset_t blocked, before;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaction(SIGUSR1, &action, NULL);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	int epfd = epoll_create1(0);
	event = (struct epoll_event){.events = EPOLLIN};
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);

	raise(SIGUSR1);
	struct pollfd input = {.fd = fd, .events = POLLIN}, room = {.fd = fd, .events = POLLOUT};
	int r = ppoll(&room, 1, &none, &before);
	say("ppoll, ready: %d, handled %d\n", r, handled);
	r = ppoll(&input, 1, &none, &before);
	say("ppoll: %d, %s, handled %d\n", r, strerror(r == -1 ? errno : 0), handled);
	raise(SIGUSR1);
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	r = pselect(fd + 1, &set, NULL, NULL, &none, &before);
	say("pselect: %d, %s, handled %d\n", r, strerror(r == -1 ? errno : 0), handled);
	raise(SIGUSR1);
	r = epoll_pwait(epfd, &event, 1, 0, &before);
	say("epoll_pwait: %d, %s, handled %d\n", r, strerror(r == -1 ? errno : 0), handled);
	r = epoll_pwait(epfd, &event, 1, 1000, &before);
	say("epoll_pwait, later: %d, %s, handled %d\n", r, strerror(r == -1 ? errno : 0), handled);
}

static void at_once(void)
{
	act(stay, at_once_server);
}

/* --- select() of more bits than fd_set has --- */

static void send_one_later(int fd)
{
	usleep(100000);
	send(fd, "x", 1, 0);
	pause();
}

static void wide_server(int fd)
{
	struct {
		fd_set in;
		unsigned char behind[1024];
	} sets = {0};
	memset(sets.behind, 0x5a, sizeof(sets.behind));
	FD_SET(fd, &sets.in);
	struct timeval limit = {.tv_sec = 5};
	int changed = 0, r = select(getdtablesize(), &sets.in, NULL, NULL, &limit);
	for (size_t i = 0; i < sizeof(sets.behind); i++)
		changed += sets.behind[i] != 0x5a;
	say("%d, %s, set %d; changed behind it: %d\n", r, strerror(r == -1 ? errno : 0),
	    FD_ISSET(fd, &sets.in) != 0, changed);
	r = select(getdtablesize(), NULL, &sets.in, NULL, &limit);
	say("room: %d\n", r);
}

static void wide(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 4096;
	setrlimit(RLIMIT_NOFILE, &limit);
	act(send_one_later, wide_server);
}

/* A descriptor above FD_SETSIZE, in sets that are large enough for it. */
static void high_server(int fd)
{
	unsigned long in[64] = {0}, out[64] = {0};
	int high = dup2(fd, 3000);
	in[high / 64] |= 1ul << high % 64;
	out[high / 64] |= 1ul << high % 64;
	in[fd / 64] |= 1ul << fd % 64;
	struct timeval limit = {.tv_sec = 5};
	say("input: %d", select(high + 1, (fd_set *)(void *)in, NULL, NULL, &limit));
	say(", %d %d\n", in[high / 64] >> high % 64 & 1 ? 1 : 0, in[fd / 64] >> fd % 64 & 1 ? 1 : 0);
	say("both: %d\n", select(high + 1, (fd_set *)(void *)in, (fd_set *)(void *)out, NULL, &limit));
	close(high);
	int r = select(high + 1, (fd_set *)(void *)in, NULL, NULL, &limit);
	say("closed: %d, %s\n", r, strerror(r == -1 ? errno : 0));
}

static void high(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 4096;
	setrlimit(RLIMIT_NOFILE, &limit);
	act(send_one_later, high_server);
}

/* --- a socket that a child shares: each signal ends the sleep, whenever it comes --- */

enum { SIGNALS = 200 };

static void signaller(int ready, pid_t sleeper)
{
	unsigned random = 12345;
	int lost = 0;
	char byte;
	for (int i = 0; i < SIGNALS && read(ready, &byte, 1) == 1; i++) {
		struct pollfd next = {.fd = ready, .events = POLLIN};
		random = random * 1103515245 + 12345;
		usleep(3000 + random / 65536 % 5000);
		kill(sleeper, SIGUSR1);
		if (poll(&next, 1, 2000) != 1) {
			lost++;
			kill(sleeper, SIGUSR1);
		}
	}
	say("signals that did not end the sleep: %d\n", lost);
}

static void interrupted(int fd, int by_epoll)
{
	pid_t sharer = fork();
	if (sharer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &action, NULL);
	int ends[2], epfd = epoll_create1(0);
	if (pipe(ends) == -1)
		abort();
	pid_t sleeper = getpid(), sender = fork();
	if (sender == 0) {
		close(fd);
		close(ends[1]);
		signaller(ends[0], sleeper);
		_exit(0);
	}
	struct epoll_event event = {.events = EPOLLIN};
	epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
	while (handled < SIGNALS) {
		struct pollfd input = {.fd = fd, .events = POLLIN};
		int before = handled;
		(void)!write(ends[1], "r", 1);
		while (handled == before)
			if (by_epoll)
				epoll_wait(epfd, &event, 1, -1);
			else
				poll(&input, 1, -1);
	}
	(void)!write(ends[1], "r", 1);
	waitpid(sender, NULL, 0);
	kill(sharer, SIGKILL);
}

static void interrupted_poll_server(int fd)
{
	interrupted(fd, 0);
}

static void interrupted_epoll_server(int fd)
{
	interrupted(fd, 1);
}

static void interrupted_poll(void)
{
	act(stay, interrupted_poll_server);
}

static void interrupted_epoll(void)
{
	act(stay, interrupted_epoll_server);
}

/* --- a number that becomes another file's while poll sleeps on it --- */

static int watched_fd, pipe_ends[2];

static void *change_hands(void *unused)
{
	usleep(100000);
	dup2(pipe_ends[0], watched_fd);
	return unused;
}

static void reused_server(int fd)
{
	if (pipe(pipe_ends) == -1)
		abort();
	watched_fd = fd;
	int other = dup(fd); /* it lives on, and what comes for it wakes the sleeper */
	pthread_t thread;
	pthread_create(&thread, NULL, change_hands, NULL);
	struct pollfd input = {.fd = fd, .events = POLLIN};
	int r = poll(&input, 1, 1000);
	say("%d, %x\n", r, input.revents);
	pthread_join(thread, NULL);
	close(other);
}

static void send_after_a_while(int fd)
{
	usleep(300000);
	send(fd, "y", 1, 0);
	pause();
}

static void reused(void)
{
	act(send_after_a_while, reused_server);
}

/* --- select() of something that has hung up, and is asked for what does not tell of it --- */

static void hang_up(int fd)
{
	shutdown(fd, SHUT_WR);
	pause();
}

static void select_among_hung_up(const char *what, int fd, fd_set *writers, fd_set *urgent, int ms)
{
	struct timeval limit = {.tv_usec = ms * 1000L};
	int r = select(fd + 1, NULL, writers, urgent, &limit);
	say("%s, %d ms: %d\n", what, ms, r);
}

static void hung_up_server(int fd)
{
	char byte;
	int ends[2];
	fd_set set;
	alarm(10);
	recv(fd, &byte, 1, 0);
	shutdown(fd, SHUT_WR);
	for (int ms = 0; ms <= 50; ms += 50) {
		FD_ZERO(&set);
		FD_SET(fd, &set);
		select_among_hung_up("urgent data of a socket", fd, NULL, &set, ms);
		say("%s\n", FD_ISSET(fd, &set) ? "told" : "not told");
	}
	(void)!pipe(ends);
	close(ends[1]);
	FD_ZERO(&set);
	FD_SET(ends[0], &set);
	fd_set sockets;
	FD_ZERO(&sockets);
	FD_SET(fd, &sockets);
	select_among_hung_up("room in a pipe's reading end", ends[0] > fd ? ends[0] : fd, &set,
			     &sockets, 50);
}

static void hung_up(void)
{
	act(hang_up, hung_up_server);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"at_once", at_once},
		{"wide", wide},
		{"high", high},
		{"interrupted_poll", interrupted_poll},
		{"interrupted_epoll", interrupted_epoll},
		{"reused", reused},
		{"hung_up", hung_up},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
