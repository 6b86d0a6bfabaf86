/* wait_signals.c - signals of all kinds come while a call waits on a connection. */
#include "handlers.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/time.h>

static void receive_one(int fd)
{
	char byte;
	go(fd);
	say_result("recv", recv(fd, &byte, 1, 0));
}

/* --- handlers that are set by other names than sigaction --- */

int __sigaction(int number, const struct sigaction *action, struct sigaction *old);
void (*bsd_signal(int number, void (*handler)(int)))(int);
void (*ssignal(int number, void (*handler)(int)))(int);

static void by_ssignal(void) { ssignal(SIGUSR1, handler); }
static void by_bsd_signal(void) { bsd_signal(SIGUSR1, handler); }
static void by_sysv_signal(void) { sysv_signal(SIGUSR1, handler); }
static void by_sigset(void) { sigset(SIGUSR1, handler); }
static void by_internal_sigaction(void)
{
	struct sigaction action = {.sa_handler = handler};
	__sigaction(SIGUSR1, &action, NULL);
}
static void by_siginterrupt(void)
{
	signal(SIGUSR1, handler);
	siginterrupt(SIGUSR1, 1);
}
static void by_signal_after_siginterrupt(void)
{
	siginterrupt(SIGUSR1, 1);
	signal(SIGUSR1, handler);
}
static void by_signal_that_forgets_itself(void) { handle(SIGUSR1, (int)SA_RESETHAND); }

/* Whoever finds signal and byte at once when it wakes takes the byte, as the kernel does. */
static void signal_the_other_end(int number)
{
	int before = shared->handled;
	kill(getppid(), number);
	for (int64_t end = now_ms() + 3000; shared->handled == before && now_ms() < end;)
		usleep(1000);
	usleep(MOMENT_US);
}

static void signal_then_send(int fd)
{
	await_go(fd);
	signal_the_other_end(SIGUSR1);
	go(fd);
	sleep(5);
}

static void (*set_handler)(void);
static void wait_with_handler(int fd)
{
	set_handler();
	receive_one(fd);
}
static void wait_with_handler_beside_returning(int fd)
{
	handle(SIGUSR2, 0);
	wait_with_handler(fd);
}
static void wait_with_handler_beside_restarting(int fd)
{
	handle(SIGUSR2, SA_RESTART);
	wait_with_handler(fd);
}

static void run_names(void)
{
	static void (*const names[])(void) = {
		by_ssignal,	       by_bsd_signal,	      by_sysv_signal,
		by_sigset,	       by_internal_sigaction, by_siginterrupt,
		by_signal_after_siginterrupt, by_signal_that_forgets_itself,
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		set_handler = names[i];
		pid_t child = fork();
		if (child == 0) {
			say("%zu ", i);
			act(signal_then_send, i % 2 ? wait_with_handler_beside_returning :
						      wait_with_handler_beside_restarting);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

static void run_ssignal(void)
{
	set_handler = by_ssignal;
	act(signal_then_send, wait_with_handler_beside_returning);
}

/* --- signals of the C library --- */

static void *change_user(void *unused)
{
	for (int i = 0; i < 5; i++) {
		usleep(MOMENT_US / 2);
		(void)!seteuid(geteuid());
	}
	return unused;
}

static void send_late(int fd)
{
	await_go(fd);
	usleep(MOMENT_US * 3);
	go(fd);
	sleep(5);
}

static void receive_while_user_changes(int fd)
{
	pthread_t thread;
	pthread_create(&thread, NULL, change_user, NULL);
	receive_one(fd);
	pthread_join(thread, NULL);
}

static void receive_while_user_changes_and_handlers_return(int fd)
{
	handle(SIGUSR1, 0);
	receive_while_user_changes(fd);
}

static void read_late(int fd)
{
	await_go(fd);
	usleep(MOMENT_US * 3);
	drain(fd, 2000);
}

static void send_while_user_changes(int fd)
{
	pthread_t thread;
	go(fd);
	fill(fd);
	pthread_create(&thread, NULL, change_user, NULL);
	say_result("send", send(fd, "x", 1, 0));
	pthread_join(thread, NULL);
}

static void run_setuid_recv(void) { act(send_late, receive_while_user_changes); }
static void run_setuid_handlers(void)
{
	act(send_late, receive_while_user_changes_and_handlers_return);
}
static void run_setuid_send(void) { act(read_late, send_while_user_changes); }

/* --- a time limit that is set while a call waits, and binds it when it is begun anew --- */

static pthread_t limited;

static void *limit_and_signal(void *fd)
{
	struct timeval limit = {.tv_usec = MOMENT_US};
	usleep(MOMENT_US * 2);
	setsockopt(*(int *)fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(*(int *)fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	pthread_kill(limited, SIGUSR1);
	return NULL;
}

static void in_time(int fd, void (*call)(int))
{
	pthread_t thread;
	handle(SIGUSR1, SA_RESTART);
	limited = pthread_self();
	pthread_create(&thread, NULL, limit_and_signal, &fd);
	call(fd);
	pthread_join(thread, NULL);
}

static void send_one_more(int fd) { say_result("send", send(fd, "x", 1, 0)); }

static void receive_in_time(int fd) { in_time(fd, receive_one); }
static void send_in_time(int fd)
{
	go(fd);
	fill_for_good(fd);
	in_time(fd, send_one_more);
}

static void do_nothing(int fd)
{
	await_go(fd);
	sleep(5);
}

static void run_limit_recv(void) { act(do_nothing, receive_in_time); }
static void run_limit_send(void) { act(do_nothing, send_in_time); }

/* --- stopped and continued --- */

static void stop_and_continue(void)
{
	kill(getppid(), SIGSTOP);
	usleep(MOMENT_US);
	kill(getppid(), SIGCONT);
	usleep(MOMENT_US);
}

static void stop_it_four_times(int fd)
{
	for (int i = 0; i < 3; i++) {
		await_go(fd);
		stop_and_continue();
		go(fd);
	}
	await_go(fd);
	stop_and_continue();
	drain(fd, 2000);
}

static void wait_while_stopped(int fd)
{
	char byte;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct epoll_event event = {.events = EPOLLIN};
	int epoll = epoll_create1(0);

	receive_one(fd);
	go(fd);
	say_result("poll", poll(&p, 1, -1));
	(void)!recv(fd, &byte, 1, 0);
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	go(fd);
	say_result("epoll_wait", epoll_wait(epoll, &event, 1, -1)); /* EINTR, signal(7) */
	(void)!recv(fd, &byte, 1, 0);
	close(epoll);
	go(fd);
	fill(fd);
	say_result("send", send(fd, "x", 1, 0));
}

static void wait_while_stopped_with_handlers(int fd)
{
	handle(SIGUSR1, 0);
	wait_while_stopped(fd);
}

static void run_stop(void) { act(stop_it_four_times, wait_while_stopped); }
static void run_stop_handlers(void) { act(stop_it_four_times, wait_while_stopped_with_handlers); }

/* --- handlers of both kinds --- */

static void *open_something(void *unused)
{
	usleep(MOMENT_US);
	int fd = open("/dev/null", O_RDONLY);
	say("a file gets number %d\n", fd);
	return unused;
}

static void receive_while_another_opens(int fd)
{
	pthread_t thread;
	handle(SIGUSR1, 0);
	handle(SIGUSR2, SA_RESTART);
	pthread_create(&thread, NULL, open_something, NULL);
	go(fd);
	char byte;
	ssize_t r = recv(fd, &byte, 1, 0);
	pthread_join(thread, NULL);
	say_result("recv", r);
}

static void run_numbers(void) { act(send_late, receive_while_another_opens); }

/* --- waits that must sleep --- */

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A wait of half a second: even beside many others, who spins gets more CPU than this. */
static void receive_asleep(int fd)
{
	double before = cpu_seconds();
	receive_one(fd);
	say(cpu_seconds() - before < 0.03 ? "it slept\n" : "it spun\n");
}

static void send_much_later(int fd)
{
	await_go(fd);
	usleep(500000);
	go(fd);
	sleep(5);
}

static void receive_with_one_pending(int fd)
{
	sigset_t set;
	handle(SIGUSR1, SA_RESTART);
	handle(SIGUSR2, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	receive_asleep(fd);
}

static sigjmp_buf out;
static void jump(int number)
{
	(void)number;
	siglongjmp(out, 1);
}

static void send_after_jumps(int fd)
{
	for (int i = 0; i < 3; i++) {
		await_go(fd);
		kill(getppid(), SIGUSR1);
	}
	for (int i = 0; i < 3; i++) {
		await_go(fd);
		go(fd);
	}
	send_much_later(fd);
}

static void wait_for_jump(int fd)
{
	char byte;
	if (sigsetjmp(out, 1) == 0) {
		go(fd);
		say_result("no jump", recv(fd, &byte, 1, 0));
	} else {
		say("jumped\n");
	}
}

static __attribute__((noinline)) void deeper(int fd)
{
	volatile char room[4096] = {0};
	receive_one(fd);
	(void)room;
}

static void receive_after_jumps(int fd)
{
	signal(SIGUSR1, jump);
	for (int i = 0; i < 3; i++)
		wait_for_jump(fd);
	for (int i = 0; i < 3; i++)
		deeper(fd);
	receive_asleep(fd);
}

static void send_until_it_fails(int fd)
{
	static char much[1 << 16];
	signal(SIGPIPE, SIG_IGN);
	await_go(fd);
	kill(getppid(), SIGUSR1);
	await_stage(1);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int writable = 1;
	ssize_t sent = 0;
	while (writable == 1 && sent >= 0) {
		writable = poll(&p, 1, 3000);
		sent = writable == 1 ? send(fd, much, sizeof(much), MSG_DONTWAIT) : 0;
		if (sent == -1 && errno == EAGAIN)
			sent = 0;
		else if (sent == -1)
			say("send: %s\n", strerror(errno));
	}
	if (writable != 1)
		say("it hangs\n");
	shared->stage = 2;
}

/* A receive with a time limit, as many a program has it, which then gives the connection up. */
static void close_after_a_jump(int fd)
{
	signal(SIGUSR1, jump);
	wait_for_jump(fd);
	close(fd);
	shared->stage = 1;
	await_stage(2);
}

static void run_close_after_a_jump(void) { act(send_until_it_fails, close_after_a_jump); }
static void run_pending(void) { act(send_much_later, receive_with_one_pending); }
static void run_jumps(void) { act(send_after_jumps, receive_after_jumps); }

/* --- signals at a moment of our choice: in the midst of a copy, of which a part is memory that
 * can't be touched before the handler of SIGSEGV has allowed it. The kernel's own copy says EFAULT
 * instead: there they come after the call. --- */

enum { FORBIDDEN = 1 << 16 };
static char *forbidden;
static void (*come)(void);

static void let_signals_come(int number)
{
	(void)number;
	come();
	mprotect(forbidden, FORBIDDEN, PROT_READ | PROT_WRITE);
}

static void forbid(void (*what_comes)(void), int blocked_meanwhile)
{
	struct sigaction action = {.sa_handler = let_signals_come};
	forbidden = mmap(NULL, FORBIDDEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	come = what_comes;
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, blocked_meanwhile);
	sigaction(SIGSEGV, &action, NULL);
}

static void let_them_come_after_efault(int blocked_meanwhile)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, blocked_meanwhile);
	sigprocmask(SIG_BLOCK, &set, NULL);
	come();
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Real-time signals that come while the library may not be interrupted keep their order. */
static void note_value(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	say("%d ", info->si_value.sival_int);
}

static void queue_five(void)
{
	for (int i = 1; i <= 5; i++)
		pthread_sigqueue(pthread_self(), SIGRTMIN, (union sigval){.sival_int = i});
}

static void be_told_where_it_is_forbidden(int fd)
{
	struct sigaction action = {.sa_sigaction = note_value, .sa_flags = SA_SIGINFO};
	struct epoll_event event = {.events = EPOLLIN};
	int epoll = epoll_create1(0);
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	go(fd);
	epoll_wait(epoll, &event, 1, -1);
	sigaction(SIGRTMIN, &action, NULL);
	forbid(queue_five, SIGRTMIN);
	if (epoll_wait(epoll, (struct epoll_event *)(void *)forbidden, 1, -1) == -1)
		let_them_come_after_efault(SIGRTMIN);
	say("\n");
}

static void run_order(void) { act(send_late, be_told_where_it_is_forbidden); }

/* A jump out of a send leaves nothing behind that keeps others from sending, or later ones of
 * this thread, from deeper frames. */
static void raise_one(void) { raise(SIGUSR1); }

static __attribute__((noinline)) ssize_t send_from_deeper(int fd, int depth)
{
	volatile ssize_t room[64] = {0};
	room[depth] = depth ? send_from_deeper(fd, depth - 1) : send(fd, "x", 1, 0);
	return room[depth];
}

static void send_one(struct call *call) { call->result = send(call->fd, "x", 1, 0); }

static void send_after_a_jump(int fd)
{
	struct call call = {.make = send_one, .fd = fd};
	signal(SIGUSR1, jump);
	forbid(raise_one, SIGUSR1);
	if (sigsetjmp(out, 1) == 0) {
		if (send(fd, forbidden, FORBIDDEN, 0) == -1)
			let_them_come_after_efault(SIGUSR1);
		say("no jump\n");
	}
	say_result("send", send_from_deeper(fd, 20));
	begin_call(&call);
	for (int64_t end = now_ms() + 3000; !call.over && now_ms() < end; usleep(1000))
		;
	say("another thread's: %s\n", call.over ? "done" : "it waits");
	if (call.over)
		end_call(&call);
}

static void drain_all(int fd) { drain(fd, 10000); }

static void run_jump_out_of_send(void) { act(drain_all, send_after_a_jump); }

/* --- a handler that receives, too, while its thread is about to sleep in a receive --- */

static _Atomic long received;
static int receiving;

static void receive_in_handler(int number)
{
	char byte;
	int saved = errno;
	(void)number;
	received += recv(receiving, &byte, 1, 0) == 1;
	errno = saved;
}

static void send_now_and_then(int fd)
{
	struct timespec moment = {.tv_nsec = 50000};
	while (send(fd, "x", 1, MSG_NOSIGNAL) == 1)
		nanosleep(&moment, NULL);
}

static void receive_in_both(struct call *call)
{
	char byte;
	unsigned seed = 1;
	signal(SIGALRM, receive_in_handler);
	for (int64_t end = now_ms() + 1500; now_ms() < end;) {
		struct itimerval timer = {.it_value.tv_usec = 1 + (int)((unsigned)rand_r(&seed) % 120)};
		setitimer(ITIMER_REAL, &timer, NULL);
		received += recv(call->fd, &byte, 1, 0) == 1;
	}
	setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}

static void watch_who_receives(int fd)
{
	sigset_t set;
	struct call call = {.make = receive_in_both, .fd = fd};
	alarm(0); /* its signal is the timer's, which this thread is not to handle */
	receiving = fd;
	begin_call(&call);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	long before = -1;
	for (int64_t last = now_ms(); !call.over && now_ms() - last < 2000; usleep(10000)) {
		last = received == before ? last : now_ms();
		before = received;
	}
	say("%s\n", call.over ? "it went on" : "it sleeps, and bytes come");
	if (call.over)
		end_call(&call);
}

static void run_receiving_handler(void) { act(send_now_and_then, watch_who_receives); }

/* --- a signal ends a long send, though it comes before that sleeps --- */

enum { LONG = 16 << 20, TIMES = 10 };
static int long_file;
static _Atomic long used_before; /* nanoseconds of CPU, by the thread; 0: not there yet */

static long cpu_of(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void send_long_file(struct call *call)
{
	off_t offset = 0;
	used_before = cpu_of(CLOCK_THREAD_CPUTIME_ID);
	call->result = sendfile(call->fd, long_file, &offset, LONG);
}

static void send_long(struct call *call)
{
	static char bytes[LONG];
	used_before = cpu_of(CLOCK_THREAD_CPUTIME_ID);
	call->result = send(call->fd, bytes, LONG, 0);
}

/* Until it has begun to do what it does: used so much time in it, or slept. */
static void await_begin(struct call *call)
{
	clockid_t clock;
	pthread_getcpuclockid(call->thread, &clock);
	while (!used_before)
		;
	while (cpu_of(clock) - used_before < 300000 && !sleeps(getpid(), call->tid))
		;
}

static void drain_each_time(int fd)
{
	static char sink[1 << 16];
	for (int i = 1; i <= TIMES; i++) {
		await_stage(2 * i - 1);
		while (shared->got < shared->sent)
			shared->got += recv(fd, sink, sizeof(sink), 0);
		shared->stage = 2 * i;
	}
	pause();
}

static void interrupt(int fd, void (*make)(struct call *))
{
	handle(SIGUSR1, 0);
	for (int i = 1; i <= TIMES; i++) {
		struct call call = {.make = make, .fd = fd};
		used_before = 0;
		begin_call(&call);
		await_begin(&call);
		pthread_kill(call.thread, SIGUSR1);
		for (int64_t end = now_ms() + 3000; !call.over && now_ms() < end;)
			usleep(100);
		if (!call.over || call.result == LONG) {
			say("%s\n", call.over ? "it sent all" : "it sleeps on");
			return;
		}
		end_call(&call);
		shared->sent += call.result > 0 ? call.result : 0;
		shared->stage = 2 * i - 1;
		await_stage(2 * i);
	}
	say("it ended each time\n");
}

static void interrupt_sendfile(int fd)
{
	long_file = memfd_create("long", 0);
	(void)!ftruncate(long_file, LONG);
	interrupt(fd, send_long_file);
}

static void shut_and_interrupt_send(int fd)
{
	usleep(MOMENT_US); /* it is time to look at TCP again */
	shutdown(fd, SHUT_RD);
	interrupt(fd, send_long);
}

static void run_long_sendfile(void) { act(drain_each_time, interrupt_sendfile); }
static void run_shut_send(void) { act(drain_each_time, shut_and_interrupt_send); }

/* --- while a call still spins, before it sleeps at all; the spin is to take a second --- */

static void interrupt_one_that_spins(int fd, int number)
{
	await_stage(1);
	usleep(300000);
	signal_the_other_end(number);
	usleep(1500000);
	go(fd);
	drain(fd, 5000);
}

static void signal_one_that_spins(int fd) { interrupt_one_that_spins(fd, SIGUSR1); }
static void abort_one_that_spins(int fd) { interrupt_one_that_spins(fd, SIGABRT); }

static void receive_restarted(int fd)
{
	handle(SIGUSR1, SA_RESTART);
	shared->stage = 1;
	receive_one(fd);
}

static void receive_interrupted(int fd)
{
	handle(SIGUSR1, 0);
	shared->stage = 1;
	receive_one(fd);
}

static void receive_aborted(int fd)
{
	handle(SIGABRT, 0);
	shared->stage = 1;
	receive_one(fd);
}

static void receive_with_a_limit(int fd)
{
	struct timeval limit = {.tv_sec = 10};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	receive_restarted(fd);
}

static void splice_interrupted(int fd)
{
	int ends[2];
	(void)!pipe(ends);
	handle(SIGUSR1, 0);
	shared->stage = 1;
	say_result("splice", splice(fd, NULL, ends[1], NULL, 1, 0));
}

static void send_interrupted(int fd)
{
	handle(SIGUSR1, 0);
	fill_for_good(fd);
	shared->stage = 1;
	send_one_more(fd);
}

static void poll_interrupted(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	handle(SIGUSR1, SA_RESTART);
	shared->stage = 1;
	say_result("poll", poll(&p, 1, -1));
}

static void select_interrupted(int fd)
{
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fd, &set);
	handle(SIGUSR1, SA_RESTART);
	shared->stage = 1;
	say_result("select", select(fd + 1, &set, NULL, NULL, NULL));
}

static void epoll_interrupted(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	handle(SIGUSR1, SA_RESTART);
	shared->stage = 1;
	say_result("epoll_wait", epoll_wait(set, &event, 1, -1));
}

/* With a mask that keeps the signal back it is none of that call's business, and comes after it. */
static void wait_masked(int fd, const char *what, int (*wait)(int, const sigset_t *))
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	handle(SIGUSR1, 0);
	shared->stage = 1;
	int r = wait(fd, &mask);
	say_result(what, r);
	say("handled: %d\n", shared->handled);
}

static int ppoll_one(int fd, const sigset_t *mask)
{
	return ppoll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, NULL, mask);
}

static int epoll_pwait_one(int fd, const sigset_t *mask)
{
	struct epoll_event event = {.events = EPOLLIN};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	return epoll_pwait(set, &event, 1, -1, mask);
}

static void ppoll_masked(int fd) { wait_masked(fd, "ppoll", ppoll_one); }
static void epoll_masked(int fd) { wait_masked(fd, "epoll_pwait", epoll_pwait_one); }

static void signal_and_send(int fd)
{
	await_stage(1);
	usleep(300000);
	kill(getppid(), SIGUSR1);
	usleep(1500000);
	go(fd);
	sleep(5);
}

static void run_spin_ppoll(void) { act(signal_and_send, ppoll_masked); }
static void run_spin_epoll_pwait(void) { act(signal_and_send, epoll_masked); }
static void run_spin_restart(void) { act(signal_one_that_spins, receive_restarted); }
static void run_spin_recv(void) { act(signal_one_that_spins, receive_interrupted); }
static void run_spin_abort(void) { act(abort_one_that_spins, receive_aborted); }
static void run_spin_limit(void) { act(signal_one_that_spins, receive_with_a_limit); }
static void run_spin_splice(void) { act(signal_one_that_spins, splice_interrupted); }
static void run_spin_send(void) { act(signal_one_that_spins, send_interrupted); }
static void run_spin_poll(void) { act(signal_one_that_spins, poll_interrupted); }
static void run_spin_select(void) { act(signal_one_that_spins, select_interrupted); }
static void run_spin_epoll(void) { act(signal_one_that_spins, epoll_interrupted); }

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"names", run_names},
		{"ssignal", run_ssignal},
		{"setuid-recv", run_setuid_recv},
		{"setuid-recv-handlers", run_setuid_handlers},
		{"setuid-send", run_setuid_send},
		{"limit-recv", run_limit_recv},
		{"limit-send", run_limit_send},
		{"stop", run_stop},
		{"stop-handlers", run_stop_handlers},
		{"numbers", run_numbers},
		{"pending", run_pending},
		{"jumps", run_jumps},
		{"close-after-a-jump", run_close_after_a_jump},
		{"order", run_order},
		{"jump-out-of-send", run_jump_out_of_send},
		{"receiving-handler", run_receiving_handler},
		{"long-sendfile", run_long_sendfile},
		{"shut-send", run_shut_send},
		{"spin-restart", run_spin_restart},
		{"spin-recv", run_spin_recv},
		{"spin-abort", run_spin_abort},
		{"spin-limit", run_spin_limit},
		{"spin-splice", run_spin_splice},
		{"spin-send", run_spin_send},
		{"spin-poll", run_spin_poll},
		{"spin-select", run_spin_select},
		{"spin-epoll", run_spin_epoll},
		{"spin-ppoll-masked", run_spin_ppoll},
		{"spin-epoll_pwait-masked", run_spin_epoll_pwait},
		{0},
	};
	share();
	alarm(20);
	return act_out(all, argc, argv);
}
