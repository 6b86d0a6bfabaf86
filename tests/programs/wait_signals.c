/* wait_signals.c - signals of all kinds come while a call waits on a connection. */
#include "two_ends.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>

enum { MOMENT_US = 60000 };

static void handler(int number) { (void)number; }

static void handle(int number, int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(number, &action, NULL);
}

static void say_result(const char *what, ssize_t r)
{
	say("%s: %zd%s%s\n", what, r, r < 0 ? " " : "", r < 0 ? strerror(errno) : "");
}

static void go(int fd) { (void)!send(fd, "g", 1, 0); }

/* Is the parent's first thread asleep? On a busy machine that takes its while. */
static int parent_sleeps(void)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", getppid(), getppid());
	FILE *stat = fopen(path, "r");
	if (stat && !fgets(line, sizeof(line), stat))
		line[0] = 0;
	if (stat)
		fclose(stat);
	const char *state = strrchr(line, ')');
	return state && state[1] == ' ' && state[2] == 'S';
}

static void await_go(int fd)
{
	char byte;
	(void)!recv(fd, &byte, 1, 0);
	do
		usleep(MOMENT_US / 2);
	while (!parent_sleeps());
	usleep(MOMENT_US / 2);
}

static void fill(int fd)
{
	static char much[1 << 16];
	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	while (send(fd, much, 1, MSG_DONTWAIT) > 0)
		;
}

static void drain(int fd, int ms)
{
	static char sink[1 << 16];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, ms) == 1 && recv(fd, sink, sizeof(sink), 0) > 0)
		;
}

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

static void signal_then_send(int fd)
{
	await_go(fd);
	kill(getppid(), SIGUSR1);
	usleep(MOMENT_US);
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

static void run_pending(void) { act(send_much_later, receive_with_one_pending); }
static void run_jumps(void) { act(send_after_jumps, receive_after_jumps); }

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"names", run_names},
		{"ssignal", run_ssignal},
		{"setuid-recv", run_setuid_recv},
		{"setuid-recv-handlers", run_setuid_handlers},
		{"setuid-send", run_setuid_send},
		{"stop", run_stop},
		{"stop-handlers", run_stop_handlers},
		{"numbers", run_numbers},
		{"pending", run_pending},
		{"jumps", run_jumps},
		{0},
	};
	alarm(20);
	return act_out(all, argc, argv);
}
