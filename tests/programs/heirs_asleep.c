/* heirs_asleep.c - what a forked child has from its parent, a socket, a set and the doorbell: neither of
 * them sleeps over what the other one heard first, nor over the death of the peer. */
#include "sleepers.h"

#include <fcntl.h>

static pid_t fork_heir(void (*live)(int fd), int fd)
{
	pid_t heir = fork();
	if (heir == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		live(fd);
		_exit(0);
	}
	return heir;
}

static void end_heir(pid_t heir)
{
	kill(heir, SIGKILL);
	waitpid(heir, NULL, 0);
}

/* --- the child takes a byte out of the set in which its parent sleeps --- */

static bool heir_stays;

static void send_one_by_one(int fd)
{
	take_cpu(1, false);
	await_stage(1);
	usleep(50000); /* both sleep by then */
	send(fd, "a", 1, 0);
	await_stage(2);
	usleep(50000);
	send(fd, "b", 1, 0);
	pause();
}

static void take_the_first(int fd)
{
	struct epoll_event event;
	char byte;
	take_cpu(0, true);
	shared->stage = 1;
	do
		epoll_wait(set, &event, 1, PATIENCE_MS);
	while (recv(fd, &byte, 1, MSG_DONTWAIT) != 1);
	shared->stage = 2;
	if (heir_stays)
		pause();
}

static void take_the_second(int fd)
{
	struct epoll_event event;
	char byte = 0;
	take_cpu(0, false);
	enter_set(fd, EPOLLIN);
	let_it_go_cold();
	pid_t heir = fork_heir(take_the_first, fd);
	while (byte != 'b' && epoll_wait(set, &event, 1, PATIENCE_MS) == 1)
		if (recv(fd, &byte, 1, MSG_DONTWAIT) == 1 && byte == 'a') {
			kill(heir, SIGKILL); /* it was too slow, and is not to take the second one */
			shared->stage = 2;
		}
	say("%s\n", byte == 'b' ? "woken" : "asleep with the byte there");
	end_heir(heir);
}

static void taken_by_one_who_leaves(void)
{
	act(send_one_by_one, take_the_second);
}

static void taken_by_one_who_stays(void)
{
	heir_stays = true;
	act(send_one_by_one, take_the_second);
}

/* --- the child hears of a byte that is held back, and is gone when it is shown --- */

static void send_corked(int fd)
{
	int on = 1;
	take_cpu(1, false);
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
	await_stage(1);
	usleep(100000);
	send(fd, "a", 1, 0);
	pause();
}

static void leave_too_early(int fd)
{
	struct epoll_event event;
	(void)fd;
	take_cpu(0, true);
	usleep(50000); /* the parent sleeps by then */
	shared->stage = 1;
	epoll_wait(set, &event, 1, 200);
}

static void wait_until_it_is_shown(int fd)
{
	struct epoll_event event;
	char byte;
	take_cpu(0, false);
	enter_set(fd, EPOLLIN);
	let_it_go_cold();
	pid_t heir = fork_heir(leave_too_early, fd);
	bool told = epoll_wait(set, &event, 1, PATIENCE_MS) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
	say("%s\n", told ? "woken" : "asleep with the byte there");
	end_heir(heir);
}

static void held_back(void)
{
	act(send_corked, wait_until_it_is_shown);
}

/* --- the peer is killed while the child waits for room --- */

static void wait_for_room(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct epoll_event event;
	if (strcmp(way, "poll") == 0)
		poll(&p, 1, -1);
	else
		epoll_wait(set, &event, 1, -1);
}

static void send_until_that_fails(int fd)
{
	static char bytes[1 << 20];
	int flags = MSG_NOSIGNAL | (strcmp(way, "send") == 0 ? 0 : MSG_DONTWAIT);
	if (strcmp(way, "epoll") == 0) { /* in a set of its own: the other is the parent's */
		close(set);
		set = -1;
		enter_set(fd, EPOLLOUT);
	}
	for (;;) {
		shared->sent = now_ms();
		ssize_t n = send(fd, bytes, sizeof(bytes), flags);
		if (n == -1 && errno != EAGAIN)
			break;
		if (n == -1)
			wait_for_room(fd);
	}
	shared->got = errno;
}

static void kill_the_peer(int fd)
{
	enter_set(fd, EPOLLIN);
	let_it_go_cold();
	while (!shared->client)
		usleep(1000);
	pid_t heir = fork_heir(send_until_that_fails, fd);
	do
		usleep(10000);
	while (!shared->sent || now_ms() - shared->sent < 200);
	kill(shared->client, SIGKILL);
	for (int64_t end = now_ms() + PATIENCE_MS; !shared->got && now_ms() < end;)
		usleep(5000);
	say("%s\n", shared->got ? strerror((int)shared->got) : "still waits");
	end_heir(heir);
}

static void peer_killed(void)
{
	act(pause_as_client, kill_the_peer);
}

/* --- a thread of the parent is about to sleep, or sleeps, when the child comes --- */

static void send_at_last(int fd)
{
	take_cpu(1, false);
	await_stage(2);
	usleep(400000); /* longer than the thread spins */
	send(fd, "x", 1, 0);
	pause();
}

static void hear_first(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	take_cpu(0, true);
	shared->stage = 2;
	while (poll(&p, 1, 100) == 0)
		;
	pause();
}

static void poll_for_ever(struct call *call)
{
	struct pollfd p = {.fd = call->fd, .events = POLLIN};
	take_cpu(0, false);
	poll(&p, 1, -1);
}

static void fork_beside_a_spin(int fd)
{
	struct call call = sleeper(poll_for_ever, fd);
	begin_call(&call);
	usleep(100000);
	pid_t heir = fork_heir(hear_first, fd);
	await_stage(2);
	say_of(&call);
	end_heir(heir);
}

static void forked_before_the_sleep(void)
{
	act(send_at_last, fork_beside_a_spin);
}

static void receive_a_byte(struct call *call)
{
	char byte;
	take_cpu(0, false);
	call->result = recv(call->fd, &byte, 1, 0);
}

static void wait_again_and_again(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	shared->stage = 1;
	while (shared->stage == 1)
		poll(&p, 1, 1);
	hear_first(fd);
}

/* An exec closes the socket in this process, so the child seems to be alone with it until that fails. */
static void fail_to_exec(int fd)
{
	struct call call = sleeper(receive_a_byte, fd);
	char *arguments[] = {"nothing", NULL};
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	begin_call(&call);
	await_sleep(&call);
	pid_t heir = fork_heir(wait_again_and_again, fd);
	await_stage(1);
	for (int64_t end = now_ms() + 500; now_ms() < end;)
		execv("/nonexistent", arguments);
	shared->stage = 2;
	say_of(&call);
	end_heir(heir);
}

static void failed_exec(void)
{
	act(send_at_last, fail_to_exec);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"taken-by-one-who-leaves", taken_by_one_who_leaves},
		{"taken-by-one-who-stays", taken_by_one_who_stays},
		{"held-back", held_back},
		{"peer-killed", peer_killed},
		{"forked-before-the-sleep", forked_before_the_sleep},
		{"failed-exec", failed_exec},
		{NULL, NULL},
	};
	return act_out_in_a_way(scenarios, argc, argv, "send");
}
