/* handlers_between.c - handlers run between any two steps of a call: they end it where they end it
 * on TCP, and what they close is closed for it, too. The server is signalled, by the client. */
#include "handlers.h"

#include <fcntl.h>

enum { PATIENCE_MS = 300 };

static void spin(int us)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t end = t.tv_sec * 1000000LL + t.tv_nsec / 1000 + us;
	while (t.tv_sec * 1000000LL + t.tv_nsec / 1000 < end)
		clock_gettime(CLOCK_MONOTONIC, &t);
}

static int random_up_to(int most) { return (int)(random() % (most + 1)); }

/* Signals from this process itself; not by setitimer, whose timer is alarm's. */
static void set_timer(int number, int first_ms, int period_ms)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
	struct itimerspec times = {.it_value.tv_nsec = first_ms * 1000000L,
				   .it_interval.tv_nsec = period_ms * 1000000L};
	timer_t timer;
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &times, NULL);
}

/* --- tries, from 0: each has a stage at which its call begins, and one at which that is over --- */

static void begin_try(int number) { shared->stage = 2 * number + 1; }
static void end_try(int number) { shared->stage = 2 * number + 2; }

static void await_try(int number)
{
	while (shared->stage < 2 * number + 1)
		;
}

static bool try_ends(int number, int ms)
{
	for (int64_t end = now_ms() + ms; shared->stage < 2 * number + 2 && now_ms() < end;)
		usleep(200);
	return shared->stage >= 2 * number + 2;
}

/* A signal may come before its call, on TCP too, if the server has to leave its CPU just then. */
static void say_how_many_were_lost(int lost, int tries, int tolerated)
{
	fprintf(stderr, "%d of %d were lost\n", lost, tries);
	say(lost <= tolerated ? "hardly any was lost\n" : "many were lost\n");
}

/* A receive that a signal is to end; if it doesn't, the client's byte does, which comes anyway. */
static int lost_in_a_receive(int fd, int number)
{
	char byte;
	begin_try(number);
	int lost = recv(fd, &byte, 1, 0) == 1;
	end_try(number);
	if (!lost)
		(void)!recv(fd, &byte, 1, 0);
	return lost;
}

static void signal_and_send_a_byte(int fd, int number)
{
	kill(getppid(), SIGUSR1);
	try_ends(number, PATIENCE_MS);
	go(fd);
}

enum { ROUNDS_BEFORE = 10 };

static void make_rounds(int fd, int is_client)
{
	char byte = 'r';
	for (int i = 0; i < ROUNDS_BEFORE; i++) {
		if (is_client)
			go(fd);
		(void)!recv(fd, &byte, 1, 0);
		if (!is_client)
			go(fd);
	}
}

/* --- a handler that closes, or replaces, the socket under its thread's call --- */

static int under_a_call, replacement = -1;

static void close_or_replace(int number)
{
	(void)number;
	if (replacement == -1)
		close(under_a_call);
	else
		dup2(replacement, under_a_call);
}

static int to_send = SIGUSR1;

static void await_a_call_and_signal(void)
{
	await_stage(1);
	await_the_other_end_asleep();
	kill(getppid(), to_send);
}

static void signal_one_that_sleeps(int fd)
{
	static char bytes[1000];
	await_a_call_and_signal();
	if (!try_ends(0, 1500)) {
		(void)!send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
		drain(fd, 1000);
	}
	pause();
}

static ssize_t receive_a_byte(int fd)
{
	char byte;
	return recv(fd, &byte, 1, 0);
}

static ssize_t receive_all(int fd)
{
	char bytes[1000];
	return recv(fd, bytes, sizeof(bytes), MSG_WAITALL);
}

static ssize_t send_a_byte(int fd) { return send(fd, "x", 1, 0); }

static ssize_t splice_a_byte(int fd)
{
	int ends[2];
	(void)!pipe(ends);
	return splice(fd, NULL, ends[1], NULL, 1, 0);
}

static ssize_t call_and_say_when_it_ends(int fd, ssize_t (*call)(int))
{
	int64_t begin = now_ms();
	begin_try(0);
	ssize_t r = call(fd);
	int error = errno;
	end_try(0);
	say(now_ms() - begin < 1200 ? "at once, " : "late, ");
	errno = error;
	return r;
}

static void call_and_lose_the_socket(int fd, ssize_t (*call)(int))
{
	under_a_call = fd;
	signal(SIGUSR1, close_or_replace);
	ssize_t r = call_and_say_when_it_ends(fd, call);
	if (call == splice_a_byte && replacement != -1)
		say(r == -1 ? "it fails\n" : "it moves something\n"); /* by one error or another */
	else
		say_result("it", r);
}

static void lose_in_recv(int fd) { call_and_lose_the_socket(fd, receive_a_byte); }
static void lose_in_waitall(int fd) { call_and_lose_the_socket(fd, receive_all); }
static void lose_in_splice(int fd) { call_and_lose_the_socket(fd, splice_a_byte); }
static void lose_in_send(int fd)
{
	fill_for_good(fd);
	call_and_lose_the_socket(fd, send_a_byte);
}

static void close_in(void (*server)(int)) { act(signal_one_that_sleeps, server); }

static void replace_in(void (*server)(int))
{
	replacement = open("/dev/null", O_RDWR);
	act(signal_one_that_sleeps, server);
}

static void run_close_recv(void) { close_in(lose_in_recv); }
static void run_close_waitall(void) { close_in(lose_in_waitall); }
static void run_close_send(void) { close_in(lose_in_send); }
static void run_close_splice(void) { close_in(lose_in_splice); }
static void run_replace_recv(void) { replace_in(lose_in_recv); }
static void run_replace_waitall(void) { replace_in(lose_in_waitall); }
static void run_replace_send(void) { replace_in(lose_in_send); }
static void run_replace_splice(void) { replace_in(lose_in_splice); }

/* --- a handler that replaces it with one that is fused, too, but doesn't wait --- */

/* The process has the first one's segment already, which says nothing of this one. */
static void warm_the_second(int fd, int is_client)
{
	for (int i = 0; i < 4; i++) {
		make_rounds(fd, is_client);
		usleep(20000);
	}
	warm(fd, is_client);
}

static void send_a_byte_late(int fd)
{
	await_stage(1);
	if (!try_ends(0, 2000))
		go(fd);
	pause();
}

static void lose_to_one_that_does_not_wait(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
	replacement = fd;
	lose_in_recv(under_a_call);
}

static void connect_another_to_lose_to(int fd)
{
	under_a_call = fd;
	act_with(warm_the_second, send_a_byte_late, lose_to_one_that_does_not_wait);
}

static void run_replace_nonblocking(void) { act(signal_one_that_sleeps, connect_another_to_lose_to); }

/* --- signals of faults, which another process sends --- */

static void be_ended(int fd, ssize_t (*call)(int))
{
	handle(to_send, 0);
	say_result("it", call_and_say_when_it_ends(fd, call));
}

static void be_ended_in_recv(int fd) { be_ended(fd, receive_a_byte); }
static void be_ended_in_send(int fd)
{
	fill_for_good(fd);
	be_ended(fd, send_a_byte);
}

static void send_fault(int number, void (*server)(int))
{
	to_send = number;
	act(signal_one_that_sleeps, server);
}

static void run_trap_recv(void) { send_fault(SIGTRAP, be_ended_in_recv); }
static void run_trap_send(void) { send_fault(SIGTRAP, be_ended_in_send); }
static void run_segv_recv(void) { send_fault(SIGSEGV, be_ended_in_recv); }
static void run_segv_send(void) { send_fault(SIGSEGV, be_ended_in_send); }

/* --- a restarting handler while a splice with a time limit waits for its pipe --- */

static int pipe_ends[2];

static void limit_receives_and_sends(int fd)
{
	struct timeval limit = {.tv_sec = 5};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static void fill_the_pipe(void)
{
	static char page[4096];
	fcntl(pipe_ends[1], F_SETFL, O_NONBLOCK);
	while (write(pipe_ends[1], page, sizeof(page)) > 0)
		;
	fcntl(pipe_ends[1], F_SETFL, 0);
}

static void splice_with_a_limit(int from, int to, int fd)
{
	handle(SIGUSR1, SA_RESTART);
	limit_receives_and_sends(fd);
	begin_try(0);
	say_result("splice", splice(from, NULL, to, NULL, 1, 0));
}

static void splice_to_a_full_pipe(int fd)
{
	fill_the_pipe();
	splice_with_a_limit(fd, pipe_ends[1], fd);
}

static void splice_from_an_empty_pipe(int fd)
{
	fill_for_good(fd);
	splice_with_a_limit(pipe_ends[0], fd, fd);
}

static void signal_and_make_room_in_the_pipe(int fd)
{
	static char bytes[1 << 16];
	await_a_call_and_signal();
	usleep(MOMENT_US);
	(void)!read(pipe_ends[0], bytes, sizeof(bytes));
	await_the_other_end_asleep();
	go(fd);
	pause();
}

static void signal_and_fill_the_pipe(int fd)
{
	await_a_call_and_signal();
	usleep(MOMENT_US);
	(void)!write(pipe_ends[1], "x", 1);
	await_the_other_end_asleep();
	drain(fd, 1000);
	pause();
}

static void act_with_a_pipe(void (*client)(int), void (*server)(int))
{
	(void)!pipe(pipe_ends);
	act(client, server);
}

static void run_full_pipe(void) { act_with_a_pipe(signal_and_make_room_in_the_pipe, splice_to_a_full_pipe); }
static void run_empty_pipe(void) { act_with_a_pipe(signal_and_fill_the_pipe, splice_from_an_empty_pipe); }

/* --- a signal that ends a receive, beside a timer whose signals don't --- */

enum { BESIDE_A_TIMER = 150 };

static void await_asleep_once(void)
{
	while (!sleeps(getppid(), getppid()))
		usleep(100);
}

static void signal_sometime(int fd)
{
	for (int i = 0; i < BESIDE_A_TIMER; i++) {
		await_stage(2 * i + 1);
		await_asleep_once();
		spin(random_up_to(1000));
		signal_and_send_a_byte(fd, i);
	}
	pause();
}

static void receive_beside_a_timer(int fd)
{
	int lost = 0;
	handle(SIGUSR1, 0);
	handle(SIGUSR2, SA_RESTART);
	set_timer(SIGUSR2, 1, 1);
	for (int i = 0; i < BESIDE_A_TIMER; i++)
		lost += lost_in_a_receive(fd, i);
	say_how_many_were_lost(lost, BESIDE_A_TIMER, 3);
}

static void run_timer(void) { act(signal_sometime, receive_beside_a_timer); }

/* --- which thread a signal to the process goes to --- */

enum { TO_THE_PROCESS = 20 };
static _Atomic int in_main_thread;

static void count_if_in_main_thread(int number)
{
	in_main_thread += syscall(SYS_gettid) == getpid();
	handler(number);
}

static void *idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void signal_the_process(int fd)
{
	for (int i = 0; i < TO_THE_PROCESS; i++) {
		await_go(fd);
		kill(getppid(), SIGUSR1);
		usleep(MOMENT_US / 2);
		go(fd);
	}
	pause();
}

static void receive_beside_an_idle_thread(int fd)
{
	pthread_t thread;
	signal(SIGUSR1, count_if_in_main_thread);
	handle(SIGUSR2, 0);
	pthread_create(&thread, NULL, idle, NULL);
	for (int i = 0; i < TO_THE_PROCESS; i++) {
		go(fd);
		(void)!receive_a_byte(fd);
	}
	say("in the main thread: %d of %d\n", in_main_thread, shared->handled);
}

static void run_main_thread(void) { act(signal_the_process, receive_beside_an_idle_thread); }

/* --- a first send that waits for the server, which does nothing (--eager) --- */

enum { MUCH = 64 << 20 };

static void send_first(int fd, size_t n)
{
	static char bytes[MUCH];
	int64_t begin = now_ms();
	ssize_t r = send(fd, bytes, n, MSG_NOSIGNAL);
	say(r <= 0 ? "nothing" : r < (ssize_t)n ? "a part" : "all");
	say(now_ms() - begin < 600 ? ", in time\n" : ", late\n");
	shared->stage = 1;
	pause();
}

static void send_until_a_handler_has_run(int fd, size_t n)
{
	handle(SIGUSR1, 0);
	set_timer(SIGUSR1, 100, 0);
	send_first(fd, n);
}

static void send_much_until_a_handler_has_run(int fd) { send_until_a_handler_has_run(fd, MUCH); }
static void send_little_until_a_handler_has_run(int fd) { send_until_a_handler_has_run(fd, 1); }

static void send_much_with_a_limit(int fd)
{
	struct timeval limit = {.tv_usec = 100000};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	send_first(fd, MUCH);
}

static void send_little(int fd) { send_first(fd, 1); }

static void do_nothing(int fd)
{
	(void)fd;
	await_stage(1);
}

static void close_soon(int fd)
{
	usleep(100000);
	close(fd);
	await_stage(1);
}

/* The connection in question isn't fused; another one says whether any is. */
static void act_unfused(void (*client)(int), void (*server)(int))
{
	act_with(NULL, client, server);
	act(do_nothing, do_nothing);
}

static void run_first_much(void) { act_unfused(send_much_until_a_handler_has_run, do_nothing); }
static void run_first_little(void) { act_unfused(send_little_until_a_handler_has_run, do_nothing); }
static void run_first_limit(void) { act_unfused(send_much_with_a_limit, do_nothing); }
static void run_first_closed(void) { act_unfused(send_little, close_soon); }

/* --- a signal in the very call that claims the connection: the test says that it is this one --- */

enum { CLAIMS = 300 };
static int claim, lost_in_claims;

static void signal_one_that_claims(int fd)
{
	srandom((unsigned)getpid());
	await_try(claim);
	spin(20 + random_up_to(45));
	signal_and_send_a_byte(fd, claim);
	warm(fd, 1);
	pause();
}

static void receive_and_claim(int fd)
{
	handle(SIGUSR1, 0);
	lost_in_claims += lost_in_a_receive(fd, claim);
	warm(fd, 0);
	close(fd);
}

static void run_claim(void)
{
	for (claim = 0; claim < CLAIMS; claim++)
		act_with(make_rounds, signal_one_that_claims, receive_and_claim);
	say_how_many_were_lost(lost_in_claims, CLAIMS, 1);
}

/* --- a receive of all, during the copy of what is there --- */

enum { COPIES = 40, HALF = 2000 << 10 };

static void send_half(int fd)
{
	static char bytes[HALF];
	for (ssize_t sent = 0, r = 0; sent < HALF && r >= 0; sent += r)
		r = send(fd, bytes, (size_t)(HALF - sent), 0);
}

static void signal_during_copies(int fd)
{
	for (int i = 0; i < COPIES; i++) {
		send_half(fd);
		await_try(i);
		spin(20 + random_up_to(280));
		kill(getppid(), SIGUSR1);
		try_ends(i, PATIENCE_MS);
		send_half(fd);
	}
	pause();
}

static void receive_all_of_which_half_is_there(int fd)
{
	static char bytes[2 * HALF];
	int lost = 0;
	handle(SIGUSR1, SA_RESTART);
	for (int i = 0; i < COPIES; i++) {
		usleep(20000);
		begin_try(i);
		ssize_t r = recv(fd, bytes, sizeof(bytes), MSG_WAITALL);
		end_try(i);
		lost += r == sizeof(bytes);
		for (ssize_t got = r; r > 0 && got < (ssize_t)sizeof(bytes); got += r)
			r = recv(fd, bytes, sizeof(bytes) - (size_t)got, 0);
	}
	say_how_many_were_lost(lost, COPIES, 2);
}

static void run_waitall(void) { act(signal_during_copies, receive_all_of_which_half_is_there); }

/* --- a receive of two messages, of which the first comes right after a signal --- */

enum { PAIRS = 30 };

static void signal_and_send_one_at_once(int fd)
{
	for (int i = 0; i < PAIRS; i++) {
		await_stage(2 * i + 1);
		await_asleep_once();
		kill(getppid(), SIGUSR1);
		spin(random_up_to(20));
		go(fd);
		try_ends(i, PATIENCE_MS);
		go(fd);
	}
	pause();
}

static int receive_two(int fd)
{
	char bytes[2];
	struct iovec places[2] = {{bytes, 1}, {bytes + 1, 1}};
	struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = places, .msg_iovlen = 1}},
				      {.msg_hdr = {.msg_iov = places + 1, .msg_iovlen = 1}}};
	int r = recvmmsg(fd, messages, 2, 0, NULL);
	return r == -1 ? 0 : r;
}

static void receive_pairs(int fd)
{
	int lost = 0;
	handle(SIGUSR1, 0);
	for (int i = 0; i < PAIRS; i++) {
		begin_try(i);
		int got = receive_two(fd);
		end_try(i);
		lost += got == 2;
		while (got < 2) /* the kernel keeps an error for the next call */
			got += receive_a_byte(fd) == 1;
	}
	say_how_many_were_lost(lost, PAIRS, 1);
}

static void run_messages(void) { act(signal_and_send_one_at_once, receive_pairs); }

/* --- the same, of a socket that stays plain, with a handler that restarts the wait --- */

static void signal_and_send_two(int fd)
{
	await_a_call_and_signal();
	usleep(MOMENT_US);
	go(fd);
	await_the_other_end_asleep();
	go(fd);
	pause();
}

static void receive_a_pair(int fd)
{
	handle(SIGUSR1, SA_RESTART);
	say_whether_fused();
	begin_try(0);
	say("messages: %d\n", receive_two(fd));
}

static void run_plain_messages(void) { act_with(make_rounds, signal_and_send_two, receive_a_pair); }

/* --- a poll with a time limit that is stopped until long after it --- */

static void stop_and_continue_late(int fd)
{
	await_go(fd);
	usleep(200000);
	kill(getppid(), SIGSTOP);
	usleep(1300000);
	shared->sent = now_ms();
	kill(getppid(), SIGCONT);
	pause();
}

static void poll_while_stopped(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	go(fd);
	say_result("poll", poll(&p, 1, 1000));
	say(now_ms() - shared->sent < 400 ? "in time\n" : "late\n");
}

static void run_stopped_poll(void) { act(stop_and_continue_late, poll_while_stopped); }

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"close-recv", run_close_recv},
		{"close-waitall", run_close_waitall},
		{"close-send", run_close_send},
		{"close-splice", run_close_splice},
		{"replace-recv", run_replace_recv},
		{"replace-waitall", run_replace_waitall},
		{"replace-send", run_replace_send},
		{"replace-splice", run_replace_splice},
		{"replace-nonblocking", run_replace_nonblocking},
		{"trap-recv", run_trap_recv},
		{"trap-send", run_trap_send},
		{"segv-recv", run_segv_recv},
		{"segv-send", run_segv_send},
		{"full-pipe", run_full_pipe},
		{"empty-pipe", run_empty_pipe},
		{"timer", run_timer},
		{"main-thread", run_main_thread},
		{"first-much", run_first_much},
		{"first-little", run_first_little},
		{"first-limit", run_first_limit},
		{"first-closed", run_first_closed},
		{"claim", run_claim},
		{"waitall", run_waitall},
		{"messages", run_messages},
		{"plain-messages", run_plain_messages},
		{"stopped-poll", run_stopped_poll},
		{0},
	};
	share();
	alarm(20);
	return act_out(all, argc, argv);
}
