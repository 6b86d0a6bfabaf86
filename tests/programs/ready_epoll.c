/* ready_epoll.c - what epoll_wait tells of a fused socket among other things. */
#include "shared_page.h"

#include "passing.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

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

/* --- a thread in epoll_wait is cancelled --- */

static int shared_epfd, shared_fd;

static void *wait_for_ever(void *unused)
{
	(void)unused;
	char bytes[64];
	for (;;) {
		struct epoll_event events[8];
		int n = epoll_wait(shared_epfd, events, 8, -1);
		for (int i = 0; i < n; i++)
			(void)!recv(shared_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	}
	return NULL;
}

static void flood(int fd)
{
	struct timespec moment = {.tv_nsec = 1000};
	while (send(fd, "x", 1, MSG_NOSIGNAL) == 1)
		nanosleep(&moment, NULL);
}

static void cancel_server(int fd)
{
	alarm(10);
	shared_fd = fd;
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN);
	int ended = 0;
	for (int round = 0; round < 60; round++) {
		struct timespec moment = {.tv_nsec = 3000000 + 37000 * round};
		struct epoll_event event;
		pthread_t thread;
		void *result = NULL;
		pthread_create(&thread, NULL, wait_for_ever, NULL);
		nanosleep(&moment, NULL);
		pthread_cancel(thread);
		pthread_join(thread, &result);
		ended += result == PTHREAD_CANCELED;
		epoll_wait(shared_epfd, &event, 1, 0);
	}
	say("%d threads cancelled, the set still answers\n", ended);
}

static void cancel(void)
{
	act(flood, cancel_server);
}

/* What is ready stays ready: no wait need ever sleep, and yet a thread can be cancelled. */
static void *wait_and_leave_it(void *unused)
{
	struct epoll_event event;
	while (epoll_wait(shared_epfd, &event, 1, -1) == 1)
		;
	return unused;
}

static void send_one_and_stay(int fd)
{
	send(fd, "x", 1, 0);
	pause();
}

static void cancel_busy_server(int fd)
{
	alarm(10);
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN);
	pthread_t thread;
	void *result = NULL;
	pthread_create(&thread, NULL, wait_and_leave_it, NULL);
	usleep(20000);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	say("%s\n", result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
}

static void cancel_busy(void)
{
	act(send_one_and_stay, cancel_busy_server);
}

/* --- signal handlers in the midst of epoll_wait --- */

static volatile int handled;

static void tick_every(long us)
{
	struct itimerval timer = {.it_interval.tv_usec = us, .it_value.tv_usec = us};
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void close_a_copy(int signal)
{
	(void)signal;
	int saved = errno, copy = dup(shared_fd);
	close(copy);
	handled++;
	errno = saved;
}

static void handler_closes_server(int fd)
{
	struct sigaction action = {.sa_handler = close_a_copy};
	sigaction(SIGALRM, &action, NULL);
	shared_fd = fd;
	int epfd = epoll_create1(0), other = 0;
	watch(epfd, fd, EPOLLIN);
	struct pollfd input = {.fd = fd, .events = POLLIN};
	poll(&input, 1, 5000);
	tick_every(200);
	while (handled < 1000) {
		struct epoll_event event;
		other += epoll_wait(epfd, &event, 1, 1000) != 1;
	}
	tick_every(0);
	say("readable throughout: %s\n", other ? "no" : "yes");
}

static void handler_closes(void)
{
	act(send_one_and_stay, handler_closes_server);
}

static sigjmp_buf back;

static void jump(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static void handler_jumps_server(int fd)
{
	struct sigaction action = {.sa_handler = jump};
	sigaction(SIGALRM, &action, NULL);
	int epfd = epoll_create1(0);
	watch(epfd, fd, EPOLLIN);
	struct pollfd input = {.fd = fd, .events = POLLIN};
	poll(&input, 1, 5000);
	volatile int jumps = 0;
	struct epoll_event event;
	if (sigsetjmp(back, 1))
		jumps++;
	struct itimerval timer = {.it_value.tv_usec = 300 + jumps % 50};
	if (jumps < 500) {
		setitimer(ITIMER_REAL, &timer, NULL);
		for (;;)
			epoll_wait(epfd, &event, 1, 1000);
	}
	say("after %d jumps: %d\n", jumps, epoll_wait(epfd, &event, 1, 1000));
}

static void handler_jumps(void)
{
	act(send_one_and_stay, handler_jumps_server);
}

/* What a program has asked for is what it is told, however its handlers are entered. */
static siginfo_t last_info;

static void note_info(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	last_info = *info;
	handled++;
}

static void count(int signal)
{
	(void)signal;
	handled++;
}

static void say_action(int number)
{
	struct sigaction now;
	sigaction(number, NULL, &now);
	say("%s, flags %x\n",
	    now.sa_handler == SIG_DFL	      ? "default" :
	    now.sa_handler == SIG_IGN	      ? "ignored" :
	    now.sa_handler == count	      ? "count" :
	    now.sa_sigaction == note_info ? "note_info" :
						"another",
	    (unsigned)now.sa_flags & ~0x04000000u);
}

static void dispositions_server(int fd)
{
	(void)fd;
	struct sigaction one = {.sa_handler = count, .sa_flags = SA_RESTART}, old;
	struct sigaction two = {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO | SA_NODEFER};
	struct sigaction once = {.sa_handler = count, .sa_flags = (int)SA_RESETHAND};
	sigaction(SIGUSR1, &one, NULL);
	say_action(SIGUSR1);
	sigaction(SIGUSR1, &two, &old);
	say("was %s, flags %x\n", old.sa_handler == count ? "count" : "another",
	    (unsigned)old.sa_flags & ~0x04000000u);
	say_action(SIGUSR1);
	union sigval value = {.sival_int = 17};
	sigqueue(getpid(), SIGUSR1, value);
	say("code %d, value %d, handled %d\n", last_info.si_code, last_info.si_value.sival_int, handled);
	say("signal: %d\n", signal(SIGUSR1, count) == (void (*)(int))(void *)note_info);
	say_action(SIGUSR1);
	say("signal: %d\n", signal(SIGUSR1, SIG_IGN) == count);
	say("signal: %d\n", signal(SIGUSR1, SIG_DFL) == SIG_IGN);
	say_action(SIGUSR1);
	say("refused: %d %d\n", sigaction(SIGKILL, &one, NULL), signal(SIGKILL, count) == SIG_ERR);
	sigaction(SIGUSR2, &once, NULL);
	raise(SIGUSR2);
	say_action(SIGUSR2);
	say("handled %d\n", handled);
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	siginterrupt(SIGUSR1, 1);
#pragma GCC diagnostic warning "-Wdeprecated-declarations"
	signal(SIGUSR1, count);
	say_action(SIGUSR1);
}

static void dispositions(void)
{
	act(send_one_and_stay, dispositions_server);
}

/* --- sets that are closed, copied, forked --- */

static int told_of;

static void *wait_once(void *unused)
{
	struct epoll_event event = {.data.fd = -1};
	int n = epoll_wait(shared_epfd, &event, 1, 5000);
	told_of = n == 1 ? event.data.fd : -1;
	return unused;
}

static void two_bytes_client(int fd)
{
	char byte;
	int other = second_of_client();
	recv(other, &byte, 1, 0);
	send(fd, "x", 1, 0);
	recv(other, &byte, 1, 0);
	send(other, "x", 1, 0);
	pause();
}

/* Who sleeps in a set that another thread closes goes on sleeping in it, and another set that
 * is made then is another set. */
static void closed_set_server(int fd)
{
	int other = second_of_server();
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN);
	pthread_t thread;
	pthread_create(&thread, NULL, wait_once, NULL);
	usleep(100000);
	close(shared_epfd);
	int hole = dup(0), second = epoll_create1(0);
	watch(second, other, EPOLLIN);
	send(other, "x", 1, 0);
	pthread_join(thread, NULL);
	say("the sleeper was told of %s\n", told_of == fd ? "the first" : told_of == other ? "the second" : "nothing");
	send(other, "x", 1, 0);
	struct epoll_event event = {.data.fd = -1};
	int n = epoll_wait(second, &event, 1, 5000);
	say("the other set: %d, %s\n", n, event.data.fd == other ? "the second" : "another");
	close(hole);
}

static void closed_set(void)
{
	second_listener = listen_somewhere(&second_port);
	act(two_bytes_client, closed_set_server);
}

static void copied_set_server(int fd)
{
	struct epoll_event event;
	int first = epoll_create1(0), copy = dup(first);
	close(first);
	watch(copy, fd, EPOLLIN);
	say("told: %d\n", epoll_wait(copy, &event, 1, 5000));
	event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.fd = fd};
	say("changed: %d\n", epoll_ctl(copy, EPOLL_CTL_MOD, fd, &event));
	say("told: %d\n", epoll_wait(copy, &event, 1, 5000));
	say("told again: %d\n", epoll_wait(copy, &event, 1, 0));
}

static void copied_set(void)
{
	act(send_one_and_stay, copied_set_server);
}

static _Atomic int forks_done;

static void *change_entries(void *unused)
{
	struct epoll_event event = {.events = EPOLLIN};
	int fds[2] = {shared_fd, *(int *)unused};
	for (unsigned i = 0; !forks_done; i++) {
		event.data.fd = fds[i & 1];
		epoll_ctl(shared_epfd, EPOLL_CTL_DEL, fds[i & 1], NULL);
		epoll_ctl(shared_epfd, EPOLL_CTL_ADD, fds[i & 1], &event);
	}
	return NULL;
}

static void forked_set_server(int fd)
{
	int other = second_of_server(), bad = 0;
	shared_fd = fd;
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN);
	watch(shared_epfd, other, EPOLLIN);
	pthread_t thread;
	pthread_create(&thread, NULL, change_entries, &other);
	for (int i = 0; i < 100; i++) {
		pid_t child = fork();
		if (child == 0) {
			struct epoll_event events[4];
			alarm(5);
			for (int look = 0; look < 3; look++)
				if (epoll_wait(shared_epfd, events, 4, 0) > 2)
					_exit(1);
			/* Lets go of them at once, in memory: the kernel's are the parent's too. */
			close(fd);
			close(other);
			_exit(0);
		}
		int status;
		waitpid(child, &status, 0);
		bad += status != 0;
	}
	forks_done = 1;
	pthread_join(thread, NULL);
	say("children that failed: %d\n", bad);
}

static void idle(int fd)
{
	(void)fd;
	(void)second_of_client();
	pause();
}

static void forked_set(void)
{
	second_listener = listen_somewhere(&second_port);
	act(idle, forked_set_server);
}

/* --- other names for input and room --- */

static void band_server(int fd)
{
	struct epoll_event event;
	int epfd = epoll_create1(0);
	watch(epfd, fd, EPOLLRDNORM);
	say("nothing yet: %d\n", epoll_wait(epfd, &event, 1, 0));
	send(fd, "x", 1, 0);
	int n = epoll_wait(epfd, &event, 1, 5000);
	say("input: %d, %x\n", n, n == 1 ? event.events : 0);
	event = (struct epoll_event){.events = EPOLLRDNORM | EPOLLET, .data.fd = fd};
	epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event);
	say("an edge: %d\n", epoll_wait(epfd, &event, 1, 5000));
	say("no edge: %d\n", epoll_wait(epfd, &event, 1, 0));
	send(fd, "x", 1, 0);
	say("an edge: %d\n", epoll_wait(epfd, &event, 1, 5000));
}

static void band_client(int fd)
{
	char byte;
	for (;;) {
		if (recv(fd, &byte, 1, 0) != 1)
			return;
		usleep(50000);
		send(fd, "x", 1, 0);
	}
}

static void band(void)
{
	act(band_client, band_server);
}

/* Until there is no room, then the peer reads all of it while this end sleeps. */
static void band_room_server(int fd)
{
	static char bytes[65536];
	struct epoll_event event;
	int epfd = epoll_create1(0);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	watch(epfd, fd, EPOLLWRNORM);
	int n = epoll_wait(epfd, &event, 1, 5000);
	say("room: %d, %x\n", n, n == 1 ? event.events : 0);
}

static void read_it_all(int fd)
{
	static char bytes[65536];
	usleep(200000);
	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
}

static void band_room(void)
{
	act(read_it_all, band_room_server);
}

/* --- a sleeper is told of what was ready before it was added --- */

static void poked_client(int fd)
{
	int rest = 40, preloaded = getenv("LD_PRELOAD") != NULL;
	int64_t deadline = now_ms() + 10000;
	usleep(100000);
	while (rest && now_ms() < deadline) {
		rest -= !preloaded || has_a_segment();
		send(fd, "w", 1, 0);
		usleep(4000);
	}
	send(fd, "mxx", 3, 0);
	pause();
}

/* The client reads nothing, so TCP's queues towards it are full before the ring is there; what
 * it sends goes by ring. */
static void poked_server(int fd)
{
	static char bytes[1 << 20];
	char byte = 'w';
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0 || usleep(5000) ||
	       send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	while (byte != 'm')
		if (recv(fd, &byte, 1, 0) != 1)
			abort();
	usleep(100000);
	say_whether_fused();
	shared_epfd = epoll_create1(0);
	pthread_t thread;
	pthread_create(&thread, NULL, wait_once, NULL);
	usleep(100000);
	watch(shared_epfd, fd, EPOLLIN);
	pthread_join(thread, NULL);
	say("the sleeper was told of %s\n", told_of == fd ? "it" : "nothing");
}

static void poked(void)
{
	act_with(NULL, poked_client, poked_server);
}

/* --- a sender that found too little room waits for another thread to be told of an edge --- */

static _Atomic long edges;

static void *count_edges(void *unused)
{
	for (;;) {
		struct epoll_event event;
		if (epoll_wait(shared_epfd, &event, 1, -1) == 1 && (event.events & EPOLLOUT))
			edges++;
	}
	return unused;
}

static void send_until_an_edge_is_lost(int fd)
{
	static char bytes[1 << 20];
	int small = 8 * 1024, lost = 0;
	unsigned seed = 1;
	pthread_t thread;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN | EPOLLOUT | EPOLLET);
	pthread_create(&thread, NULL, count_edges, NULL);
	for (int64_t end = now_ms() + 1500; now_ms() < end && !lost;) {
		usleep((unsigned)rand_r(&seed) % 100);
		long before = edges;
		if (send(fd, bytes, sizeof(bytes), 0) == sizeof(bytes))
			continue;
		for (int64_t patience = now_ms() + 3000; edges == before && !lost; usleep(20))
			lost = now_ms() > patience;
	}
	say("%s\n", lost ? "an edge was lost" : "told each time");
}

static void read_on(int fd)
{
	static char bytes[1 << 20];
	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
}

static void edge_of_room(void)
{
	act(read_on, send_until_an_edge_is_lost);
}

/* --- a set in which nobody sleeps any more, and other waits for the same socket --- */

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_before;
static int64_t begun;

static void begin_wait(void)
{
	cpu_before = cpu_seconds();
	begun = now_ms();
}

/* Who spins uses all of that time, on a busy machine a good part of it; a sleeper, next to none. */
static void end_wait(const char *what, ssize_t r)
{
	double used = cpu_seconds() - cpu_before, took = (double)(now_ms() - begun) / 1000;
	say("%s: %zd, it %s\n", what, r, used < took / 4 ? "slept" : "spun");
}

enum { A_WAIT_MS = 400 };

static void wait_beside_a_cold_set(int fd)
{
	char byte;
	int ends[2], epfd = epoll_create1(0);
	struct epoll_event event;
	struct timeval limit = {0, A_WAIT_MS * 1000};
	struct pollfd twice[2] = {{.fd = fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	(void)!pipe(ends);
	watch(epfd, fd, EPOLLIN);
	watch(epfd, ends[0], EPOLLIN);
	epoll_wait(epfd, &event, 1, 50);
	shared->stage = 1;
	poll(twice, 1, 5000); /* the bell is rung */
	(void)!recv(fd, &byte, 1, 0);
	begin_wait();
	end_wait("poll", poll(twice, 1, A_WAIT_MS));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	begin_wait();
	end_wait("recv", recv(fd, &byte, 1, 0));
	fd_set reading;
	FD_ZERO(&reading);
	FD_SET(fd, &reading);
	begin_wait();
	end_wait("select", select(fd + 1, &reading, NULL, NULL, &limit));
}

/* The same of a poll that names the socket twice. */
static void wait_in_one_poll_twice(int fd)
{
	char byte;
	struct pollfd twice[2] = {{.fd = fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	poll(twice, 2, 50);
	shared->stage = 1;
	poll(twice, 2, 5000);
	(void)!recv(fd, &byte, 1, 0);
	begin_wait();
	end_wait("poll", poll(twice, 2, A_WAIT_MS));
}

static void send_when_it_sleeps(int fd)
{
	await_stage(1);
	for (int64_t end = now_ms() + 2000; !sleeps(getppid(), getppid()) && now_ms() < end;)
		usleep(1000);
	usleep(20000);
	send(fd, "x", 1, 0);
	pause();
}

static void cold_set(void)
{
	act(send_when_it_sleeps, wait_beside_a_cold_set);
}

static void named_twice(void)
{
	act(send_when_it_sleeps, wait_in_one_poll_twice);
}

/* --- the only descriptor is closed while the socket is on its way through another one --- */

static void close_when_told(int fd)
{
	char byte;
	recv(fd, &byte, 1, 0);
}

static void send_it_to_itself(int fd)
{
	int way[2], on = 1, epfd = epoll_create1(0);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, way) == -1)
		abort();
	watch(epfd, fd, EPOLLIN);
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)); /* plain from here on, for this */
	pass(way[0], fd);
	close(fd);
	fd = take_passed(way[1]);
	send(fd, "x", 1, 0);
	struct epoll_event event = {.events = 0};
	int n = epoll_wait(epfd, &event, 1, 5000);
	say("%d, events 0x%x\n", n, event.events);
}

static void passed(void)
{
	act(close_when_told, send_it_to_itself);
}

/* --- a peer that is killed with bytes unread --- */

static void tell_pid_and_stay(int fd)
{
	pid_t self = getpid();
	send(fd, &self, sizeof(self), 0);
	pause();
}

static pid_t told_pid(int fd)
{
	pid_t peer;
	if (recv(fd, &peer, sizeof(peer), MSG_WAITALL) != sizeof(peer))
		abort();
	return peer;
}

static void say_of_one(const char *how, int epfd, int timeout)
{
	struct epoll_event events[4] = {{.events = 0}};
	int n = epoll_wait(epfd, events, 4, timeout);
	say("%s: %d, events 0x%x\n", how, n, n == 1 ? events[0].events : 0);
}

static void kill_then_wait(const char *how, int fd, uint32_t events, int timeout)
{
	static const char bytes[4096];
	pid_t peer = told_pid(fd);
	int epfd = epoll_create1(0);
	watch(epfd, fd, EPOLLIN | EPOLLRDHUP | events);
	if (send(fd, bytes, sizeof(bytes), 0) != sizeof(bytes))
		abort();
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	say_of_one(how, epfd, timeout);
	say_of_one("again", epfd, 0);
}

static void kill_while_it_sleeps(const char *how, int fd, uint32_t events)
{
	static const char bytes[4096];
	pid_t peer = told_pid(fd), self = getpid();
	int epfd = epoll_create1(0);
	watch(epfd, fd, EPOLLIN | EPOLLRDHUP | events);
	if (send(fd, bytes, sizeof(bytes), 0) != sizeof(bytes))
		abort();
	pid_t killer = fork();
	if (killer == 0) {
		for (int64_t end = now_ms() + 2000; !sleeps(self, self) && now_ms() < end;)
			usleep(1000);
		usleep(20000);
		kill(peer, SIGKILL);
		_exit(0);
	}
	say_of_one(how, epfd, 5000);
	waitpid(killer, NULL, 0);
	say_of_one("again", epfd, 0);
}

static void level_at_once(int fd)
{
	kill_then_wait("level", fd, 0, 0);
}

static void level_soon(int fd)
{
	kill_then_wait("level", fd, 0, 1000);
}

static void level_asleep(int fd)
{
	kill_while_it_sleeps("level", fd, 0);
}

static void edge_at_once(int fd)
{
	kill_then_wait("edge", fd, EPOLLET, 0);
}

static void edge_soon(int fd)
{
	kill_then_wait("edge", fd, EPOLLET, 1000);
}

static void edge_asleep(int fd)
{
	kill_while_it_sleeps("edge", fd, EPOLLET);
}

static void once_at_once(int fd)
{
	kill_then_wait("once", fd, EPOLLONESHOT, 0);
}

static void once_soon(int fd)
{
	kill_then_wait("once", fd, EPOLLONESHOT, 1000);
}

static void once_asleep(int fd)
{
	kill_while_it_sleeps("once", fd, EPOLLONESHOT);
}

static void killed(void)
{
	act(tell_pid_and_stay, level_at_once);
	act(tell_pid_and_stay, level_soon);
	act(tell_pid_and_stay, level_asleep);
	act(tell_pid_and_stay, edge_at_once);
	act(tell_pid_and_stay, edge_soon);
	act(tell_pid_and_stay, edge_asleep);
	act(tell_pid_and_stay, once_at_once);
	act(tell_pid_and_stay, once_soon);
	act(tell_pid_and_stay, once_asleep);
}

/* --- a peer that was dead before something was sent to it, told of by a second set --- */

static void send_to_the_dead(int fd)
{
	pid_t peer = told_pid(fd);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
	int n = poll(&p, 1, 0);
	say("poll: %d, events 0x%x\n", n, p.revents);
	int first = epoll_create1(0), second = epoll_create1(0);
	watch(first, fd, 0);
	say("sent %zd\n", send(fd, "x", 1, MSG_DONTWAIT));
	watch(second, fd, 0);
	say_of_one("second set", second, 2000);
}

static void dead_before(void)
{
	act(tell_pid_and_stay, send_to_the_dead);
}

/* --- our own SHUT_RD, with bytes that the peer has not read --- */

static void shut_and_wait(const char *how, int fd, uint32_t events, int timeout)
{
	static const char bytes[4096];
	int epfd = epoll_create1(0);
	watch(epfd, fd, EPOLLIN | EPOLLRDHUP | events);
	if (send(fd, bytes, sizeof(bytes), 0) != sizeof(bytes) || shutdown(fd, SHUT_RD) == -1)
		abort();
	say_of_one(how, epfd, timeout);
}

static void stay(int fd)
{
	(void)fd;
	pause();
}

static void shut_level(int fd)
{
	shut_and_wait("level", fd, 0, 1000);
}

static void shut_edge(int fd)
{
	shut_and_wait("edge", fd, EPOLLET, 1000);
}

static void shut_once(int fd)
{
	shut_and_wait("once", fd, EPOLLONESHOT, 0);
}

static void shut_reading(void)
{
	act(stay, shut_level);
	act(stay, shut_edge);
	act(stay, shut_once);
}

/* --- what a thread does between two waits of its own makes the socket ready --- */

static int left_cold(int fd, uint32_t events)
{
	struct epoll_event event;
	int epfd = epoll_create1(0);
	watch(epfd, fd, events);
	if (epoll_wait(epfd, &event, 1, 50) != 0)
		abort();
	return epfd;
}

static void fill(int fd)
{
	static char bytes[1 << 16];
	int small = 8 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (int i = 0; i < 3; i++, usleep(50000))
		while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
			;
}

static void shut_a_full_one(int fd)
{
	fill(fd);
	int epfd = left_cold(fd, EPOLLOUT);
	shutdown(fd, SHUT_WR);
	say_of_one("shut", epfd, 1000);
}

static void make_room(int fd)
{
	int large = 400 * 1000;
	fill(fd);
	int epfd = left_cold(fd, EPOLLOUT | EPOLLET);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &large, sizeof(large));
	say_of_one("more room", epfd, 1000);
}

static void ask_for_less(int fd)
{
	int low_water = 100;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	shared->stage = 1;
	await_stage(2);
	int epfd = left_cold(fd, EPOLLIN | EPOLLET);
	low_water = 1;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	say_of_one("less", epfd, 1000);
}

static void send_too_little(int fd)
{
	static char bytes[50];
	await_stage(1);
	(void)!send(fd, bytes, sizeof(bytes), 0);
	shared->stage = 2;
	pause();
}

static void changed_between_waits(void)
{
	act(stay, shut_a_full_one);
	act(stay, make_room);
	shared->stage = 0;
	act(send_too_little, ask_for_less);
}

/* --- one that is always ready, and one whose peer sends on and on --- */

static void go_on_sending(int fd)
{
	static char bytes[60000];
	struct timespec moment = {.tv_nsec = 20000};
	int other = second_of_client();
	send(other, bytes, sizeof(bytes), 0);
	for (;; nanosleep(&moment, NULL))
		for (int i = 0; i < 4; i++)
			(void)!send(fd, bytes, 1, MSG_DONTWAIT);
}

static void handle_one_by_one(int fd)
{
	int other = second_of_server(), epfd = epoll_create1(0), told[2] = {0};
	watch(epfd, fd, EPOLLIN);
	watch(epfd, other, EPOLLIN);
	usleep(50000);
	for (int round = 0; round < 600; round++) {
		struct epoll_event event;
		char bytes[64];
		if (epoll_wait(epfd, &event, 1, 5000) != 1)
			abort();
		told[event.data.fd == fd]++;
		/* More than a few have come by when the next is told of. */
		(void)!recv(event.data.fd, bytes, event.data.fd == fd ? 8 : 1, MSG_DONTWAIT);
		usleep(500);
	}
	say("always ready: %s, sent on: %s\n", told[0] > 60 ? "told" : "starved",
	    told[1] > 60 ? "told" : "starved");
}

static void fair_to_the_busy(void)
{
	second_listener = listen_somewhere(&second_port);
	act(go_on_sending, handle_one_by_one);
}

/* --- a thread that is told of input, and leaves it to another one --- */

static void *look_once(void *told)
{
	struct epoll_event event;
	*(int *)told = epoll_wait(shared_epfd, &event, 1, 3000);
	return NULL;
}

static void leave_it_to_others(int fd)
{
	pthread_t threads[3];
	int told[3] = {0}, sum = 0;
	shared_epfd = epoll_create1(0);
	watch(shared_epfd, fd, EPOLLIN);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, look_once, &told[i]);
	usleep(200 * 1000);
	shared->stage = 1;
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		sum += told[i];
	}
	say("%d threads told\n", sum);
}

static void send_when_they_sleep(int fd)
{
	await_stage(1);
	send(fd, "x", 1, 0);
	pause();
}

static void left_to_others(void)
{
	act(send_when_they_sleep, leave_it_to_others);
}

/* --- sockets are told of in the order in which their bytes came --- */

enum { OTHERS = 4, ALL = OTHERS + 1, ROUNDS = 60, MOST_BYTES = 2 * ALL };

/* The order of one round: each socket once, and for every third round one of them once more. */
static int order_of(int round, int order[MOST_BYTES])
{
	uint32_t random = (uint32_t)round * 2654435761u + 12345;
	for (int i = 0; i < ALL; i++)
		order[i] = i;
	for (int i = ALL - 1; i > 0; i--) {
		random = random * 1664525 + 1013904223;
		int j = (int)(random >> 8) % (i + 1), other = order[j];
		order[j] = order[i];
		order[i] = other;
	}
	order[ALL] = order[0];
	return round % 3 == 2 ? ALL + 1 : ALL;
}

static void all_of(int fds[ALL], int first, int (*another)(void))
{
	fds[0] = first;
	for (int i = 1; i < ALL; i++)
		fds[i] = another();
}

static void arrival_client(int fd)
{
	int fds[ALL], order[MOST_BYTES];
	all_of(fds, fd, second_of_client);
	for (int round = 0; round < ROUNDS; round++) {
		await_stage(2 * round + 1);
		int n = order_of(round, order);
		for (int i = 0; i < n; i++)
			if (send(fds[order[i]], "x", 1, 0) != 1)
				abort();
		shared->stage = 2 * round + 2;
	}
	pause();
}

static void arrival_server(int fd)
{
	int fds[ALL], order[MOST_BYTES], kept[2][2] = {{0}};
	all_of(fds, fd, second_of_server);
	int epfd = epoll_create1(0);
	for (int i = 0; i < ALL; i++)
		watch(epfd, fds[i], EPOLLIN);
	for (int round = 0; round < ROUNDS; round++) {
		int few = round % 2, waits = round / 2 % 2, told = 0, right = 1;
		(void)order_of(round, order);
		shared->stage = 2 * round + 1;
		if (!waits)
			await_stage(2 * round + 2);
		while (told < ALL) {
			struct epoll_event events[ALL];
			int n = epoll_wait(epfd, events, few ? 2 : ALL, 5000);
			if (n <= 0)
				abort();
			/* Whoever slept may be told of the first before the last has come. */
			if (waits)
				await_stage(2 * round + 2);
			for (int i = 0; i < n; i++) {
				char bytes[8];
				right &= events[i].data.fd == fds[order[told++]];
				if (recv(events[i].data.fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
					abort();
			}
		}
		kept[few][waits] += right;
		/* The kernel keeps who was told of last in its list, to look again: ahead of all others. */
		struct epoll_event none;
		(void)epoll_wait(epfd, &none, 1, 0);
	}
	for (int i = 0; i < 4; i++)
		say("%s for all of them, %s: %s\n", i / 2 ? "no room" : "room",
		    i % 2 ? "asleep" : "awake",
		    kept[i / 2][i % 2] > ROUNDS / 4 - 3 ? "in the order of arrival" : "out of order");
}

static void arrival(void)
{
	second_listener = listen_somewhere(&second_port);
	act(arrival_client, arrival_server);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"fair", fair},
		{"arrival", arrival},
		{"left-to-others", left_to_others},
		{"fair-to-the-busy", fair_to_the_busy},
		{"band", band},
		{"band_room", band_room},
		{"poked", poked},
		{"cancel", cancel},
		{"cancel_busy", cancel_busy},
		{"handler_closes", handler_closes},
		{"handler_jumps", handler_jumps},
		{"dispositions", dispositions},
		{"closed_set", closed_set},
		{"copied_set", copied_set},
		{"forked_set", forked_set},
		{"edge_of_room", edge_of_room},
		{"cold_set", cold_set},
		{"named_twice", named_twice},
		{"passed", passed},
		{"killed", killed},
		{"dead-before", dead_before},
		{"shut-reading", shut_reading},
		{"changed-between-waits", changed_between_waits},
		{NULL, NULL},
	};
	share();
	return act_out(scenarios, argc, argv);
}
