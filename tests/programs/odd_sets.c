/* odd_sets.c - epoll sets that somebody else changes: a child that shares one, and puts a fused socket
 * of its own into it; a thread that closes one in which another sleeps; one that gets a socket whose
 * doorbell's number the program has needed; and one that a child has inherited with the socket in it,
 * which the parent closes. */
#include "two_ends.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>

static int set;

static void echo_until_an_e(int fd)
{
	char byte;
	while (recv(fd, &byte, 1, 0) == 1 && byte != 'e')
		(void)!send(fd, &byte, 1, 0);
	close(fd);
}

static void server(int listener)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = accept(listener, NULL, NULL);
	no_delay(fd);
	echo_until_an_e(fd);
	pause();
}

/* Its entry, the first it makes, has the place in our tables that its parent's has in the parent's. */
static void child(int port, int ready)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 43};
	char byte = 'x';
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = ask_until_fused(port, 0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	(void)!send(fd, "e", 1, 0);
	(void)!write(ready, &byte, 1);
	pause();
}

static void look(int timeout)
{
	struct epoll_event events[8];
	int n = epoll_wait(set, events, 8, timeout);
	for (int i = 0; i < n; i++)
		if (events[i].data.u64 != 42 && events[i].data.u64 != 43)
			say("it was told of something else\n");
}

static void shared(void)
{
	int port, listener = listen_somewhere(&port), ready[2];
	struct epoll_event event = {.events = EPOLLPRI, .data.u64 = 42};
	char byte;
	pid_t server_pid = fork();
	if (server_pid == 0)
		server(listener);
	set = epoll_create1(0);
	(void)!pipe(ready);
	pid_t child_pid = fork();
	if (child_pid == 0)
		child(port, ready[1]);
	int mine = socket(AF_INET, SOCK_STREAM, 0);
	(void)!read(ready[0], &byte, 1);
	(void)connect_to(mine, port);
	epoll_ctl(set, EPOLL_CTL_ADD, mine, &event);
	for (int i = 0; i < 40; i++) {
		look(i % 2 ? 0 : 10);
		usleep(5000);
	}
	kill(child_pid, SIGKILL);
	kill(server_pid, SIGKILL);
	say("and looked on\n");
}

/* The fork ends the time in which the set is plain. */
static void *fork_and_close(void *unused)
{
	usleep(50000);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	close(set);
	return unused;
}

static void closed(void)
{
	pthread_t other;
	struct epoll_event event;
	set = epoll_create1(0);
	pthread_create(&other, NULL, fork_and_close, NULL);
	say("it had %d\n", epoll_wait(set, &event, 1, 300));
	pthread_join(other, NULL);
	fprintf(stderr, "fused\n"); /* or not */
}

static void answer(int fd)
{
	char byte;
	while (recv(fd, &byte, 1, 0) == 1)
		(void)!send(fd, &byte, 1, 0);
}

static void add_without_a_bell(int fd)
{
	enum { MOST = 200 };
	int copies[MOST], n = 0;
	struct epoll_event event = {.events = EPOLLIN};
	char byte = 'x';
	set = epoll_create1(0);
	while (n < MOST && (copies[n] = dup(set)) >= 0)
		n++;
	while (n)
		close(copies[--n]);
	for (int i = 0; i < 3; i++) {
		(void)!send(fd, &byte, 1, 0);
		say("%d", epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
		say(" %d", epoll_wait(set, &event, 1, 5000));
		say(" %d", (int)recv(fd, &byte, 1, 0));
		say(" %d\n", epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
	}
}

static void without_a_bell(void)
{
	struct rlimit limit = {96, 96};
	setrlimit(RLIMIT_NOFILE, &limit);
	act(answer, add_without_a_bell);
}

static void ask_later(int fd)
{
	struct timeval patience = {5, 0};
	char byte = 'x';
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	usleep(500 * 1000);
	for (int i = 0; i < 3; i++) {
		(void)!send(fd, &byte, 1, 0);
		say("%d ", (int)recv(fd, &byte, 1, 0));
	}
	kill(getppid(), SIGUSR1);
	pause();
}

static int slept_in;

static void answer_in_a_child(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	sigset_t over;
	int signal;
	char byte;
	sigemptyset(&over);
	sigaddset(&over, SIGUSR1);
	sigprocmask(SIG_BLOCK, &over, NULL);
	set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	if (slept_in)
		(void)epoll_wait(set, &event, 1, 100);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (epoll_wait(set, &event, 1, -1) == 1 && recv(fd, &byte, 1, 0) == 1)
			(void)!send(fd, &byte, 1, 0);
		_exit(0);
	}
	usleep(200 * 1000);
	close(fd);
	sigwait(&over, &signal);
	kill(pid, SIGKILL);
	say("answers\n");
}

static void inherited(void)
{
	act(ask_later, answer_in_a_child);
}

static void inherited_after_a_sleep(void)
{
	slept_in = 1;
	act(ask_later, answer_in_a_child);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"shared", shared},
		{"closed", closed},
		{"without-a-bell", without_a_bell},
		{"inherited", inherited},
		{"inherited-after-a-sleep", inherited_after_a_sleep},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
